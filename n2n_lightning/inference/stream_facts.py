"""What the blocks of a large array have to agree on, measured once on a sample of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from n2n_lightning.arrays.axes import evenly, stacked_letters
from n2n_lightning.arrays.normalization import IntensityScaling
from n2n_lightning.formats.picture import Picture, ReadAs, Values
from n2n_lightning.formats.region_sample import ArraySample, sample_of
from n2n_lightning.formats.regions import MappedRegions, Regions
from n2n_lightning.inference.array_plans import copied_ones, result_types
from n2n_lightning.inference.options import DenoiseOptions, NoisyArray
from n2n_lightning.inference.outlier_search import OutlierSearch
from n2n_lightning.inference.page import gaps
from n2n_lightning.inference.texture import UsualResidual, usual_residuals

SCALED_SIDE = 32  # pixels of a cell that the intensity range is measured on
TEXTURE_CELLS = 128  # cells that are denoised for texture: 0.5 megapixels


@dataclass(frozen=True)
class StreamFacts:
    """What was measured on an array before its blocks are denoised.

    Attributes:
        limits: the scaling between stored values and those of the network.
        nodata_values: stored values that mark missing pixels.
        dtype: the type of the result.
        copied: the array is a label image, which is copied.
        usual_residuals: see `Page`; None: pages are not divided, or nothing is put back.
        defects: pixels of the detector that are replaced, (n, 3); None: none.
        lines: what is to be said about it.
    """

    limits: IntensityScaling
    nodata_values: tuple[float, ...]
    dtype: str
    copied: bool
    usual_residuals: Sequence[UsualResidual | None] | None
    defects: np.ndarray | None
    lines: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return the facts as plain data."""
        usual = None
        if self.usual_residuals is not None:
            usual = [
                None if one is None else _without_numpy(vars(one)) for one in self.usual_residuals
            ]
        limits = _without_numpy(vars(self.limits))
        content = {**vars(self), "limits": limits, "usual_residuals": usual}
        content["exact"] = self.limits.span.dtype.name
        return _without_numpy(content)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "StreamFacts":
        """Return the facts that `to_json` wrote."""
        content = dict(content)
        exact = content.pop("exact")
        limits = {name: np.array(values, exact) for name, values in content["limits"].items()}
        usual = None
        if content["usual_residuals"] is not None:
            usual = [_usual_of(one) for one in content["usual_residuals"]]
        defects = content["defects"]
        content |= {
            "limits": IntensityScaling(**limits),
            "usual_residuals": usual,
            "nodata_values": tuple(content["nodata_values"]),
            "defects": None if defects is None else np.array(defects, np.int64).reshape(-1, 3),
        }
        return cls(**content)


def _usual_of(content: dict[str, Any] | None) -> UsualResidual | None:
    if content is None:
        return None
    curves = {name: np.array(content[name]) for name in ("light", "percentile")}
    return UsualResidual(**{**content, **curves})


def _without_numpy(content: dict[str, Any]) -> dict[str, Any]:
    """Return a dictionary whose arrays and numbers of NumPy are plain ones."""
    plain = {}
    for name, value in content.items():
        is_numpy = isinstance(value, np.ndarray | np.generic)
        plain[name] = value.tolist() if is_numpy else value
    return plain


def measured_facts(
    model: Any,
    picture: Picture,
    reading: ReadAs,
    regions: Regions,
    axes: str,
    options: DenoiseOptions,
    divided: bool,
) -> StreamFacts:
    """Measure what the blocks of an array have to agree on.

    Args:
        model: the denoiser.TrainedDenoiser.
        picture: the file.
        reading: how its only array is read.
        regions: the array.
        axes: its letters, as `page.page_axes` reads them.
        options: those that it is denoised with.
        divided: blocks are parts of pages.

    Returns:
        The facts; their lines begin with the name of the file.
    """
    (values,) = picture.values
    sample = sample_of(regions.read, regions.shape, regions.unpacked, axes, model.dims)
    noisy = _noisy(values, reading, sample.pages)
    nodata: set[float] = set(values.nodata_values)
    for page in sample.pages:
        nodata.update(gaps(page, values.nodata_values))
    limits = _limits(model, noisy, sample, tuple(sorted(nodata)), options)
    noisy = replace(noisy, limits=limits, nodata_values=tuple(sorted(nodata)), part=True)
    lines: list[str] = []
    copied = _is_copied(picture, values, reading, sample, axes, options, lines)
    with torch.inference_mode():
        (kind,) = result_types(model, picture, [noisy], options, lines, [copied])
        usual = None
        if divided and not copied and model.blind and model.dims == 2 and not options.uneven:
            usual = _usual_residuals(model, noisy, sample, options)
    dtype = values.dtype if kind is None else np.dtype(kind)
    declared = tuple(sorted(nodata)) if divided else values.nodata_values
    facts = StreamFacts(limits, declared, dtype.str, copied, usual, None, lines)
    if divided or copied:
        return facts
    return replace(facts, defects=_defects(model, values, reading, regions, axes, options, limits))


