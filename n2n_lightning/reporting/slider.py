"""Images with a slider between before and after: a page of them, and parts of other pages."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import binary_erosion

from n2n_lightning.arrays.axes import as_pages, evenly
from n2n_lightning.files import replacing
from n2n_lightning.metrics.residual_structure import ADDED, REMOVED, SEARCHED
from n2n_lightning.reporting.html import rendered

# bytes of all images as PNG; as base64 a page stays under 20 MB (tests/test_slider.py)
BYTES = 15e6
MAX_PAGES = 8  # pages of a stack on the page
MAX_PICTURES = 24  # images on a page
MARK_COLORS = {REMOVED: (214, 39, 40), ADDED: (23, 190, 207)}  # tab:red and tab:cyan
OUTLINES = 512  # pixels of an image's side for each pixel of the width of outlines


@dataclass
class Compared:
    """Layers of one image that are compared, 8 bit grey or colour.

    Attributes:
        name: of the image.
        about: its size, type and displayed range.
        layers: labels, for example `before` and `after`; the first two are selected at first.
        pages: layers of each page, (H, W) or (H, W, 3) each, and a remark.
    """

    name: str
    about: str
    layers: list[str]
    pages: list[tuple[list[np.ndarray], str]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all layers."""
        return sum(layer.size for layers, _ in self.pages for layer in layers)


def pair(
    name: str,
    before: np.ndarray,
    after: np.ndarray,
    axes: str,
    maps: Mapping[str, np.ndarray] | None = None,
    marks: np.ndarray | None = None,
) -> Compared:
    """Return an image in the range of the middle 99.8% of its values.

    Channels that are no colours have a range each.

    Args:
        name: of the image.
        before, after: arrays of one shape, mapped or not.
        axes: their letters. Planes of volumes and frames of movies are pages; of colours the first
            three are shown, other channels are pages.
        maps: further layers by their labels, in the shape of `before`, 0 or more; NaN is shown as
            0. The mean of colours is shown, from 0 to its largest values.
        marks: residual_structure.REMOVED, ADDED and SEARCHED, in the shape of `before`: the
            outlines of the first two over the result are the last layer.

    Returns:
        Pages of 8 bit, with the displayed range in the remark of each.
    """
    first = as_pages(before, axes)
    second = as_pages(after, axes)
    *stacked, height, width, channels = first.shape
    colour = channels in (3, 4)
    channels_apart = 1 if colour else channels
    places = list(np.ndindex(*stacked, channels_apart))
    chosen = evenly(len(places), MAX_PAGES)
    shape = " x ".join(map(str, before.shape))
    about = f"{shape}, {before.dtype.name}."
    if len(chosen) < len(places):
        about += f" {len(chosen)} of {len(places)} pages are here."
    maps = maps or {}
    labels = ["before", "after", *maps]
    map_pages = {layer: as_pages(values, axes) for layer, values in maps.items()}
    marked_pages = None
    if marks is not None:
        labels.append("marks")
        marked_pages = as_pages(marks, axes)
    picture = Compared(name, about, labels)
    for page in chosen:
        *place, channel = places[page]
        channels_of_page = slice(3) if colour else channel
        part = (*place, ..., channels_of_page)
        one = np.asarray(first[part], np.float64)
        other = np.asarray(second[part], np.float64)
        label = ""
        limits = (0.0, 255.0)
        if before.dtype != np.uint8:
            limits = _displayed_range(one)
            low, high = limits
            label = f"Shown: {low:g} to {high:g}."
        if len(places) > 1:
            number = page + 1
            label += f" {height} x {width}, page {number} of {len(places)}."
        layers = [_as_8_bit(one, limits), _as_8_bit(other, limits)]
        for layer, pages in map_pages.items():
            image, highest = _map_layer(np.asarray(pages[part], np.float64), colour)
            layers.append(image)
            label += f" {layer.capitalize()}: 0 to {highest:.3g}."
        if marked_pages is not None:
            marked = np.asarray(marked_pages[part])
            marks = np.where(marked == SEARCHED, 0, marked)
            if colour:
                marks = marks.max(-1)
            layers.append(outlined(layers[1], marks))
            label += _said_of_marks(marked)
        picture.pages.append((layers, label))
    return picture


