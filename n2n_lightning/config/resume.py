"""Resume a run: lay the options typed now on its stored configuration."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from n2n_lightning.config.overrides import CONF, compose_config, unquoted
from n2n_lightning.files import InputError
from n2n_lightning.runs import folder as run_folder

# `experiment` may set any of the others
FIXED = ("optim", "scheduler", "model", "seed", "experiment")


def resumed_folder(arguments: Sequence[str]) -> Path | None:
    """Return the run folder that the last `resume=` names; None where there is none.

    Raises:
        InputError: the run in it cannot be resumed.
    """
    values = [word.removeprefix("resume=") for word in arguments if word.startswith("resume=")]
    if not values or values[-1] == "null":
        return None
    folder = Path(unquoted(values[-1]))
    if not run_folder.has_request(folder):
        raise InputError("resume", folder, "not a run folder; it has no .hydra/overrides.yaml")
    if {"-m", "--multirun"} & {*arguments}:
        raise InputError(
            "resume", folder, "continues a single run; a sweep is continued with sweep.resume="
        )
    if not run_folder.has_checkpoint(folder):
        raise InputError("resume", folder, "there is no checkpoints/last.ckpt to continue from")
    return folder


def continued_config(folder: Path, typed: Sequence[str]) -> tuple[DictConfig, list[str]]:
    """Lay overrides on the stored configuration of a run.

    A chosen group (`loss=l1`) is composed from conf/ and replaces the stored one; what was typed
    for its keys before stays. Every other override changes its key.

    Args:
        folder: the run folder.
        typed: the options typed beside `resume=`; those that the run has already change nothing.

    Returns:
        The configuration, and the overrides of the run with the new ones after them.

    Raises:
        InputError: one of them cannot change any more.
        HydraException: one names a key or choice that does not exist.
    """
    config, before = run_folder.read_request(folder)
    latest = {_key(override): override for override in before}
    new = [o for o in typed if o != latest.get(_key(o)) and _concerns_the_run(o)]
    for override in new:
        if _key(override).startswith(FIXED):
            raise InputError(
                f"{override}: cannot change when a run goes on, its checkpoint has it;"
                " start a new run"
            )
    groups = [override for override in new if (CONF / _key(override)).is_dir()]
    for override in groups:
        group = _key(override)
        keys = [o for o in before if _key(o).startswith(f"{group}.")]
        config[group] = compose_config([override, *keys])._get_node(group)
    values = [override for override in new if override not in groups]
    return _laid_on(config, values), [*before, *new]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _concerns_the_run(override: str) -> bool:
    """Return False for options of Hydra and of sweeps, and for `resume=` itself."""
    return not _key(override).startswith(("resume", "sweep.", "hydra"))


def _laid_on(config: Any, overrides: list[str]) -> DictConfig:
    """Apply overrides in Hydra's grammar to a configuration that is not composed from conf/."""
    with tempfile.TemporaryDirectory() as folder:
        OmegaConf.save(config, Path(folder) / "config.yaml")
        return compose_config(overrides, Path(folder))
