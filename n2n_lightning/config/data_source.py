"""The data of a configuration, constructed as in training, for commands that do not train."""

import json
from collections.abc import Sequence
from typing import Any

from n2n_lightning.config import validation
from n2n_lightning.config.overrides import CONF, compose_config
from n2n_lightning.files import InputError


def build_data_source(overrides: Sequence[str], dims: int | str) -> Any:
    """Compose the configuration and construct its group `data`.

    Args:
        overrides: options in Hydra's grammar: `data=pairs`, `data.noisy='my scans'`.
        dims: the spatial axes of the images, 2 or 3, or `auto`.

    Returns:
        The data source, a NoisyPairs that is not set up yet.

    Raises:
        InputError: an option does not exist, or its value cannot work.
    """
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from n2n_lightning.config.construction import construct, instantiate_resolved

    try:
        composed = compose_config(overrides)
        config: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        return construct("data", lambda: instantiate_resolved(config["data"], dims=dims))
    except (HydraException, OmegaConfBaseException) as error:
        line = " ".join(str(error).split())
        raise InputError(validation.explained(line, overrides, CONF)) from error


def noise_overrides(text: str) -> list[str]:
    """Return the options of conf/noise/ for a corruption in one word.

    Args:
        text: the value of the option `noise`: a file of conf/noise/, then its keys, each after a
            colon, with values in JSON.

    Raises:
        InputError: there is no such corruption, or a value is none.

    >>> noise_overrides("gaussian:sigma=[0,50]")
    ['noise=gaussian', 'noise.sigma=[0,50]']
    """
    name, _, listed = text.partition(":")
    choices = sorted(path.stem for path in (CONF / "noise").glob("*.yaml"))
    if name not in choices:
        raise InputError("noise", text, f"is none of {', '.join(choices)}")
    overrides = [f"noise={name}"]
    for part in listed.split(":"):
        if not part:
            continue
        key, _, value = part.partition("=")
        if not value:
            reason = f"{key} should be NAME=VALUE, as in gaussian:sigma=25"
            raise InputError("noise", text, reason)
        try:
            json.loads(value)
        except ValueError as error:
            raise InputError("noise", text, str(error)) from None
        overrides.append(f"noise.{key}={value}")
    return overrides
