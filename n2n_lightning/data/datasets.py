"""Datasets: pairs drawn from scenes, fixed validation pairs, and crops of clean images."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.data.augmentation import to_float
from n2n_lightning.data.region_tensor import loaded
from n2n_lightning.data.samplers import BatchIndex
from n2n_lightning.data.scene_set import SceneSet
from n2n_lightning.files import room
from n2n_lightning.noise import Noise, Pixelate
from n2n_lightning.randomness import generator

REFERENCE_BATCH = 64  # validation crops whose noise is drawn together
SAMPLES_PER_SIDE = 6  # of a cell of a volume, which tell if it is empty
# cells that are drawn for a window outside of the specimen: one of them is in it in 96 of 100 cases
# where 5 of 100 cells are
CELLS_TRIED = 64
LEAST_KNOWN = 0.5  # of these samples; with less, most of a cell lies outside of the specimen


class WholeImages(Dataset):
    """Whole clean images of any sizes, one per batch, for validation with seeded noise.

    Args:
        images: uint8 or uint16, (C, H, W) each.
    """

    def __init__(self, images: Sequence[Tensor]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: BatchIndex) -> dict[str, Any]:
        return {
            "image": self.images[int(key.images)][None],
            **key.identity(),
        }


class Crops(Dataset):
    """Random crops of clean photographs of any sizes, new in every epoch.

    With `zoom`, a crop is a square whose side is a share of the shorter side of its photo. It is
    sampled without interpolation on size*block pixels per side (interpolation would smooth what
    the noise is made of), and mirrored half of the time. Without, it is size*block pixels of the
    photo as they are.

    Args:
        photos: (C, H, W) each, all of one type; a deque is emptied, so that none is held twice.
        count: crops per epoch.
        size: height and width of the noisy images; noise may take `block` pixels for one.
        noise: the corruption; it is drawn here only where it is a way of sampling (Pixelate).
        seed: of the crops.
        zoom: smallest and largest share; None: pixels as they are.
        supervised: targets are clean.
        area: shares are uniform in the area, not in the side.
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
        self.count = count
        self.size = size
        self.noise = noise
        self.seed = seed
        self.zoom = zoom
        self.supervised = supervised
        self.area = area
        # All photos in one long row of pixels: a whole batch is then one indexing operation.
        self.heights = torch.tensor([photo.shape[1] for photo in photos])
        self.widths = torch.tensor([photo.shape[2] for photo in photos])
        areas = self.heights * self.widths
        self.starts = areas.cumsum(0) - areas
        pixel = photos[0][:, :1, :1].numpy()
        shape = (int(areas.sum()), len(pixel))
        self.pixels = torch.from_numpy(room(shape, pixel.dtype))
        queue = photos if isinstance(photos, deque) else deque(photos)
        for start, length in zip(self.starts.tolist(), areas.tolist(), strict=True):
            photo = queue.popleft()
            self.pixels[start : start + length] = photo.flatten(1).T

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: BatchIndex) -> dict[str, Any]:
        if not self.noise.frozen:
            photos = key.scene_index(self.count, len(self.starts))
            return {
                **self._batch(photos, key.epoch, key.number),
                **key.identity(),
            }
        # Frozen noise belongs to the image, whatever batch it is in, so each image has a generator
        # of its own.
        parts = []
        for i, number in enumerate(key.images.tolist()):
            image = key.images[i : i + 1]
            parts.append(self._batch(image, "frozen", number))
        batch: dict[str, Any] = {}
        for name in parts[0]:
            batch[name] = torch.cat([part[name] for part in parts])
        return batch | key.identity()

    def _batch(self, images: Tensor, *where_used: Any) -> dict[str, Tensor]:
        """Return crops of some photos; `where_used` is the key of their random draws."""
        draws = generator(self.seed, "crops", *where_used)
        where = self._place(images, draws)
        if not isinstance(self.noise, Pixelate):
            return {"image": self._take(where, *self._grid(len(images)))}
        # This noise is a way of sampling the photo: only the pixels that it draws are read, not
        # whole crops.
        noisy = self._sample(where, draws)
        if not self.supervised:
            return {
                "input": noisy,
                "target": self._sample(where, draws),
            }
        whole = self._take(where, *self._grid(len(images)))
        return {
            "input": noisy,
            "target": self.noise.clean(to_float(whole)),
        }

    def reference(self) -> tuple[Tensor, Tensor]:
        """Draw all crops with noise for validation, the same for every seed.

        Returns:
            Noisy and clean images, float, (count, C, size, size) each.
        """
        noisy = []
        clean = []
        for number, images in enumerate(torch.arange(self.count).split(REFERENCE_BATCH)):
            draws = generator("validation", number)
            where = self._place(images, draws)
            image = to_float(self._take(where, *self._grid(len(images))))
            noisy.append(self.noise(image, draws))
            clean.append(self.noise.clean(image))
        return torch.cat(noisy), torch.cat(clean)

    def _place(self, images: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
        """Return photo, top, left, side and mirroring of each crop, each (B, 1, 1)."""
        photo = images % len(self.starts)
        height = self.heights[photo]
        width = self.widths[photo]
        u = torch.rand(4, len(images), generator=draws)
        if self.zoom:
            share = self._share(u[0])
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

    def _share(self, u: Tensor) -> Tensor:
        """Return crop sides as shares of the shorter side, from uniform numbers in [0, 1): (B,)."""
        assert self.zoom
        low, high = self.zoom
        if not self.area:
            return low + (high - low) * u
        share: Tensor = low**2 + (high**2 - low**2) * u
        return share.sqrt()

    def _grid(self, count: int) -> tuple[Tensor, Tensor]:
        """Return rows and columns of all pixels of crops, (count, size*block, size*block) each."""
        full = torch.arange(self.size * self.noise.block)
        rows, columns = torch.meshgrid(full, full, indexing="ij")
        shape = (count, *rows.shape)
        return rows.expand(shape), columns.expand(shape)

    def _sample(self, where: dict[str, Tensor], draws: torch.Generator) -> Tensor:
        """Return the crops as Pixelate samples them: (B, C, size, size)."""
        assert isinstance(self.noise, Pixelate)
        dy, dx = self.noise.offsets(len(where["start"]), self.size, self.size, draws)
        cell = torch.arange(self.size) * self.noise.block
        rows = cell[:, None] + dy
        sampled = self._take(where, rows, cell + dx)
        if self.noise.sigma == 0:
            return sampled
        return self.noise.on_top(to_float(sampled), draws)

    def _take(
        self,
        where: dict[str, Tensor],
        rows: Tensor,
        columns: Tensor,
    ) -> Tensor:
        """Return pixels (B, C, H, W) at rows and columns, (B, H, W), of each crop's grid."""
        full = self.size * self.noise.block
        columns = torch.where(where["mirror"], full - 1 - columns, columns)
        side = where["side"]
        down = (2 * rows + 1) * side // (2 * full)
        right = (2 * columns + 1) * side // (2 * full)
        y = where["top"] + down
        x = where["left"] + right
        index = where["start"] + y * where["width"] + x
        return self.pixels[index].permute(0, 3, 1, 2)


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
        within: captures farther apart than this are no pair; None: all are.
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
        self.scenes = scenes
        self.seed = seed
        self.swap = swap
        self.clean = clean
        self.within = within
        self.pairs = torch.tensor(pairs) if pairs else None
        self.count = count or len(scenes)
        self.ahead = scenes.is_large
        self.window: tuple[int, ...] | None = None
        self.foreground: ForegroundSampler | None = None
        if crop:
            sides = zip(crop, scenes.smallest, strict=True)
            self.window = tuple(min(pair) for pair in sides)
            if scenes.dims == 3:
                self.foreground = ForegroundSampler(scenes, self.window)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: BatchIndex) -> dict[str, Any]:
        scene = key.scene_index(self.count, len(self.scenes))
        draws = generator(self.seed, "captures", key.epoch, key.number)
        u = torch.rand(4, len(scene), generator=draws)
        window = self._window(scene, u[:2], draws) if self.window else ()
        first, second = self._numbers(scene, u[2], u[3])
        noisy = self.scenes.take(scene, first, window)
        if self.clean is None:
            target = self.scenes.take_onto(scene, second, first, window)
        else:
            target = self.clean.take(scene, 0 * scene, window)
        return {
            "input": noisy,
            "target": target,
            **key.identity(),
        }

    def _numbers(
        self,
        scene: Tensor,
        u: Tensor,
        v: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the captures that are input and target, (B,) each, from u, v in [0, 1)."""
        if not self.swap:
            return torch.zeros_like(scene), torch.ones_like(scene)
        if self.pairs is None:
            return self._pair(self.scenes.captures(scene), u, v)
        chosen = (u * len(self.pairs)).long()
        first, second = self.pairs[chosen].unbind(1)
        return first, second

    def _pair(
        self,
        count: Tensor,
        u: Tensor,
        v: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return two different captures out of `count`, (B,) each, from u, v in [0, 1)."""
        first = (u * count).long()
        if self.within is None:
            distance = 1 + (v * (count - 1)).long()
            return first, (first + distance) % count
        low = (first - self.within).clamp(min=0)
        high = torch.minimum(first + self.within, count - 1)
        second = low + (v * (high - low)).long()  # of the others, so that the first is skipped
        return first, second + (second >= first)

    def _window(
        self,
        scene: Tensor,
        u: Tensor,
        draws: torch.Generator,
    ) -> tuple[Tensor, ...]:
        """Return the index of C and of each spatial axis of a random window for each image.

        Args:
            scene: (B,).
            u: uniform numbers for height and width, (2, B).
            draws: for the depth of volumes.
        """
        assert self.window
        sizes = self.scenes.sizes(scene)
        sides = torch.tensor(self.window)
        dims = len(sides)
        if dims == 3:
            depth = torch.rand(1, len(scene), generator=draws)
            u = torch.cat((depth, u))
        starts = (u.T * (sizes - sides + 1)).long()
        if self.foreground is not None:
            starts = self.foreground.moved(scene, starts, draws)
        ones = [1] * dims
        index = [torch.arange(self.scenes.channels).view(1, -1, *ones)]
        for axis, side in enumerate(self.window):
            shape = [len(scene), 1, *ones]
            shape[2 + axis] = side
            along = starts[:, axis, None] + torch.arange(side)
            index.append(along.view(shape))
        return tuple(index)


class ForegroundSampler:
    """Moves windows of volumes into the specimen.

    Outside of it all voxels are one value or NaN. Volumes are cut into cells of the size of a
    window; a cell counts where some of its voxels, evenly spread, differ. Windows that begin in
    another cell are moved into one that counts. A cell is read when a window begins in it for the
    first time, so that no volume is read as a whole.

    Args:
        scenes: volumes; the specimen is looked for in the first capture of each.
        window: depth, height and width of windows.
    """

    def __init__(self, scenes: SceneSet, window: Sequence[int]) -> None:
        self.scenes = scenes
        self.window = torch.tensor(window)
        self._known: dict[tuple[int, ...], bool] = {}

    def moved(
        self,
        scene: Tensor,
        starts: Tensor,
        draws: torch.Generator,
    ) -> Tensor:
        """Move windows that begin outside of the specimen to random places within it.

        Args:
            scene: numbers of the volumes, (B,).
            starts: first voxels of the windows, (B, 3).
            draws: random generator.

        Returns:
            First voxels, (B, 3).
        """
        u = torch.rand(3 + CELLS_TRIED, len(scene), generator=draws)
        limits = self.scenes.sizes(scene)
        result = starts.clone()
        for b, i in enumerate(scene.tolist()):
            begun_in = starts[b] // self.window * self.window
            if self._counts(i, begun_in):
                continue
            cell = self._drawn(i, limits[b], u[3:, b])
            if cell is None:
                continue
            jitter = (u[:3, b] - 0.5) * self.window / 2
            shifted = (cell + jitter.long()).clamp(min=0)
            result[b] = torch.minimum(shifted, limits[b] - self.window)
        return result

    def _drawn(self, scene: int, size: Tensor, u: Tensor) -> Tensor | None:
        """Return the first cell that counts of those that are drawn; None: none of them does."""
        cells = ((size - self.window) // self.window + 1).clamp(min=1)
        count = int(cells.prod())
        _, rows, columns = cells.tolist()
        for number in (u.double() * count).long().tolist():
            place, column = divmod(number, columns)
            plane, row = divmod(place, rows)
            cell = torch.tensor([plane, row, column]) * self.window
            if self._counts(scene, cell):
                return cell
        return None

    def _counts(self, scene: int, cell: Tensor) -> bool:
        """Return True if a cell is a part of the specimen."""
        corner = cell.tolist()
        key = (scene, *corner)
        if key not in self._known:
            volume = self.scenes.image(scene, 0)
            self._known[key] = _varies(volume, corner, self.window.tolist())
        return self._known[key]


def _varies(
    volume: Tensor,
    corner: Sequence[int],
    window: Sequence[int],
) -> bool:
    """Return True if some voxels of a cell of a volume (C, D, H, W), evenly spread, differ."""
    place = [slice(0, 1)]
    for start, side in zip(corner, window, strict=True):
        step = max(1, side // SAMPLES_PER_SIDE)
        place.append(slice(start, start + side, step))
    voxels = volume[tuple(place)].double()  # torch has no minimum of unsigned 16 bit integers
    known = voxels[voxels.isfinite()]
    if len(known) <= LEAST_KNOWN * voxels.numel():
        return False
    return bool(known.min() < known.max())


@dataclass
class MixedSizePairs(Dataset):
    """Fixed pairs for validation, of any sizes: one per batch.

    Attributes:
        noisy: (C, H, W) or (C, D, H, W) each.
        reference: clean or other noisy images, of the same sizes.
        scene: which pairs are of one scene, (n,); None: none are.
    """

    noisy: Sequence[Tensor]
    reference: Sequence[Tensor]
    scene: Tensor | None = None

    def __len__(self) -> int:
        return len(self.noisy)

    def __getitem__(self, key: BatchIndex) -> dict[str, Any]:
        i = int(key.images)
        return {
            "input": loaded(self.noisy[i])[None],
            "target": loaded(self.reference[i])[None],
            "scene": key.images if self.scene is None else self.scene[key.images],
            **key.identity(),
        }


class Pairs(Dataset):
    """Fixed pairs for validation, of one size.

    Args:
        noisy: (N, C, H, W).
        reference: clean or other noisy images, likewise.
        scene: which pairs are of one scene, (N,); None: none are.
    """

    def __init__(
        self,
        noisy: Tensor,
        reference: Tensor,
        scene: Tensor | None = None,
    ) -> None:
        self.noisy = noisy
        self.reference = reference
        self.scene = torch.arange(len(noisy)) if scene is None else scene

    def __len__(self) -> int:
        return len(self.noisy)

    def __getitem__(self, key: BatchIndex) -> dict[str, Any]:
        return {
            "input": self.noisy[key.images],
            "target": self.reference[key.images],
            "scene": self.scene[key.images],
            **key.identity(),
        }
