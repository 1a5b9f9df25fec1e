"""Mistaken configurations, before training begins: names that do not exist, values that cannot work here."""

import difflib
import inspect
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n2n_lightning.config.trainer_options import refuse_trainer_options
from n2n_lightning.files import InputError


def explained(message: str, arguments: Sequence[str], conf: Path) -> str:
    """The message itself, or a clearer one where it is of a name that does not exist.

    Args:
        message: of Hydra's exception, on one line.
        arguments: the command line; the groups chosen in it decide which keys there are.
        conf: the folder of the configuration.
    """
    if match := re.search(
        r"Could not find '([\w/]+)/([^']+)' Available options in '[^']+': (.+?) Config search",
        message,
    ):
        group, name, options = match[1], match[2], match[3].split()
        return f"{group}={name}: there is no such choice{_nearest(name, options)}; there are {', '.join(options)}"
    if match := re.search(r"Could not override '([^']+)'", message):
        key, keys = match[1], _keys(arguments, conf)
        section, _, name = key.rpartition(".")
        beside = [k.rpartition(".")[2] for k in keys if k.rpartition(".")[0] == section]
        others = (
            [f"{section}={p.stem}" for p in sorted(conf.glob(f"{section}/*.yaml")) if _has(p, name)]
            if section
            else []
        )
        if others:
            return f"{key}: there is no such key here; it belongs to {', '.join(others)}"
        shown = [k for k in beside if not k.startswith("_")]
        if section == "trainer" and name in _trainer_arguments():
            return f"{key}: is given as +{key}=VALUE, for it is not in conf/trainer; pytorch_lightning.Trainer takes it"
        if not section:
            return f"{key}: there is no such key{_elsewhere(name, keys)}"
        has = f"; {section} has {', '.join(shown)}" if shown else ""
        return f"{key}: there is no such key{_nearest(name, shown)}{has}; +{key}=VALUE adds one"
    if match := re.search(r"Missing mandatory value: .*full_key: (data\.\S+)", message):
        return f"{match[1]}: is needed; {match[1]}=PLACE names a file or folder"
    if match := re.search(r"Ambiguous value for argument '([^']+)'", message):
        return f"{match[1]}: several values make a sweep: add -m; a list is written [a,b]"
    return message


