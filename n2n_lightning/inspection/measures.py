"""Numbers that pairs of captures of a scene, or single images, say about their noise.

Images are numpy arrays (C, H, W), float64, in stored units; NaN where a pixel is unknown or wild.
Two captures have one scene and noise of their own, so that their difference is noise alone.
"""

import warnings

import numpy as np

from n2n_lightning.arrays.blocks import blocks_of, cut_blocks, plane_of
from n2n_lightning.metrics.noise_model import NoiseModel

COARSE = 32  # pixels, for means that differ between places
LAGS = {"along a row": ((0, 1), (0, 2)), "along a column": ((1, 0), (2, 0))}


def difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """The mean of second - first and its standard error, over blocks."""
    side = min(COARSE, *first.shape[1:])
    blocks = blocks_of(second - first, side)
    known = blocks[~np.isnan(blocks).any(1)]
    if len(known) < 2:
        return float(np.nanmean(second - first)), float("inf")
    means = known.mean(1)
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(len(means)))


def noise_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The noise of one capture, as strong as both have it on average, without what differs over large distances."""
    noise = (first - second) / np.sqrt(2)
    side = min(COARSE, *noise.shape[1:])
    rows, columns = (n // side for n in noise.shape[1:])
    noise = noise[:, : rows * side, : columns * side].copy()
    parts = cut_blocks(noise, side)  # a view
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # blocks of unknown pixels alone
        parts -= np.nanmean(parts, (2, 4), keepdims=True)
    return noise


def correlations(noises: list[np.ndarray]) -> dict[str, tuple[float, float]]:
    """Correlation of the noise at a distance of 1 and 2 pixels, along rows and along columns."""
    found = {}
    for name, lags in LAGS.items():
        each = []
        for dy, dx in lags:
            both = [
                _product(n, n[:, dy:, dx:], n[:, : n.shape[1] - dy, : n.shape[2] - dx])
                for n in noises
            ]
            each.append(sum(b for b, _ in both) / max(sum(p for _, p in both), 1e-300))
        found[name] = (float(each[0]), float(each[1]))
    return found


def _product(whole: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The mean product of two parts of a noise, and the mean square of it all."""
    products = a * b
    known = ~np.isnan(products)
    if not known.any():
        return 0.0, 0.0
    return float(products[known].mean()), float(np.nanmean(whole**2))


def between_channels(noises: list[np.ndarray]) -> float:
    """The largest correlation of the noise of two channels, by its size; 0 for one channel."""
    count = len(noises[0])
    largest = 0.0
    for i in range(count):
        for j in range(i + 1, count):
            a, b = (np.concatenate([n[k].ravel() for n in noises]) for k in (i, j))
            known = ~np.isnan(a + b)
            if known.sum() > 2 and a[known].std() and b[known].std():
                value = float(np.corrcoef(a[known], b[known])[0, 1])
                largest = value if abs(value) > abs(largest) else largest
    return largest


def single_noise(image: np.ndarray) -> tuple[dict[str, tuple[float, float]], float]:
    """Of one capture: correlations of its noise as `correlations` has them, and its deviation.

    Of blocks of 16 x 16 pixels less a surface of second degree. Texture is in some blocks, noise in
    all: of the correlations the lower quarter counts, of the deviations the lower tenth. Empty
    where the image is too small.
    """
    side = 16
    blocks = blocks_of(image, side)
    blocks = blocks[~np.isnan(blocks).any(1)]
    if len(blocks) < 8:
        return {}, float("nan")
    y, x = (axis.ravel() / side - 0.5 for axis in np.mgrid[:side, :side])
    surface = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)
    rest = blocks - blocks @ np.linalg.pinv(surface).T @ surface.T
    power = (rest**2).mean(1)
    sigma = float(np.sqrt(np.quantile(power, 0.1)))
    rest, power = rest[power > 1e-12], power[power > 1e-12]
    if len(rest) < 8:
        return {}, sigma
    planes = rest.reshape(-1, side, side)
    found = {}
    for name, lags in LAGS.items():
        each = []
        for dy, dx in lags:
            products = planes[:, dy:, dx:] * planes[:, : side - dy, : side - dx]
            # of 256 pixels, by chance
            each.append(float(np.quantile(products.mean((1, 2)) / power, 0.25)) + 0.04)
        found[name] = (each[0], each[1])
    return found, sigma


