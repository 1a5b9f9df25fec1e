"""HDF5 files: several named arrays, which may be links to, or views of, data in other files."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from n2n_lightning.files import InputError, mapped, room, some_of
from n2n_lightning.formats.picture import Packed, Picture, Values, chosen, components

READ_AT_A_TIME = 2**26  # bytes
LISTED_NAMES = 3  # names that a note lists
LISTED_MEMBERS = 20  # arrays of a group that a message lists
MAX_SOFT_LINKS = 64  # soft links that lead to one another, before they are called a circle
# attributes that refer to other datasets by their place in the file
SCALES = ("DIMENSION_LIST", "REFERENCE_LIST")


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
            self.place, linked = _follow_soft_links(file, self.part)
            dataset = file[self.part]
            owner = Path(dataset.file.filename)
            raw_files = _raw_files(dataset)
            if linked:
                self.sources.append(owner)
            self.sources += raw_files
            self._check_sources(dataset, raw_files)
            own_storage = not dataset.is_virtual and not dataset.external
            self.inside = own_storage and not linked
            self.offset = None
            if own_storage and dataset.dtype.isnative:
                self.offset = dataset.id.get_offset()  # None if it is in several pieces
            shape = dataset.shape
            dtype = dataset.dtype
            stored: np.ndarray | Packed
            if self.offset is None:
                self._check_size(dataset.size * dtype.itemsize)
                stored = Packed(shape, dtype, self._unpacked)
            else:
                stored = mapped(owner, dtype, self.offset, shape)
        self.values = [Values(stored)]

    def _check_sources(self, dataset: h5py.Dataset, sources: list[Path]) -> None:
        """Report missing files of a virtual dataset, which HDF5 silently reads as fill values.

        Raises:
            InputError: all of them are missing.
        """
        missing = [path for path in sources if not path.exists() and "%b" not in path.name]
        if not missing:
            return
        first = missing[0].name
        if len(missing) == len(sources):
            raise InputError(f"{self.part}: its values are in {first}, which is not there")
        shown = "empty"
        if dataset.dtype.kind in "iuf":
            shown = f"{dataset.fillvalue:g}"
        count = f"{len(missing)} of {len(sources)} files of {self.part}"
        self._remark(f"{count} are not there, as {first}: {shown} there")

    def _remark(self, words: str) -> None:
        self.note = f"{self.note}; {words}" if self.note else words

    def _unpacked(self) -> np.ndarray:
        with h5py.File(self.path, "r") as file:
            dataset = _with_external_files(file[self.part])
            values: np.ndarray = room(dataset.shape, dataset.dtype)
            if not dataset.shape:
                return np.asarray(dataset[()])
            for rows in _row_slices(dataset):
                values[rows] = dataset[rows]
        return values

    def _begin(self, path: Path) -> list[np.ndarray]:
        shutil.copyfile(self.path, path)
        self._keep_targets(path)
        (values,) = self.values
        if self.inside and self.offset is not None:
            return [np.memmap(path, values.dtype, "r+", self.offset, values.shape)]
        return [room(values.shape, values.dtype)]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        (result,) = results
        if self.inside and self.offset is not None:
            result.flush()  # type: ignore[attr-defined]
        else:
            self._store(path, result, self.inside)

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
        with h5py.File(path, "r+") as file, h5py.File(self.path, "r") as original:
            if in_place:
                dataset = file[self.place]
            else:
                dataset = _own_dataset(file, original, self.place, path.parent, result.dtype)
            for rows in _row_slices(dataset):
                dataset[rows] = result[rows]
        if not self.inside:
            names = ", ".join(dict.fromkeys(source.name for source in self.sources))
            self._remark(f"its {self.part} is a dataset of its own, no longer a view of {names}")

    def _keep_targets(self, path: Path) -> None:
        """Make links and views of a copy of the file lead to the files that they led to."""
        folder = path.parent
        with h5py.File(self.path, "r") as file:
            references = _references(file, self.place)
            targets: dict[str, str] = {}
            for name, link in references.links.items():
                target = _moved_name(link.filename, self.path.parent, folder)
                if target:
                    targets[name] = target
        if not references.views and not targets:
            return
        with h5py.File(path, "r+") as file:
            for name, target in targets.items():
                del file[name]
                file[name] = h5py.ExternalLink(target, references.links[name].path)
            for name in references.views:
                _move_view(file, name, self.path, folder)
        names = sorted({*references.links, *references.views} - {self.place})
        if names:
            verb = "reads" if len(names) == 1 else "read"
            self._remark(f"{some_of(names, LISTED_NAMES)} still {verb} the original files")


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
    for name, link in _all_links(file):
        if isinstance(link, h5py.ExternalLink):
            references.links[name] = link
            continue
        item = file[name] if isinstance(link, h5py.HardLink) else None
        if isinstance(item, h5py.Dataset):
            address = h5py.h5o.get_info(item.id).addr
            if _raw_files(item) and address not in visited and name != place:
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
        if key not in self.visited and isinstance(item, h5py.Dataset):
            self.names.append(name)
        self.visited.add(key)


def _find_dataset(file: h5py.File, path: Path, part: str | None) -> str:
    """Return the name of the dataset that `part` names, or of the only one.

    Raises:
        InputError: there is none of this name, or there are several.
    """
    if part is not None:
        name = "/".join(components(part))
        item = _get(file, name) if name else file
        if isinstance(item, h5py.Dataset):
            return name
        if item is None:
            reason = _why_broken(file, components(part))
            if reason:
                raise InputError(reason)
        if isinstance(item, h5py.Group):
            raise InputError(f"{part}: is a group, {_members_advice(item, name, path)}")
    listing = _datasets(file)
    if not listing.names and listing.broken:
        first = listing.broken[0]
        raise InputError(_why_broken(file, components(first)) or f"{first}: leads nowhere")
    return chosen(path, part, listing.names)


def _members_advice(group: h5py.Group, name: str, path: Path) -> str:
    """Return the part of a message that lists the arrays of a group."""
    members = [f"{name}/{member}".lstrip("/") for member in _datasets(group).names]
    if not members:
        return "which holds no arrays"
    listed = ", ".join(f"{path.name}:{member}" for member in members[:LISTED_MEMBERS])
    return f"name an array in it: {listed}"


def _datasets(group: h5py.Group) -> _Listing:
    """List the datasets of a group and of the groups that it links to."""
    listing = _Listing()
    groups: list[tuple[str, h5py.Group]] = [("", group)]
    for prefix, current in groups:  # it grows
        listing.visited.add(_identity(current))
        _add_members(listing, prefix, current)
        for name, link in _all_links(current):
            if isinstance(link, h5py.HardLink):
                continue
            item = _get(current, name)
            if item is None:
                listing.broken.append(prefix + name)
            elif isinstance(item, h5py.Group):
                if _identity(item) not in listing.visited:
                    groups.append((f"{prefix}{name}/", item))
            else:
                listing.add(prefix + name, item)
    return listing


def _add_members(listing: _Listing, prefix: str, group: h5py.Group) -> None:
    """Add what a group and the groups inside it hold themselves."""

    def visit(name: str, item: Any) -> None:
        listing.add(prefix + name, item)

    group.visititems(visit)


def _identity(item: Any) -> tuple[str, int]:
    return item.file.filename, h5py.h5o.get_info(item.id).addr


def _all_links(group: h5py.Group) -> list[tuple[str, Any]]:
    """Return the links of a group and of the groups that it holds itself, each with its name."""
    links: list[tuple[str, Any]] = []

    def visit(name: str, link: Any) -> None:
        links.append((name, link))

    group.visititems_links(visit)
    return links


def _get(group: h5py.Group, name: str, link: bool = False) -> Any:
    """Return the target of a name, or its link; None if there is none, or a circle of links."""
    try:
        return group.get(name, getlink=link)
    except (KeyError, OSError, RuntimeError):
        return None


def _why_broken(file: h5py.File, names: list[str]) -> str | None:
    """Return a message if a link on the way of a name leads nowhere."""
    current: Any = file
    for number, name in enumerate(names):
        link = None
        if isinstance(current, h5py.Group):
            link = _get(current, name, link=True)
        if link is None:
            return None
        target = _get(current, name)
        if target is None:
            place = "/".join(names[: number + 1])
            return f"{place}: {_broken_link(link, current)}"
        current = target
    return None


def _broken_link(link: Any, group: h5py.Group) -> str:
    """Return a message on a link of a group that leads nowhere."""
    if not isinstance(link, h5py.ExternalLink):
        return f"is a link to {getattr(link, 'path', '?')}, which leads nowhere"
    target = _linked_file(link.filename, Path(group.file.filename).parent)
    reason = f"has no {link.path}" if target.exists() else "is not there"
    return f"is a link into {link.filename}, which {reason}"


def _follow_soft_links(file: h5py.File, name: str) -> tuple[str, bool]:
    """Replace the soft links of a name, up to an external link.

    Returns:
        The name without soft links, and True if it has an external one.

    Raises:
        InputError: they lead in a circle.
    """
    pending = components(name)
    resolved: list[str] = []
    external = False
    count = 0
    while pending:
        head = pending.pop(0)
        link = None
        if not external:
            link = file[f"/{'/'.join(resolved)}"].get(head, getlink=True)
        if isinstance(link, h5py.SoftLink):
            count += 1
            if count > MAX_SOFT_LINKS:
                raise InputError(f"{name}: its links lead in a circle")
            if link.path.startswith("/"):
                resolved = []
            pending = [*components(link.path), *pending]
            continue
        external = external or isinstance(link, h5py.ExternalLink)
        resolved.append(head)
    return "/".join(resolved), external


def _linked_file(name: str, folder: Path) -> Path:
    """Return the file that HDF5 opens for a name in a file of a folder.

    It looks in that folder, then where the command runs.
    """
    candidates = [folder / name, Path(name)]
    if os.path.isabs(name):
        candidates = [Path(name), folder / Path(name).name]
    for candidate in candidates:
        if _first_of_pattern(candidate).exists():
            return candidate
    return candidates[0]


def _first_of_pattern(path: Path) -> Path:
    """Return the first file of a numbered series, which virtual datasets write as `%b`."""
    return Path(str(path).replace("%b", "0"))


def _moved_name(name: str, home: Path, folder: Path) -> str | None:
    """Return the name, in a file of `folder`, of the file that `name` names in one of `home`.

    None: the name stays.
    """
    target = _linked_file(name, home)
    if not _first_of_pattern(target).exists():
        return None
    if os.path.isabs(name) and target == Path(name):
        return None
    target = Path(os.path.realpath(target.parent)) / target.name
    try:
        moved = os.path.relpath(target, os.path.realpath(folder))
    except ValueError:  # another drive of Windows
        moved = str(target)
    return moved if moved != name else None


def _raw_files(dataset: h5py.Dataset) -> list[Path]:
    """Return the files with the values of a virtual dataset or of one with external storage."""
    folder = Path(dataset.file.filename).parent
    if dataset.is_virtual:
        names = [source.file_name for source in dataset.virtual_sources()]
        return [_linked_file(name, folder) for name in dict.fromkeys(names) if name != "."]
    return [_external_file(name, folder) for name, _, _ in dataset.external or ()]


def _external_file(name: str, folder: Path) -> Path:
    """Return the file of external storage.

    HDF5 looks for it where the command runs; then the folder of the file is tried.
    """
    if Path(name).exists():
        return Path(name)
    return folder / name


def _with_external_files(dataset: h5py.Dataset) -> h5py.Dataset:
    """Open a dataset again so that missing files of its storage are looked for in its folder."""
    raw_files = [Path(name) for name, _, _ in dataset.external or ()]
    if all(path.exists() for path in raw_files):
        return dataset
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_efile_prefix(b"${ORIGIN}")
    name = dataset.name.encode()
    file = dataset.file
    del dataset
    return h5py.Dataset(h5py.h5d.open(file.id, name, access))


def _row_slices(dataset: h5py.Dataset) -> Iterator[slice]:
    """Yield parts of the first axis, each of whole chunks and about READ_AT_A_TIME bytes."""
    values_of_row = dataset.size // max(1, len(dataset))
    row = max(1, values_of_row * dataset.dtype.itemsize)
    chunk = dataset.chunks[0] if dataset.chunks else 1
    step = max(1, READ_AT_A_TIME // row // chunk) * chunk
    for start in range(0, len(dataset), step):
        yield slice(start, min(start + step, len(dataset)))


def _own_dataset(
    file: h5py.File, original: h5py.File, name: str, folder: Path, dtype: np.dtype
) -> h5py.Dataset:
    """Create a dataset in the place of a view, of an external link, or of another type.

    Args:
        file: the copy, which is written to.
        original: the file that it is a copy of.
        name: of the dataset, without soft links.
        folder: the folder of the copy.
        dtype: of the new dataset.
    """
    *groups, last = components(name)
    parent: Any = file
    for number, group in enumerate(groups):
        if isinstance(parent.get(group, getlink=True), h5py.ExternalLink):
            place = "/".join(groups[: number + 1])
            _unfold(parent, group, original[place], folder)
        parent = parent[group]
    old = original[name]
    properties = _creation_properties(old, dtype)
    if not isinstance(parent.get(last, getlink=True), h5py.ExternalLink):
        return _replace_dataset(file, name, properties, dtype)
    del parent[last]
    new = _create_like(file, old, properties, dtype)
    _copy_attributes(old, new)
    parent[last] = new
    return new


def _unfold(parent: h5py.Group, name: str, group: h5py.Group, folder: Path) -> None:
    """Replace a link to a group of another file by a group of links to its members.

    Args:
        parent: the group that holds the link.
        name: of the link.
        group: its target.
        folder: the folder of the file that is written to.
    """
    target = os.path.realpath(group.file.filename)
    with contextlib.suppress(ValueError):  # another drive of Windows
        target = os.path.relpath(target, os.path.realpath(folder))
    del parent[name]
    unfolded = parent.create_group(name)
    _copy_attributes(group, unfolded)
    for member in group:
        unfolded[member] = h5py.ExternalLink(target, f"{group.name.rstrip('/')}/{member}")


def _creation_properties(old: h5py.Dataset, dtype: np.dtype) -> Any:
    """Return the properties of a dataset like `old` that holds its values itself.

    They are chunks, filters and the fill value; those of a virtual dataset are its first source's,
    if they fit.
    """
    old_properties = old.id.get_create_plist()
    same = dtype == old.dtype
    if old.chunks and same:
        return old_properties
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if old.chunks:  # a stored layout says how large a value is
        properties.set_chunk(old.chunks)
        _copy_filters(old_properties, properties)
    if old.is_virtual and same:
        chunked = _chunked_source(old)
        if chunked is not None:
            properties = chunked
    _copy_fill(old, properties)
    return properties


def _copy_filters(old_properties: Any, properties: Any) -> None:
    """Copy the filters of a dataset but for those that pack integers."""
    packing = (h5py.h5z.FILTER_NBIT, h5py.h5z.FILTER_SCALEOFFSET)
    for number in range(old_properties.get_nfilters()):
        code, flags, values, _ = old_properties.get_filter(number)
        if code not in packing:
            properties.set_filter(code, flags, values)


def _chunked_source(old: h5py.Dataset) -> Any | None:
    """Return the properties of the first source of a virtual dataset if they fit it."""
    sources = old.virtual_sources()
    if not sources or sources[0].file_name == ".":
        return None
    path = _linked_file(sources[0].file_name, Path(old.file.filename).parent)
    if not path.is_file():
        return None
    with h5py.File(path, "r") as file:
        item = file.get(sources[0].dset_name)
        if not isinstance(item, h5py.Dataset) or item.dtype != old.dtype:
            return None
        if not item.chunks or len(item.chunks) != len(old.shape):
            return None
        if any(chunk > side for chunk, side in zip(item.chunks, old.shape, strict=True)):
            return None
        properties = item.id.get_create_plist()
        filters = [properties.get_filter(k)[0] for k in range(properties.get_nfilters())]
        usable = all(h5py.h5z.filter_avail(code) for code in filters)
        return properties if usable else None


def _create_like(
    file: h5py.File, old: h5py.Dataset, properties: Any, dtype: np.dtype
) -> h5py.Dataset:
    """Create a dataset of the shape of `old` that has no name yet."""
    if dtype == old.dtype:
        kind = old.id.get_type().copy()
    else:
        kind = h5py.h5t.py_create(dtype, logical=True)
    space = old.id.get_space() if old.chunks else h5py.h5s.create_simple(old.shape)
    return h5py.Dataset(h5py.h5d.create(file.id, None, kind, space, properties))


def _replace_dataset(file: h5py.File, name: str, properties: Any, dtype: np.dtype) -> h5py.Dataset:
    """Create an empty dataset with other properties under all names of an old one of the file."""
    old = file[name]
    address = h5py.h5o.get_info(old.id).addr
    names: list[str] = []
    for alias, link in _all_links(file):
        if not isinstance(link, h5py.HardLink):
            continue
        if h5py.h5o.get_info(file[alias].id).addr == address:
            names.append(alias)
    new = _create_like(file, old, properties, dtype)
    _copy_attributes(old, new)
    for number, dimension in enumerate(old.dims):
        for scale in dimension.values():
            dimension.detach_scale(scale)
            new.dims[number].attach_scale(scale)
    for alias in names:
        del file[alias]
        file[alias] = new
    return new


def _copy_attributes(old: Any, new: Any) -> None:
    for key in old.attrs:
        if key not in SCALES:
            new.attrs.create(key, old.attrs[key], dtype=old.attrs.get_id(key).dtype)


def _move_view(file: h5py.File, name: str, source: Path, folder: Path) -> None:
    """Make a view in a copy of a file lead to the files that it led to.

    Args:
        file: the copy.
        name: of a virtual dataset, or one with external storage.
        source: the file that it is a copy of.
        folder: the folder of the copy.
    """
    old = file[name]
    home = source.parent
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    changed = False
    if old.is_virtual:
        for view in old.virtual_sources():
            target = _moved_source(view.file_name, source, folder)
            changed = changed or target != view.file_name
            dataset = view.dset_name.encode()
            space = _source_space(view, home)
            properties.set_virtual(view.vspace, target.encode(), dataset, space)
    else:
        for raw_file, offset, size in old.external:
            target = str(_external_file(raw_file, home).resolve())
            changed = changed or target != raw_file
            properties.set_external(target.encode(), offset, size)
    if changed:
        _copy_fill(old, properties)
        _replace_dataset(file, name, properties, old.dtype)


def _moved_source(name: str, source: Path, folder: Path) -> str:
    """Return the name of a source of a virtual dataset in a copy of its file.

    Args:
        name: the name in the original; `.` is the file itself.
        source: the original file.
        folder: the folder of the copy.
    """
    if name == ".":
        return name
    moved = _moved_name(name, source.parent, folder) or name
    if _linked_file(moved, folder).resolve() == source.resolve():
        return "."
    return moved


def _source_space(view: Any, home: Path) -> Any:
    """Return the selection that a virtual dataset shows of one source.

    HDF5 does not store the shape of a source that is shown whole.
    """
    if view.src_space.get_select_type() != h5py.h5s.SEL_ALL:
        return view.src_space
    shape = view.vspace.shape
    path = _linked_file(view.file_name, home)
    with contextlib.suppress(OSError, KeyError), h5py.File(path, "r") as file:
        shape = file[view.dset_name].shape
    return h5py.h5s.create_simple(shape)


def _copy_fill(old: h5py.Dataset, properties: Any) -> None:
    old_properties = old.id.get_create_plist()
    if old_properties.fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED:
        fill = np.empty((), old.dtype)
        old_properties.get_fill_value(fill)
        properties.set_fill_value(fill)
