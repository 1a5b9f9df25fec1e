"""Denoisers that are made of others: weighted means of networks, the input, and filters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from n2n_lightning.arrays.outlier_lists import OutlierCounts
from n2n_lightning.files import InputError, room
from n2n_lightning.inference.checkpoint import CheckpointInfo
from n2n_lightning.inference.denoiser import TrainedDenoiser
from n2n_lightning.inference.options import DenoiseOptions, NoisyArray
from n2n_lightning.inference.tiling import tile_of
from n2n_lightning.metrics import classical


@dataclass(frozen=True)
class FilterChoice:
    """A classical filter with its parameter.

    Attributes:
        name: see classical.filters.
        value: of its parameter.
        sigma: deviation of the noise, in units of `span`.
        black: the stored value that is 0 for the filter.
        span: the distance from there to 1.
        dims: spatial axes, 2, or 3 of volumes.
    """

    name: str
    value: float
    sigma: float
    black: float
    span: float
    dims: int = 2


class FilterNetwork(nn.Module):
    """A classical filter in place of a network, (B, C, H, W) -> (B, C, H, W), or of volumes.

    Args:
        choice: the filter.

    Raises:
        InputError: the filter is not installed here.
    """

    def __init__(self, choice: FilterChoice) -> None:
        super().__init__()
        available = classical.filters_of(choice.dims, choice.sigma)
        if choice.name not in available:
            raise InputError(f"{choice.name}: is not installed here; pip install bm3d")
        run = partial(available[choice.name].run, v=choice.value)
        self.multiple = 1
        self.dims = choice.dims
        self.device = nn.Parameter(torch.zeros(0), requires_grad=False)  # says where it is
        self._filter = classical.each(run)

    def forward(self, images: Tensor) -> Tensor:
        return self._filter(images.float()).to(images)


def filter_denoiser(choice: FilterChoice, channels: int) -> TrainedDenoiser:
    """Return a classical filter that is used as a network is.

    Args:
        choice: the filter.
        channels: that it takes together.
    """
    info = CheckpointInfo(range=(choice.black, choice.span))
    return TrainedDenoiser(FilterNetwork(choice), channels, info)


class BlendedDenoiser(TrainedDenoiser):
    """A weighted mean of denoisers and the input.

    What all of them leave as it is stored (missing pixels, outliers, transparency) stays.

    Args:
        parts: the denoisers, for arrays of one kind.
        weights: of each; the input has the rest to 1.
    """

    def __init__(self, parts: Sequence[TrainedDenoiser], weights: Sequence[float]) -> None:
        first = parts[0]
        super().__init__(first.network, first.channels, first.info, first.fast)
        self.parts = nn.ModuleList(parts)
        self.weights = tuple(weights)
        self.context = max(part.context for part in parts)
        self.dims = max(part.dims for part in parts)
        self.overlap = max(part.overlap for part in parts)

    def denoise_into(
        self,
        result: np.ndarray,
        noisy: NoisyArray,
        options: DenoiseOptions | None = None,
        advance: Callable[[int], Any] | None = None,
        marks: np.ndarray | None = None,
    ) -> OutlierCounts:
        """Denoise one array into another, see TrainedDenoiser.denoise_into."""
        source = noisy.array
        exact = np.result_type(source.dtype, np.float32)
        total = room(source.shape, exact)
        total[...] = (1 - sum(self.weights)) * source
        unchanged = np.ones(source.shape, bool)
        counts = OutlierCounts()
        for part, weight in zip(self.parts, self.weights, strict=True):
            output = room(source.shape, exact)
            assert isinstance(part, TrainedDenoiser)
            given = noisy
            own_options = options
            if (part.dims, part.context) != (self.dims, self.context):  # pages of other shapes
                given = replace(noisy, movie=None)
            if options is not None and part.dims != self.dims:
                tile = tile_of(part.dims, part.overlap, part.multiple)
                own_options = replace(options, tile=tile)
            counts = part.denoise_into(output, given, own_options, advance, marks)
            unchanged &= (output == source) | ~np.isfinite(output)
            total += weight * output
            advance = None
        _store_rounded(result, total)
        result[unchanged] = source[unchanged]
        return counts


def _store_rounded(result: np.ndarray, values: np.ndarray) -> None:
    """Write values into an array of their type, or of whole numbers, rounded and clipped."""
    if result.dtype.kind in "iu":
        limits = np.iinfo(result.dtype)
        rounded = np.rint(np.nan_to_num(values))
        result[...] = np.clip(rounded, limits.min, limits.max)
    else:
        result[...] = values


def combined(parts: Sequence[TrainedDenoiser], weights: Sequence[float]) -> TrainedDenoiser:
    """Return a weighted mean of denoisers and the input; a single one with weight 1 as it is.

    Args:
        parts: the denoisers.
        weights: of each.
    """
    if len(parts) == 1 and weights[0] == 1:
        return parts[0]
    return BlendedDenoiser(parts, weights)
