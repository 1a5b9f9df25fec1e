"""Picture of the built-in checkpoint on several kinds of noise: docs/images/kinds.jpg.

    python benchmarks/kinds.py [--checkpoint RUN] --out kinds.jpg

Two photographs of scikit-image that are not in its training data (both in the public domain or
CC0), and a generated one.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from skimage import data

from n2n_lightning import load
from n2n_lightning.data.generated.specimens import specimens
from n2n_lightning.noise import Camera
from n2n_lightning.randomness import generator


def cases() -> list[tuple[str, np.ndarray, np.ndarray, float, float]]:
    """Yield name, noisy and clean picture, and the stored black and white - black."""
    draws = np.random.default_rng(0)
    face = data.astronaut()[40:240, 130:330].astype(np.float32) / 255
    cat = data.chelsea()[60:260, 120:320].astype(np.float32) / 255
    cells = (specimens(3, 256, 99)[1][0, :200, :200] / 255).numpy()
    tensor = torch.from_numpy(cat).permute(2, 0, 1)[None]
    camera = (
        Camera(sigma=25, shot=0.7, width=0.7, shared=0.5)(tensor, generator(3))[0]
        .permute(1, 2, 0)
        .numpy()
    )
    counts = (draws.poisson(30 * cells) * 20 + 400).astype(np.uint16)
    return [
        (
            "Gaussian, 25 of 255",
            face + draws.normal(0, 25 / 255, face.shape).astype(np.float32),
            face,
            0,
            1,
        ),
        (
            "photon counts, 10 at white",
            (draws.poisson(10 * cat) / 10).astype(np.float32),
            cat,
            0,
            1,
        ),
        ("as a camera makes it", camera, cat, 0, 1),
        ("fluorescence (generated),\n16 bit, black level 400", counts, cells, 400, 600),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    model = load(args.checkpoint) if args.checkpoint else load()
    figure = Figure(figsize=(10, 7.6), layout="constrained", dpi=100)
    places = figure.subplots(3, 4)
    for column, (name, noisy, clean, black, span) in enumerate(cases()):
        result = model.denoise(noisy)
        shown = [((x.astype(np.float64) - black) / span).clip(0, 1) for x in (noisy, result)]
        for row, image in enumerate((*shown, clean)):
            ax = places[row, column]
            ax.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            if row < 2:
                score = f"{-10 * np.log10(np.mean((image - clean) ** 2)):.1f} dB"
                ax.set_title(f"{name}\n{score}" if row == 0 else score, fontsize=9)
    for row, name in enumerate(("noisy", "denoised", "clean")):
        places[row, 0].set_ylabel(name)
    figure.savefig(args.out)


if __name__ == "__main__":
    main()
