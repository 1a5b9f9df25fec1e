"""Commands in a fork of a process with the libraries: importing them outlasts most tests.

The process itself computes nothing, so that no thread is lost in a fork. Where systems do not fork
safely, and with N2N_FORK=0, commands are processes of their own (conftest.run).
"""

import gc
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

LIBRARIES = (
    *(
        "torch",
        "torch.utils.tensorboard",
        "pytorch_lightning",
        "torchmetrics",
        "torchmetrics.image",
    ),
    *(
        "hydra",
        "omegaconf",
        "rich.table",
        "rich.progress",
        "rich.live",
        "tifffile",
        "imagecodecs",
        "PIL.Image",
        "h5py",
    ),
    *("matplotlib.figure", "matplotlib.backends.backend_agg"),
    *("scipy.ndimage", "scipy.signal", "skimage.metrics", "skimage.restoration"),
)
ABLE = sys.platform == "linux" and os.environ.get("N2N_FORK") != "0"


class Forks:
    """A process that forks for each command."""

    def __init__(self) -> None:
        here = Path(__file__).resolve()
        command = [
            sys.executable,
            "-c",
            f"import runpy; runpy.run_path({str(here)!r}, run_name='forks')",
        ]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, command: list[str], cwd: Path, limit: float) -> subprocess.CompletedProcess[str]:
        """`python -m command`, as subprocess.run does it with capture_output and text."""
        assert self.process.stdin
        assert self.process.stdout
        with tempfile.TemporaryDirectory() as folder:
            out, errors = (Path(folder, name) for name in ("out", "errors"))
            asked = {
                "command": command,
                "cwd": str(cwd),
                "out": str(out),
                "errors": str(errors),
                "env": dict(os.environ),
            }
            print(json.dumps(asked), file=self.process.stdin, flush=True)
            if not select.select([self.process.stdout], [], [], limit)[0]:
                self.process.kill()
                raise subprocess.TimeoutExpired(command, limit)
            status = int(self.process.stdout.readline())
            said = [path.read_text(encoding="utf-8", errors="replace") for path in (out, errors)]
        return subprocess.CompletedProcess(command, status, *said)

    def close(self) -> None:
        assert self.process.stdout
        with suppress(OSError):
            self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait(timeout=60)
        self.process.stdout.close()


def _become(asked: dict[str, Any]) -> None:
    """Makes this process what `python -m` would be in the folder."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    out, errors = (os.open(asked[name], os.O_WRONLY | os.O_CREAT) for name in ("out", "errors"))
    for number, file in enumerate((nothing, out, errors)):
        os.dup2(file, number)
        os.close(file)
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.path[0] = asked["cwd"]
    sys.argv[:] = asked["command"]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _serve() -> dict[str, Any] | None:
    """Wait for commands; return one in the fork that runs it, None at the end of the last one."""
    import importlib

    for name in LIBRARIES:
        importlib.import_module(name)
    # Else a fork collects the objects of all libraries as it ends: 2 seconds of processor time.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            return dict(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return None


if __name__ == "forks" and (found := _serve()):
    _become(found)
    runpy.run_module(found["command"][0], run_name="__main__", alter_sys=True)
