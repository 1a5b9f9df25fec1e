"""The configuration of a resumed run: the stored one, with what was typed now on it."""

import pytest
from omegaconf import OmegaConf

from n2n_lightning.config.overrides import compose_config
from n2n_lightning.config.resume import continued_config, resolve_hydra_of
from n2n_lightning.files import InputError
from tests.conftest import course_files, run


def begun(folder, *overrides):
    """A run folder as a run with these overrides leaves it, as far as it was asked for."""
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(compose_config(overrides), folder / ".hydra" / "config.yaml")
    OmegaConf.save(list(overrides), folder / ".hydra" / "overrides.yaml")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    return folder


def test_a_chosen_group_keeps_what_the_experiment_sets_in_it(tmp_path):
    folder = begun(tmp_path / "run", "experiment=best", "trainer.devices=1")
    config, overrides = continued_config(folder, ["trainer=ddp"])
    whole = compose_config(["experiment=best", "trainer=ddp", "trainer.devices=1"])
    assert config.trainer == whole.trainer
    assert config.trainer.gradient_clip_val == 0.02
    assert overrides == ["experiment=best", "trainer.devices=1", "trainer=ddp"]


def test_keys_that_the_new_choice_lacks_go(tmp_path):
    folder = begun(tmp_path / "run", "noise=gaussian", "noise.sigma=3")
    config, _ = continued_config(folder, ["noise=poisson"])
    assert config.noise == compose_config(["noise=poisson"]).noise


def test_equal_values_may_be_spelled_otherwise(tmp_path):
    folder = begun(tmp_path / "run", "optim.lr=0.001")
    config, overrides = continued_config(folder, ["optim.lr=1e-3", "trainer.max_epochs=9"])
    assert config.optim.lr == 0.001
    assert overrides == ["optim.lr=0.001", "trainer.max_epochs=9"]
    with pytest.raises(InputError, match=r"^optim.lr=1e-4: cannot change when a run goes on"):
        continued_config(folder, ["optim.lr=1e-4"])


@pytest.mark.parametrize("word", ["--config-dir", "-r", "~callbacks"])
def test_what_a_resumed_run_does_not_take_is_named(word, tmp_path):
    with pytest.raises(InputError, match=f"^{word}: "):
        continued_config(begun(tmp_path / "run"), [word])


def test_interpolations_of_hydra_mean_what_they_meant(tmp_path):
    folder = begun(tmp_path / "run", "resume='${hydra:runtime.output_dir}/more'")
    OmegaConf.save({"hydra": {"runtime": {"output_dir": "/there"}}}, folder / ".hydra/hydra.yaml")
    config, _ = continued_config(folder, [])
    resolve_hydra_of(folder)
    assert OmegaConf.to_container(config, resolve=True)["resume"] == "/there/more"
    OmegaConf.clear_resolver("hydra")


def test_hints_and_hydra_know_the_configuration_of_the_run(tmp_path):
    begun(tmp_path / "run", "data=pairs", "data.noisy=a.npy")
    mistyped = run("train", "resume=run", "data.nosy=x", cwd=tmp_path)
    assert mistyped.returncode == 2
    assert "did you mean noisy?" in mistyped.stderr
    shown = run("train", "--cfg", "job", "resume=run", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "noisy: a.npy" in shown.stdout


@pytest.mark.slow
def test_resume_beside_options_that_equal_the_runs_and_another_batch_size(tmp_path):
    course_files(tmp_path / "course", train=24)
    quick = [
        "data=course",
        "data.root=course",
        "data.batch_size=6",
        "model=residual_unet",
        "model.width=4",
        "trainer.accelerator=cpu",
    ]
    assert (
        run("train", *quick, "trainer.max_epochs=1", "hydra.run.dir=out", cwd=tmp_path).returncode
        == 0
    )
    done = run("train", "model=residual_unet", "trainer.max_epochs=2", "resume=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    refused = run("train", "model=unet", "resume=out", cwd=tmp_path)
    assert refused.stderr.startswith("error: model=unet: cannot change when a run goes on")
