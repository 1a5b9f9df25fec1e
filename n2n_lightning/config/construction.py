"""Construction of the parts of a run from the groups of its configuration."""

import re
from collections.abc import Callable
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from n2n_lightning.config.hydra_versions import RESOLUTIONS, may_run
from n2n_lightning.config.targets import targets_of
from n2n_lightning.files import InputError, one_line

_HINT = ", set env var HYDRA_FULL_ERROR=1 to see chained exception."
# of values; MisconfigurationException is Lightning's
_REFUSALS = (
    InstantiationException,
    MisconfigurationException,
    ValueError,
    TypeError,
    RuntimeError,
)
_FAULTS = (ImportError, AttributeError, AssertionError, OSError)  # of any code


def construct(
    group: str,
    make: Callable[[], Any],
    foreign: bool = False,
    explained: Callable[[str], str] = str,
) -> Any:
    """Construct a part of a run; an error of Hydra or the constructor becomes one line.

    Args:
        group: the group or option of the configuration.
        make: constructs the part.
        foreign: it may come from any package, so that other errors than those of values are its
            own, too.
        explained: adds to the line of the error what would work.

    Returns:
        What `make` returns.

    Raises:
        InputError: the configuration of the group cannot work.
    """
    errors = (*_REFUSALS, *_FAULTS) if foreign else _REFUSALS
    try:
        return make()
    except errors as error:
        if isinstance(error, InputError) and not foreign:
            raise
        cause: BaseException = error
        if error.__cause__ and not isinstance(error, InputError):
            cause = error.__cause__
        if isinstance(cause, InputError) and not foreign:
            raise cause from None
        line = explained(one_line(cause).removesuffix(_HINT))
        names_option = re.match(r"\w+(\.\w+)+=", line) and not foreign
        raise InputError(line if names_option else f"{group}: {line}") from error


def instantiate_resolved(config: Any, **options: Any) -> Any:
    """Instantiate a class from a configuration whose interpolations were resolved already.

    Hydra would resolve them once more, and `${` of a file's name would be one.

    Args:
        config: plain data with `_target_`.
        **options: of the class, in place of those in the configuration, or beside them.

    Returns:
        The instance, or a partial of it where the configuration asks for one. Lists and
        dictionaries in the configuration reach it as such.
    """
    with may_run(targets_of(config)):
        return instantiate(_escaped(config), _convert_="all", **options)


def _escaped(value: Any) -> Any:
    """Return resolved values as `instantiate`, which resolves again, leaves them."""
    if isinstance(value, str):
        for _ in range(RESOLUTIONS):
            value = _escaped_once(value)
        return value
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    return value


def _escaped_once(text: str) -> str:
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
