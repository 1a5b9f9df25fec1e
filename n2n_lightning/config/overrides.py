"""The command line as people type it: paths of any letters, a new folder for each run."""

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError
from n2n_lightning.paths import expand, located

HERE = Path(__file__).resolve().parents[1]
CONF = HERE / "conf"  # of the installed package
if not CONF.is_dir():
    CONF = HERE.parent / "conf"
MULTIRUN = {"-m", "--multirun"}

# Options whose values are paths. data.frames is none, but has colons, and numbers that are text.
PATHS = frozenset(
    [
        "data.noisy",
        "data.target",
        "data.clean",
        "data.val_noisy",
        "data.val_target",
        "data.root",
        "data.val",
        "data.frames",
        "resume",
        "init",
        "sweep.resume",
        "hydra.run.dir",
        "hydra.sweep.dir",
    ]
)
_ARGUMENT = re.compile(r"(\+{0,2})([\w./@]+)=(.*)", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z0-9_./:+%@-]*")  # what Hydra's grammar takes without quotes
_LIST = re.compile(r"\[(.*)\]")
_OTHER = re.compile(r"[+-]?[\d_.]+(e[+-]?\d+)?|[+-]?inf|nan|true|false", re.IGNORECASE)
# Flags of Hydra that print something in place of a run.
_QUESTIONS = frozenset(
    [
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
    ]
)


def compose_config(overrides: Sequence[str], folder: Path = CONF) -> Any:
    """Compose the configuration of a run.

    Args:
        overrides: options in Hydra's grammar.
        folder: the folder of config.yaml and its groups.

    Returns:
        The configuration, a DictConfig whose interpolations are not resolved yet.

    Raises:
        HydraException: an override names a key or choice that does not exist.
    """
    from hydra import compose, initialize_config_dir

    from n2n_lightning.config.hydra_versions import VERSION_BASE

    with initialize_config_dir(str(folder), **VERSION_BASE):
        return compose("config", list(overrides))


def plain_config(config: Any, overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """Resolve a composed configuration to plain dicts and lists, ready to construct from.

    Args:
        config: the composed configuration, a DictConfig.
        overrides: the options that were typed for it.
        folder: the folder in which they were typed.

    Returns:
        The configuration, with the time budget and the paths of `anchor_paths`.

    Raises:
        MissingMandatoryValue: a value that must be typed is missing.
    """
    from omegaconf import OmegaConf

    plain: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
        config, resolve=True, throw_on_missing=True
    )
    apply_time_budget(plain, overrides)
    anchor_paths(plain, folder)
    return plain


