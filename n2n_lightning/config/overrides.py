"""The command line as people type it: paths of any letters, and a new folder for each run and sweep."""

import os
import re
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError
from n2n_lightning.paths import expand, located

HERE = Path(__file__).resolve().parents[1]
CONF = next(folder for folder in (HERE / "conf", HERE.parent / "conf") if folder.is_dir())

# Options whose values are paths.
PATHS = frozenset(
    [
        *(
            f"data.{name}"
            for name in ("noisy", "target", "clean", "val_noisy", "val_target", "root", "val")
        ),
        "data.frames",  # colons, and numbers that are text
        *("resume", "init", "sweep.resume", "hydra.run.dir", "hydra.sweep.dir"),
    ]
)
_ARGUMENT = re.compile(r"(\+{0,2})([\w./@]+)=(.*)", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z0-9_./:+%@-]*")  # what Hydra's grammar takes without quotes
_OTHER = re.compile(r"[+-]?[\d_.]+(e[+-]?\d+)?|[+-]?inf|nan|true|false", re.IGNORECASE)
_QUESTIONS = (
    "--help",
    "-h",
    "--hydra-help",
    "--version",
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--shell-completion",
    "-sc",
)


def quoted(arguments: list[str]) -> list[str]:
    """The arguments with quotes, as Hydra's grammar wants them, around paths that need them.

    A value with commas is a list only in a sweep, and only where no file or folder has this name.
    data.root=[a,b] is several folders for one run.

    >>> quoted(["data.noisy=Zürich, run (1)/a", "optim.lr=0.1,0.01"])
    ["data.noisy='Zürich, run (1)/a'", 'optim.lr=0.1,0.01']
    >>> quoted(["data.root=plain/folder", "data.root=[a, my b]"])
    ['data.root=plain/folder', "data.root=['a','my b']"]
    """
    several = bool({"-m", "--multirun"} & {*arguments})
    found = []
    for argument in arguments:
        match = _ARGUMENT.fullmatch(argument)
        if match and match[2] in PATHS and match[3].startswith("~"):
            argument = f"{match[1]}{match[2]}={expand(match[3])}"
            match = _ARGUMENT.fullmatch(argument)
        if match and match[2] in PATHS and _needs_quotes(match[3]) and not _is_quoted(match[3]):
            if (
                match[2] == "data.root"
                and re.fullmatch(r"\[.*\]", match[3])
                and not _exists(match[3])
            ):
                folders = ",".join(
                    quote(unquoted(part.strip())) for part in match[3][1:-1].split(",")
                )
                found.append(f"{match[1]}{match[2]}=[{folders}]")
                continue
            one = not (several and match[2].startswith("data.") and "," in match[3]) or _exists(
                match[3]
            )
            parts = [match[3]] if one else match[3].split(",")
            argument = f"{match[1]}{match[2]}={','.join(quote(part) for part in parts)}"
        found.append(argument)
    return found


def placed(config: dict[str, Any], folder: Path) -> None:
    """Make the paths of a configuration mean what they meant in the folder where the command was typed.

    Args:
        config: the plain configuration, which is changed: `~` is expanded, and where the program
            works in another folder by now (hydra.job.chdir=true), relative paths become absolute.
        folder: where it was typed.
    """
    moved = Path.cwd() != folder
    for name in sorted(PATHS - {"data.frames"}):
        group, _, key = name.rpartition(".")
        values: Any = config.get(group) if group else config
        value = values.get(key) if isinstance(values, dict) and group in ("", "data") else None
        if isinstance(value, list):
            values[key] = [_placed(one, folder, moved) for one in value]
        elif value is not None:
            values[key] = _placed(value, folder, moved)


def _placed(value: Any, folder: Path, moved: bool) -> Any:
    if not isinstance(value, str) or value == "pretrained":
        return value
    return located(value, folder) if moved else expand(value)


def _needs_quotes(text: str) -> bool:
    """Whether Hydra's grammar could not read a path, or would read something else than text: 2024, 1_0, true."""
    return not _PLAIN.fullmatch(text) or bool(_OTHER.fullmatch(text))


