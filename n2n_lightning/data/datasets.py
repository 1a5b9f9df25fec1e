"""Datasets: pairs drawn from scenes, fixed validation pairs, and crops of clean images."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.data.augmentation import to_float
from n2n_lightning.data.samplers import BatchIndex
from n2n_lightning.data.scenes import SceneSet
from n2n_lightning.files import room
from n2n_lightning.noise import Noise, Pixelate
from n2n_lightning.randomness import generator


class WholeImages(Dataset):
    """Whole clean images of any sizes, uint8 or uint16 (C, H, W), one per batch, for validation with seeded noise."""

    def __init__(self, images: Sequence[Tensor]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: BatchIndex) -> dict[str, Any]:
        return {"image": self.images[int(key.images)][None], **key.identity()}


class Crops(Dataset):
    """Random crops of clean photographs of any sizes, new in every epoch; photos are (C, H, W), all of one type.

    With `zoom`, a crop is a square of so many times the shorter side of its photo, uniform in the
    side or, with `area`, in the area. It is sampled without interpolation on size*block pixels per
    side (interpolation would smooth what the noise is made of), and mirrored half of the time.
    Without, it is size*block pixels of the photo as they are. A deque of photos is emptied, so that
    none is held twice.
    """

    def __init__(
        self,
        photos: Sequence[Tensor],
        count: int,
        size: int,
        noise: Noise,
        seed: int,
        zoom: tuple[float, float] | None,
        supervised: bool = False,
        area: bool = False,
    ) -> None:
        self.area = area
        self.count, self.size, self.noise, self.seed, self.zoom = count, size, noise, seed, zoom
        self.supervised = supervised
        # All photos in one long row of pixels: a whole batch is then one indexing operation.
        self.heights = torch.tensor([photo.shape[1] for photo in photos])
        self.widths = torch.tensor([photo.shape[2] for photo in photos])
        areas = self.heights * self.widths
        self.starts = areas.cumsum(0) - areas
        some = photos[0][:, :1, :1].numpy()
        self.pixels = torch.from_numpy(room((int(areas.sum()), len(some)), some.dtype))
        left = photos if isinstance(photos, deque) else deque(photos)
        for start, area in zip(self.starts.tolist(), areas.tolist(), strict=True):
            self.pixels[start : start + area] = left.popleft().flatten(1).T

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: BatchIndex) -> dict[str, Any]:
        if not self.noise.frozen:
            photos = key.scene_index(self.count, len(self.starts))
            return {**self._batch(photos, key.epoch, key.number), **key.identity()}
        # Frozen noise belongs to the image, whatever batch it is in, so each image has a generator
        # of its own.
        parts = [
            self._batch(key.images[i : i + 1], "frozen", int(n)) for i, n in enumerate(key.images)
        ]
        return {
            name: torch.cat([part[name] for part in parts]) for name in parts[0]
        } | key.identity()

    def _batch(self, images: Tensor, *where_used: Any) -> dict[str, Tensor]:
        draws = generator(self.seed, "crops", *where_used)
        where = self._place(images, draws)
        if not isinstance(self.noise, Pixelate):
            return {"image": self._take(where, *self._grid(len(images)))}
        # This noise is a way of sampling the photo: only the pixels that it draws are read, not
        # whole crops.
        noisy = self._sample(where, draws)
        if self.supervised:
            return {
                "input": noisy,
                "target": self.noise.clean(to_float(self._take(where, *self._grid(len(images))))),
            }
        return {"input": noisy, "target": self._sample(where, draws)}

    def reference(self) -> tuple[Tensor, Tensor]:
        """`count` crops as noisy and clean images for validation, the same for every seed: (count, C, size, size)."""
        noisy, clean = [], []
        for number, images in enumerate(torch.arange(self.count).split(64)):
            draws = generator("validation", number)
            image = to_float(self._take(self._place(images, draws), *self._grid(len(images))))
            noisy.append(self.noise(image, draws))
            clean.append(self.noise.clean(image))
        return torch.cat(noisy), torch.cat(clean)

    def _place(self, images: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
        """Photo, top, left, side and mirroring of each crop, each (B, 1, 1)."""
        photo = images % len(self.starts)
        height, width = self.heights[photo], self.widths[photo]
        u = torch.rand(4, len(images), generator=draws)
        if self.zoom:
            low, high = self.zoom
            share = (
                (low**2 + (high**2 - low**2) * u[0]).sqrt()
                if self.area
                else low + (high - low) * u[0]
            )
            side = (torch.minimum(height, width) * share).long().clamp(min=1)
        else:
            side = torch.full_like(height, self.size * self.noise.block)
        place = {
            "start": self.starts[photo],
            "width": width,
            "top": (u[1] * (height - side + 1)).long(),
            "left": (u[2] * (width - side + 1)).long(),
            "side": side,
            "mirror": u[3] < (0.5 if self.zoom else 0.0),
        }
        return {name: value[:, None, None] for name, value in place.items()}

    def _grid(self, count: int) -> tuple[Tensor, Tensor]:
        """Rows and columns of every pixel of a crop, each (count, size*block, size*block)."""
        full = torch.arange(self.size * self.noise.block)
        rows, columns = torch.meshgrid(full, full, indexing="ij")
        return rows.expand(count, *rows.shape), columns.expand(count, *columns.shape)

    def _sample(self, where: dict[str, Tensor], draws: torch.Generator) -> Tensor:
        """The crops seen through Pixelate: (B, C, size, size)."""
        assert isinstance(self.noise, Pixelate)
        dy, dx = self.noise.offsets(len(where["start"]), self.size, self.size, draws)
        cell = torch.arange(self.size) * self.noise.block
        sampled = self._take(where, cell[:, None] + dy, cell + dx)
        return sampled if self.noise.sigma == 0 else self.noise.on_top(to_float(sampled), draws)

    def _take(self, where: dict[str, Tensor], rows: Tensor, columns: Tensor) -> Tensor:
        """The pixels at (rows, columns) of each crop's size*block grid: (B, H, W) each -> (B, C, H, W)."""
        full = self.size * self.noise.block
        columns = torch.where(where["mirror"], full - 1 - columns, columns)
        y = where["top"] + (2 * rows + 1) * where["side"] // (2 * full)
        x = where["left"] + (2 * columns + 1) * where["side"] // (2 * full)
        return self.pixels[where["start"] + y * where["width"] + x].permute(0, 3, 1, 2)


