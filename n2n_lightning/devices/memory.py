"""What happens where the memory of a device is too small."""

import sys

import torch
from torch import Tensor

# MPS and the CPU have no exception of their own: their message says it.
MESSAGES = ("out of memory", "can't allocate memory", "not enough memory")


def out_of_memory(error: BaseException) -> bool:
    """Return True for an error of a device, or the machine, without memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(message in text for message in MESSAGES)


def free_memory(device: torch.device) -> None:
    """Give back what torch holds of a device's memory for later, in pieces that were too small."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def say_divided(images: Tensor) -> None:
    """Say that images are divided, and what would have avoided it."""
    count, _, *size = images.shape
    sides = " x ".join(map(str, size))
    print(
        f"{images.device}: no memory for {count} x {sides} pixels at once; in halves from now on"
        " (--tile, --batch, data.val_batch_size: smaller from the start)",
        file=sys.stderr,
        flush=True,
    )
