"""Classical filters for comparison, tuned on noisy pairs as Noise2Noise trains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.data import BatchIndex
from n2n_lightning.files import InputError


@dataclass
class Filter:
    """Filter of one image with one parameter to tune.

    Attributes:
        parameter: name of the parameter.
        values: values to try.
        run: takes an image (H, W, C) and `v`, a value of the parameter; returns the filtered image.
        every: one of this many noisy pairs is used for the tuning.
    """

    parameter: str
    values: Sequence[float]
    run: Callable[..., Any]
    every: int = 1


def filters(sigma: float) -> dict[str, Filter]:
    """Return the filters by name; BM3D where it is installed.

    Args:
        sigma: deviation of the noise, the unit of some parameters.

    Returns:
        Each with the values of its parameter to try.
    """
    from scipy import ndimage
    from skimage import restoration

    available = {
        "Gaussian blur": Filter(
            "sigma",
            [0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 1.0, 1.3, 1.7, 2.2],
            lambda x, v: ndimage.gaussian_filter(x, (v, v, 0)),
        ),
        "median": Filter(
            "size", [1, 2, 3, 5], lambda x, v: ndimage.median_filter(x, (int(v), int(v), 1))
        ),
        "total variation": Filter(
            "weight",
            [0.01, 0.02, 0.04, 0.06, 0.09, 0.13, 0.2],
            lambda x, v: restoration.denoise_tv_chambolle(x, weight=v, channel_axis=-1),
        ),
        "non-local means": Filter(
            "h",
            [0.3, 0.5, 0.7, 0.9, 1.2, 1.7, 2.4],
            lambda x, v: restoration.denoise_nl_means(
                x, h=v * sigma, sigma=sigma, patch_size=3, patch_distance=5, channel_axis=-1
            ),
        ),
        "wavelet": Filter(
            "sigma",
            [0.3, 0.5, 0.7, 1.0, 1.4],
            lambda x, v: restoration.denoise_wavelet(
                x, sigma=v * sigma, channel_axis=-1, rescale_sigma=True
            ),
        ),
    }
    try:
        import bm3d
    except ImportError:
        return available
    available["BM3D"] = Filter(
        "sigma", [0.5, 0.7, 1.0, 1.3], lambda x, v: bm3d.bm3d(x, v * sigma), every=10
    )
    return available


def filters_of(dims: int, sigma: float) -> dict[str, Filter]:
    """Return the filters of images, or of volumes.

    Args:
        dims: 2, or 3: their `run` takes a volume (D, H, W, C).
        sigma: see `filters`.

    Returns:
        By name, see `filters`.
    """
    if dims == 2:
        return filters(sigma)
    from scipy import ndimage
    from skimage import restoration

    return {
        "Gaussian blur in space": Filter(
            "sigma",
            [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.3, 1.7],
            lambda x, v: ndimage.gaussian_filter(x, (v, v, v, 0)),
        ),
        "total variation in space": Filter(
            "weight",
            [0.02, 0.04, 0.06, 0.09, 0.13, 0.2, 0.3],
            lambda x, v: restoration.denoise_tv_chambolle(x, weight=v, channel_axis=-1),
        ),
    }


def each(run: Callable[[Any], Any]) -> Callable[[Tensor], Tensor]:
    """Turn a filter of one NumPy image (H, W, C) into one of a batch (B, C, H, W).

    Returns:
        A function that filters each image alone and returns float32; likewise of volumes
        (D, H, W, C) and (B, C, D, H, W).
    """

    def denoise(images: Tensor) -> Tensor:
        results = []
        for image in images:
            pixels = np.ascontiguousarray(image.movedim(0, -1).cpu().numpy())
            filtered = np.asarray(run(pixels)).reshape(pixels.shape)
            result = torch.from_numpy(np.ascontiguousarray(filtered))
            results.append(result.movedim(-1, 0))
        return torch.stack(results).float()

    return denoise


def classical(data: Any) -> dict[str, tuple[Callable[[Tensor], Tensor], str]]:
    """Tune the classical filters on the noisy training pairs.

    As in Noise2Noise training, the best parameter is the one whose output is closest to the other
    noisy image, over up to 100 pairs, 10 for BM3D, which is slow. Neither clean nor scored images
    are used.

    Args:
        data: a NoisyPairs with training data.

    Returns:
        For each filter, by name, a function from (B, C, H, W) to the same, which filters each image
        alone, and its parameter in words.

    Raises:
        InputError: there are no training pairs.
    """
    if data.train is None:
        raise InputError(
            "classical",
            True,
            "there are no noisy training pairs to tune the filters on (train_data.pkl)",
        )
    count = len(data.train)
    chosen = torch.linspace(0, count - 1, min(100, count)).round().long()
    noisy, other = data.noisy_pair(data.train[BatchIndex(0, 0, chosen)])
    difference = noisy - other
    sigma = float(difference[~difference.isnan()].std() / 2**0.5)

    tuned = {}
    for name, kind in filters(sigma).items():
        losses = {}
        for value in kind.values:
            run = each(partial(kind.run, v=value))
            error = run(noisy[:: kind.every]) - other[:: kind.every]
            losses[value] = float(torch.nan_to_num(error).square().mean())  # NaN: a missing pixel
        best = min(losses, key=losses.__getitem__)
        run = each(partial(kind.run, v=best))
        tuned[name] = (run, f"{kind.parameter}={best:g}")
    return tuned
