"""Checks of a configuration before training: names and values that cannot work.

Constructors check their own arguments; here are the checks of what belongs to several of them, and
of arguments that libraries would accept, to fail later or to do something else.
"""

import difflib
import inspect
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError

# Hydra's options that stand alone, and those that take the next word.
_ALONE = "--help -h --hydra-help --version --resolve --run -r --multirun -m"
_TAKING = (
    "--cfg -c --package -p --info -i --shell-completion -sc --experimental-rerun"
    " --config-path -cp --config-name -cn --config-dir -cd"
)
# Arguments of Lightning's Trainer that the run sets itself, and what to type instead.
_SET_BY_THE_RUN = {
    "callbacks": "'+callbacks.NAME={_target_: pytorch_lightning.callbacks.LearningRateMonitor}'"
    " adds a callback",
    "plugins": "they write the checkpoints of a run; trainer.precision= and trainer.strategy="
    " choose others",
    "default_root_dir": "hydra.run.dir= names the run folder",
}
_LENGTHS = ("limit_train_batches", "max_steps", "overfit_batches", "val_check_interval")
_COUNTS = ("max_epochs", "check_val_every_n_epoch", "accumulate_grad_batches")
# A match of this share of the letters is a likely typing error of a key; lower than difflib's 0.6,
# as short names differ in a third of their letters after one mistake.
_SIMILAR = 0.5


def explained(message: str, arguments: Sequence[str], conf: Path) -> str:
    """Return a clearer line for a name that does not exist in the configuration.

    Args:
        message: the text of Hydra's exception, on one line.
        arguments: the command line; the groups chosen in it decide which keys there are.
        conf: the folder of the configuration.

    Returns:
        The line for the user; the message itself where it is about something else.
    """
    choice = re.search(
        r"Could not find '([\w/]+)/([^']+)' Available options in '[^']+': (.+?) Config search",
        message,
    )
    if choice:
        group, name, listed = choice.groups()
        choices = listed.split()
        near = _nearest(name, choices)
        return f"{group}={name}: there is no such choice{near}; there are {', '.join(choices)}"
    override = re.search(r"Could not override '([^']+)'", message)
    if override:
        return _no_such_key(override[1], _keys(arguments, conf), conf)
    missing = re.search(r"Missing mandatory value: .*full_key: (data\.\S+)", message)
    if missing:
        return f"{missing[1]}: is needed; {missing[1]}=PLACE names a file or folder"
    ambiguous = re.search(r"Ambiguous value for argument '([^']+)'", message)
    if ambiguous:
        return f"{ambiguous[1]}: several values make a sweep: add -m; a list is written [a,b]"
    return message


def _no_such_key(key: str, keys: Sequence[str], conf: Path) -> str:
    """Return the line for a key that a configuration with `keys` does not have."""
    section, _, name = key.rpartition(".")
    if not section:
        return f"{key}: there is no such key{_elsewhere(name, keys)}"
    files = sorted(conf.glob(f"{section}/*.yaml"))
    choices = [f"{section}={path.stem}" for path in files if _has(path, name)]
    if choices:
        return f"{key}: there is no such key here; it belongs to {', '.join(choices)}"
    if section == "trainer" and name in _trainer_arguments():
        return (
            f"{key}: is given as +{key}=VALUE, for it is not in conf/trainer;"
            " pytorch_lightning.Trainer takes it"
        )
    split_keys = [other.rpartition(".") for other in keys]
    siblings = [last for group, _, last in split_keys if group == section]
    shown = [last for last in siblings if not last.startswith("_")]
    has = f"; {section} has {', '.join(shown)}" if shown else ""
    return f"{key}: there is no such key{_nearest(name, shown)}{has}; +{key}=VALUE adds one"


def foreign(arguments: Sequence[str]) -> None:
    """Refuse arguments in the style of other programs: `--lr 0.1`, `lr = 0.1`.

    Raises:
        InputError: an argument is neither `NAME=VALUE` nor one of Hydra's options.
    """
    alone, taking = set(_ALONE.split()), set(_TAKING.split())
    previous = ""
    for argument in arguments:
        of_hydra = argument.partition("=")[0] in alone | taking or previous in taking
        if not of_hydra and not argument.startswith("~"):
            _refuse_foreign(argument)
        previous = argument


def _refuse_foreign(argument: str) -> None:
    if argument.startswith(("-", "=")) or "=" not in argument:
        raise InputError(
            f"{argument}: arguments are NAME=VALUE, without -- and without spaces:"
            " data.noisy=FOLDER; --help lists the names"
        )


