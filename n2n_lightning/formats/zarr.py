"""Zarr stores, OME-Zarr among them: folders with an array in chunks.

Moore et al., Histochem. Cell Biol. 2023.
"""

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from n2n_lightning.arrays.axes import squeezed
from n2n_lightning.files import InputError, copy_folder, room, some_of
from n2n_lightning.formats.picture import Packed, Picture, Values

METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
NGFF_LETTERS = {"t": "T", "c": "C", "z": "D", "y": "H", "x": "W"}  # axes of OME-Zarr
# Names of dimensions that xarray and others write.
_DIMENSION_NAMES = {
    "T": "t time frame frames",
    "C": "c channel channels band bands wavelength wavelengths wl lambda spectral",
    "D": "z depth plane planes slice slices",
    "H": "y row rows height lat latitude",
    "W": "x column columns col cols width lon longitude",
}
LETTERS_BY_NAME = {
    name: letter for letter, names in _DIMENSION_NAMES.items() for name in names.split()
}
LISTED_IMAGES = 12  # names of images that a message lists


@dataclass(frozen=True)
class ChosenArray:
    """An array of a store, and its image group.

    Attributes:
        name: the path of the array in the store; empty if the store is the array.
        group: the path of its image group; None if it has none.
        level: its number among the resolutions of the group.
        smaller: the paths of the smaller resolutions.
    """

    name: str
    group: str | None = None
    level: int = 0
    smaller: tuple[str, ...] = ()

    @classmethod
    def largest(cls, group: str, levels: list[str]) -> "ChosenArray":
        """Return the highest resolution of an image group.

        Args:
            group: the path of the group.
            levels: the paths of its resolutions.

        Returns:
            The first of them.
        """
        return cls(levels[0], group, 0, tuple(levels[1:]))


@dataclass(frozen=True)
class Dimensions:
    """Axes of an array, as its store states them.

    Attributes:
        letters: None if the store does not state them.
        spacing: of voxels along D, H and W, in the store's unit; None if it is not known.
    """

    letters: str | None = None
    spacing: tuple[float, float, float] | None = None


class Zarr(Picture):
    """One array of a store of version 2 or 3.

    It is the highest resolution of an image group (OME-Zarr), or a named array. It is unpacked
    chunk by chunk, to the disk if it is large, and written in the same chunks. Everything else in
    the store stays, except smaller resolutions of the same picture, which are left out.
    """

    kind = "Zarr"
    named = True
    volumes = True
    floats = True

    def _read(self) -> None:
        store: Any = zarr.open(self.path, mode="r")
        array: Any = store
        self.chosen = ChosenArray("")
        if not isinstance(store, zarr.Array):
            self.chosen = _choose(self.path, store, self.part)
            array = store[self.chosen.name]
        self.part = self.chosen.name
        if not isinstance(array, zarr.Array):
            raise InputError(f"its {self.part} is no array")
        if array.dtype.kind not in "iuf":
            raise InputError(f"values of type {array.dtype} are no grey values")
        if self.chosen.smaller:
            self.note = "without its smaller resolutions"
        self.shape = array.shape
        shape = array.shape
        dimensions = self._dimensions(store, array)
        letters = dimensions.letters
        if letters is not None:
            letters, shape = squeezed(letters, shape)

        def unpacked() -> np.ndarray:
            values: np.ndarray = room(array.shape, array.dtype)
            for region in _regions(array):
                values[region] = array[region]
            return values.reshape(shape)

        stored = Packed(shape, array.dtype, unpacked)
        values = Values(stored, letters, colour=False, full=self.shape)
        values.nodata_values = _nodata_of(array)
        if letters and "D" in letters:
            values.spacing = dimensions.spacing
        self.values = [values]

    def _dimensions(self, store: Any, array: Any) -> Dimensions:
        """Return the axes that the image group or the array states."""
        group = self.chosen.group
        if group is not None:
            scales = _multiscales(store[group] if group else store) or {}
            dimensions = _dimensions_of_group(scales, self.chosen.level)
            letters = dimensions.letters
            if letters is not None and len(letters) == len(array.shape):
                return dimensions
        return Dimensions(_letters_of_array(array))

    def _refuse(self) -> None:
        if self.chosen.level:
            group = f":{self.chosen.group}" if self.chosen.group else ""
            raise InputError(
                f"{self.part} is a smaller resolution of an image; name the image,"
                f" {self.path.name}{group}: it is denoised in full, and its smaller resolutions"
                " are left out"
            )

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        self._copy(path)
        self._fill(path, results[0])

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        self._copy(path)
        _declare_float32(path / self.part if self.part else path)
        # consolidated metadata would repeat the old type of the array
        (path / ".zmetadata").unlink(missing_ok=True)
        _forget_consolidated(path / "zarr.json")
        self._fill(path, results[0])

    def _copy(self, path: Path) -> None:
        """Copy everything but the values of the array and the smaller resolutions."""
        own_folder = self.path / self.part if self.part else self.path
        smaller = {self.path / name for name in self.chosen.smaller}

        def left_out(place: Path) -> bool:
            if place.parent == own_folder:
                return place.name not in METADATA
            return place in smaller

        dangling = copy_folder(self.path, path, left_out)
        if dangling:
            remark = f"without {dangling[0]}, a link to nothing"
            self.note = f"{self.note}; {remark}" if self.note else remark

    def _fill(self, path: Path, result: np.ndarray) -> None:
        """Write the values into the copy."""
        options: Any = {"use_consolidated": False} if self.part else {}
        store: Any = zarr.open(path, mode="r+", **options)
        if self.chosen.smaller:
            group = store[self.chosen.group] if self.chosen.group else store
            attributes = dict(group.attrs)
            scales = attributes.get("ome", attributes)["multiscales"][0]
            scales["datasets"] = scales["datasets"][:1]
            group.attrs.update(attributes)
            _consolidate(path, str(self.chosen.group))
        array = store[self.part] if self.part else store
        values = result.reshape(self.shape)
        for region in _regions(array):
            array[region] = values[region]


