"""HDF5 files: several arrays with names, which may be links to, or views of, what other files hold."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from n2n_lightning.files import InputError, mapped, room, some_of
from n2n_lightning.formats.picture import Packed, Picture, Values, check_size, chosen, components

PIECE = 2**26  # bytes that are read or written at a time
FEW = 3  # names that a line lists
LINKS = 64  # soft links that lead to one another, before they are called a circle
# attributes that refer to other datasets by their place in the file
SCALES = ("DIMENSION_LIST", "REFERENCE_LIST")


class Hdf5(Picture):
    """One array of a file, mapped where it is stored in one piece; the result is a copy of the file with other values.

    The array may be a virtual dataset, have external storage, or be reached through links: all of
    them are followed for reading. In the result it is a dataset of its own, so that no other file
    is ever written to. Other links and views stay; where they name files relative to the folder,
    they lead to the same files as before.
    """

    kind, named, floats = "HDF5", True, True

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        with h5py.File(path, "r") as file:
            self.part = _named(file, path, part)
            self.place, linked = _followed(file, self.part)
            dataset = file[self.part]
            owner, elsewhere = Path(dataset.file.filename), _sources(dataset)
            self.sources = [*([owner] if linked else []), *elsewhere]
            self.inside = not linked and not dataset.is_virtual and not dataset.external
            self._check_sources(dataset, elsewhere)
            single = not dataset.is_virtual and not dataset.external and dataset.dtype.isnative
            self.offset = dataset.id.get_offset() if single else None
            shape, dtype = dataset.shape, dataset.dtype
            stored: np.ndarray | Packed
            if self.offset is None:
                size = sum(p.stat().st_size for p in {path, *self.sources} if p.exists())
                check_size(size, dataset.size * dtype.itemsize)
                stored = Packed(shape, dtype, self._unpacked)
            else:
                stored = mapped(owner, dtype, self.offset, shape)
        self.values = [Values(stored)]

    def _check_sources(self, dataset: h5py.Dataset, sources: list[Path]) -> None:
        """HDF5 gives fill values, silently, for what a virtual dataset shows of files that are not there."""
        gone = [p for p in sources if not p.exists() and "%b" not in p.name]
        if gone and len(gone) == len(sources):
            raise InputError(f"{self.part}: its values are in {gone[0].name}, which is not there")
        if gone:
            fill = f"{dataset.fillvalue:g} there" if dataset.dtype.kind in "iuf" else "empty there"
            self._remark(
                f"{len(gone)} of {len(sources)} files of {self.part} are not there, as {gone[0].name}: {fill}"
            )

    def _remark(self, words: str) -> None:
        self.note = f"{self.note}; {words}" if self.note else words

    def _unpacked(self) -> np.ndarray:
        with h5py.File(self.path, "r") as file:
            dataset = _readable(file[self.part])
            values: np.ndarray = room(dataset.shape, dataset.dtype)
            if not dataset.shape:
                return np.asarray(dataset[()])
            for rows in _rows(dataset):
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

    def _store(self, path: Path, result: np.ndarray, same: bool) -> None:
        """Writes the array into a copy of the file: into the `same` dataset, or a new one in its place."""
        with h5py.File(path, "r+") as file, h5py.File(self.path, "r") as original:
            dataset = (
                file[self.place]
                if same
                else _real(file, original, self.place, path.parent, result.dtype)
            )
            for rows in _rows(dataset):
                dataset[rows] = result[rows]
        if not self.inside:
            names = ", ".join(dict.fromkeys(p.name for p in self.sources))
            self._remark(f"its {self.part} is a dataset of its own, no longer a view of {names}")

    def _keep_targets(self, path: Path) -> None:
        """Makes what the copy of the file names relative to its folder lead to the files that it led to."""
        home, there = self.path.parent, path.parent
        links: dict[str, h5py.ExternalLink] = {}
        views: list[str] = []
        with h5py.File(self.path, "r") as file:
            seen: set[int] = set()
            for name, link in _links(file):
                if isinstance(link, h5py.ExternalLink):
                    links[name] = link
                elif isinstance(link, h5py.HardLink) and isinstance(
                    item := file[name], h5py.Dataset
                ):
                    address = h5py.h5o.get_info(item.id).addr
                    if _sources(item) and address not in seen and name != self.place:
                        views.append(name)
                    seen.add(address)
            moved = {name: _moved(link.filename, home, there) for name, link in links.items()}
        if not views and not any(moved.values()):
            return
        with h5py.File(path, "r+") as file:
            for name, target in moved.items():
                if target:
                    del file[name]
                    file[name] = h5py.ExternalLink(target, links[name].path)
            for name in views:
                _move_view(file, name, self.path, there)
        if names := sorted({*links, *views} - {self.place}):
            verb = "reads" if len(names) == 1 else "read"
            self._remark(f"{some_of(names, FEW)} still {verb} the original files")


def _named(file: h5py.File, path: Path, part: str | None) -> str:
    """The dataset that `part` names, or the only one.

    Raises:
        InputError: there is none of this name, or there are several.
    """
    if part is not None:
        name = "/".join(components(part))
        item = _get(file, name) if name else file
        if isinstance(item, h5py.Dataset):
            return name
        if item is None and (broken := _broken(file, components(part))):
            raise InputError(broken)
        if isinstance(item, h5py.Group):
            names = [f"{name}/{n}".lstrip("/") for n in _datasets(item)[0]]
            inside = f"name an array in it: {', '.join(f'{path.name}:{n}' for n in names[:20])}"
            raise InputError(f"{part}: is a group, {inside if names else 'which holds no arrays'}")
    names, broken_ones = _datasets(file)
    if not names and broken_ones:
        raise InputError(
            _broken(file, components(broken_ones[0])) or f"{broken_ones[0]}: leads nowhere"
        )
    return chosen(path, part, names)


def _datasets(group: h5py.Group) -> tuple[list[str], list[str]]:
    """The names of all datasets, each by one name, those inside first; and of links that lead nowhere."""
    found: list[str] = []
    broken: list[str] = []
    seen: set[Any] = set()
    groups: list[tuple[str, h5py.Group]] = [("", group)]

    def add(name: str, item: Any) -> None:
        key = _identity(item)
        if key not in seen and isinstance(item, h5py.Dataset):
            found.append(name)
        seen.add(key)

    for prefix, here in groups:  # it grows
        seen.add(_identity(here))
        here.visititems(lambda name, item, prefix=prefix: add(prefix + name, item))
        for name, link in _links(here):
            if isinstance(link, h5py.HardLink):
                continue
            item = _get(here, name)
            if item is None:
                broken.append(prefix + name)
            elif isinstance(item, h5py.Group):
                if _identity(item) not in seen:
                    groups.append((f"{prefix}{name}/", item))
            else:
                add(prefix + name, item)
    return found, broken


def _identity(item: Any) -> tuple[str, int]:
    return item.file.filename, h5py.h5o.get_info(item.id).addr


def _links(group: h5py.Group) -> list[tuple[str, Any]]:
    """All links in a group and in the groups that it holds itself, each with its name."""
    found: list[tuple[str, Any]] = []
    group.visititems_links(lambda name, link: found.append((name, link)))
    return found


def _get(group: h5py.Group, name: str, link: bool = False) -> Any:
    """What a name leads to, or its link; None where that is nothing, or a circle of links."""
    try:
        return group.get(name, getlink=link)
    except (KeyError, OSError, RuntimeError):
        return None


def _broken(file: h5py.File, names: list[str]) -> str | None:
    """What to say of a name on whose way a link leads nowhere."""
    here: Any = file
    for number, name in enumerate(names):
        link = _get(here, name, link=True) if isinstance(here, h5py.Group) else None
        below = _get(here, name) if link is not None else None
        if link is not None and below is None:
            shown = "/".join(names[: number + 1])
            if isinstance(link, h5py.ExternalLink):
                there = _found(link.filename, Path(here.file.filename).parent)
                lacks = f"has no {link.path}" if there.exists() else "is not there"
                return f"{shown}: is a link into {link.filename}, which {lacks}"
            return f"{shown}: is a link to {getattr(link, 'path', '?')}, which leads nowhere"
        if below is None:
            return None
        here = below
    return None


def _followed(file: h5py.File, name: str) -> tuple[str, bool]:
    """A name after all soft links in the file were followed, up to an external one, if there is one: the second value.

    Raises:
        InputError: they lead in a circle.
    """
    todo, done, external, count = components(name), list[str](), False, 0
    while todo:
        head = todo.pop(0)
        link = None if external else file[f"/{'/'.join(done)}"].get(head, getlink=True)
        if isinstance(link, h5py.SoftLink):
            done = [] if link.path.startswith("/") else done
            todo = [*components(link.path), *todo]
            count += 1
            if count > LINKS:
                raise InputError(f"{name}: its links lead in a circle")
            continue
        external = external or isinstance(link, h5py.ExternalLink)
        done.append(head)
    return "/".join(done), external


def _found(name: str, folder: Path) -> Path:
    """The file that HDF5 finds under a name in a file of a folder: there, or where the command runs."""
    places = [folder / name, Path(name)]
    if os.path.isabs(name):
        places = [Path(name), folder / Path(name).name]
    return next((p for p in places if Path(str(p).replace("%b", "0")).exists()), places[0])


def _moved(name: str, home: Path, there: Path) -> str | None:
    """What names, in a file of the folder `there`, the file that `name` names in one of `home`; None for the same."""
    target = _found(name, home)
    if not Path(str(target).replace("%b", "0")).exists():
        return None
    if os.path.isabs(name) and target == Path(name):
        return None
    target = Path(os.path.realpath(target.parent)) / target.name
    try:
        moved = os.path.relpath(target, os.path.realpath(there))
    except ValueError:  # another drive of Windows
        moved = str(target)
    return moved if moved != name else None


def _sources(dataset: h5py.Dataset) -> list[Path]:
    """The files that hold the values of a virtual dataset, or of one with external storage."""
    folder = Path(dataset.file.filename).parent
    if dataset.is_virtual:
        names = [source.file_name for source in dataset.virtual_sources()]
        return [_found(name, folder) for name in dict.fromkeys(names) if name != "."]
    return [_stored(name, folder) for name, _, _ in dataset.external or ()]


def _stored(name: str, folder: Path) -> Path:
    """The file of external storage: HDF5 looks for it where the command runs; then the folder of the file is tried."""
    return next((p for p in (Path(name), folder / name) if p.exists()), folder / name)


def _readable(dataset: h5py.Dataset) -> h5py.Dataset:
    """The dataset; with the files of its external storage sought in its folder where they are not elsewhere."""
    if not dataset.external or all(Path(name).exists() for name, _, _ in dataset.external):
        return dataset
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_efile_prefix(b"${ORIGIN}")
    name, file = dataset.name.encode(), dataset.file
    del dataset
    return h5py.Dataset(h5py.h5d.open(file.id, name, access))


def _rows(dataset: h5py.Dataset) -> Iterator[slice]:
    """Parts of the first axis, each of whole chunks and of about PIECE bytes."""
    row = max(1, dataset.size // max(1, len(dataset)) * dataset.dtype.itemsize)
    chunk = dataset.chunks[0] if dataset.chunks else 1
    step = max(1, PIECE // row // chunk) * chunk
    for start in range(0, len(dataset), step):
        yield slice(start, min(start + step, len(dataset)))


def _real(
    file: h5py.File, original: h5py.File, name: str, there: Path, dtype: np.dtype
) -> h5py.Dataset:
    """Puts a dataset of its own in the place of a view, of a link into another file, or of a dataset of another type.

    Args:
        file: the copy, which is written to.
        original: the file that it is a copy of.
        name: of the dataset, without soft links.
        there: the folder of the copy.
        dtype: of the new dataset.
    """
    *groups, last = components(name)
    here: Any = file
    for number, head in enumerate(groups):
        if isinstance(here.get(head, getlink=True), h5py.ExternalLink):
            _unfold(here, head, original["/".join(groups[: number + 1])], there)
        here = here[head]
    old = original[name]
    if isinstance(here.get(last, getlink=True), h5py.ExternalLink):
        del here[last]
        new = _like(file, old, _creation(old, dtype), dtype)
        _copy_attributes(old, new)
        here[last] = new
        return new
    return _replaced(file, name, _creation(old, dtype), dtype)


def _unfold(parent: h5py.Group, name: str, group: h5py.Group, there: Path) -> None:
    """Puts a group in the place of a link to a group of another file; what that holds is linked to, one by one."""
    target = os.path.realpath(group.file.filename)
    with contextlib.suppress(ValueError):  # another drive of Windows
        target = os.path.relpath(target, os.path.realpath(there))
    del parent[name]
    made = parent.create_group(name)
    _copy_attributes(group, made)
    for member in group:
        made[member] = h5py.ExternalLink(target, f"{group.name.rstrip('/')}/{member}")


def _creation(old: h5py.Dataset, dtype: np.dtype) -> Any:
    """The properties of a dataset like `old` that holds its values itself: chunks, filters and the fill value.

    Those of a virtual one are its first source's, where they fit.
    """
    plist = old.id.get_create_plist()
    if old.chunks and dtype == old.dtype:
        return plist
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if old.chunks:  # a stored layout says how large a value is
        made.set_chunk(old.chunks)
        for code, flags, values, _ in (plist.get_filter(k) for k in range(plist.get_nfilters())):
            # they pack integers
            if code not in (h5py.h5z.FILTER_NBIT, h5py.h5z.FILTER_SCALEOFFSET):
                made.set_filter(code, flags, values)
    if old.is_virtual and dtype == old.dtype and (chunked := _chunked_source(old)) is not None:
        made = chunked
    _copy_fill(old, made)
    return made


def _chunked_source(old: h5py.Dataset) -> Any | None:
    source = old.virtual_sources()[0] if old.virtual_sources() else None
    path = _found(source.file_name, Path(old.file.filename).parent) if source else None
    if source is None or path is None or not path.is_file() or source.file_name == ".":
        return None
    with h5py.File(path, "r") as file:
        item = file.get(source.dset_name)
        if (
            not isinstance(item, h5py.Dataset)
            or not item.chunks
            or len(item.chunks) != len(old.shape)
        ):
            return None
        plist = item.id.get_create_plist()
        filters = [plist.get_filter(k)[0] for k in range(plist.get_nfilters())]
        usable = all(h5py.h5z.filter_avail(code) for code in filters) and item.dtype == old.dtype
        fits = all(c <= n for c, n in zip(item.chunks, old.shape, strict=True))
        return plist if usable and fits else None


def _like(file: h5py.File, old: h5py.Dataset, plist: Any, dtype: np.dtype) -> h5py.Dataset:
    """A dataset of the shape of `old` that has no name yet."""
    same = dtype == old.dtype
    kind = old.id.get_type().copy() if same else h5py.h5t.py_create(dtype, logical=True)
    space = old.id.get_space() if old.chunks else h5py.h5s.create_simple(old.shape)
    return h5py.Dataset(h5py.h5d.create(file.id, None, kind, space, plist))


def _replaced(file: h5py.File, name: str, plist: Any, dtype: np.dtype) -> h5py.Dataset:
    """A dataset with other properties, and no values yet, under all names of an old one in the same file."""
    old = file[name]
    address = h5py.h5o.get_info(old.id).addr
    hard = [n for n, link in _links(file) if isinstance(link, h5py.HardLink)]
    names = [n for n in hard if h5py.h5o.get_info(file[n].id).addr == address]
    new = _like(file, old, plist, dtype)
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


def _move_view(file: h5py.File, name: str, source: Path, there: Path) -> None:
    """Makes a virtual dataset, or one with external storage, in a copy of a file lead to where it led before.

    Args:
        file: the copy.
        name: of the dataset.
        source: the file that it is a copy of.
        there: the folder of the copy.
    """
    old, home = file[name], source.parent
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if old.is_virtual:
        before = [s.file_name for s in old.virtual_sources()]
        after = [n if n == "." else _moved(n, home, there) or n for n in before]
        after = [
            "." if n != "." and _found(n, there).resolve() == source.resolve() else n for n in after
        ]
        for view, target in zip(old.virtual_sources(), after, strict=True):
            plist.set_virtual(
                view.vspace, target.encode(), view.dset_name.encode(), _source_space(view, home)
            )
    else:
        before = [n for n, _, _ in old.external]
        after = [str(_stored(n, home).resolve()) for n in before]
        for target, (_, offset, size) in zip(after, old.external, strict=True):
            plist.set_external(target.encode(), offset, size)
    if after != before:
        _copy_fill(old, plist)
        _replaced(file, name, plist, old.dtype)


def _source_space(view: Any, home: Path) -> Any:
    """What a virtual dataset shows of one source. HDF5 does not store the shape of one that is shown whole."""
    if view.src_space.get_select_type() != h5py.h5s.SEL_ALL:
        return view.src_space
    shape = view.vspace.shape
    with (
        contextlib.suppress(OSError, KeyError),
        h5py.File(_found(view.file_name, home), "r") as file,
    ):
        shape = file[view.dset_name].shape
    return h5py.h5s.create_simple(shape)


def _copy_fill(old: h5py.Dataset, plist: Any) -> None:
    before = old.id.get_create_plist()
    if before.fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED:
        fill = np.empty((), old.dtype)
        before.get_fill_value(fill)
        plist.set_fill_value(fill)
