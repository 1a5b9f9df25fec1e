"""Resume a run: lay the options typed now on its stored configuration."""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf

from n2n_lightning.config.hydra_versions import register_resolver
from n2n_lightning.config.overrides import CONF, compose_config, unquoted
from n2n_lightning.config.targets import refuse_foreign, targets_of
from n2n_lightning.files import InputError, option
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
        InputError: one of them cannot change any more, or the configuration names a module that
            must be allowed.
        HydraException: one names a key or choice that does not exist.
    """
    config, before = run_folder.read_request(folder)
    if str(config.data.get("_target_")).endswith(".Movie") and "blind" not in config.data:
        config.data.blind = "frame"  # of a run before there was a choice
    latest = {_key(override): override for override in before}
    new: list[str] = []
    for override in typed:
        if override.startswith("-"):
            raise InputError(f"{override}: goes with a new run; resume= has its configuration")
        if _concerns_the_run(override) and not _equal(override, latest.get(_key(override))):
            new.append(override)
    for override in new:
        if _key(override).startswith(FIXED):
            raise InputError(
                f"{override}: cannot change when a run goes on, its checkpoint has it;"
                " start a new run"
            )
    groups = [override for override in new if (CONF / _key(override)).is_dir()]
    for override in groups:
        config[_key(override)] = _composed_group(override, before)
    values = [override for override in new if override not in groups]
    continued = _laid_on(config, values)
    plain = OmegaConf.to_container(continued, resolve=False)
    refuse_foreign(targets_of(plain), option("resume", folder), typed)
    return continued, [*before, *new]


def _composed_group(override: str, before: list[str]) -> Any:
    """Compose the choice of a group as the experiment of the run and its own options have it.

    Args:
        override: the choice, `loss=l1`.
        before: the overrides of the run; of those for keys of the group the ones are applied that
            the new choice has.
    """
    group = _key(override)
    if override.startswith("~"):
        raise InputError(f"{override}: choose another one instead, {group}=CHOICE")
    recipe = [o for o in before if _key(o) == "experiment"]
    plain = compose_config([*recipe, override])
    keys: list[str] = []
    for own in before:
        parent, _, name = _key(own).rpartition(".")
        if _key(own).startswith(f"{group}.") and name in (OmegaConf.select(plain, parent) or ()):
            keys.append(own)
    return compose_config([*recipe, override, *keys])._get_node(group)


def _equal(override: str, other: str | None) -> bool:
    """Return True if two overrides give one key the same value, however it is spelled."""
    if other is None or override == other:
        return override == other
    parser = OverridesParser.create()
    one, another = (parser.parse_override(text) for text in (override, other))
    return one.type == another.type and one.value() == another.value()


def resolve_hydra_of(folder: Path) -> None:
    """Let `${hydra:...}` and `${now:...}` of a stored configuration mean what they meant.

    Args:
        folder: the run folder.
    """
    stored = folder / ".hydra" / "hydra.yaml"
    if stored.exists():
        setup_globals()
        hydra = OmegaConf.load(stored).hydra
        register_resolver("hydra", partial(OmegaConf.select, hydra))


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _concerns_the_run(override: str) -> bool:
    """Return False for options of Hydra and of sweeps, for `allow=` and `resume=` itself."""
    return not _key(override).startswith(("resume", "sweep.", "hydra", "allow"))


def _laid_on(config: Any, overrides: list[str]) -> DictConfig:
    """Apply overrides in Hydra's grammar to a configuration that is not composed from conf/."""
    with tempfile.TemporaryDirectory() as folder:
        OmegaConf.save(config, Path(folder) / "config.yaml")
        return compose_config(overrides, Path(folder))
