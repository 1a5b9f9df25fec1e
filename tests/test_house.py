"""The rules of the house (CONTRIBUTING.md), as far as they can be tested."""

import ast
import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "n2n_lightning"
FILES = sorted(PACKAGE.rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    """n2n_lightning/data/datamodule.py -> n2n_lightning.data.datamodule"""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 650
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, Function):
            first = node.body[1] if ast.get_docstring(node) and node.body[1:] else node.body[0]
            assert node.end_lineno - first.lineno < 80, node.name


def imports(path: Path) -> Iterator[str]:
    """Yield the modules of this package that one imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("n2n_lightning"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)


def test_imports_run_one_way():
    after = {
        name: set(imports(path)) - {name}
        for name, path in MODULES.items()
        if name != "n2n_lightning"
    }
    done: list[str] = []
    while after:
        free = [name for name, needs in after.items() if not needs & set(after)]
        assert free, f"a circle among {sorted(after)}"
        done += free
        for name in free:
            del after[name]
    order = [
        ("formats", "data.pairs"),
        ("arrays.axes", "formats"),
        ("data.datamodule", "training.run"),
        ("networks", "inference.denoiser"),
        ("inference.checkpoint", "inference.denoiser"),
        ("inference.denoiser", "denoise"),
        ("training.run", "train"),
        ("training.run", "selection.candidates"),
        ("inspection", "selection.data_set"),
        ("selection.search", "denoise"),
    ]
    for first, second in order:
        assert done.index(f"n2n_lightning.{first}") < done.index(f"n2n_lightning.{second}"), (
            first,
            second,
        )


GROUND = {"files", "paths", "randomness", "devices"}  # imported by any room
LOWER = {  # what else the files of a room may import of other rooms
    "config": {"runs"},
    "arrays": set(),
    "formats": {"arrays"},
    "noise": {"arrays"},
    "networks": {"arrays"},
    "runs": {"config", "metrics"},
    "metrics": {"arrays", "networks", "data"},
    "data": {"config", "arrays", "formats", "noise", "metrics", "losses"},
    "inspection": {"arrays", "data", "metrics"},
    "watch": {"arrays", "data", "formats", "inference", "metrics", "reporting"},
    "selection": {
        "arrays",
        "config",
        "data",
        "formats",
        "inference",
        "inspection",
        "metrics",
        "reporting",
        "runs",
        "training",
    },
}


def test_rooms_import_lower_rooms_only():
    for name, path in MODULES.items():
        room = name.split(".")[1] if "." in name else ""
        if room in LOWER:
            used = {other.split(".")[1] for other in imports(path) if "." in other}
            assert used <= {room, *GROUND, *LOWER[room]}, name


def test_nobody_imports_a_command():
    commands = {
        f"n2n_lightning.{name}"
        for name in ("train", "evaluate", "report", "denoise", "export", "prepare", "check")
    }
    for name, path in MODULES.items():
        assert not commands & set(imports(path)), name


def test_axes_are_counted_in_one_place():
    for name, path in MODULES.items():
        if name != "n2n_lightning.arrays.axes":
            found = re.findall(
                r"\.ndim\b|\.dim\(\)|shape\[-\d|(?:flip|transpose|flatten)\(-\d|dim=-\d",
                path.read_text(),
            )
            assert not found, f"{name}: {found}"


# napari alone imports it, and brings along what it needs
IN_NAPARI = "n2n_lightning.napari_plugin.widget"


@pytest.mark.parametrize("name", sorted({*MODULES} - {IN_NAPARI}))
def test_examples_in_docstrings(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


def test_there_are_examples():
    assert sum(path.read_text(encoding="utf-8").count(">>> ") for path in FILES) > 30


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_what_is_public_says_what_it_is(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    for node in tree.body:
        if (
            isinstance(node, Function | ast.ClassDef)
            and not node.name.startswith("_")
            and node.name != "main"
        ):
            assert ast.get_docstring(node) or node.name == "parser", node.name
