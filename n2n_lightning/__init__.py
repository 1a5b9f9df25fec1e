"""Noise2Noise experiments: train image denoisers from noisy images alone, without clean targets.

In Python: `look` at noisy images, `learn` from them, `score` what was learnt, `load` a network that denoises. On the
command line: `python -m n2n_lightning.train` and the others that README.md names.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from n2n_lightning.interface import learn as learn
    from n2n_lightning.interface import look as look
    from n2n_lightning.interface import score as score
    from n2n_lightning.restore import load as load

__version__ = "0.1.0"
__all__ = ["learn", "load", "look", "score"]
HOMES = {"learn": "interface", "load": "restore", "look": "interface", "score": "interface"}


def __getattr__(name: str) -> Any:
    if name in HOMES:  # imported when it is asked for, so that no command waits for torch that does not need it
        return getattr(importlib.import_module(f"n2n_lightning.{HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *HOMES])
