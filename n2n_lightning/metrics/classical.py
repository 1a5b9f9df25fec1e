"""Classical filters, tuned as Noise2Noise trains: to compare networks with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.data import BatchIndex
from n2n_lightning.files import InputError


@dataclass
class Filter:
    """A filter of one image (H, W, C), numpy, with its one parameter and the values of it that are tried."""

    parameter: str
    values: Sequence[float]
    run: Callable[[Any, float], Any]
    every: int = 1  # of the noisy pairs, every so many-th is used for the tuning


def filters(sigma: float) -> dict[str, Filter]:
    """The filters by name; some of their parameters are in units of `sigma`, the deviation of the noise."""
    from scipy import ndimage
    from skimage import restoration

    found = {
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
        return found
    return found | {
        "BM3D": Filter(
            "sigma", [0.5, 0.7, 1.0, 1.3], lambda x, v: bm3d.bm3d(x, v * sigma), every=10
        )
    }


def each(run: Callable[[Any], Any]) -> Callable[[Tensor], Tensor]:
    """A filter of one image (H, W, C), numpy, as one of a batch (B, C, H, W)."""

    def denoise(images: Tensor) -> Tensor:
        pixels = [np.ascontiguousarray(i.permute(1, 2, 0).cpu().numpy()) for i in images]
        planes = [np.asarray(run(p)).reshape(p.shape) for p in pixels]
        return torch.stack(
            [torch.from_numpy(np.ascontiguousarray(p)).permute(2, 0, 1) for p in planes]
        ).float()

    return denoise


def classical(data: Any) -> dict[str, tuple[Callable[[Tensor], Tensor], str]]:
    """Classical filters with what they were tuned to: each image is filtered alone, (B, C, H, W) -> the same.

    Tuned as Noise2Noise trains: the parameter is the one whose output is closest to the other noisy
    image, over up to 100 pairs of the training data, 10 for BM3D, which is slow. No clean image and
    no scored image is looked at.
    """
    if data.train is None:
        raise InputError(
            "classical",
            True,
            "there are no noisy training pairs to tune the filters on (train_data.pkl)",
        )
    some = torch.linspace(0, len(data.train) - 1, min(100, len(data.train))).round().long()
    noisy, other = data.noisy_pair(data.train[BatchIndex(0, 0, some)])
    difference = noisy - other
    sigma = float(difference[~difference.isnan()].std() / 2**0.5)

    tuned = {}
    for name, kind in filters(sigma).items():
        runs = {
            value: each(lambda x, run=kind.run, value=value: run(x, value)) for value in kind.values
        }  # type: ignore[misc]
        losses = {}
        for value, run in runs.items():
            error = run(noisy[:: kind.every]) - other[:: kind.every]
            losses[value] = float(torch.nan_to_num(error).square().mean())  # NaN: a missing pixel
        best = min(losses, key=lambda v: losses[v])
        tuned[name] = (runs[best], f"{kind.parameter}={best:g}")
    return tuned
