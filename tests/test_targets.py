"""What files may name, and what runs only when a person asks for it."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from n2n_lightning.config import hydra_versions
from n2n_lightning.config.resume import continued_config
from n2n_lightning.config.targets import refuse_foreign, targets_of
from n2n_lightning.files import InputError
from n2n_lightning.inference.checkpoint import PRETRAINED
from n2n_lightning.sweep.resume import resumed_sweep
from n2n_lightning.training import warm_start


def _touching(marker: Path) -> dict:
    """A configuration that creates a file when it is instantiated."""
    return {
        "_target_": "pathlib.Path.touch",
        "self": {"_target_": "pathlib.Path", "_args_": [str(marker)]},
    }


def test_targets_at_any_depth():
    config = {"a": [{"_target_": "x.A", "b": {"_target_": "y.B"}}], "_target_": "z.C", "n": 1}
    assert targets_of(config) == {"x.A", "y.B", "z.C"}


@pytest.mark.parametrize(
    "typed",
    [["allow=mine"], ["+allow=[other,mine.nets]"], ["+callbacks.c._target_=mine.nets.Net"]],
)
def test_what_a_person_names_is_allowed(typed):
    names = ["mine.nets.Net", "torch.optim.Adam", "pytorch_lightning.callbacks.Timer"]
    refuse_foreign(names, "resume=A", typed)


@pytest.mark.parametrize("name", ["os.system", "torchy.Net", "n2n_lightningx.Net", "mine"])
def test_other_packages_are_refused(name):
    with pytest.raises(InputError, match=rf"^resume=A: names {name}; allow="):
        refuse_foreign([name], "resume=A", ["allow=other", "optim.lr=1"])


def test_a_checkpoint_for_init_calls_nothing(tmp_path):
    content = torch.load(PRETRAINED, weights_only=True)
    content["n2n_lightning"]["model"] = _touching(tmp_path / "marker")
    torch.save(content, tmp_path / "evil.ckpt")
    with pytest.raises(InputError, match="init= takes networks of this package"):
        warm_start.checkpoint_model(tmp_path / "evil.ckpt")
    assert not (tmp_path / "marker").exists()


def test_a_run_folder_names_parts_of_known_packages_alone(tmp_path):
    stored = tmp_path / ".hydra"
    stored.mkdir()
    config = {
        "data": {"_target_": "n2n_lightning.data.Photos"},
        "callbacks": {"x": _touching(tmp_path / "marker")},
    }
    (stored / "config.yaml").write_text(yaml.safe_dump(config))
    (stored / "overrides.yaml").write_text("[]")
    with pytest.raises(InputError, match=r"names pathlib\.Path; allow=pathlib if you trust"):
        continued_config(tmp_path, [])
    assert not (tmp_path / "marker").exists()


def test_a_sweep_names_parts_of_known_packages_alone(tmp_path):
    words = ["-m", "optim.lr=0.1,0.2", "+callbacks.x={_target_: os.system, command: echo}"]
    (tmp_path / "sweep.json").write_text(json.dumps({"arguments": words, "n_trials": None}))
    with pytest.raises(InputError, match=r"names os\.system; allow=os if you trust"):
        resumed_sweep([f"sweep.resume={tmp_path}"])
    assert "-m" in resumed_sweep([f"sweep.resume={tmp_path}", "allow=os"])


def test_hydra_1_4_may_construct_what_a_name_stands_for_in_its_own_package(monkeypatch):
    """`n2n_lightning.noise.Pixelate` is `n2n_lightning.noise.pixelate.Pixelate` to Hydra."""
    allowed = []
    monkeypatch.setattr(hydra_versions, "_whitelist", allowed.extend)
    hydra_versions.may_run({"own.Net", "pathlib.Path"})
    assert {"own.*", "pathlib.*", "n2n_lightning.*", "torch.*"} <= set(allowed)
    assert "os.*" not in allowed
