"""The package stays as light to read as it is: what benchmarks/density.py counts has limits."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
AT_MOST = {
    "nodes per line": 6.5,
    "of statements alone (C901) over 12": 0,
    "What, Which, Whether, How": 0.02,
    "names in two files or more": 0.03,
    "files in the root": 14,
    "lines over 100": 0,
}
AT_LEAST = {"2 parameters or more, with Args": 0.75, "returning a value, with Returns": 0.4}


# On one worker, which counts the package once.
pytestmark = pytest.mark.xdist_group("density")


@pytest.fixture(scope="module")
def figures():
    spec = importlib.util.spec_from_file_location("density", ROOT / "benchmarks" / "density.py")
    density = importlib.util.module_from_spec(spec)
    sys.modules["density"] = density  # dataclasses look their module up
    spec.loader.exec_module(density)
    yield density.figures(density.count(density.files_of(str(ROOT / "n2n_lightning"))))
    del sys.modules["density"]


@pytest.mark.parametrize("name", AT_MOST)
def test_no_more_than(name, figures):
    assert figures[name] <= AT_MOST[name]


@pytest.mark.parametrize("name", AT_LEAST)
def test_no_less_than(name, figures):
    assert figures[name] >= AT_LEAST[name]
