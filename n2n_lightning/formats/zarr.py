"""Zarr stores, OME-Zarr among them: folders with an array in chunks (Moore et al., Histochem. Cell Biol. 2023)."""

import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from n2n_lightning.axes import squeezed
from n2n_lightning.files import InputError, room
from n2n_lightning.formats.picture import Packed, Picture, Values, chosen

METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
LETTERS = {"t": "T", "c": "C", "z": "D", "y": "H", "x": "W"}


class Zarr(Picture):
    """One array of a store of version 2 or 3: the highest resolution of OME-Zarr, or one that is named.

    It is unpacked chunk by chunk, to the disk where it is large, and written in the same chunks. Everything else in the
    store stays as it is, but for smaller resolutions of the same picture, which are left out.
    """

    kind, named, volumes = "Zarr", True, True

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        store: Any = zarr.open(path, mode="r")
        scales = None if isinstance(store, zarr.Array) else self._scales(store)
        letters, spacing = None, None
        self.others: list[str] = []
        if isinstance(store, zarr.Array):
            self.part, array = "", store
        elif scales and part is None:
            self.part, *self.others = (str(level["path"]) for level in scales["datasets"])
            letters, spacing = self._axes(scales)
            array = store[self.part]
        else:
            names = [name for name, item in store.members(max_depth=None) if isinstance(item, zarr.Array)]
            self.part = chosen(path, part, names)
            array = store[self.part]
        if not isinstance(array, zarr.Array):
            raise InputError(f"{path}: its {self.part} is no array")
        if self.others:
            self.note = "without its smaller resolutions"
        self.shape = shape = array.shape
        if letters is not None and len(letters) == len(shape):
            letters, shape = squeezed(letters, shape)
        else:
            letters = None
        if array.dtype.kind not in "iuf":
            raise InputError(f"values of type {array.dtype} are no grey values")

        def unpacked() -> np.ndarray:
            values: np.ndarray = room(array.shape, array.dtype)
            for region in _regions(array):
                values[region] = array[region]
            return values.reshape(shape)

        spacing = spacing if letters and "D" in letters else None
        self.values = [Values(Packed(shape, array.dtype, unpacked), letters, colour=False, spacing=spacing)]

    @staticmethod
    def _scales(store: Any) -> dict[str, Any] | None:
        attributes = dict(store.attrs)
        several = attributes.get("ome", attributes).get("multiscales") or [None]
        found: dict[str, Any] | None = several[0]
        return found if isinstance(found, dict) and found.get("datasets") else None

    @staticmethod
    def _axes(scales: dict[str, Any]) -> tuple[str | None, tuple[float, float, float] | None]:
        """The letters of the axes, and the spacing of voxels."""
        names = [str(axis["name"] if isinstance(axis, dict) else axis).lower() for axis in scales.get("axes") or []]
        if not set(names) <= set(LETTERS) or not {"y", "x"} <= set(names):
            return None, None
        factors: dict[str, float] = {}
        for change in scales["datasets"][0].get("coordinateTransformations") or []:
            if change.get("type") == "scale":
                factors = dict(zip(names, map(float, change["scale"]), strict=False))
        known = [factors.get(name, 0.0) for name in "zyx"]
        return "".join(LETTERS[n] for n in names), (known[0], known[1], known[2]) if min(known) > 0 else None

    def _begin(self, path: Path) -> list[np.ndarray]:
        return [room(self.values[0].shape, self.values[0].dtype)]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        ours = self.path / self.part if self.part else self.path
        smaller = {self.path / name for name in self.others}

        def left_out(folder: str, names: list[str]) -> list[str]:
            here = Path(folder)
            if here == ours or ours in here.parents:  # of the array itself only what says how it is stored
                return [name for name in names if name not in METADATA]
            return [name for name in names if here / name in smaller]

        shutil.copytree(self.path, path, ignore=left_out, dirs_exist_ok=True)
        options: Any = {"use_consolidated": False} if self.part else {}
        store: Any = zarr.open(path, mode="r+", **options)
        if self.others:
            attributes = dict(store.attrs)
            scales = attributes.get("ome", attributes)["multiscales"][0]
            scales["datasets"] = scales["datasets"][:1]
            store.attrs.update(attributes)
            (path / ".zmetadata").unlink(missing_ok=True)  # it repeats what other files say, of the smaller ones, too
        array = store[self.part] if self.part else store
        values = results[0].reshape(self.shape)
        for region in _regions(array):
            array[region] = values[region]


def _regions(array: Any) -> Iterator[tuple[slice, ...]]:
    """Places of an array's chunks, or of the shards that hold several of them, one after the other."""
    sides = array.shards or array.chunks
    starts = (range(0, length, max(1, side)) for length, side in zip(array.shape, sides, strict=True))
    for corner in product(*starts):
        yield tuple(slice(a, a + side) for a, side in zip(corner, sides, strict=True))
