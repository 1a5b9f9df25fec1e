"""Captures of unequal noise: the score against the truth, and training in one direction or both.

    python benchmarks/unequal.py [--root PHOTOS] [--images 8000] [--seed 0]

Pairs of captures of grey crops (128 x 128) of photographs: those of a folder (`kodak24` of N2N_DATA
if that is set), or of scikit-image. The first capture has Gaussian noise of sigma 20, or Poisson
noise of 30 photons at white; the second has noise whose deviation is 1, 1.5, 3 or 10 times smaller,
or none. A small network is trained on half of the crops, with data.swap=true and with
data.swap=auto (for equal captures: false), and scored on the captures of the others: the printed
score beside PSNR of the denoised first captures against the clean crops, in both definitions.
8,000 windows take about a minute of one thread.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

WHITE = 255.0
SIDE = 128
RATIOS = (1.0, 1.5, 3.0, 10.0, float("inf"))


def crops(root: Path | None) -> np.ndarray:
    """Return grey crops from the middle of photographs, (N, H, W), 0 to 255."""
    from n2n_lightning.data.photos import Photos
    from n2n_lightning.data.reading_files import read_picture
    from n2n_lightning.noise import Gaussian

    if root is None:
        train, val = Photos(Gaussian(25)).photos()
        images = [image.numpy() for image in (*train.values(), *val.values())]
    else:
        paths = sorted(path for path in root.iterdir() if path.suffix.lower() in (".png", ".jpg"))
        images = [read_picture(path).numpy() for path in paths]
    found = []
    for image in images:
        grey = image.astype(np.float64).mean(0)
        for y in range(0, grey.shape[0] - SIDE + 1, max(SIDE, grey.shape[0] // 2)):
            x = (grey.shape[1] - SIDE) // 2
            found.append(grey[y : y + SIDE, x : x + SIDE])
    return np.stack(found)


def noisy(clean: np.ndarray, kind: str, ratio: float, draws: np.random.Generator) -> np.ndarray:
    """Return a capture whose noise has 1 / ratio of the standard deviation."""
    if ratio == float("inf"):
        return clean.astype(np.float32)
    if kind == "Gaussian 20":
        return (clean + draws.normal(0, 20 / ratio, clean.shape)).astype(np.float32)
    photons = 30 / WHITE * ratio**2
    return (draws.poisson(clean * photons) / photons).astype(np.float32)


def psnrs(output: np.ndarray, clean: np.ndarray) -> tuple[float, float]:
    """Return PSNR in both definitions: mean over images, and of the mean squared error."""
    errors = np.square(output.astype(np.float64) - clean).mean((1, 2)) / WHITE**2
    return float(-10 * np.log10(errors).mean()), float(-10 * np.log10(errors.mean()))


def trained(folder: Path, swap: str, args: argparse.Namespace) -> dict:
    """Train once; return the result and the network."""
    from n2n_lightning import fit

    run = fit(
        *(folder / f"{name}.npy" for name in ("train1", "train2")),
        *(
            "data.layout=NHW",
            "data.scale=255",
            f"data.swap={swap}",
            f"seed={args.seed}",
            f"data.train_pairs={args.images}",
        ),
        *(
            f"data.val_noisy={folder}/held1.npy",
            f"data.val_target={folder}/held2.npy",
            "optim.lr=0.003",
        ),
        *("model=residual_unet", "model.width=8", "data.batch_size=4", "trainer.max_epochs=1"),
        "trainer.accelerator=cpu",
        folder=folder / f"run_{swap}",
        lines=False,
    )
    return {"result": run.result, "model": run.model}


def row(kind: str, ratio: float, args: argparse.Namespace, clean: np.ndarray) -> str:
    """Return a row of the table."""
    draws = np.random.default_rng([args.seed, int(10 * min(ratio, 100))])
    parts = {"train": clean[::2], "held": clean[1::2]}
    cells = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        captures = {}
        for name, images in parts.items():
            for k, own in ((1, 1.0), (2, ratio)):
                captures[f"{name}{k}"] = noisy(images, kind, own, draws)
                np.save(folder / f"{name}{k}.npy", captures[f"{name}{k}"])
        for swap in ("true", "false" if ratio == 1 else "auto"):
            found = trained(folder, swap, args)
            result, held = found["result"], captures["held1"]
            output = found["model"].denoise(held, axes="NHW")
            printed = result["val_psnr_estimate"] or result["val_psnr_total"]
            # clean images lie between black and white: so does what is scored
            if result["val_psnr"] is not None:
                output = output.clip(0, WHITE)
            ends = result["val_psnr_estimate_interval"]
            shown = f"{printed:.2f}" + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")
            mean, total = psnrs(output, parts["held"])
            cells.append(f"{shown} | {mean:.2f} / {total:.2f} | {printed - total:+.2f}")
            sigmas = result["score_of"].get("sigmas", [])
    measured = " : ".join(f"{sigma:.3g}" for sigma in sigmas)
    name = "clean" if ratio == float("inf") else f"{ratio:g}"
    return f"| {kind} | {name} | {measured} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = os.environ.get("N2N_DATA")
    parser.add_argument("--root", type=Path, default=Path(data) / "kodak24" if data else None)
    parser.add_argument(
        "--images",
        type=int,
        default=8000,
        help="windows of 64 x 64 that each network is trained on",
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clean = crops(args.root)
    print(f"{len(clean)} crops")
    head = "printed [95%] | true, mean / total | difference"
    print(f"| noise | ratio | measured sigmas | both directions: {head} | one direction: {head} |")
    print("|---" * 9 + "|")
    for kind in ("Gaussian 20", "Poisson 30"):
        for ratio in RATIOS:
            print(row(kind, ratio, args, clean), flush=True)


if __name__ == "__main__":
    main()
