"""What it costs to share a folder, and what is left when its processes are killed.

    python benchmarks/claims.py --cost --count 20000  # two processes, no network
    python benchmarks/claims.py --kills 20            # three of denoise, a tiny network

The first prints the milliseconds that claiming and noting take for each picture. The second kills
one of three processes at random moments with SIGKILL, starts another one in its place, and compares
all results with those of one process that nobody disturbed.
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from n2n_lightning.inference.plan import Job
from n2n_lightning.inference.shared_output import AloneOutput, Settings, SharedOutput


def pictures(folder: Path, count: int, side: int) -> None:
    """Write noisy pictures."""
    folder.mkdir()
    draws = np.random.default_rng(0)
    for number in range(count):
        values = draws.normal(120, 20, (side, side)).clip(0, 255).astype(np.uint8)
        Image.fromarray(values).save(folder / f"{number:05}.png")


def fill(out: Path, count: int, shared: bool) -> None:
    """Claim pictures and write empty results; print how many, and the time of each."""
    jobs = [Job(out.parent / f"{n:05}.png", out / f"{n:05}.png") for n in range(count)]
    began = time.perf_counter()
    began_processor = time.process_time()
    done = 0
    settings = Settings("none", {}, {}, 1)
    output = SharedOutput(out, settings, False, False) if shared else AloneOutput(False)
    with output:
        for job, claim in output.claimed(output.missing(jobs)):
            with claim:
                job.target.touch()
                done += 1
                claim.finish({"voxels": 1024, "seconds": 0.0})
    each = 1000 * (time.perf_counter() - began) / max(done, 1)
    processor = 1000 * (time.process_time() - began_processor) / max(done, 1)
    kind = "claimed" if shared else "alone"
    print(
        f"{kind}: {done} pictures, {each:.2f} ms each, {processor:.2f} ms of the processor",
        flush=True,
    )


def cost(folder: Path, count: int) -> None:
    """Print the cost of claims with one and with two processes."""
    for shared, processes in ((False, 1), (True, 1), (True, 2)):
        out = folder / f"{shared}{processes}"
        out.mkdir()
        workers = []
        for _ in range(processes):
            workers.append(multiprocessing.Process(target=fill, args=(out, count, shared)))
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


def tiny_checkpoint(path: Path) -> None:
    """Write a checkpoint of a network that takes no time."""
    import torch

    from n2n_lightning.inference.checkpoint import CheckpointInfo, network_checkpoint
    from n2n_lightning.networks import DnCNN

    torch.manual_seed(0)
    options = {"channels": 1, "layers": 3, "width": 4, "batch_norm": False}
    model = {"_target_": "n2n_lightning.networks.DnCNN", **options}
    torch.save(network_checkpoint(DnCNN(**options), CheckpointInfo(model=model)), path)


def denoising(folder: Path, out: str) -> int:
    """Fork a process that denoises, and return its number: nothing is imported anew."""
    pid = os.fork()
    if pid:
        return pid
    from n2n_lightning import denoise

    os.chdir(folder)
    sys.argv = ["denoise", "in", "-o", out, "--checkpoint", "tiny.ckpt", "--device", "cpu"]
    with (
        Path(f"{out}.log").open("a", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        status = denoise.main()
    os._exit(status)


def kills(folder: Path, count: int, seed: int) -> None:
    """Kill processes at random moments, `count` times in all."""
    from n2n_lightning.inference import denoiser, file_denoiser  # noqa: F401  # for the forks

    rng = random.Random(seed)
    pictures(folder / "in", 150, 64)
    tiny_checkpoint(folder / "tiny.ckpt")
    os.waitpid(denoising(folder, "undisturbed"), 0)
    expected = {path.name: path.read_bytes() for path in (folder / "undisturbed").glob("*.png")}
    killed = 0
    for turn in range(1000):
        if killed >= count:
            break
        name = f"killed{turn}"
        killed_now = 0
        workers = [denoising(folder, name) for _ in range(3)]
        while workers:
            time.sleep(rng.uniform(0.1, 0.6))
            workers = [pid for pid in workers if os.waitpid(pid, os.WNOHANG) == (0, 0)]
            if workers and killed + killed_now < count:
                victim = rng.choice(workers)
                os.kill(victim, signal.SIGKILL)
                os.waitpid(victim, 0)
                workers.remove(victim)
                workers.append(denoising(folder, name))
                killed_now += 1
        killed += killed_now
        files = list((folder / name).iterdir())
        results = {path.name: path.read_bytes() for path in files if path.name in expected}
        lines = (folder / f"{name}.log").read_text().splitlines()
        denoised = [line.split()[0] for line in lines if line.startswith(f"{name}/")]
        left = [path.name for path in files if path.name not in expected]
        print(
            f"{killed_now} kills: {len(results)} results, equal {results == expected},"
            f" {len(denoised) - len(set(denoised))} reported twice, left over: {left or 'nothing'}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if args.cost:
            cost(Path(name), args.count)
        if args.kills:
            kills(Path(name), args.kills, args.seed)


if __name__ == "__main__":
    main()