def _exists(text: str) -> bool:
    """Whether a file has this name, or this name before the array in it (data.h5:noisy)."""
    return Path(text).exists() or Path(text.rpartition(":")[0] or "?").is_file()


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] in "'\"" and text[-1] == text[0] and not Path(text).exists()


def quote(text: str) -> str:
    """A value between quotes, as Hydra's grammar reads it back.

    >>> len(quote("it's"))
    7
    """
    text = text.replace("${", "\\${")  # no interpolation
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"


def bare(override: str) -> str:
    r"""An override of Hydra's as a person would type it: paths without the quotes of its grammar.

    Of a sweep Hydra writes colons with a backslash, which nobody typed.

    >>> bare("data.noisy='my scans/a'"), bare("optim.lr=0.1"), bare(r"trainer.max_time=00\:01\:00\:00")
    ('data.noisy=my scans/a', 'optim.lr=0.1', 'trainer.max_time=00:01:00:00')
    """
    name, _, value = override.partition("=")
    return (
        f"{name}={unquoted(value)}" if name.lstrip("+") in PATHS else override.replace("\\:", ":")
    )


def unquoted(text: str) -> str:
    """What a person means by a value: without the quotes, where there are any.

    >>> unquoted(quote("it's")), unquoted("plain")
    ("it's", 'plain')
    """
    return re.sub(r"\\(['\"\\$])", r"\1", text[1:-1]) if _is_quoted(text) else text


def claim_run_folder(arguments: list[str]) -> tuple[list[str], Path | None]:
    """The arguments with a new folder for the run or sweep, where they name none; and that folder.

    It is made here, so that of two that begin in the same second each has its own.

    Raises:
        InputError: it cannot be made.
    """
    option, base = ("hydra.run.dir", "runs")
    if {"-m", "--multirun"} & {*arguments}:
        option, base = ("hydra.sweep.dir", "sweeps")
    if any(a in _QUESTIONS or a.startswith(("--cfg=", "--info=")) for a in arguments):
        return arguments, None
    if any(a.lstrip("+").startswith((f"{option}=", "resume=", "sweep.resume=")) for a in arguments):
        return arguments, None
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in count(1):
        folder = Path("outputs", base, stamp if number == 1 else f"{stamp}_{number}")
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            if isinstance(error, FileExistsError) and folder.is_dir():
                continue
            raise unwritable(folder, option, error) from error
        return [*arguments, f"{option}={folder.as_posix()}"], folder
    raise AssertionError("numbers do not end")


def unwritable(folder: Path, option: str, error: OSError) -> InputError:
    """The line for a run folder that cannot be made or written to.

    Args:
        folder: the one that was tried.
        option: the one that names another.
        error: why not.
    """
    return InputError(
        f"{folder}: cannot be written to ({error.strerror}); {option}=FOLDER (in Python folder=) names another place"
    )


def keep_default_network(run: Path) -> None:
    """Makes the network that a run has the default (conf/config.yaml), for a version whose default is another one.

    What was typed for that run says which network only where it was not the default of its time.
    """
    from omegaconf import OmegaConf

    with suppress(Exception):  # a folder of another kind: what is wrong with it is said elsewhere
        found: Any = OmegaConf.load(run / ".hydra" / "hydra.yaml")
        os.environ["N2N_MODEL"] = str(found.hydra.runtime.choices.model)


def apply_time_budget(config: dict[str, Any], overrides: list[str]) -> None:
    """Makes trainer.max_time the budget of a run, whatever a recipe says of epochs, where no epochs were typed.

    >>> config = {"trainer": {"max_time": "00:01:00:00", "max_epochs": 8}}
    >>> apply_time_budget(config, ["trainer.max_time=00:01:00:00"])
    >>> config["trainer"]["max_epochs"] is None
    True
    """
    typed = any(o.lstrip("+").startswith("trainer.max_epochs=") for o in overrides)
    if config["trainer"].get("max_time") and not typed:
        config["trainer"]["max_epochs"] = None


def remove_empty_folder(folder: Path | None) -> None:
    """Removes a folder that nothing came into, and those above it that were made for it."""
    if folder is not None:
        with suppress(OSError):
            if [path.name for path in folder.iterdir()] == [".lock"]:  # of a run that was refused
                (folder / ".lock").unlink()
            for empty in (folder, folder.parent, folder.parent.parent):
                empty.rmdir()
