"""Decisions about each array of a picture: copied or denoised, as a mosaic, into which type."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError, option, replacing
from n2n_lightning.formats import ending, mosaics
from n2n_lightning.formats.label_images import is_label_image
from n2n_lightning.formats.selected import Selected
from n2n_lightning.inference import rounding
from n2n_lightning.inference.options import DenoiseOptions, NoisyArray


def is_mosaic(picture: Any, values: Any, axes: str, asked: str, lines: list[str]) -> bool:
    """Decide if an array is a frame of a colour camera before demosaicking.

    Args:
        picture: the formats.Picture.
        values: the array.
        axes: its letters.
        asked: the option `mosaic`.
        lines: gets what is to be said about it.

    Returns:
        True if the option or the file says so.
    """
    mosaic = mosaics.checked(asked)
    if mosaic == "auto":
        mosaic = values.mosaic or "none"
        if mosaic == "none" and mosaics.looks_like_one(values.array, axes):
            way = (
                f"{option('mosaic', 'RGGB')} denoises its four planes apart,"
                f" {option('mosaic', 'none')} is silent"
            )
            lines.append(
                f"{picture.path.name}: has a period of 2 pixels, as a colour camera's raw frame"
                f" has; {way}"
            )
    if mosaic == "none" or "C" in axes:
        return False
    lines.append(
        f"{picture.path.name}: denoised as a colour mosaic ({mosaic}), its four planes apart"
    )
    return True


def copied_ones(
    picture: Any, readings: list[Any], options: DenoiseOptions, lines: list[str]
) -> list[bool]:
    """Decide if each array of a picture is copied, as a label image or a mask.

    Args:
        picture: the formats.Picture.
        readings: how each array is read.
        options: `label_images` is used.
        lines: gets what is to be said about it.

    Returns:
        True for each array that is copied.
    """
    if options.label_images == "denoise":
        return [False] * len(readings)
    if picture.mask:
        lines.append(f"{picture.path.name}: a mask of 1 bit, copied")
        return [True] * len(readings)
    copied = []
    for values, reading in zip(picture.values, readings, strict=True):
        copied.append(is_label_image(values.array, reading.axes))
    if any(copied):
        which = "a label image"
        if len(copied) > 1:
            which = f"{sum(copied)} of {len(copied)} arrays are label images"
        lines.append(
            f"{picture.path.name}: {which}, copied; {option('label_images', 'denoise')} would"
            " denoise it"
        )
    return copied


def copy_file(picture: Any, target: Path) -> bool:
    """Copy a file as it is.

    Args:
        picture: the formats.Picture of the file.
        target: the copy.

    Returns:
        False, without a copy, if the result is of another kind, or a folder.
    """
    path = picture.path
    if path.is_dir() or ending(path) != ending(target) or isinstance(picture, Selected):
        return False
    with replacing(target) as temporary:
        shutil.copyfile(path, temporary)
    return True


def result_types(
    model: Any,
    picture: Any,
    arrays: Sequence[NoisyArray],
    options: DenoiseOptions,
    lines: list[str],
    copied: Sequence[bool] = (),
) -> list[Any]:
    """Decide the type of the result of each array of a picture.

    Args:
        model: the denoiser.TrainedDenoiser.
        picture: the formats.Picture.
        arrays: its arrays.
        options: how they are denoised.
        lines: gets what is to be said about the types.
        copied: whether each array is copied; empty: none is.

    Returns:
        "float32", or None for the type of the source.

    Raises:
        InputError: float32 was asked for, and files of this kind cannot hold it.
    """
    # What rounding does to one of the 8 turns of --tta it does to their mean.
    judged_with = replace(options, tta=False)
    types: list[Any] = []
    for noisy, same in zip(arrays, copied or [False] * len(arrays), strict=True):
        types.append(None)
        if same or options.dtype == "keep" or noisy.array.dtype.kind not in "iu":
            continue
        if options.dtype == "float32":
            types[-1] = "float32"
            continue
        harm = rounding.lossy(model, noisy, judged_with)
        if harm and picture.floats:
            types[-1] = "float32"
            lines.append(
                f"{picture.path.name}: written as float32: rounding to whole numbers would {harm}"
            )
        elif harm:
            lines.append(
                f"{picture.path.name}: rounded to whole numbers, which may {harm}; a"
                f" {picture.kind} file holds whole numbers alone; from a TIFF floats are written"
            )
    if "float32" in types and not picture.floats:
        raise InputError(
            "dtype",
            "float32",
            f"a {picture.kind} file holds whole numbers alone; save the picture as TIFF",
        )
    return types
