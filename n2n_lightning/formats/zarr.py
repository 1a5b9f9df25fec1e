"""Zarr stores, OME-Zarr among them: folders with an array in chunks.

Moore et al., Histochem. Cell Biol. 2023.
"""

import json
import math
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from n2n_lightning.arrays.axes import squeezed
from n2n_lightning.files import InputError, copy_folder, room, some_of
from n2n_lightning.formats.picture import Packed, Picture, Values
from n2n_lightning.formats.regions import whole_pieces
from n2n_lightning.formats.zarr_levels import Level, pieces_of, planned_levels, write_level
from n2n_lightning.formats.zarr_regions import ZarrRegions

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
LETTERS_BY_NAME: dict[str, str] = {}
for _letter, _names in _DIMENSION_NAMES.items():
    LETTERS_BY_NAME.update(dict.fromkeys(_names.split(), _letter))
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
        full, *smaller = levels
        return cls(full, group, 0, tuple(smaller))


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
    chunk by chunk, to the disk if it is large, and written in the same chunks. Its smaller
    resolutions are reduced from the result. Everything else in the store stays.
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
        self.levels = self._planned_levels(store)
        left_out = len(self.chosen.smaller) - len(self.levels)
        if left_out:
            plural = "s" if left_out > 1 else ""
            self.note = f"without {left_out} smaller resolution{plural}, of no whole factor"
        self.shape = array.shape
        shape = array.shape
        dimensions = self._dimensions(store, array)
        letters = dimensions.letters
        self.kept = list(range(len(shape)))
        if letters is not None:
            self.kept = [i for i, n in enumerate(shape) if letters[i] in "HW" or n > 1]
            letters, shape = squeezed(letters, shape)

        def unpacked() -> np.ndarray:
            values: np.ndarray = room(array.shape, array.dtype)
            for region in whole_pieces(array.shape, pieces_of(array)):
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
            scales = _multiscales(_item(store, group)) or {}
            dimensions = _dimensions_of_group(scales, self.chosen.level)
            letters = dimensions.letters or ""
            if len(letters) == len(array.shape):
                return dimensions
        return Dimensions(_letters_of_array(array))

    def _planned_levels(self, store: Any) -> list[Level]:
        """Return the smaller resolutions that the result has."""
        group = self.chosen.group
        if not self.chosen.smaller or group is None:
            return []
        scales = _multiscales(_item(store, group)) or {}
        names = [self.chosen.name, *self.chosen.smaller]
        return planned_levels(store, names, scales)

    def regions(self) -> ZarrRegions | None:
        """Return the array as what is read and written region by region."""
        store: Any = zarr.open(self.path, mode="r")
        array = _item(store, self.chosen.name)
        return ZarrRegions(array, self.chosen.name, self.kept, self.levels, self._copy_as)

    def _refuse(self) -> None:
        if self.chosen.level:
            image = self.path.name
            if self.chosen.group:
                image += f":{self.chosen.group}"
            raise InputError(
                f"{self.part} is a smaller resolution of an image; name the image,"
                f" {image}: it is denoised in full, and its smaller resolutions follow"
            )

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        self._copy(path)
        self._fill(path, results[0])

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        self._copy_as(path, results[0].dtype)
        self._fill(path, results[0])

    def _copy_as(self, path: Path, dtype: np.dtype) -> None:
        """Copy everything but the values, which will be of a type, see _copy."""
        self._copy(path)
        (values,) = self.values
        if dtype == values.dtype:
            return
        for name in (self.chosen.name, *[level.name for level in self.levels]):
            _declare_float32(path / name)
        # consolidated metadata would repeat the old type of the arrays
        for place in {self.chosen.group or "", ""}:
            (path / place / ".zmetadata").unlink(missing_ok=True)
            _forget_consolidated(path / place / "zarr.json")

    def _copy(self, path: Path) -> None:
        """Copy everything but the values of the array and of its smaller resolutions."""
        arrays = {self.path / self.chosen.name}
        arrays.update(self.path / level.name for level in self.levels)
        missing = {self.path / name for name in self.chosen.smaller} - arrays

        def left_out(place: Path) -> bool:
            if place.parent in arrays:
                return place.name not in METADATA
            return place in missing

        dangling = copy_folder(self.path, path, left_out)
        if dangling:
            self._remark(f"without {dangling[0]}, a link to nothing")
        if missing:
            self._describe_levels(path)

    def _describe_levels(self, path: Path) -> None:
        """Take the resolutions that a copy lacks out of its metadata."""
        store: Any = zarr.open(path, mode="r+", use_consolidated=False)
        group = _item(store, self.chosen.group or "")
        attributes = dict(group.attrs)
        described = attributes.get("ome", attributes)
        scales = described["multiscales"][0]
        scales["datasets"] = scales["datasets"][: 1 + len(self.levels)]
        group.attrs.update(attributes)
        _consolidate(path, str(self.chosen.group))

    def _fill(self, path: Path, result: np.ndarray) -> None:
        """Write the values into the copy."""
        options: Any = {"use_consolidated": False} if self.part else {}
        store: Any = zarr.open(path, mode="r+", **options)
        array = _item(store, self.chosen.name)
        values = result.reshape(self.shape)
        for region in whole_pieces(array.shape, pieces_of(array)):
            array[region] = values[region]
        for level in self.levels:
            for region in whole_pieces(level.shape, level.pieces):
                write_level(store, level, region)


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
    if not isinstance(first, dict) or not first.get("datasets"):
        return None
    return first