class Captures(Dataset):
    """Noisy captures of scenes; a batch takes an ordered pair of different captures of each scene.

    Args:
        scenes: the captures.
        seed: of the choices below.
        swap: take a random ordered pair of the captures; otherwise the first is the input, the
            second the target.
        clean: train towards these images, one of each scene, instead (supervised training, for
            comparison).
        crop: sides of a random window, (H, W) or (D, H, W), the same for both; None takes whole
            images.
        count: images per epoch; item i is of scene i modulo their number.
        within: captures that are more than so many apart are no pair; None: all are.
        pairs: with `swap`, the numbers (input, target) of the captures that are paired; None: all
            of them, any order.
    """

    def __init__(
        self,
        scenes: SceneSet,
        seed: int,
        swap: bool,
        clean: SceneSet | None = None,
        crop: Sequence[int] | None = None,
        count: int | None = None,
        within: int | None = None,
        pairs: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self.scenes, self.seed, self.swap, self.clean, self.within = (
            scenes,
            seed,
            swap,
            clean,
            within,
        )
        self.pairs = torch.tensor(pairs) if pairs else None
        self.count = count or len(scenes.names)
        self.window = (
            tuple(min(sides) for sides in zip(crop, scenes.smallest, strict=True)) if crop else None
        )
        self.inside = (
            ForegroundSampler.of(scenes, self.window)
            if self.window and len(self.window) == 3
            else None
        )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: BatchIndex) -> dict[str, Any]:
        scene = key.scene_index(self.count, len(self.scenes.names))
        draws = generator(self.seed, "captures", key.epoch, key.number)
        u = torch.rand(4, len(scene), generator=draws)
        window = self._window(scene, u[:2], draws) if self.window else ()
        first, second = torch.zeros_like(scene), torch.ones_like(scene)
        if self.swap and self.pairs is not None:
            first, second = self.pairs[(u[2] * len(self.pairs)).long()].unbind(1)
        elif self.swap:
            first, second = self._pair(self.scenes.captures(scene), u[2], u[3])
        noisy = self.scenes.take(scene, first, window)
        others, capture = (self.scenes, second) if self.clean is None else (self.clean, 0 * scene)
        return {"input": noisy, "target": others.take(scene, capture, window), **key.identity()}

    def _pair(self, count: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of two different captures out of `count`, (B,) each, from uniform numbers in [0, 1)."""
        first = (u * count).long()
        if self.within is None:
            return first, (first + 1 + (v * (count - 1)).long()) % count
        low, high = (
            (first - self.within).clamp(min=0),
            torch.minimum(first + self.within, count - 1),
        )
        second = low + (v * (high - low)).long()  # of those beside the first one, which is left out
        return first, second + (second >= first)

    def _window(self, scene: Tensor, u: Tensor, draws: torch.Generator) -> tuple[Tensor, ...]:
        """Index of C and of each spatial axis of a random window for each image.

        Args:
            scene: (B,).
            u: uniform numbers for height and width, (2, B).
            draws: for the depth of volumes.
        """
        assert self.window
        sizes, sides = self.scenes.sizes(scene), torch.tensor(self.window)
        if len(sides) == 3:
            u = torch.cat((torch.rand(1, len(scene), generator=draws), u))
        starts = (u.T * (sizes - sides + 1)).long()
        if self.inside is not None:
            starts = self.inside.moved(scene, starts, draws)
        dims = len(sides)
        index = [torch.arange(self.scenes.channels).view(1, -1, *[1] * dims)]
        for axis in range(dims):
            along = starts[:, axis, None] + torch.arange(self.window[axis])
            index.append(along.view(len(scene), 1, *[-1 if k == axis else 1 for k in range(dims)]))
        return tuple(index)


class ForegroundSampler:
    """Where windows of volumes show something: not outside of the specimen, where all voxels are one value or NaN.

    Volumes are cut into cells of the size of a window; a cell counts where some of its voxels,
    evenly spread, differ. Windows that begin in another cell are moved into one that counts.
    """

    def __init__(self, cells: list[Tensor], window: Sequence[int], limits: Tensor) -> None:
        self.cells, self.window, self.limits = cells, torch.tensor(window), limits

    @classmethod
    def of(cls, scenes: SceneSet, window: Sequence[int]) -> "ForegroundSampler | None":
        """That of some scenes; None where every cell counts."""
        found, empty = [], False
        for i in range(len(scenes.names)):
            volume = scenes.image(i, 0)
            kept = []
            corners = [
                range(0, max(n - w, 0) + 1, w)
                for n, w in zip(volume.shape[1:], window, strict=True)
            ]
            for corner in product(*corners):
                part = volume[
                    (
                        slice(0, 1),
                        *(
                            slice(c, c + w, max(1, w // 6))
                            for c, w in zip(corner, window, strict=True)
                        ),
                    )
                ]
                part = part.double()  # torch has no minimum of unsigned 16 bit integers
                known = part[part.isfinite()]
                if len(known) > 0.5 * part.numel() and known.min() < known.max():
                    kept.append(corner)
                else:
                    empty = True
            found.append(torch.tensor(kept).view(-1, len(window)))
        return cls(found, window, scenes.sizes(torch.arange(len(scenes.names)))) if empty else None

    def moved(self, scene: Tensor, starts: Tensor, draws: torch.Generator) -> Tensor:
        """First voxels of windows, (B, 3), those outside of the specimen at other places within it."""
        u = torch.rand(4, len(scene), generator=draws)
        result = starts.clone()
        for b, i in enumerate(scene.tolist()):
            cells = self.cells[i]
            near = starts[b] // self.window * self.window
            if not len(cells) or (cells == near).all(1).any():
                continue
            cell = cells[int(u[0, b] * len(cells))]
            shifted = cell + ((u[1:, b] - 0.5) * self.window / 2).long()
            result[b] = torch.minimum(shifted.clamp(min=0), self.limits[i] - self.window)
        return result


@dataclass
class MixedSizePairs(Dataset):
    """Fixed pairs for validation, of any sizes: one per batch."""

    noisy: Sequence[Tensor]
    reference: Sequence[Tensor]
    scene: Tensor | None = None

    def __len__(self) -> int:
        return len(self.noisy)

    def __getitem__(self, key: BatchIndex) -> dict[str, Any]:
        i = int(key.images)
        scene = key.images if self.scene is None else self.scene[key.images]
        return {
            "input": self.noisy[i][None],
            "target": self.reference[i][None],
            "scene": scene,
            **key.identity(),
        }


class Pairs(Dataset):
    """Fixed pairs for validation: noisy and reference images, both (N, C, H, W); `scene` says which belong together."""

    def __init__(self, noisy: Tensor, reference: Tensor, scene: Tensor | None = None) -> None:
        self.noisy, self.reference = noisy, reference
        self.scene = torch.arange(len(noisy)) if scene is None else scene

    def __len__(self) -> int:
        return len(self.noisy)

    def __getitem__(self, key: BatchIndex) -> dict[str, Any]:
        pair = {
            "input": self.noisy[key.images],
            "target": self.reference[key.images],
            "scene": self.scene[key.images],
        }
        return {**pair, **key.identity()}
