"""Noisy captures of scenes, in memory or mapped from files."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.arrays.layout import Layout
from n2n_lightning.data.region_tensor import RegionTensor, loaded
from n2n_lightning.formats.regions import is_large

PLANES_PER_VOLUME = 8  # evenly spread: enough to judge values and noise by
SLAB = (64, 256, 256)  # voxels of a volume that are scored, at most, so that validation stays short


class SceneSet(ABC):
    """Noisy captures of N scenes, of one type and number of channels.

    All captures of a scene have one size.

    Attributes:
        names: of the scenes, for messages.
        nodata_values: stored values that mean, as the files say, that a pixel is missing.
        unit: (factor, offset) that make physical values of the stored ones.
        layout: how the first array was read, on what the functions of data.reading return.
        targets: marks the captures that may be targets, see the subclasses; None: all may.
        frame_names: of each scene the file names of its captures; None: captures have numbers.
        dropped: what was left out when they were read, in words.
        positions: of each scene how far it has moved in each of its captures, rows and columns, (n,
            2), see registration.positions_of; None: nowhere, or not known.
        one_size: whether all scenes have one size, so that a batch is one indexing operation.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]  # of the subclasses, for dataclasses.replace
    one_size: ClassVar[bool]
    names: list[str]
    nodata_values: tuple[float, ...]
    unit: tuple[float, float]
    layout: Layout | None
    targets: Any
    frame_names: list[list[str]] | None
    dropped: tuple[str, ...]
    positions: list[Tensor] | None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the stored values."""
        return self.image(0, 0).dtype

    @property
    def channels(self) -> int:
        """Channels of each capture."""
        return len(self.image(0, 0))

    @property
    def dims(self) -> int:
        """Spatial axes: 2 of images, 3 of volumes."""
        return len(self.image(0, 0).shape) - 1

    @property
    def smallest(self) -> tuple[int, ...]:
        """Height and width, or depth, height and width, that all images have."""
        sizes = self.sizes(self.indices)
        return tuple(sizes.amin(0).tolist())

    @property
    def stackable(self) -> bool:
        """True if the captures are images of one size, not volumes: several fit in a batch."""
        return self.one_size and self.dims == 2

    @property
    def is_large(self) -> bool:
        """True if an array of captures is large; what concerns all of it is sampled then."""
        array = self.arrays(1)[0]
        return is_large(array.shape, array.dtype.itemsize)

    @property
    def in_place(self) -> bool:
        """True if the values are packed, and stay in their files until they are needed."""
        return isinstance(self.arrays(1)[0], RegionTensor)

    @abstractmethod
    def arrays(self, most: int) -> list[Tensor]:
        """Return the arrays that the first two captures of scenes are stored in.

        Args:
            most: scenes of different sizes, evenly spread, at most.

        Returns:
            (N, C, H, W) or (N, C, D, H, W) of scenes of one size, or (C, H, W) or (C, D, H, W).
        """

    @property
    def indices(self) -> Tensor:
        """The numbers of all scenes, (N,)."""
        return torch.arange(len(self.names))

    @property
    def counts_of_all(self) -> list[int]:
        """Captures of each scene."""
        counts: list[int] = self.captures(self.indices).tolist()
        return counts

    def count_of(self, scene: int) -> int:
        """Return the captures of one scene.

        Args:
            scene: its number.

        Returns:
            How many there are.
        """
        return int(self.captures(torch.tensor([scene]))[0])

    @abstractmethod
    def sizes(self, scene: Tensor) -> Tensor:
        """Return the sizes of some scenes.

        Args:
            scene: numbers of scenes, (B,).

        Returns:
            Lengths of the spatial axes of each, (B, 2) or (B, 3).
        """

    @abstractmethod
    def captures(self, scene: Tensor) -> Tensor:
        """Return the numbers of captures of some scenes.

        Args:
            scene: numbers of scenes, (B,).

        Returns:
            Captures of each, (B,).
        """

    @abstractmethod
    def take(
        self,
        scene: Tensor,
        capture: Tensor,
        window: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """Return one capture of each of some scenes of one size, or windows of any, as a batch.

        Args:
            scene: numbers of scenes, (B,).
            capture: the number of the capture of each, (B,).
            window: indices of C and of each spatial axis, which broadcast to (B, C, h, w); empty:
                whole images.

        Returns:
            Stored values, (B, C, h, w) or (B, C, d, h, w).
        """

    def take_onto(
        self,
        scene: Tensor,
        capture: Tensor,
        onto: Tensor,
        window: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """Return captures as `take` does, moved by whole pixels onto others of their scenes.

        Args:
            scene: numbers of scenes, (B,).
            capture: the number of the capture of each, (B,).
            onto: the number of the capture of each that it is to lie on, (B,).
            window: see `take`, in the pixels of `onto`.

        Returns:
            As of `take`; with `positions`, float, NaN where a capture does not reach.
        """
        if self.positions is None:
            return self.take(scene, capture, window)
        size = self.sizes(scene)
        if not window:
            window = self._whole(scene)
        offsets = self.offsets(scene, capture, onto)
        channel, *spatial = window
        places = []
        inside = torch.ones(1, dtype=torch.bool)
        for axis, index in enumerate(spatial):
            offset = offsets[:, axis].view(-1, 1, 1, 1)
            last = size[:, axis].view(-1, 1, 1, 1) - 1
            place = index + offset
            nearest = torch.minimum(place.clamp(min=0), last)
            inside = inside & (place == nearest)
            places.append(nearest)
        stored = self.take(scene, capture, (channel, *places))
        wide = stored.dtype.itemsize > 2 and stored.dtype != torch.float32
        values = stored.double() if wide else stored.float()
        return values.masked_fill(~inside, torch.nan)

    def _whole(self, scene: Tensor) -> tuple[Tensor, ...]:
        """Return the window of whole images, see `take`."""
        height, width = self.sizes(scene)[0].tolist()
        count = len(scene)
        channels = torch.arange(self.channels).view(1, -1, 1, 1)
        rows = torch.arange(height).view(1, 1, -1, 1).expand(count, 1, -1, 1)
        columns = torch.arange(width).view(1, 1, 1, -1).expand(count, 1, 1, -1)
        return channels, rows, columns

    def offsets(self, scene: Tensor, capture: Tensor, onto: Tensor) -> Tensor:
        """Return how far scenes have moved from one capture to another.

        Args:
            scene, capture, onto: see `take_onto`.

        Returns:
            Whole rows and columns, (B, 2); without `positions` 0.
        """
        if self.positions is None:
            return torch.zeros(len(scene), 2, dtype=torch.long)
        ways = []
        numbers = torch.stack((scene, capture, onto), 1)
        for i, k, other in numbers.tolist():
            of_scene = self.positions[i]
            ways.append(of_scene[k] - of_scene[other])
        return torch.stack(ways).round().long()

    def image_onto(self, scene: int, capture: int, onto: int) -> Tensor:
        """Return one capture as `image` does, moved by whole pixels onto another of its scene.

        Args:
            scene: its scene.
            capture: its number in the scene.
            onto: the number of the other one.

        Returns:
            As of `image`; with `positions`, float, NaN where it does not reach.
        """
        if self.positions is None:
            return self.image(scene, capture)
        numbers = torch.tensor([[scene], [capture], [onto]])
        return self.take_onto(*numbers)[0]

    @abstractmethod
    def image(self, scene: int, capture: int) -> Tensor:
        """Return one capture, not copied.

        Args:
            scene: its scene.
            capture: its number in the scene.

        Returns:
            Stored values, (C, H, W) or (C, D, H, W).
        """

    @abstractmethod
    def wanted(self, scene: int) -> Tensor:
        """List the captures of a scene that may be targets.

        Args:
            scene: its number.

        Returns:
            Numbers of captures, (n,).
        """

    @abstractmethod
    def part(self, which: Tensor) -> "SceneSet":
        """Choose some of the scenes.

        Args:
            which: their numbers, (n,).

        Returns:
            These, not copied where that is possible.
        """

    @abstractmethod
    def mapped(self, change: Callable[[Tensor], Tensor]) -> "SceneSet":
        """Return the same scenes with each stored tensor changed.

        Args:
            change: takes stored values, (n, ...), and returns others of that shape.

        Returns:
            New scenes; all else is as it was.
        """

    @abstractmethod
    def as_one_size(self) -> "EqualSizeScenes":
        """Convert a single scene to one of EqualSizeScenes.

        Returns:
            The scene, not copied.
        """

    def planes(self, most: int = PLANES_PER_VOLUME) -> "SceneSet":
        """Return images as they are, and planes of volumes as scenes.

        Args:
            most: planes of each volume, evenly spread, at most.

        Returns:
            Scenes of images, in the order of the volumes.
        """
        if self.dims == 2:
            return self
        images: list[list[Tensor]] = []
        names = []
        for i, count in enumerate(self.counts_of_all):
            name = self.names[i]
            captures = [self.image(i, k) for k in range(count)]
            _, depth, _, _ = captures[0].shape
            for z in axes.evenly(depth, most):
                images.append([capture[:, z] for capture in captures])
                names.append(f"{name}, plane {z}")
        return MixedSizeScenes(images, names, self.nodata_values, self.unit)

    def keep(self, chosen: list[Tensor], targets: list[Tensor] | None = None) -> "SceneSet":
        """Return some captures of each scene, not copied.

        Args:
            chosen: of each scene the numbers of the captures that stay, two or more.
            targets: whether each of these may be a target; None: all may.

        Returns:
            The same scenes with fewer captures; themselves where nothing changes.
        """
        lengths = [len(numbers) for numbers in chosen]
        if targets is None and lengths == self.counts_of_all:
            return self
        images = []
        for i, numbers in enumerate(chosen):
            images.append([self.image(i, k) for k in numbers.tolist()])
        mixed = MixedSizeScenes(images, self.names, self.nodata_values, self.unit)
        positions = chosen_positions(self.positions, chosen)
        return replace(mixed, targets=targets, dropped=self.dropped, positions=positions)


@dataclass
class EqualSizeScenes(SceneSet):
    """Captures of N scenes of one size, in stacks.

    K tensors (N, C, H, W), or one with all where scenes have different numbers of captures.

    Attributes:
        frames: the K tensors, or one (sum of counts, C, H, W), scene after scene; of volumes (N, C,
            D, H, W).
        counts: captures of each scene, (N,), where `frames` is one tensor; else None.
        rows: with `counts`: which rows of the one tensor the captures are, (sum of counts,); None:
            all, in order.
        targets: with `counts`: whether a capture may be a target, (sum of counts,); None: all may.
        names, nodata_values, unit, layout, frame_names, dropped, positions: see SceneSet.
    """

    one_size = True
    frames: list[Tensor]
    names: list[str]
    counts: Tensor | None = None
    nodata_values: tuple[float, ...] = ()
    unit: tuple[float, float] = (1.0, 0.0)
    layout: Layout | None = None
    rows: Tensor | None = None
    targets: Tensor | None = None
    frame_names: list[list[str]] | None = None
    dropped: tuple[str, ...] = ()
    positions: list[Tensor] | None = None

    def sizes(self, scene: Tensor) -> Tensor:
        """See SceneSet."""
        size = axes.size(self.frames[0])
        return torch.tensor([size]).expand(len(scene), -1)

    def captures(self, scene: Tensor) -> Tensor:
        """See SceneSet."""
        if self.counts is None:
            return torch.full_like(scene, len(self.frames))
        return self.counts[scene]

    def take(
        self,
        scene: Tensor,
        capture: Tensor,
        window: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """See SceneSet."""
        if self.counts is not None:
            starts = self.counts.cumsum(0) - self.counts
            place = starts[scene] + capture
            if self.rows is not None:
                place = self.rows[place]
            return _indexed(self.frames[0], place, window)
        if (capture == capture[0]).all():
            return _indexed(self.frames[int(capture[0])], scene, window)
        parts = []
        places = []
        for k, frames in enumerate(self.frames):
            chosen = (capture == k).nonzero().flatten()
            if not len(chosen):
                continue
            view = tuple(index[chosen] if len(index) > 1 else index for index in window)
            part = _indexed(frames, scene[chosen], view)
            parts.append(part)
            places.append(chosen)
        order = torch.cat(places).argsort()
        return torch.cat(parts)[order]

    def arrays(self, most: int) -> list[Tensor]:
        """See SceneSet."""
        return self.frames[:2]

    def image(self, scene: int, capture: int) -> Tensor:
        """See SceneSet."""
        if self.counts is None:
            return self.frames[capture][scene]
        place = int(self.counts[:scene].sum()) + capture
        if self.rows is not None:
            place = int(self.rows[place])
        return self.frames[0][place]

    def wanted(self, scene: int) -> Tensor:
        """See SceneSet."""
        count = self.count_of(scene)
        if self.targets is None or self.counts is None:
            return torch.arange(count)
        start = int(self.counts[:scene].sum())
        of_scene = self.targets[start : start + count]
        return of_scene.nonzero().flatten()

    def part(self, which: Tensor) -> "EqualSizeScenes":
        """See SceneSet; a slice of the scenes, and frames of movies, are not copied."""
        numbers = which.tolist()
        names = [self.names[i] for i in numbers]
        positions = None
        if self.positions is not None:
            positions = [self.positions[i] for i in numbers]
        if self.counts is None:
            in_order = range(numbers[0], numbers[0] + len(numbers))
            index: slice | Tensor = which
            if numbers == list(in_order):
                index = slice(in_order.start, in_order.stop)
            frames = [stack[index] for stack in self.frames]
            return replace(self, frames=frames, names=names, positions=positions)
        owner = torch.repeat_interleave(self.indices, self.counts)
        of_scenes = [(owner == i).nonzero().flatten() for i in which]
        places = torch.cat(of_scenes)
        rows = places if self.rows is None else self.rows[places]
        targets = None if self.targets is None else self.targets[places]
        return replace(
            self,
            names=names,
            counts=self.counts[which],
            rows=rows,
            targets=targets,
            positions=positions,
        )

    def region(self, *part: slice) -> "EqualSizeScenes":
        """Cut all scenes to a part of their pixels.

        Args:
            *part: a slice of each spatial axis.

        Returns:
            The same scenes, not copied.
        """
        where: Any = (..., *part)
        frames = [stack[where] for stack in self.frames]
        return replace(self, frames=frames)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "EqualSizeScenes":
        """See SceneSet."""
        frames = [change(stack) for stack in self.frames]
        return replace(self, frames=frames)

    def as_one_size(self) -> "EqualSizeScenes":
        """See SceneSet."""
        return self

    def keep(self, chosen: list[Tensor], targets: list[Tensor] | None = None) -> SceneSet:
        """See SceneSet; where scenes have different numbers of captures, only their rows change."""
        if self.counts is None:
            return super().keep(chosen, targets)
        starts = self.counts.cumsum(0) - self.counts
        places = []
        for start, numbers in zip(starts, chosen, strict=True):
            places.append(start + numbers)
        rows = torch.cat(places)
        counts = [len(numbers) for numbers in chosen]
        return replace(
            self,
            counts=torch.tensor(counts),
            rows=rows if self.rows is None else self.rows[rows],
            targets=None if targets is None else torch.cat(targets),
            frame_names=None,
            positions=chosen_positions(self.positions, chosen),
        )


@dataclass
class MixedSizeScenes(SceneSet):
    """Captures of scenes of any sizes.

    Attributes:
        images: of each scene its captures, (C, H, W) or (C, D, H, W).
        targets: of each scene whether a capture may be a target, (n,); None: all may.
        names, nodata_values, unit, layout, frame_names, dropped, positions: see SceneSet.
    """

    one_size = False
    images: list[list[Tensor]]
    names: list[str]
    nodata_values: tuple[float, ...] = ()
    unit: tuple[float, float] = (1.0, 0.0)
    layout: Layout | None = None
    targets: list[Tensor] | None = None
    frame_names: list[list[str]] | None = None
    dropped: tuple[str, ...] = ()
    positions: list[Tensor] | None = None

    def sizes(self, scene: Tensor) -> Tensor:
        """See SceneSet."""
        first_captures = [self.images[i][0] for i in scene.tolist()]
        sizes = [image.shape[1:] for image in first_captures]
        return torch.tensor(sizes)

    def captures(self, scene: Tensor) -> Tensor:
        """See SceneSet."""
        counts = [len(self.images[i]) for i in scene.tolist()]
        return torch.tensor(counts)

    def take(
        self,
        scene: Tensor,
        capture: Tensor,
        window: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """See SceneSet."""
        images = []
        for i in range(len(scene)):
            image = self.image(int(scene[i]), int(capture[i]))
            if window:
                _, *spatial = window
                place: Any = [index[i, 0] for index in spatial]
                image = image[:, *place]
            images.append(loaded(image))
        return torch.stack(images)

    def arrays(self, most: int) -> list[Tensor]:
        """See SceneSet."""
        arrays = []
        for scene in axes.evenly(len(self.images), most):
            arrays += self.images[scene][:2]
        return arrays

    def image(self, scene: int, capture: int) -> Tensor:
        """See SceneSet."""
        return self.images[scene][capture]

    def wanted(self, scene: int) -> Tensor:
        """See SceneSet."""
        if self.targets is None:
            return torch.arange(len(self.images[scene]))
        return self.targets[scene].nonzero().flatten()

    def part(self, which: Tensor) -> "MixedSizeScenes":
        """See SceneSet."""
        chosen = which.tolist()
        targets = None if self.targets is None else [self.targets[i] for i in chosen]
        positions = None if self.positions is None else [self.positions[i] for i in chosen]
        images = [self.images[i] for i in chosen]
        names = [self.names[i] for i in chosen]
        return replace(
            self,
            images=images,
            names=names,
            targets=targets,
            positions=positions,
        )

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "MixedSizeScenes":
        """See SceneSet."""
        images = []
        for captures in self.images:
            images.append([change(capture) for capture in captures])
        return replace(self, images=images)

    def as_one_size(self) -> EqualSizeScenes:
        """See SceneSet."""
        (captures,) = self.images
        frames = [capture[None] for capture in captures]
        scenes = EqualSizeScenes(frames, self.names, None, self.nodata_values, self.unit)
        return replace(scenes, positions=self.positions)


def chosen_positions(positions: list[Tensor] | None, chosen: list[Tensor]) -> list[Tensor] | None:
    """Return the positions of some captures of each scene, by their numbers; None: not known."""
    if positions is None:
        return None
    return [of_scene[numbers] for of_scene, numbers in zip(positions, chosen, strict=True)]


def _indexed(
    frames: Tensor,
    index: Tensor,
    window: tuple[Tensor, ...],
) -> Tensor:
    """Return rows of stacked captures, (B,), each cut to its window."""
    if not window:
        whole: Tensor = loaded(frames[index])
        return whole
    dims = [1] * len(window)
    rows = index.view(-1, *dims)
    return frames[rows, *window]


def middle(image: Tensor, most: int | Sequence[int]) -> Tensor:
    """Cut an image to its middle; not copied.

    Args:
        image: (C, H, W) or (C, D, H, W).
        most: pixels of a side at most: one number, or one of each spatial axis.

    Returns:
        The middle; the image itself where no side is longer.
    """
    _, *size = image.shape
    if isinstance(most, int):
        most = [most] * len(size)
    for i, longest in enumerate(most):
        side = size[i]
        shown = min(side, longest)
        start = (side - shown) // 2
        image = image.narrow(1 + i, start, shown)
    return image
