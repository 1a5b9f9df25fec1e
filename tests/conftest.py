import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image

from tests import forks

# Seconds that a command may take: ten times and more what it needs on an idle machine, for no test
# is about speed.
LIMIT = 900

# What a test needs of its system.
posix = pytest.mark.skipif(os.name != "posix", reason="signals are those of Linux and macOS")
linux = pytest.mark.skipif(
    sys.platform != "linux", reason="needs /proc, tmpfs, or memory as Linux counts it"
)
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has none

# The workers of pytest-xdist share two cores.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


def course_files(folder: Path, train: int = 24, val: int = 6, side: int = 32) -> Path:
    """The report's two files in small: random images and independent integer noise."""
    draws = torch.Generator().manual_seed(559)
    folder.mkdir(parents=True, exist_ok=True)

    def noisy(clean: torch.Tensor) -> torch.Tensor:
        noise = torch.randint(-30, 31, clean.shape, generator=draws)
        return (clean.int() + noise).clamp(0, 255).to(torch.uint8)

    for name, count in (("train_data.pkl", train), ("val_data.pkl", val)):
        clean = (
            torch.randint(60, 196, (count, 3, 1, 1), generator=draws)
            .expand(-1, -1, side, side)
            .to(torch.uint8)
        )
        pair = (noisy(clean), noisy(clean) if name.startswith("train") else clean.clone())
        torch.save(pair, folder / name)
    return folder


def photographs(folder: Path, count: int, side: int = 64) -> Path:
    """Smooth random colour pictures as PNG files, each a little larger than the one before."""
    draws = torch.Generator().manual_seed(7)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        coarse = torch.rand(1, 3, 6, 6, generator=draws)
        image = torch.nn.functional.interpolate(coarse, (side + i, side + 2 * i), mode="bilinear")[
            0
        ]
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"photo{i}.png")
    return folder


FORKS: list[forks.Forks] = []


@pytest.fixture(autouse=True, scope="session")
def _forking():
    if forks.ABLE:
        FORKS.append(forks.Forks())
    yield
    while FORKS:
        FORKS.pop().close()


@pytest.fixture(autouse=True)
def no_process_stays():
    """End the processes that a test started, also if it fails."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    left = [
        process
        for process in psutil.Process().children(recursive=True)
        if process.pid not in before
    ]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=LIMIT)


@pytest.fixture
def course(tmp_path: Path) -> Path:
    return course_files(tmp_path / "course")


def run(*arguments: object, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """`python -m n2n_lightning.<arguments>`, as a person types it in the folder `cwd`."""
    module, *rest = map(str, arguments)
    if FORKS and FORKS[0].process.poll() is None and not options:
        return FORKS[0].run([f"n2n_lightning.{module}", *rest], cwd, LIMIT)
    command = [sys.executable, "-m", f"n2n_lightning.{module}", *rest]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=LIMIT, **options
    )  # type: ignore[call-overload]
    if os.name == "nt":  # the tests expect paths as other systems write them
        done.stdout, done.stderr = (text.replace("\\", "/") for text in (done.stdout, done.stderr))
    return done
