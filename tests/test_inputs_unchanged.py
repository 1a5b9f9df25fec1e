"""Inputs are opened for reading, and no file but the result is written, however a run ends."""

import contextlib
import ctypes
import hashlib
import os
import resource
import shutil
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from n2n_lightning import check, denoise, evaluate, export, prepare
from n2n_lightning.data.file_matching import pictures
from n2n_lightning.data.reading import read_any
from n2n_lightning.files import InputError, replacing
from n2n_lightning.formats import FOLDERS, PICTURES, ending, opened
from n2n_lightning.inference import plan
from tests.conftest import linux, posix
from tests.test_formats import (  # noqa: F401  checkpoints is a fixture
    FLAT,
    GREY,
    checkpoints,
    command,
    part_of,
    save,
    scenes,
    types_of,
)

Seen = dict[str, tuple[str, int, int, int]]


def state(folder: Path) -> Seen:
    """Checksum, size, time of change and number of names of everything in a folder."""
    found: Seen = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        content = (
            path.read_bytes()
            if path.is_file()
            else os.readlink(path).encode()
            if path.is_symlink()
            else b""
        )
        found[str(path)] = (
            hashlib.sha256(content).hexdigest(),
            about.st_size,
            about.st_mtime_ns,
            about.st_nlink,
        )
    return found


# What the audit hook, which cannot be removed, records while this is a list: what was opened for
# writing, or changed.
RECORDED: list[list[str]] = []
CHANGES = (
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "os.utime",
    "os.link",
    "os.mkdir",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _record(line: str) -> None:
    for lines in RECORDED:
        lines.append(line)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if (
        RECORDED
        and event == "open"
        and isinstance(arguments[0], str | bytes)
        and arguments[2] & WRITING
    ):
        _record(f"open {os.fsdecode(arguments[0])}")
    elif RECORDED and event in CHANGES:
        paths = [os.fsdecode(a) for a in arguments if isinstance(a, str | bytes)]
        _record(" ".join([event, *paths]))


class Notices:
    """The kernel's notices of changes to the files of a folder, by any library or process.

    Anything but opening for reading, reading and closing is one.
    """

    MASK = (
        0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200
    )  # modified, attributes, closed after writing, moved, made, gone

    def __init__(self, folder: Path) -> None:
        self.library = ctypes.CDLL(None, use_errno=True)
        self.handle = self.library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for path in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
            assert self.library.inotify_add_watch(self.handle, os.fsencode(path), self.MASK) >= 0

    def close(self) -> list[str]:
        found = []
        with contextlib.suppress(BlockingIOError):
            while content := os.read(self.handle, 2**16):
                while content:
                    _, mask, _, length = struct.unpack("iIII", content[:16])
                    found.append(f"{mask:#x} {content[16 : 16 + length].rstrip(bytes(1)).decode()}")
                    content = content[16 + length :]
        os.close(self.handle)
        return found


@pytest.fixture
def modes(monkeypatch) -> list[tuple[str, str]]:
    """Modes other than reading, with names of files, of h5py, zarr and np.memmap."""
    found: list[tuple[str, str]] = []

    class File(h5py.File):
        def __init__(self, name: Any, mode: str = "r", *arguments: Any, **options: Any) -> None:
            if mode != "r":
                found.append((mode, str(name)))
            super().__init__(name, mode, *arguments, **options)

    made = np.memmap.__new__

    def mapped(
        kind: Any,
        file: Any,
        dtype: Any = np.uint8,
        mode: Any = "r+",
        *arguments: Any,
        **options: Any,
    ) -> Any:
        if mode not in ("r", "c"):
            found.append((mode, str(file)))
        return made(kind, file, dtype, mode, *arguments, **options)

    whole = zarr.open

    def opened_store(store: Any = None, *, mode: Any = None, **options: Any) -> Any:
        if mode != "r":
            found.append((str(mode), str(store)))
        return whole(store, mode=mode, **options)

    monkeypatch.setattr(h5py, "File", File)
    monkeypatch.setattr(np.memmap, "__new__", mapped)
    monkeypatch.setattr(zarr, "open", opened_store)
    return found


@contextlib.contextmanager
def untouched(folder: Path, modes: list[tuple[str, str]]) -> Iterator[None]:
    """Fails where something in a folder is opened for anything but reading, or is not as it was."""
    if not getattr(sys, "_n2n_hooked", False):
        sys.addaudithook(_hook)
        sys._n2n_hooked = True  # type: ignore[attr-defined]
    before = state(folder)
    modes.clear()
    notices = Notices(folder) if sys.platform == "linux" else None
    RECORDED.append([])
    try:
        yield
    finally:
        recorded = RECORDED.pop()
    assert [line for line in recorded if f"{folder}{os.sep}" in line] == []
    assert [(mode, name) for mode, name in modes if name.startswith(f"{folder}{os.sep}")] == []
    if notices:
        assert notices.close() == []
    assert state(folder) == before


def source_of(folder: Path, kind: str, count: int = 6) -> str:
    """A file of a kind in a folder of its own; and the array in it."""
    folder.mkdir(parents=True, exist_ok=True)
    dtype = "uint8" if kind in (".jpg", ".jpeg") else types_of(kind)[0]
    single = kind in PICTURES and kind not in (".npy", *GREY)
    channels = 3 if kind in (".ppm", ".webp") else 1
    array = scenes(count, channels, dtype)
    save(folder / f"a{kind}", array[0] if single else array)
    return f"{folder}/a{kind}{part_of(kind)}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", FLAT)
