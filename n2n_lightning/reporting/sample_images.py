"""Validation images of runs, from `samples.npz`, for comparison with a slider."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from n2n_lightning.files import InputError, replacing
from n2n_lightning.reporting.slider import Compared

BEST_RUNS = 8  # of a sweep are shown side by side: as many buttons as fit next to one another


@dataclass
class Samples:
    """Layers of images: noisy, denoised, and a reference.

    Attributes:
        names: of the layers.
        titles: a remark on each image of each layer, as "24.1 dB"; may be empty.
        images: images of each layer, (H, W) or (H, W, 3), uint8.
        remarks: a sentence on each image; empty: none.
    """

    names: list[str]
    titles: list[list[str]]
    images: list[list[np.ndarray]]
    remarks: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write an .npz file: `names`, `titles` (layers, images), images as `<layer>_<number>`."""
        arrays: dict[str, Any] = {"names": self.names, "titles": self.titles}
        if self.remarks:
            arrays["remarks"] = self.remarks
        layers = zip(self.names, self.images, strict=True)
        for name, images in layers:
            for i, image in enumerate(images):
                arrays[f"{name}_{i}"] = image
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Samples":
        """Read an .npz file that `save` wrote.

        Returns:
            The layers.

        Raises:
            InputError: the file is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                names = [str(name) for name in file["names"]]
                titles = [list(map(str, row)) for row in file["titles"]]
                count = len(titles[0])
                remarks = [str(remark) for remark in file.get("remarks", ())]
                images = []
                for name in names:
                    images.append([file[f"{name}_{i}"] for i in range(count)])
        except Exception as error:  # NumPy raises whatever the damage leads to
            raise InputError(f"{path}: damaged; its samples are left out") from error
        return cls(names, titles, images, remarks)

    def layer(self, number: int, image: int) -> str:
        """Return the label of a layer of an image.

        Args:
            number: of the layer.
            image: number of the image.

        Returns:
            Name, and remark if there is one.
        """
        name = self.names[number]
        title = self.titles[number][image]
        return f"{name}, {title}" if title else name


def compared(samples: Samples) -> list[Compared]:
    """Return the images of a run, each with all of its layers.

    Returns:
        An entry per image; the layers are in the order of the samples.
    """
    pictures = []
    layers = range(len(samples.names))
    for i, images in enumerate(zip(*samples.images, strict=True)):
        labels = [samples.layer(k, i) for k in layers]
        remark = samples.remarks[i] if samples.remarks else ""
        pictures.append(_numbered(i, labels, list(images), remark))
    return pictures


def _numbered(i: int, labels: list[str], layers: list[np.ndarray], remark: str = "") -> Compared:
    """Return an image of one page, named by its number."""
    page = (layers, remark)
    return Compared(f"image {i + 1}", about="", layers=labels, pages=[page])


def side_by_side(runs: Sequence[tuple[str, Samples]]) -> list[Compared]:
    """Return the noisy images of several runs, each with the results of all runs.

    Args:
        runs: label and samples of each, the best first.

    Returns:
        An image per noisy image of the first run; nothing if no other run has the same ones.
    """
    if not runs:
        return []
    _, first = runs[0]
    noisy_images = first.images[0]
    alike = []
    for name, run in runs:
        if _same_images(run.images[0], noisy_images):
            alike.append((name, run))
    alike = alike[:BEST_RUNS]
    if len(alike) < 2:
        return []
    pictures = []
    for i, noisy in enumerate(noisy_images):
        labels = [first.layer(0, i)]
        images = [noisy]
        for name, run in alike:
            title = run.titles[1][i]
            label = [part for part in (name, title) if part]
            labels.append(": ".join(label))
            images.append(run.images[1][i])
        if first.names[-1] != "removed":  # each run removed something else
            labels.append(first.layer(2, i))
            images.append(first.images[2][i])
        pictures.append(_numbered(i, labels, images))
    return pictures


def _same_images(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> bool:
    if len(one) != len(other):
        return False
    return all(map(np.array_equal, one, other))


def most_of(pictures: list[Compared], size: float) -> list[Compared]:
    """Return the first images that have `size` bytes together.

    Args:
        pictures: the images.
        size: in bytes.

    Returns:
        The first image at least.
    """
    total = 0
    for number, picture in enumerate(pictures):
        total += picture.size
        if number and total > size:
            return pictures[:number]
    return pictures
