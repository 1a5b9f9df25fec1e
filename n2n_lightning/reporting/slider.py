"""Pictures to compare with a slider: a page of before and after that needs no other file, and parts of others."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from n2n_lightning.arrays.axes import as_pages, evenly
from n2n_lightning.files import replacing
from n2n_lightning.reporting.html import rendered

BYTES = 15e6  # of all pictures, as PNG: with the text that they become a page stays under 20 MB
PAGES = 8  # of a stack that are shown
MAX_PICTURES = 24  # pictures


@dataclass
class Compared:
    """Layers of one picture that are compared, 8 bit grey or colour, ready to be shown.

    Attributes:
        name: of the picture.
        about: its size, its type and the range that is shown.
        layers: what each is called, `before` and `after` say; the first two are shown at first.
        pages: the layers of each page, (H, W) or (H, W, 3) each, and what to say of it.
    """

    name: str
    about: str
    layers: list[str]
    pages: list[tuple[list[np.ndarray], str]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all layers."""
        return sum(layer.size for layers, _ in self.pages for layer in layers)


def pair(name: str, before: np.ndarray, after: np.ndarray, axes: str) -> Compared:
    """A picture in the range of the middle 99.8% of its values, of each channel where they are no colours.

    Args:
        name: of the picture.
        before, after: of one shape, mapped or not.
        axes: their letters. Planes of volumes and frames of movies are pages; of colours the first
            three are shown, of other channels each by itself.
    """
    first, second = (as_pages(array, axes) for array in (before, after))
    *stacked, height, width, channels = first.shape
    colours = 3 if channels in (3, 4) else 1
    places = [
        (*place, k)
        for place in np.ndindex(*stacked)
        for k in range(1 if colours == 3 else channels)
    ]
    chosen = evenly(len(places), PAGES)
    shape = " x ".join(str(n) for n in before.shape)
    left = f" {len(chosen)} of {len(places)} pages are here." if len(chosen) < len(places) else ""
    found = Compared(name, f"{shape}, {before.dtype.name}.{left}", ["before", "after"])
    for number in chosen:
        *place, k = places[number]
        part = slice(3) if colours == 3 else slice(k, k + 1)
        here = [np.asarray(array[tuple(place)][..., part], np.float64) for array in (first, second)]
        known = here[0][np.isfinite(here[0])]
        low, high = (
            (float(v) for v in np.quantile(known, (0.001, 0.999))) if known.size else (0.0, 1.0)
        )
        if before.dtype == np.uint8:
            low, high = 0.0, 255.0
        high = high if high > low else low + 1
        eight = [np.nan_to_num((x - low) / (high - low)).clip(0, 1) * 255 for x in here]
        one, other = ((x if colours == 3 else x[..., 0]).round().astype(np.uint8) for x in eight)
        label = f"Shown: {low:g} to {high:g}." if before.dtype != np.uint8 else ""
        label += (
            f" {height} x {width}, page {number + 1} of {len(places)}." if len(places) > 1 else ""
        )
        found.pages.append(([one, other], label))
    return found


def content(compared: Sequence[Compared], most: float = BYTES) -> list[dict[str, Any]]:
    """Pictures as the templates take them, made smaller where all of them would be too large, which they say.

    Args:
        compared: the pictures.
        most: bytes of all of them.
    """
    factor = max(1, int(np.ceil((sum(one.size for one in compared) / most) ** 0.5)))
    smaller = f" Made smaller, {factor} x {factor} pixels to one." if factor > 1 else ""
    return [
        {
            "name": one.name,
            "about": one.about + smaller,
            "layers": one.layers,
            "pages": [
                {"images": [_png(layer, factor) for layer in layers], "label": label}
                for layers, label in one.pages
            ],
        }
        for one in compared
    ]


def write_page(path: Path, compared: Sequence[Compared], title: str) -> None:
    """Writes a page of pictures.

    Args:
        path: the page.
        compared: up to MAX_PICTURES of them are shown.
        title: of the page.
    """
    shown = [compared[i] for i in evenly(len(compared), MAX_PICTURES)]
    left = (
        f"{len(compared) - len(shown)} more pictures are not shown."
        if len(compared) > len(shown)
        else ""
    )
    page = rendered("slider.html", title=title, pictures=content(shown), remark=left)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _png(image: np.ndarray, factor: int) -> str:
    """An image as PNG, as text; of `factor` x `factor` pixels the mean."""
    from PIL import Image

    if factor > 1:
        height, width = (n // factor * factor for n in image.shape[:2])
        blocks = image[:height, :width].reshape(
            height // factor, factor, width // factor, factor, *image.shape[2:]
        )
        image = blocks.mean((1, 3)).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", optimize=False)
    return base64.b64encode(file.getvalue()).decode()