def test_inputs_of_every_kind_are_only_read(kind, tmp_path, monkeypatch, checkpoints, modes):
    source = source_of(tmp_path / "in", kind)
    model = checkpoints[3 if kind in (".ppm", ".webp") else 1]
    asked = [source, "-o", tmp_path / "out", "--checkpoint", model]
    with untouched(tmp_path / "in", modes):
        assert command(denoise.main, monkeypatch, *asked) == 0
        assert command(denoise.main, monkeypatch, *asked, "--overwrite", "--strength", "0.5") == 0
        for values in opened(source).values:
            assert values.array.size
        with contextlib.suppress(InputError):  # one small picture is no pair
            read_any(source)
    with untouched(tmp_path / "out", modes):
        assert opened(f"{tmp_path}/out/a{kind}{part_of(kind)}").values[0].array.size
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"a{kind}"]


WRITERS = (".mrc", ".npy", ".png", ".nii.gz", ".zarr", ".h5", ".npz")


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("options", [["--page"], ["--tta"], ["--halves"]], ids=lambda o: o[0])
def test_inputs_are_only_read_with_every_option(
    kind, options, tmp_path, monkeypatch, checkpoints, modes
):
    source = source_of(tmp_path / "in", kind)
    sources = [source]
    if options == ["--halves"]:
        (tmp_path / "in" / "b").mkdir()
        sources.append(source_of(tmp_path / "in" / "b", kind))
    with untouched(tmp_path / "in", modes):
        asked = [*sources, "-o", tmp_path / "out", "--checkpoint", checkpoints[1], *options]
        assert command(denoise.main, monkeypatch, *asked) == 0
    names = {f"a{kind}"} | ({"page.html"} if options == ["--page"] else set())
    assert {p.name for p in (tmp_path / "out").iterdir()} == names


@pytest.mark.slow
@pytest.mark.parametrize("kind", [".npy", ".h5", ".nii.gz", ".zarr"])
def test_inputs_are_only_read_by_check_and_evaluate(
    kind, tmp_path, monkeypatch, checkpoints, modes, capsys
):
    first = source_of(tmp_path / "in" / "a", kind, 16)
    second = source_of(tmp_path / "in" / "b", kind, 16)
    with untouched(tmp_path / "in", modes):
        command(
            check.main,
            monkeypatch,
            first,
            second,
            "--json",
            tmp_path / "check.json",
            "--out",
            tmp_path / "page",
        )
        scored = ["--val-noisy", first, "--val-target", second, "--json", tmp_path / "scores.json"]
        command(evaluate.main, monkeypatch, checkpoints[1], *scored)
    assert (tmp_path / "check.json").is_file()


@pytest.mark.slow
def test_inputs_are_only_read_by_adapt(tmp_path, monkeypatch, modes):
    (tmp_path / "in").mkdir()
    np.save(
        tmp_path / "in" / "a.npy",
        np.random.default_rng(0).normal(100, 10, (64, 64)).astype(np.float32),
    )
    with untouched(tmp_path / "in", modes):
        asked = [tmp_path / "in" / "a.npy", "-o", tmp_path / "out", "--adapt", "--minutes", "0.05"]
        assert command(denoise.main, monkeypatch, *asked) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.npy", "adapted.ckpt"}


