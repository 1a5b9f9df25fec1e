"""Volumes: a 3D network against the same one plane by plane, and the memory of large volumes.

    python benchmarks/volumes.py quality [--seeds 1 2 3] [--side 128] [--deep 1 3]
                                         [--noise white rows]
    python benchmarks/volumes.py memory [--shape 512 1024 1024]

quality: blobs, filaments and membranes with strong noise, white or along rows (AR(1) of 0.8),
isotropic voxels and voxels three times as deep; each network learns for about the same processor
time, one thread. memory: two mapped halves, of 2 GB each by default; a network is trained on them
for some steps, and one of them is denoised. The peak is of memory that the process does not share
with files (RssAnon), sampled every tenth of a second.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import mrcfile
import numpy as np
from scipy.ndimage import gaussian_filter

NETWORK = [
    "model=drunet",
    "model.widths=[16,32,64]",
    "model.blocks=[1,1,1]",
    "model.equivariant=true",
]


def specimen(side: int, draws: np.random.Generator, deep: float = 1.0) -> np.ndarray:
    """Return a volume (side, side, side), normalised, with details `deep` times flatter."""
    grid = round(side * deep)

    def field(scale: float) -> np.ndarray:
        smooth = gaussian_filter(draws.normal(size=(grid, side, side)).astype(np.float32), scale)
        return smooth / smooth.std()

    membranes = np.exp(-0.5 * (field(9) / 0.08) ** 2)
    filaments = np.exp(-0.5 * ((field(7) / 0.16) ** 2 + (field(7) / 0.16) ** 2))
    blobs = (field(3) > 2.2).astype(np.float32)
    volume = gaussian_filter(membranes + 1.5 * filaments + blobs, 0.7)
    volume = volume[np.linspace(0, grid - 1, side).round().astype(int)]
    return ((volume - volume.mean()) / volume.std()).astype(np.float32)


def noise(
    shape: tuple[int, ...], kind: str, sigma: float, draws: np.random.Generator
) -> np.ndarray:
    """Return white noise, or noise that is correlated along rows."""
    found = draws.normal(0, sigma, shape).astype(np.float32)
    if kind == "rows":
        for x in range(1, shape[-1]):
            found[..., x] = 0.8 * found[..., x - 1] + 0.6 * found[..., x]
    return found


def save(path: Path, volume: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 1)) -> Path:
    with mrcfile.new(path) as file:
        file.set_data(volume)
        file.voxel_size = spacing
    return path


def run(*words: object) -> float:
    """Run a command; return the processor time that it took."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def quality(args: argparse.Namespace) -> None:
    for deep, kind in product(args.deep, args.noise):
        name = f"{kind} noise, voxels {deep:g} times as deep as wide"
        found: dict[str, list[float]] = {}
        for seed in args.seeds:
            draws = np.random.default_rng(seed)
            clean = specimen(args.side, draws, deep)
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder)
                for half in "ab":
                    noisy = clean + noise(clean.shape, kind, args.sigma, draws)
                    save(place / f"{half}.mrc", noisy, (1, 1, deep))
                np.save(place / "clean.npy", clean)
                for dims, size in (
                    (3, ["data.batch_size=4", "data.crop=[16,32,32]"]),
                    (2, ["data.batch_size=16"]),
                ):
                    source = [
                        "data=pairs",
                        f"data.noisy={place / 'a.mrc'}",
                        f"data.target={place / 'b.mrc'}",
                    ]
                    common = [
                        *NETWORK,
                        *source,
                        *size,
                        f"model.dims={dims}",
                        f"seed={seed}",
                        "optim.lr=0.002",
                    ]
                    pairs = args.pairs[0 if dims == 3 else 1]
                    folder_of = f"hydra.run.dir={place / str(dims)}"
                    spent = run(
                        *(
                            "n2n_lightning.train",
                            *common,
                            f"data.train_pairs={pairs}",
                            "trainer.max_epochs=4",
                        ),
                        folder_of,
                    )
                    run(
                        *("n2n_lightning.denoise", place / "a.mrc", "-o", place / f"{dims}.mrc"),
                        "--checkpoint",
                        place / str(dims),
                    )
                    result = json.loads((place / str(dims) / "result.json").read_text())
                    with mrcfile.open(place / f"{dims}.mrc") as file:
                        error = np.square(file.data - clean)
                    scale = result["data"]["scale"]
                    label = "in three dimensions" if dims == 3 else "plane by plane"
                    score = 10 * np.log10(1 / error.mean())
                    found.setdefault(label, []).append(float(score))
                    print(
                        f"{name}, seed {seed}, {label}:"
                        f" {score:.2f} dB, {spent:.0f} s; scale {scale}",
                        flush=True,
                    )
        for label, values in found.items():
            spread = f" +- {stdev(values):.2f}" if len(values) > 1 else ""
            print(f"| {name} | {label} | {mean(values):.2f}{spread} |", flush=True)


