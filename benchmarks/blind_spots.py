"""Masks from the noise: their shapes in photographs with known noise, and what they do there.

    python benchmarks/blind_spots.py shapes --kodak KODAK
    python benchmarks/blind_spots.py demosaicked --kodak KODAK [--sigma 15] [--minutes 4]
    python benchmarks/blind_spots.py cameras --root CC15 [--minutes 4]

`shapes` compares the offsets whose correlation is above 0.1 with those that one picture shows.
`demosaicked` fine-tunes the bundled checkpoint on photographs whose noise went through a Bayer
pattern and its bilinear interpolation, `cameras` on real shots (NAME_real.png, NAME_mean.png).
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter
from scipy.signal import lfilter

from n2n_lightning.data.mask_choice import correlated_offsets, mask_of_images
from n2n_lightning.inference.checkpoint import PRETRAINED
from n2n_lightning.inference.denoiser import TrainedDenoiser, load
from n2n_lightning.metrics.autocorrelation import LAGS, lagged_products
from n2n_lightning.metrics.single_noise import single_noise
from n2n_lightning.training import adaptation

MIDDLE = slice(100, 356)  # rows and columns of a photograph
SHARE = 0.1  # of the pixels that are hidden
GREEN = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
RED_OR_BLUE = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
Noise = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def demosaicked(image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) of which a Bayer pattern saw one colour at each pixel."""
    seen = np.zeros_like(image)
    seen[0::2, 0::2, 0] = image[0::2, 0::2, 0]
    seen[0::2, 1::2, 1] = image[0::2, 1::2, 1]
    seen[1::2, 0::2, 1] = image[1::2, 0::2, 1]
    seen[1::2, 1::2, 2] = image[1::2, 1::2, 2]
    kernels = (RED_OR_BLUE, GREEN, RED_OR_BLUE)
    planes = [convolve(seen[..., c], kernel, mode="mirror") for c, kernel in enumerate(kernels)]
    return np.stack(planes, 2)