def _elsewhere(name: str, keys: Sequence[str]) -> str:
    """Return a question for the dotted key whose last word is like `name`; empty without one."""
    words = {key.rpartition(".")[2]: key for key in reversed(keys) if "_target_" not in key}
    matches = difflib.get_close_matches(name, words, 1)
    return f" (did you mean {words[matches[0]]}?)" if matches else ""


def _trainer_arguments() -> list[str]:
    """Return the names of the arguments of pytorch_lightning.Trainer."""
    from pytorch_lightning import Trainer

    return list(inspect.signature(Trainer.__init__).parameters)[1:]


def refuse_config(config: dict[str, Any]) -> None:
    """Refuse values that the libraries below would accept, to fail later or to do something else.

    Args:
        config: the plain configuration of a run.

    Raises:
        InputError: a value cannot work, by itself or with the others.
    """
    seed, target = config["seed"], config["target"]
    if not isinstance(seed, int) or seed < 0:
        raise InputError("seed", seed, "must be a whole number, 0 or more")
    if target not in ("noisy", "clean"):
        raise InputError("target", target, "must be noisy or clean")
    certify = config.get("certify", 0)
    if isinstance(certify, bool) or not isinstance(certify, int) or certify < 0:
        raise InputError("certify", certify, "must be a number of scenes, 0 or more")
    _refuse_same_captures(config["data"])
    _refuse_rate(config["optim"])
    trainer = config["trainer"]
    _refuse_counts(trainer)
    _refuse_clipping(trainer, config["optim"])
    _refuse_trainer_arguments(trainer)
    _refuse_device(str(trainer.get("accelerator", "auto")), str(trainer.get("precision", "auto")))


def _refuse_same_captures(data: dict[str, Any]) -> None:
    noisy, target = data.get("noisy"), data.get("target")
    if not noisy or not target:
        return
    if Path(str(noisy)).resolve() == Path(str(target)).resolve():
        raise InputError(
            "data.target",
            target,
            "is data.noisy itself; the second captures are others of the same scenes",
        )


def _refuse_rate(optim: dict[str, Any]) -> None:
    rate = optim.get("lr", 1)
    of_adam = str(optim.get("_target_")).startswith("torch.optim.Adam")
    largest = 1 if of_adam else math.inf
    if not _is_number(rate) or not 0 < rate <= largest:
        limit = " and 1 at most" if of_adam else ""
        raise InputError("optim.lr", rate, f"must be a number, larger than 0{limit}")


def _refuse_counts(trainer: dict[str, Any]) -> None:
    """Refuse numbers of epochs, nodes and seconds that cannot be, or leave no validation."""
    for name in _COUNTS:
        value = trainer.get(name, 1)
        if name == "max_epochs" and value is None and _ends_otherwise(trainer):
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            reason = "must be a whole number, 1 or more"
            if name == "max_epochs":
                reason += "; with trainer.max_steps= or max_time= null works"
            raise InputError(f"trainer.{name}", value, reason)
    nodes = trainer.get("num_nodes", 1)
    if nodes != 1 and "ddp" not in str(trainer.get("strategy", "")):
        raise InputError("trainer.num_nodes", nodes, "needs trainer=ddp")
    every = trainer.get("check_val_every_n_epoch", 1)
    epochs = trainer.get("max_epochs", 1)
    if every > (epochs or math.inf):
        raise InputError(
            "trainer.check_val_every_n_epoch",
            every,
            f"there would be no validation in trainer.max_epochs={epochs}",
        )
    limit = trainer.get("max_time")
    if limit is None or isinstance(limit, dict):
        return
    if not re.fullmatch(r"\d+:\d\d:\d\d:\d\d", str(limit)):
        raise InputError(
            "trainer.max_time", limit, "should be DD:HH:MM:SS; 00:00:30:00 is half an hour"
        )


def _ends_otherwise(trainer: dict[str, Any]) -> bool:
    """Tell whether a run without a number of epochs ends after steps or a time."""
    return trainer.get("max_steps", -1) > 0 or bool(trainer.get("max_time"))


def _refuse_clipping(trainer: dict[str, Any], optim: dict[str, Any]) -> None:
    clip = trainer.get("gradient_clip_val")
    if clip is None:
        return
    if not _is_number(clip) or clip <= 0:
        raise InputError(
            "trainer.gradient_clip_val", clip, "must be a number larger than 0, or left out"
        )
    if optim.get("fused") and str(trainer.get("precision")).startswith("16"):
        raise InputError(
            "trainer.gradient_clip_val", clip, "with float16 optim.fused=false goes with it"
        )


