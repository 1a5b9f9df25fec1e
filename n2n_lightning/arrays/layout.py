"""Axes that an array was read with, for checkpoints and in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from n2n_lightning.arrays.axes import Shape, ends_in_bands


@dataclass(frozen=True)
class Layout:
    """Axes that an array was read with, kept in checkpoints.

    A network is applied to arrays that are read as those that it was trained on.

    Attributes:
        axes: the letters that were used.
        shape: of the array.
        stated: the letters that the file states; None where it states none.
        assumed: the letters are a guess: neither the user nor the file gave them.
    """

    axes: str
    shape: Shape
    stated: str | None = None
    assumed: bool = False

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> "Layout | None":
        """Read the layout of a checkpoint from plain data, as `plain` writes it.

        Returns:
            None where the checkpoint has no usable layout.
        """
        if stored is None:
            return None
        try:
            axes = str(stored["axes"])
            shape = tuple(int(n) for n in stored["shape"])
            stated = stored.get("stated")
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        if len(axes) != len(shape):
            return None
        return cls(axes, shape, stated)

    def line(self) -> str:
        """Return a line about guessed axes of a 3D or larger array; empty if there is none."""
        if not self.assumed or len(self.shape) < 3:
            return ""
        described = words(self.axes, self.shape)
        return f"read as {described} ({self.axes})"

    def plain(self) -> dict[str, Any]:
        """Return plain data for a checkpoint."""
        return {
            "axes": self.axes,
            "shape": list(self.shape),
            "stated": self.stated,
        }

    def suits(self, shape: Shape, stated: str | None) -> bool:
        """Return True if another array is of the same kind and may be read alike.

        Its shape differs in lengths only, but not in the number of channels; a small last axis is
        in both arrays or in neither.

        Args:
            shape: of the other array.
            stated: the letters that its file states; None where it states none.
        """
        if len(shape) != len(self.shape) or stated != self.stated:
            return False
        for letter, length, own in zip(self.axes, shape, self.shape, strict=True):
            if letter == "C" and length != own:
                return False
        return ends_in_bands(shape) == ends_in_bands(self.shape)


def words(
    axes: str,
    shape: Shape,
    alpha: bool = False,
) -> str:
    """Describe an array in words.

    Args:
        axes: its letters.
        shape: its lengths.
        alpha: one of the channels is transparency.

    Returns:
        A noun phrase.

    >>> words("NHW", (20, 480, 640))
    '20 images of 480 x 640'
    >>> words("HWC", (480, 640, 4), alpha=True)
    'an image of 480 x 640 with 3 channels and transparency'
    >>> words("NKHW", (6, 4, 40, 50)), words("DHW", (30, 40, 50))
    ('6 scenes x 4 captures of 40 x 50', 'a volume of 30 x 40 x 50')
    """
    length = dict(zip(axes, shape, strict=True))
    nouns = {
        "N": "images",
        "K": "captures",
        "T": "frames",
    }
    single = "an image"
    if "D" in length:
        nouns["N"] = "volumes"
        single = "a volume"
    if "K" in length:
        nouns["N"] = "scenes"
    stacked = []
    for letter, count in zip(axes, shape, strict=True):
        if letter in nouns:
            stacked.append(f"{count} {nouns[letter]}")
    size = []
    for letter in "DHW":
        if letter in length:
            size.append(str(length[letter]))
    images = " x ".join(stacked) or single
    pixels = " x ".join(size)
    text = f"{images} of {pixels}"
    if "C" in length:
        channels = length["C"] - alpha
        noun = "channel" if channels == 1 else "channels"
        text += f" with {channels} {noun}"
    if alpha:
        text += " and transparency"
    return text