def _multiscales(group: Any) -> dict[str, Any] | None:
    """Return the description of the resolutions of an image group; None for other groups."""
    attributes: Any = dict(group.attrs)
    attributes = attributes.get("ome", attributes)
    if not isinstance(attributes, Mapping):
        return None
    several = attributes.get("multiscales")
    if not isinstance(several, list) or not several:
        return None
    first = several[0]
    return first if isinstance(first, dict) and first.get("datasets") else None


def _member_path(place: str, name: str) -> str:
    """Return the path of a member of the group at `place`; the store itself is at ""."""
    return f"{place}/{name}" if place else name


def _resolutions(group: Any, place: str) -> list[str]:
    """Return the paths of the resolutions of an image group at `place`; none for other groups."""
    scales = _multiscales(group)
    if scales is None:
        return []
    return [_member_path(place, str(level["path"])) for level in scales["datasets"]]


@dataclass
class _Contents:
    """Images of a store.

    Attributes:
        groups: the resolutions of each image group.
        arrays: arrays of two axes or more that belong to none.
    """

    groups: dict[str, list[str]] = field(default_factory=dict)
    arrays: list[str] = field(default_factory=list)


def _contents(group: Any, place: str) -> _Contents:
    """List the images below a group, whose path is `place`.

    Labels (groups named `labels`, which OME-Zarr keeps below an image) are left out.
    """
    with warnings.catch_warnings():
        # of files that are no part of the hierarchy, as OME/METADATA.ome.xml
        warnings.simplefilter("ignore")
        members = dict(group.members(max_depth=None))
    labels: list[str] = []
    for name, item in members.items():
        if name.split("/")[-1] == "labels" and isinstance(item, zarr.Group):
            labels.append(name)
    contents = _Contents()
    owned: set[str] = set()
    for name, item in members.items():
        if any(name == label or name.startswith(f"{label}/") for label in labels):
            continue
        path = _member_path(place, name)
        if isinstance(item, zarr.Array):
            if len(item.shape) > 1:
                contents.arrays.append(path)
            continue
        levels = _resolutions(item, path)
        if levels:
            contents.groups[path] = levels
            owned.update(levels)
    contents.arrays = [array for array in contents.arrays if array not in owned]
    return contents


def _is_label(store: Any, name: str) -> bool:
    """Return True if a path of a store leads into a group of labels."""
    parts = name.split("/")
    if "labels" not in parts:
        return False
    labels = "/".join(parts[: parts.index("labels") + 1])
    return labels in store and isinstance(store[labels], zarr.Group)


def _choose(path: Path, store: Any, part: str | None) -> ChosenArray:
    """Choose the array that `part` names, or the only one.

    Raises:
        InputError: there is none of this name, there are several, or it is a label image.
    """
    name = (part or "").strip("/")
    if name and _is_label(store, name):
        raise InputError(
            f"{name}: is a label image, which is no picture; it is copied with its image as it is"
        )
    item: Any = store.get(name) if name else store
    if isinstance(item, zarr.Array):
        return _with_group(store, name)
    if item is None:
        contents = _contents(store, "")
        problem = f"has no array {part!r}"
    else:
        levels = _resolutions(item, name)
        if levels:
            return ChosenArray.largest(name, levels)
        contents = _contents(item, name)
        problem = "holds several arrays"
    names = sorted([*contents.groups, *contents.arrays])
    if item is not None and len(names) == 1:
        if contents.groups:
            return ChosenArray.largest(names[0], contents.groups[names[0]])
        return ChosenArray(names[0])
    listed = some_of([f"{path.name}:{name}" for name in names], LISTED_IMAGES)
    raise InputError(f"{problem}; name one: {listed or '(it is empty)'}")


def _with_group(store: Any, name: str) -> ChosenArray:
    """Return a named array with its image group; the highest resolution stands for the image."""
    parts = name.split("/")
    for depth in range(len(parts) - 1, -1, -1):
        place = "/".join(parts[:depth])
        levels = _resolutions(store[place] if place else store, place)
        if name in levels:
            level = levels.index(name)
            if level == 0:
                return ChosenArray.largest(place, levels)
            return ChosenArray(name, place, level)
    return ChosenArray(name)