def outlined(image: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Draw the outlines of marks over an image.

    Args:
        image: (H, W) or (H, W, 3), uint8.
        marks: residual_structure.REMOVED and ADDED, other values elsewhere, (H, W).

    Returns:
        (H, W, 3), uint8: red where structure was removed, cyan where it was added.
    """
    colours = image if len(image.shape) == 3 else np.repeat(image[..., None], 3, -1)
    drawn = colours.copy()
    width = 1 + max(marks.shape) // OUTLINES
    for value, colour in MARK_COLORS.items():
        marked = marks == value
        if marked.any():
            inside = binary_erosion(marked, iterations=width)
            drawn[marked & ~inside] = colour
    return drawn


def _said_of_marks(marks: np.ndarray) -> str:
    """Return what the outlines of a page are, or why there are none."""
    if not marks.any():
        return " Marks: this page was not searched."
    names = []
    for value, name in ((REMOVED, "red: structure was removed"), (ADDED, "cyan: it was added")):
        if (marks == value).any():
            names.append(name)
    said = ", ".join(names) or "no structure found in the residual"
    return f" Marks: {said}."


def _map_layer(values: np.ndarray, colour: bool) -> tuple[np.ndarray, float]:
    """Return a map (H, W) or (H, W, 3) as a grey layer of 8 bit, and the value that is white."""
    if colour:
        values = values.mean(-1)
    _, highest = _displayed_range(values)
    return _as_8_bit(values, (0.0, highest)), highest


def _displayed_range(values: np.ndarray) -> tuple[float, float]:
    """Return the range of the middle 99.8% of the values."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.quantile(finite, (0.001, 0.999)).tolist()
    if not high > low:
        high = low + 1
    return low, high


def _as_8_bit(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Scale values to 0 to 255, uint8; NaN becomes 0."""
    low, high = limits
    scaled = (values - low) / (high - low)
    scaled = np.nan_to_num(scaled).clip(0, 1)
    levels = (255 * scaled).round()
    return levels.astype(np.uint8)


def content(compared: Sequence[Compared], most: float = BYTES) -> list[dict[str, Any]]:
    """Return images as the templates take them, reduced if they are too large together.

    Args:
        compared: the images.
        most: bytes of all of them.

    Returns:
        Name, remark (with the reduction), layers and pages of each image.
    """
    total = sum(picture.size for picture in compared)
    factor = max(1, math.ceil((total / most) ** 0.5))
    smaller = ""
    if factor > 1:
        smaller = f" Made smaller, {factor} x {factor} pixels to one."
    pictures = []
    for picture in compared:
        pages = []
        for layers, label in picture.pages:
            images = [_png(layer, factor) for layer in layers]
            pages.append({"images": images, "label": label})
        shown = {
            "name": picture.name,
            "about": picture.about + smaller,
            "layers": picture.layers,
            "pages": pages,
        }
        pictures.append(shown)
    return pictures


def write_page(path: Path, compared: Sequence[Compared], title: str) -> None:
    """Write a page of images.

    Args:
        path: of the page.
        compared: MAX_PICTURES of them are shown at most.
        title: of the page.
    """
    shown = [compared[i] for i in evenly(len(compared), MAX_PICTURES)]
    pictures = content(shown)
    remark = ""
    left_out = len(compared) - len(shown)
    if left_out:
        remark = f"{left_out} more pictures are not shown."
    page = rendered("slider.html", title=title, pictures=pictures, remark=remark)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _png(image: np.ndarray, factor: int) -> str:
    """Return an image as PNG in base64, reduced to the means of `factor` x `factor` pixels."""
    from PIL import Image

    if factor > 1:
        height, width, *_ = image.shape
        rows = height // factor
        columns = width // factor
        whole = image[: rows * factor, : columns * factor]
        colours = image.shape[2:]
        blocks = whole.reshape(rows, factor, columns, factor, *colours)
        means = blocks.mean((1, 3))
        image = means.round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", optimize=False)
    png = base64.b64encode(file.getvalue())
    return png.decode()
