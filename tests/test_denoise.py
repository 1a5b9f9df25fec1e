"""The command denoise: what it reads, refuses and writes."""

import inspect
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import n2n_lightning
from n2n_lightning import load
from n2n_lightning.files import InputError
from n2n_lightning.formats import opened
from n2n_lightning.inference import checkpoint as checkpoint_files
from n2n_lightning.inference import denoiser
from tests.conftest import linux, run
from tests.pictures import RNG, noisy, png, tiff


def planar(path: Path, array: np.ndarray, **options: object) -> None:
    tiff(path, array.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", **options)


def touch(path: str) -> None:
    Path(path).touch()


def test_the_examples_run():
    import doctest

    for module in (denoiser,):
        assert doctest.testmod(module).failed == 0
        assert doctest.testmod(module).attempted > 3
    assert "load" in n2n_lightning.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        n2n_lightning.nothing  # noqa: B018
    assert inspect.signature(load).parameters["path"].default == checkpoint_files.PRETRAINED


def test_the_package_is_imported_without_torch():
    code = (
        "import sys, n2n_lightning.denoise, n2n_lightning.export; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def folder_of_pictures(folder: Path) -> Path:
    (folder / "deeper").mkdir(parents=True)
    png(folder / "a.png", noisy(40, 50, 3, "uint8"))
    png(folder / "deeper" / "b.png", noisy(40, 50, 1, "uint16"))
    tiff(folder / "c.TIF", noisy(40, 50, 1, "uint16"))
    Image.fromarray(noisy(40, 50, 3, "uint8")).save(folder / "d.jpeg")
    np.save(folder / "e.npy", noisy(40, 50, 1, "float32"))
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.mark.walk
def test_a_folder_with_a_broken_file(tmp_path):
    folder_of_pictures(tmp_path / "pictures")
    done = run("denoise", "pictures", "-o", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith(
        "error: pictures/broken.png: damaged, or not the PNG file"
    )
    assert done.stderr.splitlines()[1] == "1 of 6 pictures failed"
    assert len(done.stderr.splitlines()) == 2
    assert "left alone: notes.txt" in done.stdout
    found = sorted(
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()
    )
    assert found == ["a.png", "c.TIF", "d.jpeg", "deeper/b.png", "e.npy"]

    # Again: nothing is overwritten, and what is there is not touched.
    (tmp_path / "out" / "a.png").unlink()
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()}
    again = run("denoise", "pictures", "-o", "out", cwd=tmp_path)
    assert again.returncode == 1  # the broken one
    assert "4 of 6 pictures were there already; --overwrite replaces them" in again.stdout
    assert (tmp_path / "out" / "a.png").is_file()
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}
    again = run("denoise", "pictures/a.png", "pictures/e.npy", "-o", "out", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert "2 of 2 pictures were there already; --overwrite replaces them" in again.stdout
    for overwrite in ([], ["--overwrite"]):
        itself = run("denoise", "pictures/a.png", "-o", "pictures", *overwrite, cwd=tmp_path)
        assert itself.stderr.startswith("error: pictures/a.png: would replace itself")
        assert itself.returncode == 2
    assert (
        run("denoise", "pictures/e.npy", "-o", "out", "--overwrite", cwd=tmp_path).returncode == 0
    )
    assert (tmp_path / "out" / "e.npy").stat().st_mtime_ns > stamps[tmp_path / "out" / "e.npy"]


@pytest.mark.walk
def test_where_results_go_among_the_pictures(tmp_path):
    (tmp_path / "raw").mkdir()
    png(tmp_path / "raw" / "a.png", noisy(8, 9, 3, "uint8"))
    # the pictures lie below the results
    assert run("denoise", "raw", "-o", ".", cwd=tmp_path).returncode == 0
    assert (tmp_path / "a.png").is_file()
    for target, names in (("raw/clean", ["a.png"]), ("raw/more", ["a.png", "clean/a.png"])):
        assert run("denoise", "raw", "-o", target, cwd=tmp_path).returncode == 0
        found = sorted(
            str(p.relative_to(tmp_path / target)) for p in (tmp_path / target).rglob("*.png")
        )
        assert found == names
    png(tmp_path / "raw" / "b.png", noisy(8, 9, 3, "uint8"))
    done = run(
        "denoise",
        "raw/**/b.png",
        "../" + tmp_path.name + "/raw/b.png",
        "-o",
        "raw/clean",
        cwd=tmp_path,
    )
    # the same file by two names; results of before are no pictures
    assert done.returncode == 0, done.stderr
    done = run("denoise", "raw/**/b.png", "-o", "raw/clean", "--overwrite", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.walk
@linux
def test_one_picture_to_one_name_and_patterns(tmp_path):
    folder_of_pictures(tmp_path / "pictures")
    done = run("denoise", "pictures/a.png", "-o", "clean.png", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "clean.png").is_file()
    # broken.png is among them
    assert run("denoise", "pictures/**/*.png", "-o", "all", cwd=tmp_path).returncode == 1
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == ["a.png", "b.png"]
    png(tmp_path / "x[1].png", noisy(8, 9, 3, "uint8"))
    assert (
        run(
            "denoise",
            "x[1].png",
            "-o",
            "odd",
            "--tta",
            "--batch",
            "2",
            "--tile",
            "384",
            cwd=tmp_path,
        ).returncode
        == 0
    )
    os.rename(tmp_path / "x[1].png", os.fsencode(tmp_path / "pictures") + b"/\xff.png")
    odd = run("denoise", "pictures", "-o", "bytes", cwd=tmp_path)
    assert odd.returncode == 1
    assert r"bytes/\udcff.png" in odd.stdout  # the byte of the name that is no UTF-8
    assert "1 of 7 pictures failed" in odd.stderr


BAD = {
    "no such file": (["nothing.png", "-o", "out"], 1, "error: nothing.png: no such file"),
    "no match": (["*.webp", "-o", "out"], 2, "error: *.webp: matches no file"),
    "another kind": (
        ["pictures/notes.txt", "-o", "out"],
        1,
        "error: pictures/notes.txt: is none of .png, .jpg",
    ),
    "empty folder": (["empty", "-o", "out"], 2, "error: empty: holds no pictures"),
    "clash": (
        ["pictures/a.png", "other/a.png", "-o", "out"],
        2,
        "error: pictures/a.png and other/a.png would both become out/a.png",
    ),
    "another format": (
        ["pictures/a.png", "-o", "out.jpg"],
        2,
        "error: out.jpg: a .png picture stays one; name it out.png",
    ),
    "tile": (
        ["pictures/a.png", "-o", "out", "--tile", "64"],
        2,
        "error: --tile 64: must be 384 or more",
    ),
    "batch": (
        ["pictures/a.png", "-o", "out", "--batch", "0"],
        2,
        "error: --batch 0: must be larger than 0",
    ),
    "scale": (
        ["pictures/a.png", "-o", "out", "--scale", "nan"],
        2,
        "error: --scale nan: must be larger than 0",
    ),
    "checkpoint": (
        ["pictures/a.png", "-o", "out", "--checkpoint", "pictures"],
        2,
        "error: pictures: not a run folder",
    ),
    "device": (
        ["pictures/a.png", "-o", "out", "--device", "quantum"],
        2,
        "error: --device quantum: ",
    ),
    "out": (["pictures/a.png"], 2, "error: the following arguments are required: -o/--out"),
    "out is a file": (
        ["pictures", "-o", "pictures/notes.txt"],
        2,
        "error: pictures/notes.txt: is a file",
    ),
    "out cannot be made": (
        ["pictures/a.png", "-o", "/proc/x"],
        1,
        "error: /proc/x/a.png: cannot be written",
    ),
    "two to one": (
        ["pictures/a.png", "pictures/d.jpeg", "-o", "out.png"],
        2,
        "error: out.png: is the name of a picture, for 2 pictures; name a folder",
    ),
    "a name of another kind": (
        ["pictures/a.png", "-o", "out.bmp"],
        2,
        "error: out.bmp: a .png picture stays one",
    ),
    "no name": (["", "-o", "out"], 2, "error: a picture without a name"),
    "infinite scale": (
        ["pictures/a.png", "-o", "out", "--scale", "inf"],
        2,
        "error: --scale inf: must be larger",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_what_cannot_work_gets_one_line(name, tmp_path):
    if name == "out cannot be made" and sys.platform != "linux":
        pytest.skip("there is no /proc")
    arguments, status, line = BAD[name]
    folder_of_pictures(tmp_path / "pictures")
    (tmp_path / "empty").mkdir()
    folder_of_pictures(tmp_path / "other")
    done = run("denoise", *arguments, cwd=tmp_path)
    assert done.returncode == status
    assert done.stderr.startswith(line), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def bomb(path: Path) -> None:
    """A PNG that says it is 60,000 x 60,000 and has next to nothing in it."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(100))
    parts = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def wide_tiff(path: Path, compressed: bool) -> None:
    """A TIFF whose header says 1,000,000 x 1,000,000."""
    tifffile.imwrite(path, np.zeros((16, 16), np.uint8), compression="zlib" if compressed else None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for code in (256, 257, 278):
            file.pages[0].tags[code].overwrite(1_000_000)


DAMAGED = {
    "bomb.png": (bomb, "which no photograph does; it is not read"),
    "wide.tif": (
        lambda p: wide_tiff(p, False),
        "damaged, or not the TIFF file|which no photograph does",
    ),
    "deflated.tif": (lambda p: wide_tiff(p, True), "which no photograph does; it is not read"),
    "text.png": (lambda p: p.write_text("hello"), "is no PNG file"),
    "empty.png": (lambda p: p.write_bytes(b""), "is no PNG file"),
    "empty.tif": (lambda p: p.write_bytes(b""), "damaged, or not the TIFF file"),
    "empty.npy": (lambda p: p.write_bytes(b""), "damaged, or not the NPY file"),
    "empty.jpg": (lambda p: p.write_bytes(b""), "damaged, or not the JPEG file"),
    "objects.npy": (
        lambda p: np.save(p, np.array([{}, None]), allow_pickle=True),
        "damaged, or not the NPY file",
    ),
    "complex.npy": (
        lambda p: np.save(p, np.zeros((4, 4), complex)),
        "values of type complex128: must be one of uint8",
    ),
    "axes.npy": (lambda p: np.save(p, np.zeros((5,) * 5)), "which axis is what"),
    "none.npy": (lambda p: np.save(p, np.zeros((0, 4))), "holds no pixels"),
    "short.npy": (
        lambda p: (np.save(p, np.zeros((40, 40))), os.truncate(p, 500)),
        "damaged, or not the NPY file",
    ),
    "cmyk.jpg": (lambda p: Image.new("CMYK", (8, 8)).save(p), "is a CMYK JPEG; convert it to RGB"),
    "moving.png": (
        lambda p: Image.new("L", (8, 8)).save(
            p, save_all=True, append_images=[Image.new("L", (8, 8), 9)]
        ),
        "is an animation",
    ),
    "palette.tif": (
        lambda p: tifffile.imwrite(
            p,
            np.zeros((8, 8), np.uint8),
            photometric="palette",
            colormap=np.zeros((3, 256), np.uint16),
        ),
        "is a palette TIFF",
    ),
    "pyramid.tif": (lambda p: pyramid(p), "has its image in several resolutions"),
    "ycbcr.tif": (
        lambda p: Image.new("YCbCr", (8, 8)).save(p, compression="tiff_lzw"),
        "is a YCbCr TIFF",
    ),
    "volume.tif": (
        lambda p: tifffile.imwrite(
            p, np.zeros((16, 16, 16), np.uint8), volumetric=True, tile=(16, 16, 16)
        ),
        "is a volumetric TIFF",
    ),
    "cut.tif": (lambda p: cut(p), "is truncated"),
    "planes.ome.tif": (lambda p: fewer_planes(p), "its description and its pages disagree"),
    "png.jpg": (
        lambda p: Image.new("L", (8, 8)).save(p, format="PNG"),
        "damaged, or not the JPEG file",
    ),
}


def moving(path: Path) -> None:
    first, second = Image.new("L", (8, 8)), Image.new("L", (8, 8), 9)
    first.save(path, save_all=True, append_images=[second])


def palette(path: Path) -> None:
    colours = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), photometric="palette", colormap=colours)


def cut(path: Path) -> None:
    """Four pages, of which the last two are lost."""
    with tifffile.TiffWriter(path) as file:
        for _ in range(4):
            file.write(RNG.integers(0, 255, (32, 32), np.uint8), contiguous=False, metadata=None)
    with tifffile.TiffFile(path) as file:
        third = file.pages[2].offset
    os.truncate(path, third)


def fewer_planes(path: Path) -> None:
    """An OME description of three planes in a file that holds two."""
    tifffile.imwrite(
        path, np.zeros((3, 16, 16), np.uint8), metadata={"axes": "ZYX"}, compression="zlib"
    )
    with tifffile.TiffFile(path) as file:
        description = file.pages[0].description.encode()
    with tifffile.TiffWriter(path, ome=False) as file:
        for i in range(2):
            text = description if i == 0 else None
            file.write(
                np.zeros((16, 16), np.uint8),
                compression="zlib",
                description=text,
                metadata=None,
                contiguous=False,
            )


def pyramid(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((64, 64), np.uint8), subifds=1)
        file.write(np.zeros((32, 32), np.uint8), subfiletype=1)


@pytest.mark.parametrize("name", DAMAGED)
def test_pictures_that_cannot_be_read(name, tmp_path):
    make, message = DAMAGED[name]
    make(tmp_path / name)
    with pytest.raises(InputError, match=message) as caught:
        [
            picture.meaning(values)
            for picture in [opened(tmp_path / name)]
            for values in picture.values
        ]
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)