def _dimensions_of_group(scales: Mapping[str, Any], level: int) -> Dimensions:
    """Return the axes of an image group, and the voxel spacing of one of its resolutions.

    Args:
        scales: its description, see _multiscales.
        level: the number of the resolution.
    """
    names: list[str] = []
    for axis in scales.get("axes") or []:
        name = axis["name"] if isinstance(axis, dict) else axis
        names.append(str(name).lower())
    known = all(name in NGFF_LETTERS for name in names)
    if not known or "y" not in names or "x" not in names:
        return Dimensions()
    letters = "".join(NGFF_LETTERS[name] for name in names)
    factors: dict[str, float] = {}
    for change in scales["datasets"][level].get("coordinateTransformations") or []:
        if change.get("type") == "scale":
            factors = dict(zip(names, map(float, change["scale"]), strict=False))
    depth, height, width = (factors.get(name, 0.0) for name in "zyx")
    if min(depth, height, width) > 0:
        return Dimensions(letters, (depth, height, width))
    return Dimensions(letters)


def _letters_of_array(array: Any) -> str | None:
    """Return the letters of an array with named dimensions.

    Names are in `dimension_names`, or xarray's `_ARRAY_DIMENSIONS`; unknown ones are of stacked
    images. None if height and width are not among them.
    """
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not names or len(names) != len(array.shape):
        return None
    letters = "".join(LETTERS_BY_NAME.get(str(name).lower(), "N") for name in names)
    if any(letters.count(letter) != 1 for letter in "HW"):
        return None
    if any(letters.count(letter) > 1 for letter in "CDT"):
        return None
    return letters


def _nodata_of(array: Any) -> tuple[float, ...]:
    """Return the values of missing pixels, which xarray and netCDF write as attributes."""
    numbers: set[float] = set()
    for name in ("_FillValue", "missing_value"):
        value = array.attrs.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if math.isfinite(value):
            numbers.add(float(value))
    return tuple(sorted(numbers))


def _consolidate(path: Path, group: str) -> None:
    """Renew the consolidated metadata of an image group and of the groups above it.

    Consolidated metadata repeats what other files say.

    Args:
        path: of the store.
        group: the path of the group in it.
    """
    parts = group.split("/") if group else []
    for depth in range(len(parts), -1, -1):
        place = parts[:depth]
        folder = path.joinpath(*place)
        version_2 = folder / ".zmetadata"
        version_3 = folder / "zarr.json"
        version: Any = 2 if version_2.exists() else 3
        if version == 3:
            if not version_3.exists():
                continue
            if not json.loads(version_3.read_text("utf-8")).get("consolidated_metadata"):
                continue
        version_2.unlink(missing_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # version 3 of the format does not know them yet
            zarr.consolidate_metadata(str(path), path="/".join(place), zarr_format=version)


def _regions(array: Any) -> Iterator[tuple[slice, ...]]:
    """Yield the places of an array's chunks, or of the shards that hold several of them."""
    sides = array.shards or array.chunks
    starts: list[range] = []
    for length, side in zip(array.shape, sides, strict=True):
        starts.append(range(0, length, max(1, side)))
    for corner in product(*starts):
        region: list[slice] = []
        for start, side in zip(corner, sides, strict=True):
            region.append(slice(start, start + side))
        yield tuple(region)


def _declare_float32(folder: Path) -> None:
    """Change the metadata of a copied array without values: they will be float32.

    Args:
        folder: of the array, Zarr version 2 or 3.
    """
    path = folder / ".zarray"
    if path.exists():
        metadata = json.loads(path.read_text(encoding="utf-8"))
        metadata["dtype"] = "<f4"
        metadata["filters"] = None
    else:
        path = folder / "zarr.json"
        metadata = json.loads(path.read_text(encoding="utf-8"))
        metadata["data_type"] = "float32"
        _set_four_bytes(metadata["codecs"])
    if isinstance(metadata["fill_value"], int):
        metadata["fill_value"] = float(metadata["fill_value"])
    path.write_text(json.dumps(metadata, indent=2), encoding="utf-8")


def _set_four_bytes(codecs: list[dict[str, Any]]) -> None:
    """Change codecs of version 3 so that they hold four bytes a value."""
    for codec in codecs:
        options = codec.setdefault("configuration", {})
        if codec["name"] == "bytes":
            options["endian"] = options.get("endian") or "little"
        elif codec["name"] == "blosc":
            options["typesize"] = 4
        elif codec["name"] == "sharding_indexed":
            _set_four_bytes(options["codecs"])


def _forget_consolidated(path: Path) -> None:
    """Remove consolidated metadata from a file of version 3."""
    if not path.exists():
        return
    metadata = json.loads(path.read_text(encoding="utf-8"))
    if metadata.pop("consolidated_metadata", None) is not None:
        path.write_text(json.dumps(metadata, indent=2), encoding="utf-8")
