"""What happens where the memory of a device is too small."""

import sys

import torch
from torch import Tensor

# MPS and the CPU have no exception of their own: their message says it.
MESSAGES = ("out of memory", "can't allocate memory", "not enough memory")

# Bytes for a tile of 1024 x 1024: ten maps of 24 channels in float32 are half of it. Where it is
# too little after all, tiles are halved.
TILE_MEMORY = 2**31


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


def tile_growth(device: str) -> int:
    """Return how many times larger the sides of tiles are than on the CPU: 1, 2 or 4.

    The larger a tile, the smaller the share of it that overlaps with others: 1024 pixels with 192
    of overlap are computed 1.5 times, 4096 1.1 times.

    Args:
        device: of the network.
    """
    if not device.startswith("cuda") or not torch.cuda.is_available():
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    growth = 1
    while growth < 4 and free >= TILE_MEMORY * (2 * growth) ** 2:
        growth *= 2
    return growth
