"""The plugin of napari: its manifest, the axes of layers, progress and cancelling."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import n2n_lightning
from n2n_lightning.napari_plugin.layers import axes_of_layer, denoise_layer, kept_properties

FOLDER = Path(n2n_lightning.__file__).parent / "napari_plugin"


def test_the_manifest_is_valid_and_names_what_exists():
    manifest = FOLDER / "napari.yaml"
    command = [sys.executable, "-m", "npe2", "validate", str(manifest)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    contributions = yaml.safe_load(manifest.read_text(encoding="utf-8"))["contributions"]
    (widget,) = contributions["commands"]
    module, _, name = widget["python_name"].partition(":")
    path = FOLDER.parent.parent / f"{module.replace('.', '/')}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert name in [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert [one["command"] for one in contributions["widgets"]] == [widget["id"]]


def test_napari_finds_the_manifest():
    (entry,) = [
        one
        for one in importlib.metadata.entry_points(group="napari.manifest")
        if one.name == "n2n_lightning"
    ]
    assert entry.value == "n2n_lightning.napari_plugin:napari.yaml"


@pytest.mark.parametrize(
    ("shape", "rgb", "labels", "axes"),
    [
        ((64, 64), False, ("-2", "-1"), "HW"),
        ((9, 64, 64), False, ("z", "y", "x"), "DHW"),
        ((9, 2, 64, 64), False, ("time", "channel", "y", "x"), "TCHW"),
        ((9, 64, 64, 3), True, ("T", "Y", "X"), "THWC"),
        ((64, 64, 9), False, ("y", "x", "z"), "HWD"),
        ((9, 64, 64), False, ("z", "z", "x"), "NHW"),
        ((9, 64, 64), False, (), "NHW"),
    ],
)
def test_axes_are_those_that_the_layer_names(shape, rgb, labels, axes):
    assert axes_of_layer(shape, rgb, labels) == axes


def test_the_share_that_is_done_rises_to_one_and_an_error_ends_it():
    noisy = np.random.default_rng(0).normal(90, 9, (3, 40, 48)).astype(np.float32)
    shares = []
    result = denoise_layer(noisy, axes="NHW", advance=shares.append)
    assert result.shape == noisy.shape
    assert result.std() < noisy.std() / 2
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(shares) == 3

    def cancel(share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        denoise_layer(noisy, axes="NHW", advance=cancel)


def test_a_denoised_layer_lies_where_the_other_one_does():
    layer = SimpleNamespace(scale=(1, 2), translate=(5, 5), contrast_limits=(0, 255), name="a")
    kept = kept_properties(layer)
    assert kept == {"scale": (1, 2), "translate": (5, 5), "contrast_limits": (0, 255)}