def _item(store: Any, name: str) -> Any:
    """Return a member of a store; the store itself is at ""."""
    return store[name] if name else store


def _member_path(place: str, name: str) -> str:
    """Return the path of a member of the group at `place`; the store itself is at ""."""
    return f"{place}/{name}" if place else name


def _resolutions(group: Any, place: str) -> list[str]:
    """Return the paths of the resolutions of an image group at `place`; none for other groups."""
    scales = _multiscales(group)
    if scales is None:
        return []
    levels: list[str] = []
    for level in scales["datasets"]:
        name = str(level["path"])
        levels.append(_member_path(place, name))
    return levels


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
    contents = _Contents()
    owned: set[str] = set()
    for name, item in members.items():
        if _is_label(members, name):
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


def _is_label(members: Any, name: str) -> bool:
    """Return True if a path leads into a group of labels.

    Args:
        members: a store, or its members by their paths.
        name: the path.
    """
    parts = name.split("/")
    if "labels" not in parts:
        return False
    depth = parts.index("labels") + 1
    labels = "/".join(parts[:depth])
    return labels in members and isinstance(members[labels], zarr.Group)


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
        (only,) = names
        if contents.groups:
            return ChosenArray.largest(only, contents.groups[only])
        return ChosenArray(only)
    choices = [f"{path.name}:{name}" for name in names]
    listed = some_of(choices, LISTED_IMAGES) or "(it is empty)"
    raise InputError(f"{problem}; name one: {listed}")


def _with_group(store: Any, name: str) -> ChosenArray:
    """Return a named array with its image group; the highest resolution stands for the image."""
    for place in _groups_above(name):
        levels = _resolutions(_item(store, place), place)
        if name in levels:
            level = levels.index(name)
            if level == 0:
                return ChosenArray.largest(place, levels)
            return ChosenArray(name, place, level)
    return ChosenArray(name)


def _groups_above(name: str) -> list[str]:
    """Return the paths of the groups that hold a member, the nearest first, "" (the store) last."""
    places: list[str] = []
    while name:
        name, _, _ = name.rpartition("/")
        places.append(name)
    return places


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
    unknown = set(names) - set(NGFF_LETTERS)
    if unknown or not {"y", "x"} <= set(names):
        return Dimensions()
    letters = "".join(NGFF_LETTERS[name] for name in names)
    factors: dict[str, float] = {}
    changes = scales["datasets"][level].get("coordinateTransformations")
    for change in changes or []:
        if change.get("type") == "scale":
            numbers = map(float, change["scale"])
            factors = dict(zip(names, numbers, strict=False))
    depth = factors.get("z", 0.0)
    height = factors.get("y", 0.0)
    width = factors.get("x", 0.0)
    if min(depth, height, width) > 0:
        return Dimensions(letters, (depth, height, width))
    return Dimensions(letters)


def _letters_of_array(array: Any) -> str | None:
    """Return the letters of an array with named dimensions.

    Names are in `dimension_names`, or xarray's `_ARRAY_DIMENSIONS`; unknown ones are of stacked
    images. None if height and width are not among them.
    """
    names = getattr(array.metadata, "dimension_names", None)
    if not names:
        names = array.attrs.get("_ARRAY_DIMENSIONS") or []
    if len(names) != len(array.shape):
        return None
    letters = ""
    for name in names:
        letters += LETTERS_BY_NAME.get(str(name).lower(), "N")
    counts = Counter(letters)
    if counts["H"] != 1 or counts["W"] != 1:
        return None
    if max(counts["C"], counts["D"], counts["T"]) > 1:
        return None
    return letters


def _nodata_of(array: Any) -> tuple[float, ...]:
    """Return the values of missing pixels, which xarray and netCDF write as attributes."""
    numbers: set[float] = set()
    for name in ("_FillValue", "missing_value"):
        value = array.attrs.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and math.isfinite(value):
            numbers.add(float(value))
    return tuple(sorted(numbers))


def _consolidate(path: Path, group: str) -> None:
    """Renew the consolidated metadata of an image group and of the groups above it.

    Consolidated metadata repeats what other files say.

    Args:
        path: of the store.
        group: the path of the group in it.
    """
    for place in (group, *_groups_above(group)):
        version = _consolidated_version(path / place)
        if version is None:
            continue
        (path / place / ".zmetadata").unlink(missing_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # version 3 of the format does not know them yet
            zarr.consolidate_metadata(str(path), path=place, zarr_format=version)


def _consolidated_version(folder: Path) -> Literal[2, 3] | None:
    """Return the version of Zarr of a group with consolidated metadata; None without them."""
    if (folder / ".zmetadata").exists():
        return 2
    path = folder / "zarr.json"
    if path.exists() and _read_json(path).get("consolidated_metadata"):
        return 3
    return None


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _declare_float32(folder: Path) -> None:
    """Change the metadata of a copied array without values: they will be float32.

    Args:
        folder: of the array, Zarr version 2 or 3.
    """
    path = folder / ".zarray"
    if path.exists():
        metadata = _read_json(path)
        metadata["dtype"] = "<f4"
        metadata["filters"] = None
    else:
        path = folder / "zarr.json"
        metadata = _read_json(path)
        metadata["data_type"] = "float32"
        _set_four_bytes(metadata["codecs"])
    if isinstance(metadata["fill_value"], int):
        metadata["fill_value"] = float(metadata["fill_value"])
    _write_json(path, metadata)


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
    metadata = _read_json(path)
    if metadata.pop("consolidated_metadata", None) is not None:
        _write_json(path, metadata)