def watched(*words: object) -> tuple[float, float]:
    """Run a command; return the peak of its own memory, in MiB, and the seconds that it took."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", *map(str, words)])
    peak = 0

    def look() -> None:
        nonlocal peak
        while process.poll() is None:
            try:
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                    if line.startswith("RssAnon"):
                        peak = max(peak, int(line.split()[1]))
            except OSError:
                return
            time.sleep(0.1)

    watcher = threading.Thread(target=look)
    watcher.start()
    process.wait()
    watcher.join()
    if process.returncode:
        raise SystemExit(process.returncode)
    return peak / 1024, time.perf_counter() - started


def memory(args: argparse.Namespace) -> None:
    draws = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=args.place) as folder:
        place = Path(folder)
        for half in "ab":
            with mrcfile.new_mmap(place / f"{half}.mrc", tuple(args.shape), mrc_mode=2) as file:
                for plane in file.data:
                    plane[...] = draws.normal(size=plane.shape)
        source = [
            "data=pairs",
            f"data.noisy={place / 'a.mrc'}",
            f"data.target={place / 'b.mrc'}",
            "data.batch_size=2",
        ]
        options = [
            *NETWORK,
            *source,
            "data.train_pairs=40",
            "trainer.max_epochs=1",
            f"hydra.run.dir={place / 'run'}",
        ]
        peak, seconds = watched("n2n_lightning.train", *options)
        print(
            f"training on two halves of {np.prod(args.shape) * 4 / 2**30:.2f} GiB:"
            f" {peak:.0f} MiB, {seconds:.0f} s"
        )
        if args.planes:  # of the whole volume it would take hours on one thread
            with mrcfile.mmap(place / "a.mrc") as file:
                save(place / "part.mrc", np.array(file.data[: args.planes]))
            (place / "part.mrc").replace(place / "a.mrc")
            args.shape[0] = args.planes
        peak, seconds = watched(
            "n2n_lightning.denoise",
            place / "a.mrc",
            "-o",
            place / "c.mrc",
            "--checkpoint",
            place / "run",
        )
        voxels = np.prod(args.shape) / 1e6
        print(
            f"denoising {' x '.join(map(str, args.shape))}: {peak:.0f} MiB,"
            f" {voxels / seconds:.2f} megavoxels a second"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("quality", "memory"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument(
        "--deep", type=float, nargs="+", default=[1, 3], help="depth of a voxel, in its widths"
    )
    parser.add_argument("--noise", nargs="+", choices=("white", "rows"), default=["white", "rows"])
    parser.add_argument("--sigma", type=float, default=2.0)
    parser.add_argument(
        "--pairs", type=int, nargs=2, default=[1200, 9600], help="windows an epoch, in 3D and in 2D"
    )
    parser.add_argument("--shape", type=int, nargs=3, default=[512, 1024, 1024])
    parser.add_argument("--planes", type=int, help="memory: denoise so many planes alone")
    parser.add_argument("--place", help="memory: the folder for the files")
    args = parser.parse_args()
    {"quality": quality, "memory": memory}[args.what](args)


if __name__ == "__main__":
    main()
