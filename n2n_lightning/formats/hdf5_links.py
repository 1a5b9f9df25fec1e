"""Links and views of HDF5 files, and the files that they lead to."""

import os
from pathlib import Path
from typing import Any

import h5py

from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import components

MAX_SOFT_LINKS = 64  # soft links that lead to one another, before they are called a circle


def address_of(item: Any) -> int:
    """Return the position of a dataset or group in its file, the same under all its names."""
    return int(h5py.h5o.get_info(item.id).addr)


def all_links(group: h5py.Group) -> list[tuple[str, Any]]:
    """Return the links of a group and of the groups that it holds itself, each with its name."""
    links: list[tuple[str, Any]] = []

    def visit(name: str, link: Any) -> None:
        links.append((name, link))

    group.visititems_links(visit)
    return links


def target_of(group: h5py.Group, name: str) -> Any:
    """Return what a name of a group leads to.

    Args:
        group: the group.
        name: a path below it.

    Returns:
        A dataset or a group; None if there is none, or a circle of links.
    """
    try:
        return group.get(name)
    except (KeyError, OSError, RuntimeError):
        return None


def is_external(group: h5py.Group, name: str) -> bool:
    """Compare a member of a group with links into other files.

    Args:
        group: the group.
        name: of the member.

    Returns:
        True if it is one.
    """
    link = group.get(name, getlink=True)
    return isinstance(link, h5py.ExternalLink)


def why_broken(file: h5py.File, name: str) -> str | None:
    """Explain why a name leads nowhere.

    Args:
        file: the file.
        name: a path in it.

    Returns:
        A message on the first link of the path that is broken; None if none is.
    """
    current: Any = file
    passed: list[str] = []
    for member in components(name):
        passed.append(member)
        link = _link_of(current, member)
        if link is None:
            return None
        target = target_of(current, member)
        if target is None:
            place = "/".join(passed)
            return f"{place}: {_broken_link(link, current)}"
        current = target
    return None


def _link_of(item: Any, name: str) -> Any:
    """Return the link of a group's member; None if there is none, or the item is no group."""
    if not isinstance(item, h5py.Group):
        return None
    try:
        return item.get(name, getlink=True)
    except (KeyError, OSError, RuntimeError):
        return None


def _broken_link(link: Any, group: h5py.Group) -> str:
    """Return a message on a link of a group that leads nowhere."""
    if not isinstance(link, h5py.ExternalLink):
        target = getattr(link, "path", "?")
        return f"is a link to {target}, which leads nowhere"
    folder = Path(group.file.filename).parent
    reason = "is not there"
    if linked_file(link.filename, folder).exists():
        reason = f"has no {link.path}"
    return f"is a link into {link.filename}, which {reason}"


def follow_soft_links(file: h5py.File, name: str) -> tuple[str, bool]:
    """Replace the soft links of a name, up to an external link.

    Args:
        file: the file.
        name: a path in it.

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
            group = file["/" + "/".join(resolved)]
            link = group.get(head, getlink=True)
        if isinstance(link, h5py.SoftLink):
            count += 1
            if count > MAX_SOFT_LINKS:
                raise InputError(f"{name}: its links lead in a circle")
            if link.path.startswith("/"):
                resolved = []
            pending = components(link.path) + pending
            continue
        external = external or isinstance(link, h5py.ExternalLink)
        resolved.append(head)
    return "/".join(resolved), external


def linked_file(name: str, folder: Path) -> Path:
    """Return the file that HDF5 opens for a name in a file of a folder.

    It looks in that folder, then where the command runs.

    Args:
        name: a path, relative or absolute; `%b` stands for numbers.
        folder: the folder of the file that states it.

    Returns:
        The path of the first of them that exists; if none does, the first that HDF5 looks for.
    """
    path = Path(name)
    candidates = [folder / name, path]
    if os.path.isabs(name):
        candidates = [path, folder / path.name]
    for candidate in candidates:
        if _first_of_pattern(candidate).exists():
            return candidate
    return candidates[0]


def _first_of_pattern(path: Path) -> Path:
    """Return the first file of a numbered series, which virtual datasets write as `%b`."""
    return Path(str(path).replace("%b", "0"))


def moved_name(name: str, home: Path, folder: Path) -> str | None:
    """Return the name that leads to the same file from another folder.

    Args:
        name: the name in a file of `home`.
        home: the folder in which it is stated.
        folder: the folder in which the new name will be stated.

    Returns:
        The new name; None if the old one stays.
    """
    target = linked_file(name, home)
    if not _first_of_pattern(target).exists():
        return None
    stays_absolute = os.path.isabs(name) and target == Path(name)
    if stays_absolute:
        return None
    real_home = os.path.realpath(target.parent)
    moved = relative_path(os.path.join(real_home, target.name), folder)
    return moved if moved != name else None


def relative_path(target: str, folder: Path) -> str:
    """Return a path relative to a folder.

    Args:
        target: a path without symbolic links.
        folder: the folder, which may be a symbolic link.

    Returns:
        The relative path; the target itself if it is on another drive of Windows.
    """
    try:
        return os.path.relpath(target, os.path.realpath(folder))
    except ValueError:
        return target


def raw_files_of(dataset: h5py.Dataset) -> list[Path]:
    """Return the files with the values of a virtual dataset or of one with external storage."""
    folder = Path(dataset.file.filename).parent
    if not dataset.is_virtual:
        return [external_file(name, folder) for name in external_names(dataset)]
    names: dict[str, None] = {}  # each once, in order
    for source in dataset.virtual_sources():
        names[source.file_name] = None
    names.pop(".", None)
    return [linked_file(name, folder) for name in names]


def external_names(dataset: h5py.Dataset) -> list[str]:
    """Return the names of a dataset's files of external storage."""
    segments = dataset.external or []
    return [name for name, _offset, _size in segments]


def external_file(name: str, folder: Path) -> Path:
    """Return the file of external storage.

    HDF5 looks for it where the command runs; then the folder of the file is tried.

    Args:
        name: as the dataset states it.
        folder: of the dataset's file.

    Returns:
        Its path.
    """
    path = Path(name)
    return path if path.exists() else folder / name
