"""Seconds from the last byte of a picture to its result: `n2n watch`, with and without --fast.

    python benchmarks/watch_latency.py [--side 2048] [--rounds 3] [--settle 2]

Two watches take turns, each with a picture of noise 20 (16 bit TIFF) in a folder of its own. Prints
the medians of the seconds on the clock, which include --settle, and of the processor time.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import tifffile
from skimage import data

KINDS = {"float32": [], "--fast": ["--fast"]}


def picture(side: int, seed: int) -> np.ndarray:
    """Return a photograph of this size with noise."""
    repeats = -(-side // 512)
    scene = np.tile(data.camera().astype(float), (repeats, repeats))[:side, :side]
    noisy = np.random.default_rng(seed).normal(20 * scene, 400)
    return noisy.clip(0, 65535).astype(np.uint16)


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.005)


def processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--side", type=int, default=2048)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--settle", type=float, default=2.0)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as place:
        watches = {}
        for number, (kind, options) in enumerate(KINDS.items()):
            folder = Path(place, f"in{number}")
            folder.mkdir()
            out = Path(place, f"out{number}")
            command = [sys.executable, "-m", "n2n_lightning", "watch", str(folder), "-o", str(out)]
            command += ["--settle", str(args.settle), *options]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            watches[kind] = (folder, out, process)
        clock = {kind: [] for kind in KINDS}
        processor = {kind: [] for kind in KINDS}
        for round_number in range(-1, args.rounds):  # the first one, which warms up, counts not
            for kind, (folder, out, process) in watches.items():
                name = f"{round_number + 1}.tif"
                before = processor_seconds(psutil.Process(process.pid))
                tifffile.imwrite(folder / name, picture(args.side, round_number + 1))
                begin = time.perf_counter()
                wait_for(out / name)
                seconds = time.perf_counter() - begin
                used = processor_seconds(psutil.Process(process.pid)) - before
                if round_number >= 0:
                    clock[kind].append(seconds)
                    processor[kind].append(used)
        for _, _, process in watches.values():
            process.terminate()
            process.wait()
    for kind in KINDS:
        seconds = statistics.median(clock[kind])
        used = statistics.median(processor[kind])
        print(f"{kind}: {seconds:.1f} s on the clock, {used:.1f} s of processor time")


if __name__ == "__main__":
    main()
