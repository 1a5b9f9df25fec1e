"""What is to be done with each array of a picture: whether it is copied, is a mosaic, and the type of its result."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError, option, replacing
from n2n_lightning.formats import ending, mosaics
from n2n_lightning.formats.label_images import is_label_image
from n2n_lightning.formats.selected import Selected
from n2n_lightning.inference import rounding


def are_mosaics(
    picture: Any, readings: list[Any], asked: str, copied: Sequence[bool], lines: list[str]
) -> list[bool]:
    """Whether the four planes of each array of a picture are denoised apart; `lines` gets what is said of it."""
    arrays = zip(picture.values, readings, copied, strict=True)
    return [not same and is_mosaic(picture, v, r.axes, asked, lines) for v, r, same in arrays]


def is_mosaic(picture: Any, values: Any, axes: str, asked: str, lines: list[str]) -> bool:
    """Whether an array is a frame of a colour camera before demosaicking, as the person or its header says."""
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


def copied_ones(picture: Any, readings: list[Any], args: Any, lines: list[str]) -> list[bool]:
    """Whether each array of a picture is a label image or a mask, which is copied; `lines` gets what is said of it."""
    if args.label_images == "denoise":
        return [False] * len(readings)
    if picture.mask:
        lines.append(f"{picture.path.name}: a mask of 1 bit, copied")
        return [True] * len(readings)
    found = [is_label_image(v.array, r.axes) for v, r in zip(picture.values, readings, strict=True)]
    if any(found):
        which = (
            "a label image"
            if len(found) == 1
            else f"{sum(found)} of {len(found)} arrays are label images"
        )
        lines.append(
            f"{picture.path.name}: {which}, copied; {option('label_images', 'denoise')} would"
            " denoise it"
        )
    return found


def copy_file(picture: Any, target: Path) -> bool:
    """Copy a file as it is; False where the result is of another kind, or a folder."""
    path = picture.path
    if path.is_dir() or ending(path) != ending(target) or isinstance(picture, Selected):
        return False
    with replacing(target) as temporary:
        shutil.copyfile(path, temporary)
    return True


def result_types(
    model: Any,
    picture: Any,
    readings: list[Any],
    args: Any,
    near: Any,
    lines: list[str],
    copied: Sequence[bool] = (),
    apart: Sequence[bool] = (),
) -> list[Any]:
    """The type of the result of each array of a picture: None where it is that of the source.

    Args:
        readings: formats.ReadAs of each array.
        near: frames around the picture, see `_near`.
        lines: what is to be said of it is added.
        copied, apart: whether each array is copied, or a mosaic; empty: none is.
    """
    found: list[Any] = []
    none = [False] * len(readings)
    for values, reading, same, mosaic in zip(
        picture.values, readings, copied or none, apart or none, strict=True
    ):
        found.append(None)
        if same or args.dtype == "keep" or values.dtype.kind not in "iu":
            continue
        if args.dtype == "float32":
            found[-1] = "float32"
            continue
        known = {
            "alpha": reading.alpha,
            "colour": reading.colour,
            "nodata_values": values.nodata_values,
            "invalid": values.invalid,
        }
        known |= {
            "scale": args.scale,
            "black": args.black,
            "strength": args.strength,
            "uneven": args.uneven,
        }
        known |= {"outliers": args.outliers, "unit": values.unit}
        why = rounding.lossy(model, values.array, reading.axes, mosaic, near=near, **known)
        if why and picture.floats:
            found[-1] = "float32"
            lines.append(
                f"{picture.path.name}: written as float32: rounding to whole numbers would {why}"
            )
        elif why:
            to = f"a {picture.kind} file holds whole numbers alone; from a TIFF floats are written"
            lines.append(f"{picture.path.name}: rounded to whole numbers, which may {why}; {to}")
    if "float32" in found and not picture.floats:
        raise InputError(
            "dtype",
            "float32",
            f"a {picture.kind} file holds whole numbers alone; save the picture as TIFF",
        )
    return found