def after_flags(arguments: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Return a command line with overrides before its own ones, which win, and after its flags.

    >>> after_flags(["--cfg", "job", "resume=run"], ["optim.lr=0.1"])
    ['--cfg', 'job', 'optim.lr=0.1', 'resume=run']
    """
    for place, argument in enumerate(arguments):
        is_flag = argument.startswith("-")
        if "=" in argument and not is_flag:
            return [*arguments[:place], *overrides, *arguments[place:]]
    return [*arguments, *overrides]


def quoted(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with quotes around paths that need them in Hydra's grammar.

    A value with commas is a list only in a sweep, and only where no file or folder has this name.
    data.root=[a,b] is several folders for one run.

    >>> quoted(["data.noisy=Zürich, run (1)/a", "optim.lr=0.1,0.01"])
    ["data.noisy='Zürich, run (1)/a'", 'optim.lr=0.1,0.01']
    >>> quoted(["data.root=plain/folder", "data.root=[a, my b]"])
    ['data.root=plain/folder', "data.root=['a','my b']"]
    """
    sweeps = not MULTIRUN.isdisjoint(arguments)
    return [_quoted_argument(argument, sweeps) for argument in arguments]


def _quoted_argument(argument: str, sweeps: bool) -> str:
    match = _ARGUMENT.fullmatch(argument)
    if match is None:
        return argument
    plus, option, value = match.groups()
    if option not in PATHS:
        return argument
    name = plus + option
    if value.startswith("~"):
        value = expand(value)
    if _is_quoted(value) or not _needs_quotes(value):
        return f"{name}={value}"
    parts = [value]
    if not _exists(value):
        listed = _LIST.fullmatch(value)
        if listed and option == "data.root":
            folders = _quoted_folders(listed[1])
            return f"{name}=[{folders}]"
        if sweeps and option.startswith("data."):
            parts = value.split(",")
    values = ",".join(map(quote, parts))
    return f"{name}={values}"


def _quoted_folders(text: str) -> str:
    """Return folders, listed with commas, with quotes around each."""
    folders: list[str] = []
    for part in text.split(","):
        folder = unquoted(part.strip())
        folders.append(quote(folder))
    return ",".join(folders)


def anchor_paths(config: dict[str, Any], folder: Path) -> None:
    """Make the paths of a configuration mean what they meant in the folder where they were typed.

    Args:
        config: the plain configuration, which is changed: `~` is expanded, and where the program
            works in another folder by now (hydra.job.chdir=true), relative paths become absolute.
        folder: where it was typed.
    """
    for name in sorted(PATHS - {"data.frames"}):
        group, _, key = name.rpartition(".")
        if group not in ("", "data"):
            continue
        values: Any = config.get(group) if group else config
        if not isinstance(values, dict):
            continue
        value = values.get(key)
        if isinstance(value, list):
            values[key] = [_anchored(path, folder) for path in value]
        elif value is not None:
            values[key] = _anchored(value, folder)


def _anchored(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or value == "pretrained":
        return value
    if Path.cwd() == folder:
        return expand(value)
    return located(value, folder)


def _needs_quotes(text: str) -> bool:
    """Return True for a path that Hydra cannot read, or reads as another type: 2024, true."""
    if not _PLAIN.fullmatch(text):
        return True
    return _OTHER.fullmatch(text) is not None


def _exists(text: str) -> bool:
    """Return True if a file has this name, or this name before the array in it (data.h5:noisy)."""
    if Path(text).exists():
        return True
    file, _, _ = text.rpartition(":")
    return bool(file) and Path(file).is_file()


def _is_quoted(text: str) -> bool:
    if len(text) < 2:
        return False
    mark = text[0]
    if mark not in "'\"" or text[-1] != mark:
        return False
    return not Path(text).exists()


def quote(text: str) -> str:
    """Return a value between quotes, as Hydra's grammar reads it back.

    >>> len(quote("it's"))
    7
    """
    text = text.replace("${", "\\${")  # no interpolation
    escaped = re.sub(r"(\\*)('|$)", _escaped, text)
    return f"'{escaped}'"


def _escaped(match: re.Match[str]) -> str:
    """Double the backslashes before a quote or the end; escape the quote."""
    ending = "\\'" if match[2] else ""
    return match[1] * 2 + ending


def bare(override: str) -> str:
    r"""Return an override of Hydra's as a person types it: paths without the quotes of its grammar.

    Hydra writes the colons of a sweep's overrides with a backslash, which nobody typed.

    >>> bare("data.noisy='my scans/a'"), bare(r"trainer.max_time=00\:01\:00\:00")
    ('data.noisy=my scans/a', 'trainer.max_time=00:01:00:00')
    """
    name, _, value = override.partition("=")
    if name.lstrip("+") in PATHS:
        return f"{name}={unquoted(value)}"
    return override.replace("\\:", ":")


def unquoted(text: str) -> str:
    """Return a value without the quotes of Hydra's grammar, if it has any.

    >>> unquoted(quote("it's")), unquoted("plain")
    ("it's", 'plain')
    """
    if not _is_quoted(text):
        return text
    inside = text[1:-1]
    return re.sub(r"\\(['\"\\$])", r"\1", inside)


def asks_hydra(arguments: Sequence[str]) -> bool:
    """Return True if the arguments have a flag of Hydra that prints something in place of a run."""
    flags = [word.partition("=")[0] for word in arguments]
    return not _QUESTIONS.isdisjoint(flags)


def _is_typed(arguments: Sequence[str], *options: str) -> bool:
    """Return True if the arguments set one of these options."""
    for argument in arguments:
        name, equals, _ = argument.lstrip("+").partition("=")
        if equals and name in options:
            return True
    return False


def claim_run_folder(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    """Make a new folder for a run or sweep, unless its arguments name one.

    It is made here, so that of two that begin in the same second each has its own.

    Returns:
        The arguments, with the option that names the folder; and the folder, or None.

    Raises:
        InputError: it cannot be made.
    """
    option = "hydra.run.dir"
    base = Path("outputs", "runs")
    if not MULTIRUN.isdisjoint(arguments):
        option = "hydra.sweep.dir"
        base = Path("outputs", "sweeps")
    is_named = _is_typed(arguments, option, "resume", "sweep.resume")
    if is_named or asks_hydra(arguments):
        return list(arguments), None
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in count(1):
        name = stamp if number == 1 else f"{stamp}_{number}"
        folder = base / name
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            taken = isinstance(error, FileExistsError) and folder.is_dir()
            if not taken:
                raise unwritable(folder, option, error) from error
        else:
            override = f"{option}={folder.as_posix()}"
            return [*arguments, override], folder
    raise AssertionError("numbers do not end")


def unwritable(folder: Path, option: str, error: OSError) -> InputError:
    """Return the error for a run folder that cannot be made or written to.

    Args:
        folder: the folder that was tried.
        option: the option that names another one.
        error: the system's reason.
    """
    return InputError(
        f"{folder}: cannot be written to ({error.strerror}); {option}=FOLDER (in Python folder=)"
        " names another place"
    )


def apply_time_budget(config: dict[str, Any], overrides: Sequence[str]) -> None:
    """Make trainer.max_time the only limit of a run, unless trainer.max_epochs was typed, too.

    Args:
        config: the plain configuration, which is changed; a recipe may have set its epochs.
        overrides: the options that were typed.

    >>> config = {"trainer": {"max_time": "00:01:00:00", "max_epochs": 8}}
    >>> apply_time_budget(config, ["trainer.max_time=00:01:00:00"])
    >>> config["trainer"]["max_epochs"] is None
    True
    """
    trainer = config["trainer"]
    if trainer.get("max_time") and not _is_typed(overrides, "trainer.max_epochs"):
        trainer["max_epochs"] = None


def remove_empty_folder(folder: Path | None) -> None:
    """Remove an empty folder (None: nothing) and the empty ones above it."""
    if folder is None:
        return
    with suppress(OSError):
        lock = folder / ".lock"
        if list(folder.iterdir()) == [lock]:  # of a run that was refused
            lock.unlink()
        for empty in (folder, folder.parent, folder.parent.parent):
            empty.rmdir()
