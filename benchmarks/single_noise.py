"""The noise of one picture: its strength, its line against brightness, and whether it is white.

    python benchmarks/single_noise.py photographs --photos KODAK [--every 4] [--others] [--only X]
    python benchmarks/single_noise.py captures --root FMD
    python benchmarks/single_noise.py specimens

Others: the flattest tenth of blocks (what `check` said before), scikit-image's estimate_sigma, and
the eigenvalues of patches (Chen et al., ICCV 2015). Noise is added to floats without clipping. Of
noise that grows with brightness the line is compared with the true one in the mean brightness of
the dark, the middle and the bright third of the pixels. Photographs have noise of their own, which
is added to the true one in the row `with its own`, as `single_noise` measures it in the original.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.restoration import estimate_sigma

from n2n_lightning.arrays.blocks import blocks_of
from n2n_lightning.metrics.noise_network import WEIGHTS
from n2n_lightning.metrics.single_noise import SingleNoise, single_noise

PATCH = 8  # pixels: side of the patches of Chen 2015
BLOCK = 16


def flattest_tenth(image: np.ndarray) -> float:
    """Return the root of the lowest tenth of the powers of blocks less a quadratic surface."""
    blocks = blocks_of(image, BLOCK)
    y, x = (axis.ravel() / BLOCK - 0.5 for axis in np.mgrid[:BLOCK, :BLOCK])
    surface = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)
    residual = blocks - blocks @ np.linalg.pinv(surface).T @ surface.T
    return float(np.sqrt(np.quantile((residual**2).mean(1), 0.1)))


def wavelets(image: np.ndarray) -> float:
    """Return the estimate of scikit-image, mean of the channels."""
    return float(estimate_sigma(image, average_sigmas=True, channel_axis=0))


def eigenvalues(image: np.ndarray) -> float:
    """Return the estimate of Chen, Zhu and Heng (ICCV 2015): the patches' smallest eigenvalues."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (PATCH, PATCH), (1, 2))
    patches = windows[:, ::3, ::3].transpose(1, 2, 0, 3, 4).reshape(-1, len(image) * PATCH**2)
    values = np.linalg.eigvalsh(np.cov(patches.T))[::-1]
    for first in range(len(values)):
        mean = values[first:].mean()
        if mean <= np.median(values[first:]):
            return float(np.sqrt(max(mean, 0)))
    return float(np.sqrt(max(values[-1], 0)))


OTHERS: dict[str, Callable[[np.ndarray], float]] = {
    "flattest tenth": flattest_tenth,
    "estimate_sigma": wavelets,
    "eigenvalues": eigenvalues,
}

Corrupt = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def gaussian(sigma: float) -> Corrupt:
    return lambda clean, draws: clean + sigma * draws.standard_normal(clean.shape)


