"""Copies to a device and waits for it."""

import torch
from torch import Tensor

# Their copies have to be waited for: of `mps` the source may change before it was read.
BLOCKING = ("cpu", "mps")


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Copy values to a device without waiting for what it computes.

    torch itself waits for a CUDA stream to be empty after a copy from ordinary memory, though the
    driver has read that memory by then.

    Args:
        values: on the CPU, or on the device.
        device: where they are needed.

    Returns:
        The values there.
    """
    return values.to(device, non_blocking=device.type not in BLOCKING)


def wait_for(device: torch.device) -> None:
    """Wait until a device has computed all that was asked of it, before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def lacks_float64(device: torch.device) -> bool:
    """Return True for `mps`, which has neither float64 nor the draws of Poisson and binomial."""
    return device.type == "mps"


def sum_type(device: torch.device) -> torch.dtype:
    """Return the most precise type of floats that a device has."""
    return torch.float32 if lacks_float64(device) else torch.float64