def write(source: str, target: Path, then: Any = None) -> None:
    """Writes a result of large values that do not pack well."""
    picture = opened(source)
    draws = np.random.default_rng(0)
    folder = ending(target) in FOLDERS
    with replacing(target, folder=folder) as temporary, picture.written(temporary) as results:
        results[0][...] = draws.integers(0, 100, results[0].shape)
        if then:
            then()


@posix
@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_leaves_inputs_and_earlier_results(
    kind, tmp_path, monkeypatch, checkpoints, modes, capsys
):
    source = source_of(tmp_path / "in", kind, 40)
    model = checkpoints[1]
    asked = [source, "-o", tmp_path / "out", "--checkpoint", model, "--overwrite"]
    assert command(denoise.main, monkeypatch, *asked) == 0
    earlier = state(tmp_path / "out")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    capsys.readouterr()
    with untouched(tmp_path / "in", modes):
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
        try:
            assert command(denoise.main, monkeypatch, *asked) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (
        "no space left on the disk for it; what was there before is untouched"
        in capsys.readouterr().err
    )
    assert state(tmp_path / "out") == earlier


@posix
@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("moment", ["writing", "written"])
def test_a_killed_run_leaves_inputs_earlier_results_and_a_hidden_file(
    kind, moment, tmp_path, modes
):
    source = source_of(tmp_path / "in", kind, 40)
    target = tmp_path / "out" / f"a{kind}"
    write(source, target)
    earlier = state(tmp_path / "out")

    def killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with untouched(tmp_path / "in", modes):
        pid = os.fork()
        if pid == 0:
            try:
                # the system ends a process that writes more than it may, as kill -9 would
                if moment == "writing":
                    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
                write(source, target, killed if moment == "written" else None)
            finally:
                os._exit(0)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    left = {p.name for p in (tmp_path / "out").iterdir()} - {target.name}
    assert len(left) == 1
    assert all(name.startswith(".") for name in left)
    after = state(tmp_path / "out")
    assert {name: after[name] for name in earlier} == earlier
    found, skipped = plan.planned([str(tmp_path / "out")], tmp_path / "again")
    assert ([job.source for job in found], skipped) == ([target], [])
    if kind not in (".h5", ".npz"):
        assert pictures(tmp_path / "out") == [target]
    write(source, target)


