"""Isolated outliers of files: defects of a folder's detector, masks and maps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from n2n_lightning.arrays.axes import Shape, evenly
from n2n_lightning.arrays.outlier_lists import LOOKED, defects_of
from n2n_lightning.files import InputError, option, replacing
from n2n_lightning.formats import opened, stem
from n2n_lightning.formats.picture import AskedAxes
from n2n_lightning.inference.options import DenoiseOptions, NoisyArray
from n2n_lightning.inference.outlier_search import reader
from n2n_lightning.inference.page import Page
from n2n_lightning.inference.plan import Job, refuse_inputs

MAP = ".outliers.tif"  # ending of the maps, which are never inputs of a folder (paths.OWN_FILES)


@dataclass(frozen=True)
class DetectorDefects:
    """Pixels that are known to be defective.

    Attributes:
        mask: coordinates from a mask, (n, 2): row, column; None: no mask was given.
        size: height and width of the mask.
        folders: of a folder and the shape of its pictures, coordinates (n, 3): channel, row,
            column.
    """

    mask: np.ndarray | None = None
    size: Shape = ()
    folders: dict[tuple[Path, Shape], np.ndarray] = field(default_factory=dict)

    def of(self, source: Path, shape: Shape) -> np.ndarray | None:
        """Return the defects of a file.

        Args:
            source: the file.
            shape: of its pages, (H, W, C).

        Returns:
            Coordinates (n, 3): channel, row, column; None where none is known.

        Raises:
            InputError: the mask is of another size.
        """
        if self.mask is None:
            return self.folders.get((source.parent, shape))
        if shape[:2] != self.size:
            size = " x ".join(map(str, shape[:2]))
            mask_size = " x ".join(map(str, self.size))
            raise InputError(
                f"{source}: is {size}, and the mask of {option('bad_pixels')} {mask_size}"
            )
        count = shape[2]
        channels = np.repeat(np.arange(count), len(self.mask))
        pixels = np.tile(self.mask, (count, 1))
        return np.column_stack((channels, pixels))


def read_mask(path: Path) -> DetectorDefects:
    """Read a mask of defective pixels: an image (H, W) that is not 0 there.

    Returns:
        The coordinates of these pixels, and the size of the mask.

    Raises:
        InputError: it cannot be read or is no image of one channel.
    """
    picture = opened(path)
    array = np.squeeze(picture.values[0].array)
    if len(array.shape) != 2:
        raise InputError("bad_pixels", path, f"must be one grey image, not of shape {array.shape}")
    return DetectorDefects(np.argwhere(array != 0), array.shape)


def defects_of_folders(
    model: Any, jobs: Sequence[Job], options: DenoiseOptions, asked: AskedAxes
) -> DetectorDefects:
    """Find the pixels that stand out in most of a folder's pictures of different scenes.

    Args:
        model: the denoiser.TrainedDenoiser that denoises them.
        jobs: the pictures; of each folder some are looked at.
        options: `scale` and `black` are used.
        asked: what decides the axes of their arrays.

    Returns:
        The defects; none of folders with fewer than three pictures of one size.
    """
    folders: dict[Path, list[Job]] = {}
    for job in jobs:
        folders.setdefault(job.source.parent, []).append(job)
    found: dict[tuple[Path, Shape], np.ndarray] = {}
    for folder, own in folders.items():
        pages: dict[Shape, list[Page]] = {}
        for i in evenly(len(own), LOOKED) if len(own) > 2 else ():
            page = _only_page(model, own[i], options, asked)
            if page is not None:
                pages.setdefault(page.source.shape, []).append(page)
        for shape, looked in pages.items():
            points = defects_of([reader(page) for page in looked], shape[:2])
            if len(points):
                found[folder, shape] = points
    return DetectorDefects(folders=found)


def _only_page(model: Any, job: Job, options: DenoiseOptions, asked: AskedAxes) -> Page | None:
    """Return the only page of a file; None if it holds several or cannot be read."""
    try:
        picture = opened(job.source, job.part)
        (values,) = picture.values
        noisy = NoisyArray.of(values, picture.read_as(values, asked))
        pages = model.pages_of(noisy, noisy.array, options)
    except ValueError:  # an InputError, or several arrays
        return None
    return None if pages.stacked or pages.volumes else pages.at(())


def map_of(target: Path) -> Path:
    """Return the file of the map of a result.

    Returns:
        A file in the folder of the result.

    >>> map_of(Path("clean/a.fits")).as_posix()
    'clean/a.outliers.tif'
    """
    return target.with_name(stem(target) + MAP)


def refuse_maps(jobs: Sequence[Job]) -> None:
    """Raise InputError where the map of a result would be written over one of the pictures."""
    # folders do not yield them
    inputs = [job.source for job in jobs if job.source.name.endswith(MAP)]
    for job in jobs if inputs else ():
        refuse_inputs(map_of(job.target), inputs, "outlier_map")


def write_map(target: Path, marks: Sequence[np.ndarray]) -> None:
    """Write the map of the outliers of a result, `a.outliers.tif` for `a.tif`.

    Args:
        target: the result.
        marks: uint8, of each of its arrays: 1 where an outlier was left and 2 where one was
            replaced.
    """
    with replacing(map_of(target)) as temporary, tifffile.TiffWriter(temporary) as file:
        for page in marks:
            file.write(page, compression="zlib", photometric="minisblack", metadata=None)


def page_shape(shape: Shape, axes: str) -> Shape:
    """Return height, width and channels of an array.

    Args:
        shape: of the array.
        axes: its letters, a letter for each axis.

    Returns:
        (H, W, C); C is 1 without an axis of channels.

    >>> page_shape((3, 40, 50), "CHW"), page_shape((7, 40, 50), "NHW")
    ((40, 50, 3), (40, 50, 1))
    """
    lengths = dict(zip(axes, shape, strict=True))
    return lengths["H"], lengths["W"], lengths.get("C", 1)
