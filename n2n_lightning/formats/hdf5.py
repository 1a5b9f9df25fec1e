"""HDF5 files: several named arrays, which may be links to, or views of, data in other files."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np

from n2n_lightning.files import InputError, room, some_of
from n2n_lightning.formats.hdf5_datasets import move_view, own_dataset, with_external_files
from n2n_lightning.formats.hdf5_links import (
    address_of,
    all_links,
    follow_soft_links,
    moved_name,
    raw_files_of,
    target_of,
    why_broken,
)
from n2n_lightning.formats.picture import Packed, Picture, Values, chosen, components
from n2n_lightning.formats.raw_array import RawArray, flush
from n2n_lightning.formats.regions import MappedRegions, Region, Regions, StoredLayout

READ_AT_A_TIME = 2**26  # bytes
LISTED_NAMES = 3  # names that a note lists
LISTED_MEMBERS = 20  # arrays of a group that a message lists


class Hdf5(Picture):
    """One array of a file, mapped if it is stored in one piece; the result is a copy of the file.

    The array may be a virtual dataset, have external storage, or be reached through links: all of
    them are followed for reading. In the result it is a dataset of its own, so that no other file
    is ever written to. Other links and views stay; if they name files relative to the folder, they
    lead to the same files as before.
    """

    kind = "HDF5"
    named = True
    floats = True

    def _read(self) -> None:
        with h5py.File(self.path, "r") as file:
            self.part = _find_dataset(file, self.path, self.part)
            self.place, linked = follow_soft_links(file, self.part)
            dataset = file[self.part]
            owner = Path(dataset.file.filename)
            raw_files = raw_files_of(dataset)
            if linked:
                self.sources.append(owner)
            self.sources += raw_files
            self._check_sources(dataset, raw_files)
            own_storage = not dataset.is_virtual and not dataset.external
            self.inside = own_storage and not linked
            offset = None
            if own_storage and dataset.dtype.isnative:
                offset = dataset.id.get_offset()  # None if it is in several pieces
            shape = dataset.shape
            dtype = dataset.dtype
            stored: np.ndarray | Packed
            self.place_in_file: RawArray | None = None
            if offset is None:
                self._check_size(dataset.size * dtype.itemsize)
                stored = Packed(shape, dtype, self._unpacked)
            else:
                place = RawArray(dtype, offset, shape)
                stored = place.read(owner)
                if self.inside:
                    self.place_in_file = place
        self.values = [Values(stored)]

    def regions(self) -> Regions:
        """Return the array as what is read and written region by region."""
        (values,) = self.values
        place = self.place_in_file
        if place is None:
            return Hdf5Regions(self, values.shape, values.dtype)

        def layout(dtype: np.dtype) -> StoredLayout | None:
            same = dtype.name == values.dtype.name
            return StoredLayout(place, None, place.end) if same else None

        return MappedRegions(self.path, values.array, layout, self._keep_targets)

    def _check_sources(self, dataset: h5py.Dataset, sources: list[Path]) -> None:
        """Report missing files of a virtual dataset, which HDF5 silently reads as fill values.

        Raises:
            InputError: all of them are missing.
        """
        missing: list[Path] = []
        for path in sources:
            numbered = "%b" in path.name
            if not numbered and not path.exists():
                missing.append(path)
        if not missing:
            return
        first = missing[0].name
        if len(missing) == len(sources):
            raise InputError(f"{self.part}: its values are in {first}, which is not there")
        fill = "empty"
        if dataset.dtype.kind in "iuf":
            fill = f"{dataset.fillvalue:g}"
        self._remark(
            f"{len(missing)} of {len(sources)} files of {self.part} are not there,"
            f" as {first}: {fill} there"
        )

    def _unpacked(self) -> np.ndarray:
        with h5py.File(self.path, "r") as file:
            dataset = with_external_files(file[self.part])
            if not dataset.shape:
                return np.asarray(dataset[()])
            values: np.ndarray = room(dataset.shape, dataset.dtype)
            for rows in _row_slices(dataset):
                values[rows] = dataset[rows]
        return values

    def _begin(self, path: Path) -> list[np.ndarray]:
        shutil.copyfile(self.path, path)
        self._keep_targets(path)
        if self.place_in_file is None:
            return super()._begin(path)
        return [self.place_in_file.writable(path)]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        if self.place_in_file is None:
            self._store(path, results[0], self.inside)
        else:
            flush(results)

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        shutil.copyfile(self.path, path)
        self._keep_targets(path)
        self._store(path, results[0], False)

    def _store(self, path: Path, result: np.ndarray, in_place: bool) -> None:
        """Write the array into a copy of the file.

        Args:
            path: the copy.
            result: the array.
            in_place: into the old dataset; otherwise a new one takes its place.
        """
        with h5py.File(path, "r+") as file:
            # the place may be a link into another file, which must not be opened
            own = None if in_place else self._own_dataset(file, path, result.dtype)
            dataset = own or file[self.place]
            for rows in _row_slices(dataset):
                dataset[rows] = result[rows]

    def _own_dataset(self, file: h5py.File, path: Path, dtype: np.dtype) -> h5py.Dataset:
        """Put a dataset of its own in the place of the array, into an open copy of the file."""
        with h5py.File(self.path, "r") as original:
            dataset = own_dataset(file, original, self.place, path.parent, dtype)
        if not self.inside:
            names = dict.fromkeys(source.name for source in self.sources)
            listed = ", ".join(names)
            self._remark(f"its {self.part} is a dataset of its own, no longer a view of {listed}")
        return dataset

    def _keep_targets(self, path: Path) -> None:
        """Make links and views of a copy of the file lead to the files that they led to."""
        folder = path.parent
        with h5py.File(self.path, "r") as file:
            references = _references(file, self.place)
        targets: dict[str, str] = {}
        for name, link in references.links.items():
            target = moved_name(link.filename, self.path.parent, folder)
            if target:
                targets[name] = target
        if not references.views and not targets:
            return
        with h5py.File(path, "r+") as file:
            for name, target in targets.items():
                link = references.links[name]
                del file[name]
                file[name] = h5py.ExternalLink(target, link.path)
            for name in references.views:
                move_view(file, name, self.path, folder)
        others = {*references.links, *references.views}
        others.discard(self.place)
        if others:
            verb = "reads" if len(others) == 1 else "read"
            listed = some_of(sorted(others), LISTED_NAMES)
            self._remark(f"{listed} still {verb} the original files")


class Hdf5Regions(Regions):
    """An array that is stored in chunks, or is a view of others; one process writes the result.

    Args:
        picture: its file.
        shape, dtype: of the array.
    """

    together: ClassVar[bool] = False

    def __init__(self, picture: Hdf5, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.picture = picture
        with h5py.File(picture.path, "r") as file:
            chunks = file[picture.part].chunks
        super().__init__(shape, dtype, chunks or [1] * len(shape))

    def read(self, region: Region) -> np.ndarray:
        """Return the values of a region, unpacked."""
        with h5py.File(self.picture.path, "r") as file:
            values: np.ndarray = with_external_files(file[self.picture.part])[region]
        return values

    def holds(self, dtype: np.dtype) -> bool:
        """Return True: the dataset is made anew for another type."""
        return True

    def create(self, path: Path, dtype: np.dtype) -> None:
        """Copy the file."""
        picture = self.picture
        shutil.copyfile(picture.path, path)
        picture._keep_targets(path)
        if picture.inside and dtype.name == self.dtype.name:
            return
        with h5py.File(path, "r+") as file:
            picture._own_dataset(file, path, dtype)

    @contextmanager
    def writer(self, path: Path, dtype: np.dtype) -> Iterator[h5py.Dataset]:
        """Open the dataset of a result."""
        with h5py.File(path, "r+") as file:
            yield file[self.picture.place]


@dataclass
class _References:
    """Places of a file that name other files.

    Attributes:
        links: external links by their names.
        views: names of virtual datasets and of those with external storage, each once.
    """

    links: dict[str, h5py.ExternalLink] = field(default_factory=dict)
    views: list[str] = field(default_factory=list)


def _references(file: h5py.File, place: str) -> _References:
    """Collect the links and views of a file; a view named `place` is left out."""
    references = _References()
    visited: set[int] = set()
    for name, link in all_links(file):
        if isinstance(link, h5py.ExternalLink):
            references.links[name] = link
        if not isinstance(link, h5py.HardLink):
            continue
        item = file[name]
        if not isinstance(item, h5py.Dataset):
            continue
        address = address_of(item)
        is_new = address not in visited and name != place
        if is_new and raw_files_of(item):
            references.views.append(name)
        visited.add(address)
    return references


@dataclass
class _Listing:
    """Datasets of a group.

    Attributes:
        names: of all datasets, each once, those inside first.
        broken: names of links that lead nowhere.
        visited: identities of the groups and datasets.
    """

    names: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    visited: set[tuple[str, int]] = field(default_factory=set)

    def add(self, name: str, item: Any) -> None:
        """Add a dataset that has no name yet.

        Args:
            name: its name.
            item: a dataset or a group.
        """
        key = _identity(item)
        is_new = key not in self.visited
        if is_new and isinstance(item, h5py.Dataset):
            self.names.append(name)
        self.visited.add(key)


def _find_dataset(file: h5py.File, path: Path, part: str | None) -> str:
    """Return the name of the dataset that `part` names, or of the only one.

    Raises:
        InputError: there is none of this name, or there are several.
    """
    if part is not None:
        name = "/".join(components(part))
        item = target_of(file, name) if name else file
        if isinstance(item, h5py.Dataset):
            return name
        if item is None:
            reason = why_broken(file, part)
            if reason:
                raise InputError(reason)
        if isinstance(item, h5py.Group):
            advice = _members_advice(item, name, path)
            raise InputError(f"{part}: is a group, {advice}")
    listing = _datasets(file)
    if not listing.names and listing.broken:
        first = listing.broken[0]
        reason = why_broken(file, first)
        raise InputError(reason or f"{first}: leads nowhere")
    return chosen(path, part, listing.names)


def _members_advice(group: h5py.Group, name: str, path: Path) -> str:
    """Return the part of a message that lists the arrays of a group."""
    members = _datasets(group).names
    if not members:
        return "which holds no arrays"
    listed: list[str] = []
    for member in members[:LISTED_MEMBERS]:
        place = f"{name}/{member}".lstrip("/")
        listed.append(f"{path.name}:{place}")
    return f"name an array in it: {', '.join(listed)}"


def _datasets(group: h5py.Group) -> _Listing:
    """List the datasets of a group and of the groups that it links to."""
    listing = _Listing()
    groups: list[tuple[str, h5py.Group]] = [("", group)]
    for prefix, current in groups:  # it grows
        listing.visited.add(_identity(current))
        _add_members(listing, prefix, current)
        for name, link in all_links(current):
            if isinstance(link, h5py.HardLink):
                continue
            place = prefix + name
            item = target_of(current, name)
            if item is None:
                listing.broken.append(place)
            elif not isinstance(item, h5py.Group):
                listing.add(place, item)
            elif _identity(item) not in listing.visited:
                groups.append((f"{place}/", item))
    return listing


def _add_members(listing: _Listing, prefix: str, group: h5py.Group) -> None:
    """Add what a group and the groups inside it hold themselves."""

    def visit(name: str, item: Any) -> None:
        listing.add(prefix + name, item)

    group.visititems(visit)


def _identity(item: Any) -> tuple[str, int]:
    return item.file.filename, address_of(item)


def _row_slices(dataset: h5py.Dataset) -> Iterator[slice]:
    """Yield parts of the first axis, each of whole chunks and about READ_AT_A_TIME bytes."""
    rows = len(dataset)
    values_of_row = dataset.size // max(1, rows)
    bytes_of_row = max(1, values_of_row * dataset.dtype.itemsize)
    rows_at_a_time = READ_AT_A_TIME // bytes_of_row
    chunk = dataset.chunks[0] if dataset.chunks else 1
    chunks_at_a_time = max(1, rows_at_a_time // chunk)
    step = chunks_at_a_time * chunk
    for start in range(0, rows, step):
        yield slice(start, start + step)