@posix
@pytest.mark.parametrize("kind", [".tif", ".mrc", ".fits", ".nii", ".npy", ".h5", ".png"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_the_result_of_a_link_is_a_new_file(kind, link, tmp_path, monkeypatch, checkpoints, modes):
    source = source_of(tmp_path / "store", kind)
    (tmp_path / "in").mkdir()
    link(tmp_path / "store" / f"a{kind}", tmp_path / "in" / f"a{kind}")
    with untouched(tmp_path / "store", modes), untouched(tmp_path / "in", []):
        asked = [
            f"{tmp_path}/in/a{kind}{part_of(kind)}",
            "-o",
            tmp_path / "out",
            "--checkpoint",
            checkpoints[1],
        ]
        assert command(denoise.main, monkeypatch, *asked) == 0
    result = tmp_path / "out" / f"a{kind}"
    assert not result.is_symlink()
    assert result.stat().st_nlink == 1
    assert not np.array_equal(
        opened(source).values[0].array, opened(f"{result}{part_of(kind)}").values[0].array
    )


@posix
def test_a_store_with_links_inside_becomes_one_of_files(
    tmp_path, monkeypatch, checkpoints, modes, capsys
):
    store = zarr.open_group(str(tmp_path / "in" / "raw.zarr"), mode="w")
    store.create_array("0", data=scenes(6, 1, "uint16"), chunks=(2, 24, 20))
    store.create_array("labels", data=np.ones((24, 20), np.uint8), chunks=(24, 20))
    linked = tmp_path / "in" / "a.zarr"
    linked.mkdir()
    shutil.copy(tmp_path / "in" / "raw.zarr" / "zarr.json", linked)
    (linked / "0").symlink_to("../raw.zarr/0")
    (linked / "labels").mkdir()
    for path in (tmp_path / "in" / "raw.zarr" / "labels").iterdir():
        link = os.link if path.is_file() else os.symlink
        link(path, linked / "labels" / path.name)
    (linked / "labels" / "round").symlink_to(".")
    (linked / "labels" / "gone").symlink_to("nothing")
    with untouched(tmp_path / "in", modes):
        asked = [f"{linked}:0", "-o", tmp_path / "out", "--checkpoint", checkpoints[1]]
        assert command(denoise.main, monkeypatch, *asked) == 0
    result = tmp_path / "out" / "a.zarr"
    assert [
        p for p in result.rglob("*") if p.is_symlink() or (p.is_file() and p.stat().st_nlink > 1)
    ] == []
    after = zarr.open_group(str(result), mode="r")
    assert not np.array_equal(after["0"][...], scenes(6, 1, "uint16"))
    assert (after["labels"][...] == 1).all()
    assert not (result / "labels" / "round").exists()
    assert "(without labels/gone, a link to nothing)" in capsys.readouterr().out


@posix
def test_a_result_that_is_a_link(tmp_path, monkeypatch, checkpoints, capsys):
    source, other = source_of(tmp_path / "in", ".npy"), source_of(tmp_path / "elsewhere", ".npy")
    out = tmp_path / "out"
    out.mkdir()
    asked = [source, "-o", out, "--checkpoint", checkpoints[1], "--overwrite"]
    before = state(tmp_path / "elsewhere"), state(tmp_path / "in")
    # not an input of this run: the link is replaced, not what it leads to
    (out / "a.npy").symlink_to(other)
    assert command(denoise.main, monkeypatch, *asked) == 0
    assert not (out / "a.npy").is_symlink()
    assert (state(tmp_path / "elsewhere"), state(tmp_path / "in")) == before
    for link in (os.symlink, os.link):
        (out / "a.npy").unlink()
        link(source, out / "a.npy")
        with pytest.raises(
            InputError, match=r"in/a\.npy: would replace itself; name another folder with -o"
        ):
            command(denoise.main, monkeypatch, *asked)
    shutil.copy(other, tmp_path / "in" / "b.npy")
    (out / "a.npy").unlink()
    (out / "a.npy").symlink_to(tmp_path / "in" / "b.npy")
    with pytest.raises(
        InputError, match=r"out/a\.npy: is an input, .*in/b\.npy; name another folder"
    ):
        command(denoise.main, monkeypatch, tmp_path / "in", *asked[1:])
    (tmp_path / "same").symlink_to(tmp_path / "in")
    with pytest.raises(InputError, match="would replace itself"):
        command(denoise.main, monkeypatch, source, "-o", tmp_path / "same", *asked[3:])
    store = Path(source_of(tmp_path / "store", ".zarr"))
    (out / "a.zarr").symlink_to(tmp_path / "kept.zarr")
    shutil.copytree(store, tmp_path / "kept.zarr")
    kept = state(tmp_path / "kept.zarr")
    assert command(denoise.main, monkeypatch, store, *asked[1:]) == 0
    assert not (out / "a.zarr").is_symlink()
    assert state(tmp_path / "kept.zarr") == kept
    assert {p.name for p in out.iterdir()} == {"a.npy", "a.zarr"}


def test_where_results_must_not_go(tmp_path, monkeypatch):
    source_of(tmp_path / "in", ".zarr")
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / "in" / name, np.ones((8, 8)))
    (tmp_path / "more").mkdir()
    np.save(tmp_path / "more" / "c.npy", np.ones((8, 8)))
    monkeypatch.chdir(tmp_path)
    for asked, said in {
        ("in/a.zarr", "in/a.zarr/out"): r"lies in an input, in/a\.zarr",
        ("in/a.npy", "in"): "in/a.npy: would replace itself",
        ("in", "in"): "would replace itself",
        ("in/a.npy", "in/../in/a.npy"): "would replace itself",
    }.items():
        with pytest.raises(InputError, match=said):
            plan.planned([asked[0]], Path(asked[1]), overwrite=True)
    np.save("in/c.npy", np.ones((8, 8)))
    assert plan.planned(["in/a.npy", "in/b.npy"], Path("more"), overwrite=True)[0]
    (tmp_path / "more" / "a.czi").touch()
    assert plan.planned(["more/a.czi"], Path("more"), overwrite=True)[0]
    (tmp_path / "more" / "a.tif").touch()
    with pytest.raises(
        InputError, match=r"more/a\.tif: exists in the folder of the inputs, .* may be an original"
    ):
        plan.planned(["more/a.czi"], Path("more"), overwrite=True)
    assert plan.planned(["more/a.czi"], Path("more/a.tif"), overwrite=True)[0]  # named
    (tmp_path / "in" / "out").mkdir()
    np.save("in/out/a.npy", np.zeros((8, 8)))
    found, _ = plan.planned(["in"], Path("in/out"), overwrite=True)  # earlier results are no inputs
    assert sorted(str(job.target) for job in found) == [
        f"in/out/{n}" for n in ("a.npy", "a.zarr", "b.npy", "c.npy")
    ]
    found, _ = plan.planned(["in/out"], Path("."))
    assert [(str(job.source), str(job.target)) for job in found] == [("in/out/a.npy", "a.npy")]
    with pytest.raises(InputError, match=r"in/a\.npy: would replace itself"):
        plan.halves_of(["in/a.npy", "in/b.npy"], Path("in/a.npy"))


def test_two_inputs_that_would_have_one_name(tmp_path, monkeypatch):
    for name in ("x/a.tif", "y/A.tif", "x/a.czi", "x/Pra\u0308parat.tif", "y/Pr\u00e4parat.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"x/a\.tif and x/a\.czi would both become out/a\.tif"):
        plan.planned(["x/a.tif", "x/a.czi"], Path("out"))
    # as this disk has it
    assert plan.one_name(Path("out/a.tif"), Path("out/A.tif")) == Path("X").exists()
    for first, second in (("x/a.tif", "y/A.tif"), ("x/Pra\u0308parat.tif", "y/Pr\u00e4parat.tif")):
        for one in (False, True):
            monkeypatch.setattr(plan, "one_name", lambda *_, one=one: one)
            if one:
                with pytest.raises(InputError, match="as the disk takes both names for one"):
                    plan.planned([first, second], Path("out"))
            else:
                assert len(plan.planned([first, second], Path("out"))[0]) == 2
    assert not (tmp_path / "out").exists()


def test_no_option_that_names_a_file_writes_over_an_input(tmp_path, monkeypatch, checkpoints):
    first, second = (source_of(tmp_path / name, ".npy", 16) for name in ("a", "b"))
    model = tmp_path / "model.ckpt"
    shutil.copy(checkpoints[1], model)
    (tmp_path / "link.json").symlink_to(first)
    shutil.copy(model, tmp_path / "adapted.ckpt")
    (tmp_path / "photos").mkdir()
    (tmp_path / "train_data.pkl").symlink_to(tmp_path / "photos")
    before = state(tmp_path)
    scored = [model, "--val-noisy", first, "--val-target", second]
    for main, *asked in (
        (check.main, first, second, "--json", first),
        (check.main, first, second, "--json", tmp_path / "link.json"),
        (check.main, tmp_path / "a", tmp_path / "b", "--json", first),
        (check.main, tmp_path / "a", tmp_path / "b", "--out", tmp_path / "a"),
        (check.main, first, second, "--out", first),
        (evaluate.main, *scored, "--json", first),
        (evaluate.main, *scored, "--csv", second),
        (evaluate.main, *scored, "--fsc", model),
        (evaluate.main, *scored, "--picture", first),
        (export.main, model, model, "--overwrite"),
        (
            denoise.main,
            first,
            "-o",
            tmp_path,
            "--overwrite",
            "--adapt",
            "--checkpoint",
            tmp_path / "adapted.ckpt",
        ),
        (prepare.main, tmp_path / "train_data.pkl", "-o", tmp_path, "--overwrite"),
    ):
        with pytest.raises(
            InputError,
            match=r"is the input|is among the inputs|would be among|is a file; name a folder",
        ):
            command(main, monkeypatch, *asked)
        assert state(tmp_path) == before, asked


def test_the_raw_file_of_a_view_is_not_a_place_for_its_result(
    tmp_path, monkeypatch, checkpoints, capsys
):
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["frames"] = scenes(3, 1, "uint16")
    layout = h5py.VirtualLayout((3, 24, 20), np.uint16)
    layout[...] = h5py.VirtualSource("raw.h5", "frames", (3, 24, 20))
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    before = state(tmp_path)
    asked = [
        tmp_path / "scan.h5",
        "-o",
        tmp_path / "raw.h5",
        "--overwrite",
        "--checkpoint",
        checkpoints[1],
    ]
    assert command(denoise.main, monkeypatch, *asked) == 1
    assert "raw.h5: is the input" in capsys.readouterr().err
    assert state(tmp_path) == before


@linux
def test_a_mapped_result_on_a_full_disk_is_an_error_and_no_crash(tmp_path, monkeypatch):
    """A file mapped before its space is reserved ends the process on a full disk (SIGBUS)."""
    source = source_of(tmp_path / "in", ".npy")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="no space left on the disk"):
        write(source, tmp_path / "out" / "a.npy")
    assert list((tmp_path / "out").iterdir()) == []
