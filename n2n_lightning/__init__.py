"""Noise2Noise experiments: train image denoisers from pairs of noisy images, without clean targets."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from n2n_lightning.restore import load as load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":  # imported when it is asked for, so that no command waits for torch that does not need it
        from n2n_lightning.restore import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
