"""Volumes from disk to disk: memory, temporary space and seconds against the size of the file.

    python benchmarks/scale.py [--gigabytes 0.25 1] [--workers 1 2] [--checkpoint RUN] [--out F]

Generated OME-Zarr images (uint16, chunks of 64 x 128 x 128, two resolutions; a quarter is empty)
are denoised by `n2n denoise` with a tiny network, by each number of workers, beside plain copying
in the same run: the same chunks unpacked and packed again by zarr, and the folder as it is. `own`
is the peak of memory without a file behind it in MiB, sampled, of the largest worker; `temporary`
the most megabytes in TMPDIR; `file` the seconds of reading, writing and reducing alone, of all
workers. `--checkpoint` names another network. Linux only.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from n2n_lightning.formats.regions import whole_pieces
from n2n_lightning.formats.zarr_levels import reduced_values
from n2n_lightning.inference.checkpoint import CheckpointInfo, network_checkpoint
from n2n_lightning.networks import DnCNN

CHUNKS = (64, 128, 128)
SIDE = 1024  # voxels: height and width
# The command, with a clock around what touches files.
WORKER = """
import sys, time
from pathlib import Path
from n2n_lightning import denoise
from n2n_lightning.formats import zarr_regions
spent = [0.0]
def timed(owner, name):
    work = getattr(owner, name)
    def wrapped(*words):
        started = time.perf_counter()
        result = work(*words)
        spent[0] += time.perf_counter() - started
        return result
    setattr(owner, name, wrapped)
for owner, name in (
    (zarr_regions.ZarrRegions, "read"),
    (zarr_regions.ZarrRegions, "reduce"),
    (zarr_regions.ZarrSink, "__setitem__"),
):
    timed(owner, name)
out = Path(sys.argv.pop(1))
status = denoise.main()
out.write_text(str(spent[0]))
sys.exit(status)
"""


def generate(path: Path, gigabytes: float) -> int:
    """Write an image of two resolutions; return the number of its voxels."""
    depth = max(64, round(gigabytes * 1e9 / 2 / SIDE**2 / 64) * 64)
    shape = (depth, SIDE, SIDE)
    store = zarr.open_group(path, mode="w", zarr_format=2)
    datasets = []
    arrays = []
    for level in range(2):
        sides = tuple(length // 2**level for length in shape)
        array = store.create_array(
            str(level), shape=sides, dtype="uint16", chunks=CHUNKS, fill_value=0
        )
        arrays.append(array)
        scale = {"type": "scale", "scale": [2.0**level] * 3}
        datasets.append({"path": str(level), "coordinateTransformations": [scale]})
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    image = {"version": "0.4", "axes": axes, "datasets": datasets, "type": "mean"}
    store.attrs["multiscales"] = [image]
    draws = np.random.default_rng(0)
    some = draws.poisson(200, CHUNKS).astype(np.uint16)
    for region in whole_pieces(shape, CHUNKS):
        if region[1].start < SIDE // 2 and region[2].start < SIDE // 2:
            continue  # empty
        values = np.roll(some, int(draws.integers(some.size)))
        arrays[0][region] = values
        half = tuple(slice(part.start // 2, part.stop // 2) for part in region)
        arrays[1][half] = reduced_values(values, (2, 2, 2), True)
    return int(np.prod(shape))


def repack(source: Path, target: Path) -> float:
    """Copy the chunks of an image with zarr; return the seconds."""
    started = time.perf_counter()
    before = zarr.open_group(source, mode="r")
    shutil.copytree(source, target, ignore=_chunks_left_out)
    after = zarr.open_group(target, mode="r+")
    for name in "01":
        for region in whole_pieces(before[name].shape, before[name].chunks):
            after[name][region] = before[name][region]
    return time.perf_counter() - started


def _chunks_left_out(folder: str, names: list[str]) -> list[str]:
    if Path(folder).name in "01":
        return [name for name in names if not name.startswith(".")]
    return []


def copy(source: Path, target: Path) -> float:
    """Copy an image as a folder; return the seconds."""
    started = time.perf_counter()
    shutil.copytree(source, target)
    return time.perf_counter() - started


def denoise(source: Path, target: Path, checkpoint: str, workers: int) -> dict[str, Any]:
    """Run some workers on one image; return their peak memory, temporary bytes and seconds."""
    folder = target.parent
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    words = [str(source), "-o", str(target), "--scale", "1000", "--device", "cpu"]
    if checkpoint:
        words += ["--checkpoint", checkpoint]
    clocks = [folder / f"file{number}" for number in range(workers)]
    started = time.perf_counter()
    processes = []
    for clock in clocks:
        command = [sys.executable, "-c", WORKER, str(clock), *words]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
    peaks = {"own": 0.0, "temporary": 0.0}
    while any(process.poll() is None for process in processes):
        for process in processes:
            peaks["own"] = max(peaks["own"], _anonymous(process.pid))
        size = sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file())
        peaks["temporary"] = max(peaks["temporary"], size / 1e6)
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    if any(process.returncode for process in processes):
        sys.exit("error: a worker failed")
    on_files = sum(float(clock.read_text()) for clock in clocks if clock.exists())
    return {**peaks, "seconds": seconds, "file": on_files}


def _anonymous(pid: int) -> float:
    """Return the memory of a process without a file behind it, in MiB."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    for line in status.splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return 0.0


def tiny(path: Path) -> str:
    """Write the checkpoint of a network of three small layers, for grey pictures."""
    torch.manual_seed(0)
    network = DnCNN(channels=1, width=4, layers=3)
    model = {"_target_": "n2n_lightning.networks.DnCNN", "channels": 1, "width": 4, "layers": 3}
    info = CheckpointInfo(model=model, blind=False)
    torch.save(network_checkpoint(network, info), path)
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.25, 1.0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--checkpoint", default=None, help="`bundled`, or a run")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    parser.add_argument("--out", type=Path, default=Path("scale.json"))
    args = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary)
        checkpoint = tiny(folder / "tiny.ckpt") if args.checkpoint is None else args.checkpoint
        if checkpoint == "bundled":
            checkpoint = ""
        for gigabytes in args.gigabytes:
            source = folder / "source.zarr"
            voxels = generate(source, gigabytes)
            per_gigavoxel = 1e9 / voxels
            target = folder / "out.zarr"
            rows: dict[str, Any] = {}
            for name, work in (("repacked", repack), ("copied", copy)):
                rows[name] = {"seconds": work(source, target)}
                shutil.rmtree(target)
            for workers in args.workers:
                rows[f"{workers} workers"] = denoise(source, target, checkpoint, workers)
                shutil.rmtree(target)
            for name, row in rows.items():
                row["seconds per gigavoxel"] = row["seconds"] * per_gigavoxel
                shown = ", ".join(f"{key} {value:.1f}" for key, value in row.items())
                print(f"{2 * voxels / 1e9:.2f} GB, {name}: {shown}", flush=True)
            results[f"{gigabytes:g} GB"] = rows
            shutil.rmtree(source)
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