# Of Hydra: those that stand alone, and those that take the next word.
_ALONE = (
    "--help",
    "-h",
    "--hydra-help",
    "--version",
    "--resolve",
    "--run",
    "-r",
    "--multirun",
    "-m",
)
_TAKING = (
    *(
        "--cfg",
        "-c",
        "--package",
        "-p",
        "--info",
        "-i",
        "--shell-completion",
        "-sc",
        "--experimental-rerun",
    ),
    *("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
)


def foreign(arguments: Sequence[str]) -> None:
    """Raises InputError for arguments as other programs take them: --lr 0.1, lr = 0.1."""
    how = "arguments are NAME=VALUE, without -- and without spaces: data.noisy=FOLDER; --help lists the names"
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if (
            argument.partition("=")[0] in (*_ALONE, *_TAKING)
            or before in _TAKING
            or argument.startswith("~")
        ):
            continue
        if argument.startswith(("-", "=")) or "=" not in argument:
            raise InputError(f"{argument}: {how}")


def _elsewhere(name: str, keys: Sequence[str]) -> str:
    """The dotted key that somebody may have meant by its last word."""
    words = {key.rpartition(".")[2]: key for key in reversed(keys) if "_target_" not in key}
    found = difflib.get_close_matches(name, words, 1, 0.6)
    return f" (did you mean {words[found[0]]}?)" if found else ""


def _trainer_arguments() -> list[str]:
    """What pytorch_lightning.Trainer takes."""
    from pytorch_lightning import Trainer

    return list(inspect.signature(Trainer.__init__).parameters)[1:]


def refuse_config(config: dict[str, Any]) -> None:
    """Raises InputError for values that the libraries below would take, to fail later or to do something else.

    Args:
        config: the plain configuration of a run.
    """
    if not isinstance(config["seed"], int) or config["seed"] < 0:
        raise InputError("seed", config["seed"], "must be a whole number, 0 or more")
    if config["target"] not in ("noisy", "clean"):
        raise InputError("target", config["target"], "must be noisy or clean")
    first, second = (config["data"].get(name) for name in ("noisy", "target"))
    if first and second and Path(str(first)).resolve() == Path(str(second)).resolve():
        raise InputError(
            "data.target",
            second,
            "is data.noisy itself; the second captures are others of the same scenes",
        )
    rate, kind = config["optim"].get("lr", 1), str(config["optim"].get("_target_"))
    most = 1 if kind.startswith("torch.optim.Adam") else math.inf
    if not _is_number(rate) or not 0 < rate <= most:
        limit = " and 1 at most" if most == 1 else ""
        raise InputError("optim.lr", rate, f"must be a number, larger than 0{limit}")
    trainer = config["trainer"]
    for name in ("max_epochs", "check_val_every_n_epoch", "accumulate_grad_batches"):
        value = trainer.get(name, 1)
        if (
            name == "max_epochs"
            and value is None
            and (trainer.get("max_steps", -1) > 0 or trainer.get("max_time"))
        ):
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            free = (
                "; with trainer.max_steps= or max_time= null works" if name == "max_epochs" else ""
            )
            raise InputError(f"trainer.{name}", value, f"must be a whole number, 1 or more{free}")
    if trainer.get("num_nodes", 1) != 1:
        raise InputError(
            "trainer.num_nodes",
            trainer["num_nodes"],
            "a run uses one machine; a sweep uses several",
        )
    if trainer.get("check_val_every_n_epoch", 1) > (trainer.get("max_epochs", 1) or math.inf):
        raise InputError(
            "trainer.check_val_every_n_epoch",
            trainer["check_val_every_n_epoch"],
            f"there would be no validation in trainer.max_epochs={trainer['max_epochs']}",
        )
    limit = trainer.get("max_time")
    if (
        limit is not None
        and not isinstance(limit, dict)
        and not re.fullmatch(r"\d+:\d\d:\d\d:\d\d", str(limit))
    ):
        raise InputError(
            "trainer.max_time", limit, "should be DD:HH:MM:SS; 00:00:30:00 is half an hour"
        )
    clip = trainer.get("gradient_clip_val")
    if clip is not None and (not _is_number(clip) or clip <= 0):
        raise InputError(
            "trainer.gradient_clip_val", clip, "must be a number larger than 0, or left out"
        )
    if clip and config["optim"].get("fused") and str(trainer.get("precision")).startswith("16"):
        raise InputError(
            "trainer.gradient_clip_val", clip, "with float16 optim.fused=false goes with it"
        )
    refuse_trainer_options(trainer)
    _refuse_device(str(trainer.get("accelerator", "auto")), str(trainer.get("precision", "auto")))


def _refuse_device(accelerator: str, precision: str) -> None:
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    found = {"gpu": cuda or mps, "cuda": cuda, "mps": mps}
    if not found.get(accelerator, True):
        raise InputError(
            "trainer.accelerator",
            accelerator,
            f"torch {torch.__version__} finds none here; auto or cpu works",
        )
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not found["gpu"])
    if on_cpu and precision in ("16", "16-mixed", "16-true"):
        raise InputError(
            "trainer.precision", precision, "float16 needs a GPU; bf16-mixed, 32-true or auto works"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def unexpected(message: str, make: Any) -> str:
    """Python's line of an unexpected argument, with the nearest one that `make` takes.

    >>> unexpected("f() got an unexpected keyword argument 'widht'", lambda width: None)
    "f() got an unexpected keyword argument 'widht' (did you mean width?)"
    """
    match = re.search(r"unexpected keyword argument '(\w+)'", message)
    if not match or not callable(make):
        return message
    return message + _nearest(match[1], list(inspect.signature(make).parameters))


def _has(path: Path, name: str) -> bool:
    return any(
        line.startswith(f"{name}:") for line in path.read_text(encoding="utf-8").splitlines()
    )


def _nearest(name: str, names: Sequence[str]) -> str:
    found = difflib.get_close_matches(name, names, 1, 0.5)
    return f" (did you mean {found[0]}?)" if found else ""


def _keys(arguments: Sequence[str], conf: Path) -> list[str]:
    """Dotted names of all keys of the configuration with the groups that were chosen, as far as these exist."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    groups = {path.parent.relative_to(conf).as_posix() for path in conf.rglob("*.yaml")}
    chosen = [
        a
        for a in arguments
        if a.partition("=")[0] in groups and (conf / f"{a.replace('=', '/')}.yaml").is_file()
    ]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("config", chosen), resolve=False)
    return list(_flat(config, ""))


def _flat(config: Any, prefix: str) -> Any:
    for name, value in config.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
