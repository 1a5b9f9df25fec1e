"""What differs between Hydra 1.3 and 1.4, with the OmegaConf that each needs."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import hydra.utils
from omegaconf import OmegaConf

from n2n_lightning.config.targets import TRUSTED

# A list of what may be instantiated came with 1.4.
_whitelist = getattr(hydra.utils, "execution_whitelist", None)
# Of hydra.main and initialize_config_dir: 1.4 has one behaviour, and warns of the argument.
VERSION_BASE: dict[str, Any] = {} if _whitelist else {"version_base": "1.3"}
_TRUSTED_PARTS = [f"{package}.*" for package in TRUSTED]
# Of hydra.main: 1.4 asks what callbacks, which it constructs itself, may be.
MAIN_OPTIONS = {"execution_whitelist": _TRUSTED_PARTS} if _whitelist else VERSION_BASE
# How often `instantiate` resolves a value: 1.3 resolves all, then each value that it reads.
RESOLUTIONS = 1 if _whitelist else 2


def register_resolver(name: str, resolver: Callable[..., Any]) -> None:
    """Register what `${name:...}` in a configuration means, in place of what it meant.

    Args:
        name: of the resolver.
        resolver: returns the value.
    """
    if _whitelist is None:
        OmegaConf.register_new_resolver(name, resolver, replace=True)
    else:
        # in OmegaConf 2.4 the name of what is deprecated in 2.3
        register: Any = OmegaConf.register_resolver
        register(name, resolver, replace=True)


def may_run(targets: Iterable[str]) -> Any:
    """Return a context in which Hydra instantiates targets; what files named was refused before.

    Args:
        targets: dotted names. 1.4 also asks where a name comes from, which may be another module
            of the same package.
    """
    if _whitelist is None:
        return nullcontext()
    packages = {name.partition(".")[0] for name in targets}
    return _whitelist([*_TRUSTED_PARTS, *(f"{package}.*" for package in sorted(packages))])