def clipped_ends(images: list[np.ndarray]) -> dict[str, tuple[float, float]]:
    """Values that pile up at an end: `lowest` or `highest`, the value, and the share of the pixels that have it.

    Where a tail was cut off, its end has all that lay beyond: half as many pixels again as the
    value beside it, and 1 in 1,000 at least.
    """
    values = np.concatenate([image[~np.isnan(image)] for image in images])
    found = {}
    step = _step(values) if values.size else 0.0
    for name, end, sign in (
        ("lowest", values.min(initial=np.inf), 1),
        ("highest", values.max(initial=-np.inf), -1),
    ):
        share, beside = (
            float((np.abs(values - (end + sign * k * step)) < step / 2).mean()) for k in (0, 1)
        )
        if share > max(0.001, 1.5 * beside):
            found[name] = (float(end), share)
    return found


def _step(values: np.ndarray) -> float:
    """The distance of neighbouring values: 16 for 12 bit data stored in the upper bits of 16."""
    some = np.unique(values[:: max(1, values.size // 100_000)])
    return float(np.diff(some).min()) if len(some) > 1 else 1.0


def is_counts(model: NoiseModel | None, images: list[np.ndarray]) -> bool:
    """Whether images are photon counts: whole numbers from 0 on whose variance is their mean, to 15%."""
    if model is None or model.b is None or not all(are_whole(image) for image in images):
        return False
    mean = float(np.mean([np.nanmean(i) for i in images]))
    return abs(model.b - 1) < 0.15 and abs(model.a) < 0.15 * max(mean, 1)


def are_whole(image: np.ndarray) -> bool:
    """Whether all values are whole numbers, 0 or more."""
    known = image[~np.isnan(image)]
    return bool(known.size and known.min() >= 0 and (known == known.round()).all())


def dispersion(image: np.ndarray) -> tuple[float, float, float]:
    """The variance of the noise of a single image beside its brightness, in dark and in bright places: 1 for counts.

    Returns:
        Of the darker and of the brighter half of all blocks the middle ratio, and how much brighter
        the latter is. NaN where there are fewer than 20 blocks.
    """
    noise, bright = _second_differences(image)
    known = (bright > 0) & ~np.isnan(noise)
    if known.sum() < 20:
        return float("nan"), float("nan"), float("nan")
    noise, bright = noise[known], bright[known]
    dark = bright <= np.median(bright)
    ratio = noise / bright
    middles = (
        [float(np.median(ratio[part])) for part in (dark, ~dark)]
        if (~dark).any()
        else [float("nan")] * 2
    )
    apart = float(np.median(bright[~dark]) / np.median(bright[dark])) if (~dark).any() else 1.0
    return middles[0], middles[1], apart


def dispersion_noise(image: np.ndarray) -> float:
    """The variance of the noise of a single image: of most of its blocks."""
    noise, _ = _second_differences(image)
    known = noise[~np.isnan(noise)]
    return float(np.median(known)) if known.size else float("inf")


def _second_differences(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the noise and brightness of blocks of a single image.

    The noise is that of second differences along both axes (Immerkaer, CVIU 1996), which planes and
    straight edges do not have.
    """
    kernel = (
        image[:, 1:-1, 1:-1] * 4
        + image[:, :-2, :-2]
        + image[:, :-2, 2:]
        + image[:, 2:, :-2]
        + image[:, 2:, 2:]
    )
    kernel -= 2 * (
        image[:, :-2, 1:-1] + image[:, 2:, 1:-1] + image[:, 1:-1, :-2] + image[:, 1:-1, 2:]
    )
    side = min(16, *kernel.shape[1:])
    if side < 1:
        return np.zeros(0), np.zeros(0)
    return blocks_of(kernel**2 / 36, side).mean(1), blocks_of(image[:, 1:-1, 1:-1], side).mean(1)


def level(first: np.ndarray, second: np.ndarray) -> float:
    """The mean brightness of the brighter of two captures above the darkest places of both.

    These are the 1 in 100 whose 5 x 5 pixels are darkest on average. A black level does not count,
    noise does hardly. One capture differs from another by no more than this, so that a relative
    change is 100% at most.
    """
    from scipy.ndimage import uniform_filter

    planes = [plane_of(image) for image in (first, second)]
    if not all(np.isfinite(plane).all() for plane in planes):
        return float("nan")
    means = [float(plane.mean()) for plane in planes]
    darkest = min(float(np.quantile(uniform_filter(plane, 5), 0.01)) for plane in planes)
    return max(*means, darkest) - min(*means, darkest)
