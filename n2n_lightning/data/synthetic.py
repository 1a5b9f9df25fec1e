"""Clean photographs that get their noise at each visit."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.data.augment import to_float
from n2n_lightning.data.batches import Key
from n2n_lightning.files import room
from n2n_lightning.noise import Noise, Pixelate, generator


class Whole(Dataset):
    """Whole clean images of any sizes, uint8 or uint16 (C, H, W), one per batch, for validation with seeded noise."""

    def __init__(self, images: Sequence[Tensor]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        return {"image": self.images[int(key.images)][None], **key.identity()}


class Crops(Dataset):
    """Random crops of clean photographs of any sizes, new in every epoch; photos are (C, H, W), all of one type.

    With `zoom`, a crop is a square of so many times the shorter side of its photo, uniform in the side or, with `area`,
    in the area. It is sampled without interpolation on size*block pixels per side (interpolation would smooth what the
    noise is made of), and mirrored half of the time. Without, it is size*block pixels of the photo as they are. A deque
    of photos is emptied, so that none is held twice.
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

    def __getitem__(self, key: Key) -> dict[str, Any]:
        if not self.noise.frozen:
            photos = key.visited(self.count, len(self.starts))
            return {**self._batch(photos, key.epoch, key.number), **key.identity()}
        # Frozen noise belongs to the image, whatever batch it is in, so each image has a generator of its own.
        parts = [self._batch(key.images[i : i + 1], "frozen", int(n)) for i, n in enumerate(key.images)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} | key.identity()

    def _batch(self, images: Tensor, *where_used: Any) -> dict[str, Tensor]:
        draws = generator(self.seed, "crops", *where_used)
        where = self._place(images, draws)
        if not isinstance(self.noise, Pixelate):
            return {"image": self._take(where, *self._grid(len(images)))}
        # This noise is a way of sampling the photo: only the pixels that it draws are read, not whole crops.
        noisy = self._sample(where, draws)
        if self.supervised:
            return {"input": noisy, "target": self.noise.clean(to_float(self._take(where, *self._grid(len(images)))))}
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
            share = (low**2 + (high**2 - low**2) * u[0]).sqrt() if self.area else low + (high - low) * u[0]
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
