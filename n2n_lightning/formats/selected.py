"""Some frames of a file, chosen in brackets: `movie.tif[10:50]`."""

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from n2n_lightning.arrays.axes import of_scenes
from n2n_lightning.files import InputError, room
from n2n_lightning.formats.picture import Packed, Picture, Values
from n2n_lightning.paths import shown_frames

# tifffile's names of axes; others are C
TIFF_AXES = {
    "H": "Y",
    "W": "X",
    "D": "Z",
    "T": "T",
    "N": "T",
    "K": "I",
}
IMAGEJ_TYPES = ("uint8", "uint16", "float32")
IMAGEJ_METADATA = ("unit", "spacing", "finterval", "fps", "tunit")
NO_UNIT = 1  # a value of TIFF's ResolutionUnit


class Selected(Picture):
    """Frames of another picture, written as a file of their own.

    The result of .npy is .npy, of everything else a TIFF stack.

    Args:
        whole: the picture.
        frames: the chosen frames, along the first axis that is neither colour nor space.

    Attributes:
        whole: as above; frames around the chosen ones are read from it.
        frames: the numbers of the chosen frames.
        axis: the axis of the frames in the arrays of `whole`.
    """

    kind = "TIFF"
    floats = True

    def __init__(self, whole: Picture, frames: slice) -> None:
        super().__init__(whole.path, whole.part)
        self.whole = whole
        self.sources = list(whole.sources)
        self.axis = 0
        for name in ("volumes", "tuples", "channels_first"):
            setattr(self, name, getattr(whole, name))
        self.orientation = whole.orientation
        arrays = whole.values
        if len(arrays) > 1 and not whole.tuples:
            self.frames = range(len(arrays))[frames]
            self.values = arrays[frames]
        else:
            self.axis, count = _frame_axis(arrays[0])
            self.frames = range(count)[frames]
            for values in arrays:
                part = _chosen_frames(values, self.axis, self.frames)
                self.values.append(part)
        if not self.frames:
            raise InputError(f"[{shown_frames(frames)}] chooses none of its frames")

    def _begin(self, path: Path) -> list[np.ndarray]:
        return [room(v.shape, v.dtype.newbyteorder("=")) for v in self.values]

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        self._save(path, results)

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        if path.suffix.lower() == ".npy":
            np.save(path, results[0])
            return
        import tifffile

        scale = _tiff_scale(self.path)
        dtype = results[0].dtype.name
        imagej = scale.imagej and dtype in IMAGEJ_TYPES
        with tifffile.TiffWriter(path, imagej=imagej) as writer:
            for values, result in zip(self.values, results, strict=True):
                axes, options = _tiff_options(values)
                metadata = {"axes": axes, **scale.metadata}
                writer.write(result, metadata=metadata, **options, **scale.tags)


@dataclass
class _TiffScale:
    """Scale and time of a TIFF, to be written to another.

    Attributes:
        imagej: it is a file of ImageJ.
        metadata: for the description.
        tags: options of tifffile's writer.
    """

    imagej: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, Any] = field(default_factory=dict)


def _tiff_scale(path: Path) -> _TiffScale:
    """Read the scale of a TIFF; empty for other files."""
    import tifffile

    from n2n_lightning.formats.tiff import resolution_options

    scale = _TiffScale()
    with contextlib.suppress(tifffile.TiffFileError, OSError), tifffile.TiffFile(path) as file:
        page = file.pages[0].aspage()
        scale.tags = resolution_options(page.tags, NO_UNIT)
        scale.imagej = bool(file.is_imagej)
        stated = file.imagej_metadata or {}
        for name in IMAGEJ_METADATA:
            if name in stated:
                scale.metadata[name] = stated[name]
    return scale


def _tiff_options(values: Values) -> tuple[str, dict[str, Any]]:
    """Return tifffile's names of the axes of an array, and its options for the colours."""
    letters = values.axes or "NHW"
    axes = ""
    for letter in letters:
        axes += TIFF_AXES.get(letter, "C")
    options: dict[str, Any] = {"photometric": "minisblack"}
    colour = values.colour and letters.endswith("C")
    if colour and len(letters) > 2:
        axes = axes[:-1] + "S"
        *_, channels = values.shape
        if channels > 2:
            options["photometric"] = "rgb"
    if values.alpha:
        options["extrasamples"] = ["unassalpha"]
    return axes, options


def _frame_axis(values: Values) -> tuple[int, int]:
    """Return the axis along which an array has its frames, and their number.

    Raises:
        InputError: it has one frame.
    """
    if values.axes is None:
        values.axes = of_scenes(values.shape) or None
    dimensions = len(values.shape)
    letters = values.axes or "N" * dimensions
    stacked = [letter for letter in letters if letter not in "CHW"]
    if not stacked or dimensions < 3:
        raise InputError("holds one frame, so none can be chosen")
    frame_letter = "T" if "T" in stacked else stacked[0]
    axis = letters.index(frame_letter)
    return axis, values.shape[axis]


def _chosen_frames(values: Values, axis: int, frames: range) -> Values:
    """Return some frames of an array, a view if it is mapped."""
    chosen = slice(frames.start, frames.stop, frames.step)
    place = (*[slice(None)] * axis, chosen)

    def unpacked() -> np.ndarray:
        return values.array[place]

    stored = values.stored
    if isinstance(stored, Packed):
        shape = list(values.shape)
        shape[axis] = len(frames)
        stored = Packed(tuple(shape), stored.dtype, unpacked)
    else:
        stored = stored[place]
    invalid = values.invalid
    if invalid is not None:
        invalid = invalid[place]
    return replace(values, stored=stored, invalid=invalid)
