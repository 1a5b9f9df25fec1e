"""Cost of hot pixels and black levels in training: simulated camera frames of the same photons.

    python benchmarks/wild_pixels.py [--seeds 1,2,3] [--epochs 6] [--out FOLDER]

24 pairs of 128 x 128 (photons of peak 60, gain 2.17, read noise 1.6); PSNR against the frame
without noise, 255 counts are white. Kinds: plain, a level of 1000 on every value, three hot pixels
of 60000 in each frame, the same three places in every frame, and a cluster of 3 x 3.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

import numpy as np

SIDE, COUNT, PEAK, GAIN, READ = 128, 24, 60, 2.17, 1.6


def scene(seed: int) -> np.ndarray:
    """Return blobs and filaments, values 0 to 1."""
    draws, (y, x) = np.random.default_rng(seed), np.mgrid[:SIDE, :SIDE]
    image = np.zeros((SIDE, SIDE))
    for _ in range(25):
        cy, cx, size, bright = (
            *draws.uniform(0, SIDE, 2),
            draws.uniform(2, 12),
            draws.uniform(0.2, 1),
        )
        image += bright * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * size**2))
    for _ in range(6):
        angle, shift = draws.uniform(0, np.pi), draws.uniform(-SIDE / 2, SIDE / 2)
        distance = (y - SIDE / 2) * np.cos(angle) + (x - SIDE / 2) * np.sin(angle) - shift
        image += 0.5 * np.exp(-(distance**2) / 4)
    return image.clip(0, 1.5) / 1.5


def write(folder: Path, kind: str) -> None:
    """Write first.npy, second.npy and clean.npy of one kind."""
    folder.mkdir(parents=True, exist_ok=True)
    cleans = np.stack([scene(i) for i in range(COUNT)])
    level = 1000 if kind == "level" else 0
    spots = np.random.default_rng(7)
    for k, name in enumerate(("first", "second")):
        draws = np.random.default_rng(k)
        frames = draws.poisson(cleans * PEAK) * GAIN + draws.normal(0, READ, cleans.shape) + 100
        frames = frames.round().astype(np.uint16) + np.uint16(level)
        for i, frame in enumerate(frames):
            if kind == "hot":
                frame[tuple(spots.integers(0, SIDE, (2, 3)))] = 60_000
            elif kind == "hot, same places":
                frame[[20, 70, 100], [30, 90, 50]] = 60_000
            elif kind == "cluster":
                y, x = spots.integers(0, SIDE - 3, 2)
                frame[y : y + 3, x : x + 3] = 30_000
            frames[i] = frame
        np.save(folder / f"{name}.npy", frames)
    np.save(folder / "clean.npy", (cleans * PEAK * GAIN + 100 + level).round().astype(np.uint16))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("outputs/wild_pixels"))
    args = parser.parse_args()
    rows = {}
    for kind in ("plain", "level", "hot", "hot, same places", "cluster"):
        folder = args.out / kind
        write(folder, kind)
        for seed in args.seeds.split(","):
            run = folder / f"run{seed}"
            if not (run / "result.json").exists():
                asked = [
                    f"data.{n}={folder / f}.npy"
                    for n, f in (("noisy", "first"), ("target", "second"))
                ]
                asked += [
                    f"data.clean={folder}/clean.npy",
                    "data.scale=255",
                    "data.train_pairs=1536",
                    f"seed={seed}",
                ]
                asked += [
                    "model=drunet",
                    "model.widths=[16,32,64]",
                    "model.blocks=[1,1,1]",
                    "optim.lr=0.002",
                ]
                asked += [f"trainer.max_epochs={args.epochs}", f"hydra.run.dir={run}"]
                subprocess.run(
                    [sys.executable, "-m", "n2n_lightning.train", "data=pairs", *asked], check=True
                )
            rows.setdefault(kind, []).append(json.loads((run / "result.json").read_text()))
    print("| frames | noisy input, Mn / T | denoised, Mn / T | difference, Mn |\n|---|---|---|---|")
    for kind, results in rows.items():
        value = {
            n: mean(r[n] for r in results)
            for n in ("noisy_psnr", "noisy_psnr_total", "val_psnr", "val_psnr_total")
        }
        change = value["val_psnr"] - mean(r["val_psnr"] for r in rows["plain"])
        noisy = f"{value['noisy_psnr']:.2f} / {value['noisy_psnr_total']:.2f}"
        print(
            f"| {kind} | {noisy} | {value['val_psnr']:.2f} / {value['val_psnr_total']:.2f} |"
            f" {change:+.2f} dB |"
        )


if __name__ == "__main__":
    main()
