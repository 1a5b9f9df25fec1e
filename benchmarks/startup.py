"""Seconds until a command answers: `python benchmarks/startup.py [--rounds 5] [--out FILE.json]`.

`--help` and `--cfg job` of train, the end of the first optimiser step of a run on the embedded
photographs, `import torch` for comparison, and the imports that cost most before that step. The
commands take turns; medians are printed.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pytorch_lightning.callbacks import Callback


class FirstStep(Callback):
    """Callback that ends the process after one optimiser step."""

    def on_train_batch_end(self, *_: object) -> None:
        os._exit(0)


TRAIN = [sys.executable, "-m", "n2n_lightning.train"]
STEP = [*TRAIN, "+callbacks.first._target_=startup.FirstStep"]
COMMANDS = {
    "import torch": [sys.executable, "-c", "import torch"],
    "--help": [*TRAIN, "--help"],
    "--cfg job": [*TRAIN, "--cfg", "job"],
    "first optimiser step": STEP,
}


def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        place = [f"hydra.run.dir={folder}/run"] if "+callbacks" in " ".join(command) else []
        paths = os.pathsep.join((str(Path(__file__).parent), str(Path(__file__).parents[1])))
        environment = {**os.environ, "PYTHONPATH": paths}
        return subprocess.run(
            [*command, *place],
            env=environment,
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
            **options,
        )


def costly_imports(count: int = 12) -> list[tuple[str, float]]:
    """Return the packages whose own import is slowest before the first step."""
    done = run([STEP[0], "-X", "importtime", *STEP[1:]])
    own: dict[str, float] = {}
    for line in done.stderr.splitlines():
        if match := re.match(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)", line):
            name = match[2].partition(".")[0]
            own[name] = own.get(name, 0) + int(match[1]) / 1e6
    return sorted(own.items(), key=lambda item: -item[1])[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("startup.json"))
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(args.rounds):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            run(command)
            seconds[name].append(time.perf_counter() - started)
    for name, values in seconds.items():
        print(f"{name}: {statistics.median(values):.2f} s ({min(values):.2f}-{max(values):.2f})")
    imports = costly_imports()
    print("imports before it:", ", ".join(f"{name} {value:.2f} s" for name, value in imports))
    args.out.write_text(json.dumps({"seconds": seconds, "imports": dict(imports)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