def _noisy(values: Values, reading: ReadAs, pages: np.ndarray) -> NoisyArray:
    """Return sampled pages as an array with what the file states about it."""
    letters = "NHWC" if len(pages.shape) == 4 else "NDHWC"
    return NoisyArray(
        pages,
        letters,
        colour=reading.colour,
        nodata_values=values.nodata_values,
        unit=values.unit,
    )


def _limits(
    model: Any,
    noisy: NoisyArray,
    sample: ArraySample,
    nodata_values: tuple[float, ...],
    options: DenoiseOptions,
) -> IntensityScaling:
    """Choose the scaling of an array by the middles of its cells."""
    cells = sample.cells()
    if model.dims == 3:
        cells = cells[:, cells.shape[1] // 2]
    few = cells[:, :SCALED_SIDE, :SCALED_SIDE]
    colours = few.shape[3]
    fixed = model.range_in(noisy.unit)
    if options.scale is not None:
        fixed = (options.black, options.scale - options.black)
    together = model.takes_together(noisy, colours)
    return IntensityScaling.of(few, fixed, together, nodata_values, model.equivariant)


def _is_copied(
    picture: Picture,
    values: Values,
    reading: ReadAs,
    sample: ArraySample,
    axes: str,
    options: DenoiseOptions,
    lines: list[str],
) -> bool:
    """Decide if an array is copied as a label image, see `array_plans.copied_ones`."""
    if reading.axes.endswith("C"):
        return False
    pages = np.moveaxis(sample.pages, -1, 1)
    letters = "NCHW" if len(pages.shape) == 4 else "NCDHW"
    shown = _SampledPicture(picture, [replace(values, stored=pages)])
    (copied,) = copied_ones(shown, [replace(reading, axes=letters)], options, lines)
    return copied


@dataclass(frozen=True)
class _SampledPicture:
    """A picture whose arrays are sampled."""

    picture: Picture
    values: list[Values]

    @property
    def path(self) -> Any:
        """The file."""
        return self.picture.path

    @property
    def mask(self) -> bool:
        """Whether it is a mask of 1 bit."""
        return self.picture.mask


def _usual_residuals(
    model: Any, noisy: NoisyArray, sample: ArraySample, options: DenoiseOptions
) -> list[UsualResidual | None]:
    """Denoise some cells, and measure what is usually removed."""
    cells = sample.cells()
    chosen = cells[evenly(len(cells), TEXTURE_CELLS)]
    source = replace(noisy, array=chosen)
    result = np.empty(chosen.shape, np.float32)
    plain = replace(options, uneven=True, strength=1.0, tile="auto", batch=1)
    model.denoise_into(result, source, plain)
    stack = model.pages_of(source, result, plain)
    pages = [stack.at(place) for place in stack.places]
    return usual_residuals(pages, stack.together)


def _defects(
    model: Any,
    values: Values,
    reading: ReadAs,
    regions: Regions,
    axes: str,
    options: DenoiseOptions,
    limits: IntensityScaling,
) -> np.ndarray | None:
    """Find the pixels that stand out in most of the images of a mapped stack."""
    letters = stacked_letters(axes, model.dims)
    if not isinstance(regions, MappedRegions) or letters != "N" or model.dims == 3:
        return None
    # as stored, since shifted integers would be unpacked as a whole
    noisy = NoisyArray(
        regions.source,
        reading.axes,
        colour=reading.colour,
        nodata_values=tuple(value - regions.shift for value in values.nodata_values),
        limits=replace(limits, black=limits.black - regions.shift),
    )
    pages = model.pages_of(noisy, regions.source, options)
    return OutlierSearch(options.outliers, pages, letters).defects
