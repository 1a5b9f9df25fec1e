"""Zarr stores, OME-Zarr among them: folders with an array in chunks (Moore et al., Histochem. Cell Biol. 2023)."""

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from n2n_lightning.arrays.axes import squeezed
from n2n_lightning.files import InputError, copy_folder, room, some_of
from n2n_lightning.formats.picture import Packed, Picture, Values

METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
NGFF_LETTERS = {"t": "T", "c": "C", "z": "D", "y": "H", "x": "W"}  # of the axes of OME-Zarr
# Names of dimensions as xarray and others write them.
NAMES = {
    **NGFF_LETTERS,
    **dict.fromkeys(("time", "frame", "frames"), "T"),
    **dict.fromkeys(
        (
            "channel",
            "channels",
            "band",
            "bands",
            "wavelength",
            "wavelengths",
            "wl",
            "lambda",
            "spectral",
        ),
        "C",
    ),
    **dict.fromkeys(("depth", "plane", "planes", "slice", "slices"), "D"),
    **dict.fromkeys(("row", "rows", "height", "lat", "latitude"), "H"),
    **dict.fromkeys(("column", "columns", "col", "cols", "width", "lon", "longitude"), "W"),
}
SHOWN = 12  # names of images that a message lists


@dataclass(frozen=True)
class Chosen:
    """An array of a store, and what belongs to it.

    Attributes:
        name: the path of the array in the store; empty where the store is the array.
        group: the path of the image group that it belongs to; None where it belongs to none.
        level: its number among the resolutions of the group.
        smaller: the paths of the resolutions after it.
    """

    name: str
    group: str | None = None
    level: int = 0
    smaller: tuple[str, ...] = ()


class Zarr(Picture):
    """One array of a store of version 2 or 3: the highest resolution of an image group (OME-Zarr), or a named array.

    It is unpacked chunk by chunk, to the disk where it is large, and written in the same chunks.
    Everything else in the store stays as it is, but for smaller resolutions of the same picture,
    which are left out.
    """

    kind, named, volumes, floats = "Zarr", True, True, True

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        store: Any = zarr.open(path, mode="r")
        self.chosen = Chosen("") if isinstance(store, zarr.Array) else _chosen(path, store, part)
        self.part = self.chosen.name
        array: Any = store if isinstance(store, zarr.Array) else store[self.part]
        if not isinstance(array, zarr.Array):
            raise InputError(f"its {self.part} is no array")
        if array.dtype.kind not in "iuf":
            raise InputError(f"values of type {array.dtype} are no grey values")
        if self.chosen.smaller:
            self.note = "without its smaller resolutions"
        self.shape = shape = array.shape
        letters, spacing = self._axes(store, array)
        if letters is not None:
            letters, shape = squeezed(letters, shape)

        def unpacked() -> np.ndarray:
            values: np.ndarray = room(array.shape, array.dtype)
            for region in _regions(array):
                values[region] = array[region]
            return values.reshape(shape)

        spacing = spacing if letters and "D" in letters else None
        stored, nodata_values = Packed(shape, array.dtype, unpacked), _fills(array)
        self.values = [
            Values(
                stored,
                letters,
                colour=False,
                spacing=spacing,
                nodata_values=nodata_values,
                full=self.shape,
            )
        ]

    def _axes(self, store: Any, array: Any) -> tuple[str | None, tuple[float, float, float] | None]:
        """The letters of the axes, and the spacing of voxels, as the image group or the array has them."""
        if self.chosen.group is not None:
            scales = _scales(store[self.chosen.group] if self.chosen.group else store)
            letters, spacing = _of_group(scales or {}, self.chosen.level)
            if letters is not None and len(letters) == len(array.shape):
                return letters, spacing
        return _of_dimensions(array), None

    def _refuse(self) -> None:
        if self.chosen.level:
            group = f":{self.chosen.group}" if self.chosen.group else ""
            raise InputError(
                f"{self.part} is a smaller resolution of an image; name the image, {self.path.name}{group}: it is"
                " denoised in full, and its smaller resolutions are left out"
            )

    def _begin(self, path: Path) -> list[np.ndarray]:
        return [room(self.values[0].shape, self.values[0].dtype)]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        self._copy(path)
        self._fill(path, results[0])

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        self._copy(path)
        _as_floats(path / self.part if self.part else path)
        for name in ("zarr.json", ".zmetadata"):  # what a store repeats of its arrays
            _forget(path / name)
        self._fill(path, results[0])

    def _copy(self, path: Path) -> None:
        """Copies everything but the values of the array and the smaller resolutions."""
        ours = self.path / self.part if self.part else self.path
        smaller = {self.path / name for name in self.chosen.smaller}

        def left_out(place: Path) -> bool:
            if place.parent == ours:  # of the array itself only what says how it is stored
                return place.name not in METADATA
            return place in smaller

        if dangling := copy_folder(self.path, path, left_out):
            self.note = (
                f"{self.note}; " * bool(self.note) + f"without {dangling[0]}, a link to nothing"
            )

    def _fill(self, path: Path, result: np.ndarray) -> None:
        """Writes the values into the copy."""
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


