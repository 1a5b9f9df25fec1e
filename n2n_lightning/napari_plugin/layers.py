"""What the axes of a layer of napari are, and what a denoised layer keeps of it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from n2n_lightning.inference.denoiser import load

# Names of axes in napari, and in files that its readers open, with their letters (arrays/axes.py).
NAMES = {
    "c": "C", "channel": "C",
    "t": "T", "time": "T", "frame": "T",
    "z": "D", "depth": "D", "plane": "D",
    "y": "H", "row": "H", "height": "H",
    "x": "W", "column": "W", "width": "W",
}  # fmt: skip
KEPT = ("scale", "translate", "rotate", "shear", "units", "contrast_limits", "gamma")


def axes_of_layer(shape: Sequence[int], rgb: bool, labels: Sequence[str] = ()) -> str:
    """Return the letters of the axes of a layer.

    Args:
        shape: of its array.
        rgb: the last axis has colours.
        labels: of its axes, without that of colours.

    Returns:
        Letters; axes of unknown meaning before the last two are N, images of their own.

    >>> axes_of_layer((5, 64, 64), False, ("t", "y", "x"))
    'THW'
    >>> axes_of_layer((64, 64, 3), True)
    'HWC'
    >>> axes_of_layer((2, 5, 64, 64), False, ("-4", "-3", "-2", "-1"))
    'NNHW'
    """
    count = len(shape) - rgb
    letters = [NAMES.get(label.strip().lower(), "") for label in labels]
    known = len(letters) == count and all(letters) and len(set(letters)) == count
    if not known or not {"H", "W"} <= set(letters):
        letters = ["N"] * (count - 2) + ["H", "W"]
    if rgb:
        letters.append("C")
    return "".join(letters)


def kept_properties(layer: Any) -> dict[str, Any]:
    """Return what a denoised layer shares with the layer that it was made from."""
    return {name: getattr(layer, name) for name in KEPT if hasattr(layer, name)}


def denoise_layer(
    image: np.ndarray,
    checkpoint: str = "pretrained",
    strength: float = 1.0,
    axes: str = "auto",
    advance: Callable[[float], Any] | None = None,
) -> np.ndarray:
    """Denoise an image.

    Args:
        image: of any shape and type.
        checkpoint: a name that `n2n models` lists, a run folder, or a checkpoint file.
        strength: 0 to 1: a mix of the image and its result.
        axes: letters of its axes (arrays/axes.py).
        advance: called with the share that is done, 0 to 1; what it raises ends the call.

    Returns:
        An array of the same shape and type; float32 where rounding would do harm.

    Raises:
        InputError: there is no such checkpoint, or the image is of another kind.
    """
    model = load(checkpoint)
    total = model.tiles(image, axes) if axes != "auto" else 0
    finished = 0

    def count(tiles: int) -> None:
        nonlocal finished
        finished += tiles
        if advance is not None:
            advance(min(1.0, finished / max(1, total)))

    result: np.ndarray = model.denoise(image, axes=axes, strength=strength, advance=count)
    return result
