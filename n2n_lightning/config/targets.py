"""What a configuration names as `_target_`, and what of it may run without being asked for."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from n2n_lightning.files import InputError, option

# Packages whose parts a stored configuration may name. What a person types may name any.
TRUSTED = ("n2n_lightning", "torch", "torchmetrics", "pytorch_lightning", "hydra_plugins")


def targets_of(config: Any) -> set[str]:
    """Return the `_target_` of a configuration and of all in it.

    Args:
        config: plain data, of any depth.

    Returns:
        Dotted names.
    """
    names: set[str] = set()
    if isinstance(config, Mapping):
        target = config.get("_target_")
        if isinstance(target, str):
            names.add(target)
        for value in config.values():
            names |= targets_of(value)
    elif isinstance(config, Sequence) and not isinstance(config, str):
        for value in config:
            names |= targets_of(value)
    return names


def targets_in_words(words: Iterable[str]) -> set[str]:
    """Return the `_target_` that overrides of a command line name.

    >>> sorted(targets_in_words(["+callbacks.a={_target_: my.Call, n: 1}", "loss._target_=x.L1"]))
    ['my.Call', 'x.L1']
    """
    names: set[str] = set()
    for word in words:
        names |= set(re.findall(r"_target_['\"]?\s*[:=]\s*['\"]?([\w.]+)", word))
    return names


def refuse_foreign(names: Iterable[str], place: object, typed: Sequence[str]) -> None:
    """Raise where a file names parts of packages that nobody asked for.

    Args:
        names: dotted names.
        place: where they were read, for the message.
        typed: overrides of the command line: `allow=MODULE`, or `_target_=` of the same part.

    Raises:
        InputError: one is of another package than TRUSTED, and not allowed.
    """
    allowed = [*TRUSTED, *_allowed_modules(typed)]
    asked = targets_in_words(typed)
    for name in sorted(names):
        module = name.rpartition(".")[0]
        parents = [module[:end] for end, letter in enumerate(f"{module}.") if letter == "."]
        if name not in asked and not set(parents) & set(allowed):
            raise InputError(
                f"{place}: names {name}; {option('allow', module)} if you trust that module"
            )


def _allowed_modules(typed: Sequence[str]) -> list[str]:
    """Return the modules of the last `allow=` that was typed: `allow=a` or `allow=[a,b]`."""
    values = [word.partition("=")[2] for word in typed if word.lstrip("+").startswith("allow=")]
    if not values:
        return []
    return [name.strip(" '\"") for name in values[-1].strip("[]'\"").split(",")]