def _scales(group: Any) -> dict[str, Any] | None:
    """What an image group says of its resolutions; None where it is no image group."""
    attributes = dict(group.attrs)
    several = attributes.get("ome", attributes)
    several = several.get("multiscales") if isinstance(several, Mapping) else None
    found = several[0] if isinstance(several, list) and several else None
    return found if isinstance(found, dict) and found.get("datasets") else None


def _levels(group: Any, place: str) -> list[str]:
    """The paths of the resolutions of an image group at `place` of its store; none where it is no image group."""
    start = f"{place}/" if place else ""
    return [f"{start}{level['path']}" for level in (_scales(group) or {"datasets": []})["datasets"]]


def _images(group: Any, place: str) -> tuple[dict[str, list[str]], list[str]]:
    """The image groups below a group with the paths of their arrays, and the other arrays of two axes or more.

    Labels (groups named `labels`, which OME-Zarr keeps below an image) are neither.
    """
    start = f"{place}/" if place else ""
    groups: dict[str, list[str]] = {}
    arrays: list[str] = []
    with warnings.catch_warnings():
        # of files that are no part of the hierarchy, as OME/METADATA.ome.xml
        warnings.simplefilter("ignore")
        members = dict(group.members(max_depth=None))
    labels = [
        name
        for name, item in members.items()
        if name.split("/")[-1] == "labels" and isinstance(item, zarr.Group)
    ]
    for name, item in members.items():
        if any(name == label or name.startswith(f"{label}/") for label in labels):
            continue
        if isinstance(item, zarr.Array):
            arrays += [start + name] if len(item.shape) > 1 else []
        elif levels := _levels(item, start + name):
            groups[start + name] = levels
    owned = {array for levels in groups.values() for array in levels}
    return groups, [name for name in arrays if name not in owned]


def _is_label(store: Any, name: str) -> bool:
    """Whether a path of a store leads into a group of labels."""
    parts = name.split("/")
    above = "/".join(parts[: parts.index("labels") + 1]) if "labels" in parts else ""
    return bool(above) and above in store and isinstance(store[above], zarr.Group)


