"""HDF5 datasets that take the place of others, with their attributes, chunks and filters."""

import contextlib
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from n2n_lightning.formats.hdf5_links import (
    address_of,
    all_links,
    external_file,
    external_names,
    is_external,
    linked_file,
    moved_name,
    relative_path,
)
from n2n_lightning.formats.picture import components

# attributes that refer to other datasets by their place in the file
SCALES = ("DIMENSION_LIST", "REFERENCE_LIST")


def with_external_files(dataset: h5py.Dataset) -> h5py.Dataset:
    """Open a dataset again so that missing files of its storage are looked for in its folder.

    Returns:
        The dataset itself if no file is missing.
    """
    if all(Path(name).exists() for name in external_names(dataset)):
        return dataset
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_efile_prefix(b"${ORIGIN}")
    name = dataset.name.encode()
    file = dataset.file
    del dataset
    reopened = h5py.h5d.open(file.id, name, access)
    return h5py.Dataset(reopened)


def own_dataset(
    file: h5py.File, original: h5py.File, name: str, folder: Path, dtype: np.dtype
) -> h5py.Dataset:
    """Create a dataset in the place of a view, of an external link, or of another type.

    Args:
        file: the copy, which is written to.
        original: the file that it is a copy of.
        name: of the dataset, without soft links.
        folder: the folder of the copy.
        dtype: of the new dataset.

    Returns:
        The new dataset, without values.
    """
    *groups, last = components(name)
    parent: Any = file
    place = ""
    for group in groups:
        place = f"{place}/{group}"
        if is_external(parent, group):
            _unfold(parent, group, original[place], folder)
        parent = parent[group]
    old = original[name]
    properties = _creation_properties(old, dtype)
    if not is_external(parent, last):
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
    owner = os.path.realpath(group.file.filename)
    target = relative_path(owner, folder)
    del parent[name]
    unfolded = parent.create_group(name)
    _copy_attributes(group, unfolded)
    place = group.name.rstrip("/")
    for member in group:
        unfolded[member] = h5py.ExternalLink(target, f"{place}/{member}")


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
    if not sources:
        return None
    first = sources[0]
    if first.file_name == ".":
        return None
    folder = Path(old.file.filename).parent
    path = linked_file(first.file_name, folder)
    if not path.is_file():
        return None
    with h5py.File(path, "r") as file:
        item = file.get(first.dset_name)
        if not _has_fitting_chunks(item, old):
            return None
        properties = item.id.get_create_plist()
        return properties if _has_usable_filters(properties) else None


def _has_fitting_chunks(source: Any, view: h5py.Dataset) -> bool:
    """Return True if a source is a dataset whose chunks suit the virtual dataset."""
    if not isinstance(source, h5py.Dataset):
        return False
    if source.dtype != view.dtype or not source.chunks:
        return False
    if len(source.chunks) != len(view.shape):
        return False
    return bool(np.less_equal(source.chunks, view.shape).all())


def _has_usable_filters(properties: Any) -> bool:
    """Return True if all filters of a dataset are installed."""
    for number in range(properties.get_nfilters()):
        code, *_ = properties.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            return False
    return True


def _create_like(
    file: h5py.File, old: h5py.Dataset, properties: Any, dtype: np.dtype
) -> h5py.Dataset:
    """Create a dataset of the shape of `old` that has no name yet."""
    if dtype == old.dtype:
        kind = old.id.get_type().copy()
    else:
        kind = h5py.h5t.py_create(dtype, logical=True)
    space = h5py.h5s.create_simple(old.shape)
    if old.chunks:
        space = old.id.get_space()
    created = h5py.h5d.create(file.id, None, kind, space, properties)
    return h5py.Dataset(created)


def _replace_dataset(file: h5py.File, name: str, properties: Any, dtype: np.dtype) -> h5py.Dataset:
    """Create an empty dataset with other properties under all names of an old one of the file."""
    old = file[name]
    address = address_of(old)
    names: list[str] = []
    for alias, link in all_links(file):
        is_hard = isinstance(link, h5py.HardLink)
        if is_hard and address_of(file[alias]) == address:
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
        if key in SCALES:
            continue
        value = old.attrs[key]
        dtype = old.attrs.get_id(key).dtype
        new.attrs.create(key, value, dtype=dtype)


def move_view(file: h5py.File, name: str, source: Path, folder: Path) -> None:
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
            path = external_file(raw_file, home)
            target = str(path.resolve())
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
    moved = moved_name(name, source.parent, folder) or name
    target = linked_file(moved, folder)
    if target.resolve() == source.resolve():
        return "."
    return moved


def _source_space(view: Any, home: Path) -> Any:
    """Return the selection that a virtual dataset shows of one source.

    HDF5 does not store the shape of a source that is shown whole.
    """
    if view.src_space.get_select_type() != h5py.h5s.SEL_ALL:
        return view.src_space
    shape = view.vspace.shape
    path = linked_file(view.file_name, home)
    with contextlib.suppress(OSError, KeyError), h5py.File(path, "r") as file:
        shape = file[view.dset_name].shape
    return h5py.h5s.create_simple(shape)


def _copy_fill(old: h5py.Dataset, properties: Any) -> None:
    old_properties = old.id.get_create_plist()
    if old_properties.fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED:
        fill = np.empty((), old.dtype)
        old_properties.get_fill_value(fill)
        properties.set_fill_value(fill)