def poisson(gain: float, read: float) -> Corrupt:
    def corrupt(clean: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        counts = draws.poisson(clean / gain) * gain
        return counts + read * draws.standard_normal(clean.shape)

    return corrupt


def blurred(sigma: float, rows: float, columns: float) -> Corrupt:
    """Return noise of a deviation, blurred along columns and rows."""

    def corrupt(clean: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        noise = draws.standard_normal(clean.shape)
        noise = gaussian_filter(noise, (0, rows, columns))
        return clean + sigma * noise / noise.std()

    return corrupt


def striped(sigma: float, share: float) -> Corrupt:
    """Return noise of which a share of the variance is common to the pixels of a row."""

    def corrupt(clean: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        rows = draws.standard_normal((*clean.shape[:2], 1))
        white = draws.standard_normal(clean.shape)
        return clean + sigma * (np.sqrt(share) * rows + np.sqrt(1 - share) * white)

    return corrupt


# name: (corruption, a and b of its line, allowed deviation of sigma or, of a line, of the variance)
WHITE: dict[str, tuple[Corrupt, float, float, float]] = {
    "Gaussian 3": (gaussian(3), 9, 0, 0.10),
    "Gaussian 10": (gaussian(10), 100, 0, 0.05),
    "Gaussian 25": (gaussian(25), 625, 0, 0.05),
    "Poisson, gain 1": (poisson(1, 0), 0, 1, 0.10),
    "Poisson, gain 4": (poisson(4, 0), 0, 4, 0.10),
    "Poisson, gain 1, read noise 5": (poisson(1, 5), 25, 1, 0.10),
}
CORRELATED: dict[str, Corrupt] = {
    "blurred by 0.6, sigma 10": blurred(10, 0.6, 0.6),
    "blurred by 1, sigma 10": blurred(10, 1, 1),
    "blurred by 1, sigma 25": blurred(25, 1, 1),
    "along rows, sigma 10": blurred(10, 0, 1),
    "along columns, sigma 10": blurred(10, 1, 0),
    "striped by half, sigma 10": striped(10, 0.5),
    "striped by a fifth, sigma 10": striped(10, 0.2),
}


def of_line(noise: SingleNoise, clean: np.ndarray, a: float, b: float) -> list[float]:
    """Return said over true variance in the thirds of the brightness, of each channel."""
    ratios = []
    for channel, plane in enumerate(clean):
        for third in np.array_split(np.sort(plane, axis=None), 3):
            light = third.mean()
            said = noise.a[channel] + noise.b[channel] * light
            ratios.append(float(said / (a + b * light)))
    return ratios


def row(name: str, ratios: list[float], allowed: float) -> str:
    worst = np.array(ratios)
    outside = int((abs(worst - 1) > allowed).sum())
    low, middle, high = np.quantile(worst, [0, 0.5, 1])
    return f"  {name:16} {low:.2f} {middle:.2f} {high:.2f}, beyond {allowed:.0%}: {outside}"


def farthest(ratios: list[float]) -> float:
    return max(ratios, key=lambda ratio: abs(ratio - 1))


def pictures(folder: Path, every: int, grey: bool) -> list[np.ndarray]:
    planes = []
    for path in sorted(folder.glob("*.png"))[::every]:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L" if grey else "RGB"), np.float64)
        planes.append(pixels[None] if grey else pixels.transpose(2, 0, 1))
    return planes


def measure(images: list[np.ndarray], seed: int, others: bool, only: str) -> None:
    """Print the tables over some clean images, of the noises whose name contains `only`."""
    spent = 0.0
    count = 0
    for name, (corrupt, a, b, allowed) in WHITE.items():
        if only not in name:
            continue
        draws = np.random.default_rng(seed)
        said: dict[str, list[float]] = {}
        verdicts = []
        covered = []
        unknown = 0
        for clean in images:
            noisy = corrupt(clean, draws)
            begin = time.process_time()
            noise = single_noise(noisy)
            spent += time.process_time() - begin
            count += 1
            verdicts.append(noise.white)
            unknown += not noise.measurable
            truth = float(np.sqrt(a + b * clean.mean()))
            low, high = noise.interval()
            covered.append(low <= truth <= high)
            ratio = farthest(of_line(noise, clean, a, b)) if b else noise.sigma / truth
            said.setdefault("single_noise", []).append(ratio)
            if name == "Gaussian 3":
                own = np.hypot(truth, single_noise(clean).sigma)
                said.setdefault("  with its own", []).append(noise.sigma / own)
            for other, estimate in OTHERS.items() if others and not b else ():
                said.setdefault(other, []).append(estimate(noisy) / truth)
        print(
            f"{name}: of {len(images)}, white {verdicts.count(True)}, not {verdicts.count(False)},"
            f" not measurable {unknown}, in the interval {sum(covered)}",
            flush=True,
        )
        for method, ratios in said.items():
            print(row(method, ratios, allowed), flush=True)
    for name, corrupt in CORRELATED.items():
        if only not in name:
            continue
        draws = np.random.default_rng(seed)
        verdicts = []
        kinds = []
        ratios = []
        lags = []
        for clean in images:
            noisy = corrupt(clean, draws)
            noise = single_noise(noisy)
            truth = noisy - clean
            verdicts.append(noise.white)
            kinds.append(noise.kind)
            ratios.append(noise.sigma / float(truth.std()))
            along = (truth[..., 1:] * truth[..., :-1]).mean() / truth.var()
            middle = len(noise.autocorrelation) // 2
            lags.append(noise.autocorrelation[middle, middle + 1] - along)
        named = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
        print(
            f"{name}: not white {verdicts.count(False)}, white {verdicts.count(True)}; {named};"
            f" correlation along a row, said - true {np.quantile(lags, [0, 0.5, 1]).round(2)}"
        )
        print(row("sigma", ratios, 0.1), flush=True)
    print(f"{spent / max(count, 1):.2f} s of processor time each; {WEIGHTS.stat().st_size} bytes")


def photographs(args: argparse.Namespace) -> None:
    for grey in (True, False):
        if args.colours in ("both", "grey" if grey else "colour"):
            print("grey" if grey else "colour")
            measure(pictures(args.photos, args.every, grey), args.seed, args.others, args.only)


def captures(args: argparse.Namespace) -> None:
    """Compare with half the variance of differences of consecutive captures."""
    for folder in sorted(args.root.iterdir()):
        stack = [pictures_of_capture(path) for path in sorted(folder.glob("*.png"))[:2]]
        first, second = stack
        truth = float(np.sqrt(((first - second) ** 2).mean() / 2))
        noise = single_noise(first[None])
        low, high = noise.interval()
        shown = ", ".join(f"{f(first[None]) / truth:.2f}" for f in OTHERS.values())
        print(
            f"{folder.name}: said over true {noise.sigma / truth:.2f}"
            f" ({low / truth:.2f} to {high / truth:.2f}), {noise.kind or 'cannot tell'},"
            f" {noise.reason or 'measurable'}, a {noise.a[0]:.2f}, b {noise.b[0]:.3f};"
            f" others {shown}"
        )


def pictures_of_capture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, np.float64)


def specimens(args: argparse.Namespace) -> None:
    """Measure generated specimens that the network did not learn from."""
    from n2n_lightning.data.generated import specimens as generated

    images = [np.asarray(x, np.float64)[:1] for x in generated.specimens(12, 384, 12345)]
    measure(images, args.seed, args.others, args.only)


def main() -> None:
    parts = {f.__name__: f for f in (photographs, captures, specimens)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=parts)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--colours", choices=["both", "grey", "colour"], default="both")
    parser.add_argument("--others", action="store_true", help="compare with others")
    parser.add_argument("--only", default="", help="a part of the names of noises")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    parts[args.part](args)


if __name__ == "__main__":
    main()
