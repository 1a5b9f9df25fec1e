"""Some frames of a file, chosen in brackets: `movie.tif[10:50]`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from n2n_lightning.arrays.axes import of_scenes
from n2n_lightning.files import InputError, room
from n2n_lightning.formats.picture import Packed, Picture, Values
from n2n_lightning.paths import shown_frames

TIFF_AXES = {"H": "Y", "W": "X", "D": "Z", "T": "T", "N": "T", "K": "I"}  # colours apart


class Selected(Picture):
    """Frames of another picture, written as a file of their own: .npy stays, everything else becomes a TIFF stack.

    Args:
        whole: the picture.
        frames: which of its frames, along the first axis that is neither colour nor space.

    Attributes:
        whole: as above; frames around the chosen ones are taken from it.
        frames: the numbers of the chosen frames.
        axis: where the frames lie in the arrays of `whole`.
    """

    kind, floats = "TIFF", True

    def __init__(self, whole: Picture, frames: slice) -> None:
        super().__init__(whole.path, whole.part)
        self.whole, self.axis = whole, 0
        for name in ("volumes", "tuples", "channels_first"):
            setattr(self, name, getattr(whole, name))
        self.orientation = whole.orientation
        if len(whole.values) > 1 and not whole.tuples:
            self.frames = range(len(whole.values))[frames]
            self.values = [whole.values[t] for t in self.frames]
        else:
            self.axis, count = _frame_axis(whole.values[0])
            self.frames = range(count)[frames]
            self.values = [_part(values, self.axis, self.frames) for values in whole.values]
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

        options = _resolution(self.path)
        with tifffile.TiffWriter(
            path, imagej=options.pop("imagej", False) and _fits_imagej(results[0])
        ) as writer:
            for values, result in zip(self.values, results, strict=True):
                letters = values.axes or "NHW"
                colour = letters.endswith("C") and values.colour and len(letters) > 2
                names = "".join(
                    TIFF_AXES.get(letter, "C") for letter in letters[: -1 if colour else None]
                )
                extra: dict[str, Any] = (
                    {"photometric": "rgb"} if colour and list(result.shape)[-1] > 2 else {}
                )
                extra = extra or {"photometric": "minisblack"}
                if values.alpha:
                    extra["extrasamples"] = ["unassalpha"]
                writer.write(result, metadata={"axes": names + "S" * colour, **options["metadata"]}, **extra,
                             **options["tags"])  # fmt: skip


def _frame_axis(values: Values) -> tuple[int, int]:
    """The axis along which an array has its frames, and how many there are.

    Raises:
        InputError: it has one frame.
    """
    letters = values.axes or of_scenes(values.shape) or ""
    if letters and values.axes is None:
        values.axes = letters
    letters = letters or "N" * len(values.shape)
    stacked = [i for i, letter in enumerate(letters) if letter not in "CHW"]
    if not stacked or len(values.shape) < 3:
        raise InputError("holds one frame, so none can be chosen")
    first = next((i for i in stacked if letters[i] == "T"), stacked[0])
    return first, values.shape[first]


def _part(values: Values, axis: int, frames: range) -> Values:
    """Some frames of an array, a view of it where it is mapped."""
    index: tuple[slice, ...] = (slice(None),) * axis + (
        slice(frames.start, frames.stop, frames.step),
    )
    invalid = None if values.invalid is None else values.invalid[index]
    shape = (*values.shape[:axis], len(frames), *values.shape[axis + 1 :])
    stored = values.stored
    if isinstance(stored, Packed):
        return replace(
            values, stored=Packed(shape, stored.dtype, lambda: values.array[index]), invalid=invalid
        )
    return replace(values, stored=stored[index], invalid=invalid)


def _fits_imagej(array: np.ndarray) -> bool:
    return array.dtype.name in ("uint8", "uint16", "float32")


def _resolution(path: Path) -> dict[str, Any]:
    """What a TIFF says of its scale and its time, for a TIFF of some of its frames."""
    import tifffile

    found: dict[str, Any] = {"metadata": {}, "tags": {}}
    try:
        with tifffile.TiffFile(path) as file:
            first = file.pages[0].aspage()
            sizes = [first.tags[code].value for code in (282, 283) if code in first.tags]
            if len(sizes) == 2 and all(below for _, below in sizes):
                found["tags"] = {
                    "resolution": sizes,
                    "resolutionunit": first.tags[296].value if 296 in first.tags else 1,
                }
            said = file.imagej_metadata or {}
            found["imagej"] = bool(file.is_imagej)
            kept = ("unit", "spacing", "finterval", "fps", "tunit")
            found["metadata"] = {name: said[name] for name in kept if name in said}
    except (tifffile.TiffFileError, OSError):
        pass
    return found
