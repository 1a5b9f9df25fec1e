"""Validation images of runs, as `samples.npz` of their folders has them, to be compared with a slider."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from n2n_lightning.files import InputError, replacing
from n2n_lightning.reporting.slider import Compared

RUNS = 8  # of a sweep, the best ones, that are shown side by side


@dataclass
class Samples:
    """Layers of some images: noisy, denoised, and what they are compared with.

    Attributes:
        names: of the layers.
        titles: of each layer what is said of each image, as "24.1 dB"; may be empty.
        images: of each layer the images, (H, W) or (H, W, 3), uint8.
    """

    names: list[str]
    titles: list[list[str]]
    images: list[list[np.ndarray]]

    def save(self, path: Path) -> None:
        """Writes an .npz file: `names`, `titles` (layers, images), and each image as `<layer>_<number>`."""
        named = zip(self.names, self.images, strict=True)
        pixels = {f"{name}_{i}": image for name, row in named for i, image in enumerate(row)}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, names=self.names, titles=self.titles, **pixels)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> "Samples":
        """Those of a file.

        Raises:
            InputError: it is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                names, titles = (
                    [str(n) for n in file["names"]],
                    [[str(t) for t in row] for row in file["titles"]],
                )
                images = [[file[f"{name}_{i}"] for i in range(len(titles[0]))] for name in names]
        except Exception as error:  # NumPy raises whatever the damage leads to
            raise InputError(f"{path}: damaged; its samples are left out") from error
        return cls(names, titles, images)

    def layer(self, number: int, image: int) -> str:
        """What a layer of an image is called."""
        title = self.titles[number][image]
        return f"{self.names[number]}, {title}" if title else self.names[number]


def compared(samples: Samples) -> list[Compared]:
    """The images of a run, each with all of its layers."""
    layers = range(len(samples.names))
    return [
        Compared(
            f"image {i + 1}",
            "",
            [samples.layer(k, i) for k in layers],
            [([samples.images[k][i] for k in layers], "")],
        )
        for i in range(len(samples.images[0]))
    ]


def side_by_side(runs: Sequence[tuple[str, Samples]]) -> list[Compared]:
    """The images that several runs have in common, each with what every run made of it.

    Args:
        runs: what each is called, and its samples, the best first.

    Returns:
        Nothing where fewer than two runs have the first one's noisy images.
    """
    if not runs:
        return []
    first = runs[0][1]
    alike = [(name, s) for name, s in runs if _same(s.images[0], first.images[0])][:RUNS]
    if len(alike) < 2:
        return []
    found = []
    for i, noisy in enumerate(first.images[0]):
        names = [
            first.layer(0, i),
            *(": ".join(filter(None, (name, s.titles[1][i]))) for name, s in alike),
        ]
        images = [noisy, *(s.images[1][i] for _, s in alike)]
        if first.names[-1] != "removed":  # what one run removed is not what another one did
            names, images = [*names, first.layer(2, i)], [*images, first.images[2][i]]
        found.append(Compared(f"image {i + 1}", "", names, [(images, "")]))
    return found


def _same(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def most_of(pictures: list[Compared], size: float) -> list[Compared]:
    """The first pictures, as many as have so many bytes together; the first one in any case."""
    kept, total = pictures[:1], sum(one.size for one in pictures[:1])
    for one in pictures[1:]:
        total += one.size
        if total > size:
            break
        kept.append(one)
    return kept