def _refuse_trainer_arguments(options: dict[str, Any]) -> None:
    """Refuse arguments of the Trainer with which a run would lose its checkpoint or its score."""
    for name, instead in _SET_BY_THE_RUN.items():
        if options.get(name) is not None:
            raise InputError(f"trainer.{name}: is set by the run itself; {instead}")
    tried = "+trainer.fast_dev_run=true tries one batch and keeps nothing"
    if options.get("enable_checkpointing") is False:
        raise InputError(
            "trainer.enable_checkpointing", "false", f"the checkpoint is what a run is for; {tried}"
        )
    if options.get("barebones"):
        raise InputError(
            "trainer.barebones",
            "true",
            f"would leave no checkpoint and no score; {tried}, and images per second are in"
            " metrics.csv of every run",
        )
    strategy = str(options.get("strategy"))
    way = strategy.partition("_")[2]
    if strategy.startswith("ddp") and way in ("spawn", "fork", "notebook"):
        raise InputError(
            "trainer.strategy", strategy, "its processes cannot share a run here; trainer=ddp can"
        )
    _refuse_lengths(options)
    several = options.get("devices") not in (1, "1") or "ddp" in strategy
    if options.get("use_distributed_sampler") and several:
        raise InputError(
            "trainer.use_distributed_sampler",
            "true",
            "the processes share every batch already; false works",
        )
    _refuse_loggers(options.get("logger"))


def _refuse_lengths(options: dict[str, Any]) -> None:
    """Refuse numbers of batches, steps and epochs that train on nothing or disagree."""
    for name in _LENGTHS:
        value = options.get(name)
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InputError(f"trainer.{name}", value, "must be a number")
        if value == 0 and name != "overfit_batches":
            raise InputError(
                f"trainer.{name}", "0", "nothing would be trained on or scored; larger than 0"
            )
    least, most = options.get("min_epochs"), options.get("max_epochs")
    if isinstance(least, int) and isinstance(most, int) and least > most:
        raise InputError("trainer.min_epochs", least, f"more than trainer.max_epochs={most}")


def _refuse_loggers(asked: Any) -> None:
    """Refuse loggers that are no class with arguments."""
    for logger in asked if isinstance(asked, list) else [asked]:
        if isinstance(logger, bool | None):  # true: those of the run; false: see added_loggers
            continue
        if not isinstance(logger, dict) or "_target_" not in logger:
            raise InputError(
                "trainer.logger",
                logger,
                "must name a class, as '+trainer.logger={_target_:"
                " pytorch_lightning.loggers.CSVLogger, save_dir: more}'",
            )


def _refuse_device(accelerator: str, precision: str) -> None:
    """Refuse a device that is not there, and float16 without a GPU."""
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    available = {"gpu": cuda or mps, "cuda": cuda, "mps": mps}
    if not available.get(accelerator, True):
        raise InputError(
            "trainer.accelerator",
            accelerator,
            f"torch {torch.__version__} finds none here; auto or cpu works",
        )
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not available["gpu"])
    if on_cpu and precision in ("16", "16-mixed", "16-true"):
        raise InputError(
            "trainer.precision", precision, "float16 needs a GPU; bf16-mixed, 32-true or auto works"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def unexpected(message: str, make: Any) -> str:
    """Return Python's line about an unexpected argument, with the nearest argument of `make`.

    Args:
        message: of the TypeError.
        make: the function or class that was called.

    Returns:
        The message, with a question where an argument has a similar name.

    >>> unexpected("f() got an unexpected keyword argument 'widht'", lambda width: None)
    "f() got an unexpected keyword argument 'widht' (did you mean width?)"
    """
    match = re.search(r"unexpected keyword argument '(\w+)'", message)
    if not match or not callable(make):
        return message
    return message + _nearest(match[1], list(inspect.signature(make).parameters))


def _has(path: Path, name: str) -> bool:
    """Tell whether a YAML file has a key at its first level."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return any(line.startswith(f"{name}:") for line in lines)


def _nearest(name: str, names: Sequence[str]) -> str:
    """Return a question for the name most like `name`; empty where none is."""
    matches = difflib.get_close_matches(name, names, 1, _SIMILAR)
    return f" (did you mean {matches[0]}?)" if matches else ""


def _keys(arguments: Sequence[str], conf: Path) -> list[str]:
    """Return the dotted keys of the configuration with the chosen groups, as far as these exist."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from n2n_lightning.config.hydra_versions import VERSION_BASE

    groups = {path.parent.relative_to(conf).as_posix() for path in conf.rglob("*.yaml")}
    chosen = []
    for argument in arguments:
        is_choice = argument.partition("=")[0] in groups
        if is_choice and (conf / f"{argument.replace('=', '/')}.yaml").is_file():
            chosen.append(argument)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), **VERSION_BASE):
        composed = compose("config", chosen)
    config: Any = OmegaConf.to_container(composed, resolve=False)
    return list(_flat(config, ""))


def _flat(config: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, value in config.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
