"""Flux and peak of stars after denoising: undersampled and wide ones, faint and bright ones.

    python benchmarks/stars.py [--epochs 4] [--seed 0] [--out FOLDER] [--checkpoint FILE ...]

200 stars for each width (full width at half maximum, pixels) and signal to noise (peak over the
sky's deviation), on a jittered grid of their own picture, integrated over the pixels, sky 100,
Gaussian noise of deviation 5. Flux within max(2.5, 1.5 FWHM) pixels, and the pixel that is
brightest in the truth, less the sky, relative to the truth: mean over the stars, noisy and denoised
by the bundled checkpoint, by a network that was trained on pairs of such fields (other stars), and
by one that was trained on single ones (data=single). `--checkpoint` adds others.

    python benchmarks/stars.py --movie

compares frame by frame with the checkpoint for movies: the middle one of five frames, of stars that
shine in all of them, and of stars that shine in the middle one alone.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.special import erf

from n2n_lightning import load
from n2n_lightning.api import fit

WIDTHS = (1.0, 1.3, 1.6, 2.0, 3.0, 4.0)
SIGNALS = (5, 10, 30, 200)
SKY, SIGMA = 100.0, 5.0
COLUMNS, ROWS, PITCH = 20, 10, 32
MOVIE_WIDTHS = (1.0, 1.6, 3.0)
FRAMES = 5


def profile(size: int, y: float, x: float, width: float) -> np.ndarray:
    """Return a star of flux 1, integrated over the pixels of a square of a side of `size`."""
    deviation = width / 2.3548
    rims = [erf((np.arange(size + 1) - 0.5 - place) / deviation / 2**0.5) for place in (y, x)]
    along = [np.diff(rim) / 2 for rim in rims]
    return np.outer(*along)


def grid_field(
    width: float, signal: float, draws: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the truth of 200 stars, and their places (y, x)."""
    clean = np.full((ROWS * PITCH, COLUMNS * PITCH), SKY)
    places = []
    for row in range(ROWS):
        for column in range(COLUMNS):
            y, x = draws.uniform(PITCH / 2 - 2, PITCH / 2 + 2, 2)
            star = profile(PITCH, y, x, width)
            corner = (
                slice(row * PITCH, (row + 1) * PITCH),
                slice(column * PITCH, (column + 1) * PITCH),
            )
            clean[corner] += signal * SIGMA * star / star.max()
            places.append((row * PITCH + y, column * PITCH + x))
    return clean, np.array(places)


def training_fields(count: int, size: int, draws: np.random.Generator) -> np.ndarray:
    """Return fields with stars of all widths and brightnesses anywhere: (count, size, size)."""
    fields = np.full((count, size, size), SKY)
    for field in fields:
        for _ in range(80):
            star = profile(size, *draws.uniform(0, size, 2), draws.uniform(1, 4))
            field += SIGMA * 10 ** draws.uniform(0.5, 2.5) * star / star.max()
    return fields


def noisy(clean: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Return a picture of it."""
    return (clean + draws.normal(0, SIGMA, clean.shape)).astype(np.float32)


def measured(
    image: np.ndarray, clean: np.ndarray, places: np.ndarray, width: float
) -> tuple[float, float, float]:
    """Return mean flux and mean peak over the true ones, and the standard error of the former."""
    radius = max(2.5, 1.5 * width)
    fluxes, peaks = [], []
    for y, x in places:
        top, left = round(y) - 8, round(x) - 8
        part = (slice(top, top + 17), slice(left, left + 17))
        rows, columns = np.mgrid[part]
        within = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        true, seen = clean[part] - SKY, image[part] - SKY
        fluxes.append(seen[within].sum() / true[within].sum())
        peaks.append(seen.ravel()[true.argmax()] / true.max())
    return float(np.mean(fluxes)), float(np.mean(peaks)), float(np.std(fluxes) / len(fluxes) ** 0.5)


def trained(epochs: int, seed: int, out: Path) -> dict[str, object]:
    """Return networks that were trained on pairs and on single pictures of star fields."""
    draws = np.random.default_rng(seed + 1000)
    fields = training_fields(12, 256, draws)
    first, second = noisy(fields, draws), noisy(fields, draws)
    options = [
        f"seed={seed}",
        f"trainer.max_epochs={epochs}",
        "data.train_pairs=2000",
        "data.layout=NHW",
    ]
    pairs = fit(first, second, *options, folder=out / "pairs")
    single = fit(first, "data=single", *options, folder=out / "single")
    return {"pairs": pairs.model, "single": single.model}


def compare_movies(seed: int) -> None:
    """Print what is left of stars in the middle frame of a movie, and of those of that frame."""
    single, movie = load(), load("movie")
    print("| FWHM | SNR | frame by frame | in all frames | in the middle frame alone |")
    print("|---|---|---|---|---|")
    for width in MOVIE_WIDTHS:
        for signal in SIGNALS:
            draws = np.random.default_rng(seed)
            clean, places = grid_field(width, signal, draws)
            steady = np.stack([noisy(clean, draws) for _ in range(FRAMES)])
            flash = np.stack([noisy(np.full_like(clean, SKY), draws) for _ in range(FRAMES)])
            middle = FRAMES // 2
            flash[middle] = steady[middle]
            results = [single.denoise(steady[middle], axes="HW")]
            results += [movie.denoise(frames, axes="THW")[middle] for frames in (steady, flash)]
            cells = []
            for result in results:
                flux, peak, error = measured(result, clean, places, width)
                cells.append(f"{flux:.3f} ± {error:.3f}, {peak:.3f}")
            print(f"| {width} | {signal} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4, help="of 2,000 windows of 64 x 64")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/stars"))
    parser.add_argument("--checkpoint", nargs="*", default=[], help="more checkpoints")
    parser.add_argument("--outliers", default="auto")
    parser.add_argument("--movie", action="store_true", help="stars in movies, and nothing else")
    args = parser.parse_args()
    if args.movie:
        compare_movies(args.seed)
        return
    models = {"bundled": load(), **{path: load(path) for path in args.checkpoint}}
    if args.epochs:
        models |= trained(args.epochs, args.seed, args.out)
    rows = []
    head = [f"{name}: flux, peak" for name in models]
    print("| FWHM | SNR | noisy: flux, peak | " + " | ".join(head) + " |")
    print("|---|---|---|" + "---|" * len(models))
    for width in WIDTHS:
        for signal in SIGNALS:
            draws = np.random.default_rng(args.seed)
            clean, places = grid_field(width, signal, draws)
            image = noisy(clean, draws)
            found = {"noisy": measured(image, clean, places, width)}
            for name, model in models.items():
                result = model.denoise(image, axes="HW", outliers=args.outliers)
                found[name] = measured(result, clean, places, width)
            rows.append({"fwhm": width, "snr": signal, **found})
            cells = [
                f"{flux:.3f} ± {error:.3f}, {peak:.3f}" for flux, peak, error in found.values()
            ]
            print(f"| {width} | {signal} | " + " | ".join(cells) + " |", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "stars.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