def _chosen(path: Path, store: Any, part: str | None) -> Chosen:
    """The array that is meant.

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
    if item is not None and (levels := _levels(item, name)):
        return _of_image(name, levels)
    groups, arrays = _images(store if item is None else item, "" if item is None else name)
    names = sorted([*groups, *arrays])
    if item is not None and len(names) == 1:
        return _of_image(names[0], groups[names[0]]) if groups else Chosen(names[0])
    listed = some_of([f"{path.name}:{n}" for n in names], SHOWN)
    asked = f"has no array {part!r}" if item is None else "holds several arrays"
    raise InputError(f"{asked}; name one: {listed or '(it is empty)'}")


def _with_group(store: Any, name: str) -> Chosen:
    """A named array; where it is the highest resolution of an image, the image is meant."""
    parts = name.split("/")
    for k in range(len(parts) - 1, -1, -1):
        place = "/".join(parts[:k])
        levels = _levels(store[place] if place else store, place)
        if name in levels:
            level = levels.index(name)
            return Chosen(name, place, level) if level else _of_image(place, levels)
    return Chosen(name)


def _of_image(group: str, levels: list[str]) -> Chosen:
    return Chosen(levels[0], group, 0, tuple(levels[1:]))


def _of_group(
    scales: Mapping[str, Any], level: int
) -> tuple[str | None, tuple[float, float, float] | None]:
    """The letters of the axes of an image group, and the spacing of voxels of one of its resolutions."""
    names = [
        str(axis["name"] if isinstance(axis, dict) else axis).lower()
        for axis in scales.get("axes") or []
    ]
    if not set(names) <= set(NGFF_LETTERS) or not {"y", "x"} <= set(names):
        return None, None
    factors: dict[str, float] = {}
    for change in scales["datasets"][level].get("coordinateTransformations") or []:
        if change.get("type") == "scale":
            factors = dict(zip(names, map(float, change["scale"]), strict=False))
    known = [factors.get(name, 0.0) for name in "zyx"]
    return "".join(NGFF_LETTERS[n] for n in names), (known[0], known[1], known[2]) if min(
        known
    ) > 0 else None


def _of_dimensions(array: Any) -> str | None:
    """The letters of an array whose dimensions have names: `dimension_names`, or `_ARRAY_DIMENSIONS` of xarray.

    Names that are not known are those of stacked images. None where height and width are not among
    the names.
    """
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not names or len(names) != len(array.shape):
        return None
    letters = "".join(NAMES.get(str(name).lower(), "N") for name in names)
    once = all(letters.count(letter) == 1 for letter in "HW") and letters.count("C") <= 1
    return letters if once and all(letters.count(letter) <= 1 for letter in "DT") else None


def _fills(array: Any) -> tuple[float, ...]:
    """The values that mean that a pixel is missing, as xarray and netCDF write them."""
    found = [array.attrs.get(name) for name in ("_FillValue", "missing_value")]
    numbers = [float(n) for n in found if isinstance(n, int | float) and not isinstance(n, bool)]
    return tuple(sorted({n for n in numbers if math.isfinite(n)}))


def _consolidate(path: Path, group: str) -> None:
    """Renews consolidated metadata, which repeats what other files say, where a group above the image has it."""
    parts = group.split("/") if group else []
    for place in (parts[:k] for k in range(len(parts), -1, -1)):
        folder = path.joinpath(*place)
        old, new = folder / ".zmetadata", folder / "zarr.json"
        kept = old.exists() or (
            new.exists() and json.loads(new.read_text("utf-8")).get("consolidated_metadata")
        )
        if not kept:
            continue
        version: Any = 2 if old.exists() else 3
        old.unlink(missing_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # version 3 of the format does not know them yet
            zarr.consolidate_metadata(str(path), path="/".join(place), zarr_format=version)


def _regions(array: Any) -> Iterator[tuple[slice, ...]]:
    """Places of an array's chunks, or of the shards that hold several of them, one after the other."""
    sides = array.shards or array.chunks
    starts = (
        range(0, length, max(1, side)) for length, side in zip(array.shape, sides, strict=True)
    )
    for corner in product(*starts):
        yield tuple(slice(a, a + side) for a, side in zip(corner, sides, strict=True))


def _as_floats(folder: Path) -> None:
    """Changes what a copied array without values says of itself: its values will be float32.

    Args:
        folder: of the array, Zarr version 2 or 3.
    """
    path = folder / ".zarray"
    if path.exists():
        said = json.loads(path.read_text(encoding="utf-8"))
        said |= {"dtype": "<f4", "fill_value": _number(said["fill_value"]), "filters": None}
    else:
        path = folder / "zarr.json"
        said = json.loads(path.read_text(encoding="utf-8"))
        said |= {"data_type": "float32", "fill_value": _number(said["fill_value"])}
        _suit(said["codecs"])
    path.write_text(json.dumps(said, indent=2), encoding="utf-8")


def _number(fill: Any) -> Any:
    return float(fill) if isinstance(fill, int) else fill


def _suit(codecs: list[dict[str, Any]]) -> None:
    """Changes codecs of version 3 so that they hold four bytes a value."""
    for codec in codecs:
        options = codec.setdefault("configuration", {})
        if codec["name"] == "bytes":
            options["endian"] = options.get("endian") or "little"
        elif codec["name"] == "blosc":
            options["typesize"] = 4
        elif codec["name"] == "sharding_indexed":
            _suit(options["codecs"])


def _forget(path: Path) -> None:
    """Removes consolidated metadata, which would repeat the old type of the array."""
    if path.name == ".zmetadata":
        path.unlink(missing_ok=True)
    elif path.exists():
        said = json.loads(path.read_text(encoding="utf-8"))
        if said.pop("consolidated_metadata", None) is not None:
            path.write_text(json.dumps(said, indent=2), encoding="utf-8")