def white(image: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    return 10 * draws.normal(size=image.shape)


def along_rows(image: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    noise: np.ndarray = lfilter([1], [1, -0.6], draws.normal(size=image.shape), axis=1)
    return 12 * noise


def blurred(sigma: float) -> Noise:
    def noise(image: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        blurry = gaussian_filter(draws.normal(size=image.shape), (sigma, sigma, 0))
        return 15 * blurry / blurry.std()

    return noise


def mosaic(sigma: float) -> Noise:
    def noise(image: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        return demosaicked(draws.normal(0, sigma, image.shape))

    return noise


def stripes(image: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    return draws.normal(0, 8, image.shape) + draws.normal(0, 5, (len(image), 1, 1))


KINDS: dict[str, Noise] = {
    "white, 10": white,
    "along rows, 0.6^n": along_rows,
    "blurred, 0.6": blurred(0.6),
    "blurred, 1.0": blurred(1.0),
    "demosaicked, 10": mosaic(10),
    "demosaicked, 25": mosaic(25),
    "stripes": stripes,
}


def read(path: Path) -> np.ndarray:
    """Read the middle of a photograph, (H, W, 3), 0 to 255."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), float)[MIDDLE, MIDDLE]


def true_offsets(noise: np.ndarray) -> set[tuple[int, int]]:
    """Return the offsets with a correlation above 0.1 in noise (H, W, C), mean of its channels."""
    correlations = []
    for plane in np.moveaxis(noise, 2, 0):
        products, counts = lagged_products(plane, np.ones(plane.shape, bool))
        covariance = products / counts
        correlations.append(covariance / covariance[LAGS, LAGS])
    return set(correlated_offsets(np.mean(correlations, 0), 0.0))


def shapes(args: argparse.Namespace) -> None:
    """Compare the masks that single pictures show with the true ones."""
    paths = sorted(args.kodak.glob("*.png"))
    print("| noise | true offsets | exact | missed, mean | too many, mean | most of these |")
    for name, make in KINDS.items():
        missed: list[int] = []
        added: list[int] = []
        truths: list[int] = []
        for seed, path in enumerate(paths):
            image = read(path)
            noise = make(image, np.random.default_rng(seed))
            clean = demosaicked(image) if name.startswith("demosaicked") else image
            truth = true_offsets(noise)
            measured = single_noise(np.moveaxis(clean + noise, 2, 0))
            mask = mask_of_images([measured]).mask
            shown = {(row, column) for _, row, column in mask.offsets} - {(0, 0)}
            truths.append(len(truth))
            missed.append(len(truth - shown))
            added.append(len(shown - truth))
        exact = sum(not m + a for m, a in zip(missed, added, strict=True))
        print(
            f"| {name} | {mean(truths):.0f} | {exact} of {len(paths)} | {mean(missed):.1f} |"
            f" {mean(added):.1f} | {max(added)} |",
            flush=True,
        )


def psnr_of(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the mean PSNR of pairs of images of 0 to 255."""
    values = []
    for clean, image in pairs:
        error = float(((clean - image) ** 2).mean())
        values.append(10 * np.log10(255**2 / error))
    return mean(values)


def fine_tuned(noisy: list[np.ndarray], mask: str, minutes: float) -> TrainedDenoiser:
    """Fine-tune the bundled checkpoint on pictures (3, H, W), uint8, with a mask."""
    options = {"method": "masked", "mask": mask, "share": SHARE}
    adaptation.choose_method = lambda images, names: dict(options)  # type: ignore[assignment]
    images = [torch.from_numpy(np.ascontiguousarray(image)) for image in noisy]
    names = [str(i) for i in range(len(images))]
    return adaptation.adapt(PRETRAINED, images, names, minutes).model


def compare(
    clean: list[np.ndarray], noisy: list[np.ndarray], masks: list[str], minutes: float
) -> None:
    """Print the PSNR of pictures, of the checkpoint, and after fine-tuning with masks."""
    floats = [image.astype(float) for image in noisy]
    print(f"| input | {psnr_of(list(zip(clean, floats, strict=True))):.2f} dB |")
    models = {"checkpoint": load(PRETRAINED)}
    for label in ["checkpoint", *masks]:
        model = models.get(label) or fine_tuned(noisy, label, minutes)
        pairs = []
        for image, reference in zip(noisy, clean, strict=True):
            pairs.append((reference, model.denoise(image.astype(np.float32), axes="CHW")))
        print(f"| {label} | {psnr_of(pairs):.2f} dB |", flush=True)


def on_mosaics(args: argparse.Namespace) -> None:
    """Fine-tune on photographs with demosaicked noise."""
    clean, noisy = [], []
    for seed, path in enumerate(sorted(args.kodak.glob("*.png"))[1::3]):
        image = read(path)
        noise = np.random.default_rng(seed).normal(0, args.sigma, image.shape)
        clean.append(np.moveaxis(demosaicked(image), 2, 0))
        shot = demosaicked(image + noise).round().clip(0, 255).astype(np.uint8)
        noisy.append(np.moveaxis(shot, 2, 0))
    chosen = mask_of_images([single_noise(image) for image in noisy])
    print(*chosen.lines(), sep="\n")
    masks = args.masks or [chosen.mask.text, "[1,1]", ".xxx./xxxxx/xxxxx/xxxxx/.xxx."]
    compare(clean, noisy, masks, args.minutes)


def on_cameras(args: argparse.Namespace) -> None:
    """Fine-tune on the shots of CC15 with the mask that they show."""
    clean, noisy = [], []
    for path in sorted(args.root.glob("*_real.png")):
        for name, images in (("real", noisy), ("mean", clean)):
            with Image.open(path.with_name(path.name.replace("real", name))) as image:
                images.append(np.moveaxis(np.asarray(image.convert("RGB")), 2, 0))
    clean = [image.astype(float) for image in clean]
    chosen = mask_of_images([single_noise(image) for image in noisy])
    print(*chosen.lines(), sep="\n", flush=True)
    compare(clean, noisy, [chosen.mask.text], args.minutes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["shapes", "demosaicked", "cameras"])
    parser.add_argument("--kodak", type=Path)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--sigma", type=float, default=15)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--masks", nargs="*")
    args = parser.parse_args()
    {"shapes": shapes, "demosaicked": on_mosaics, "cameras": on_cameras}[args.what](args)


if __name__ == "__main__":
    main()
