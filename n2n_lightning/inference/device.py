"""The device that a network runs on."""

from n2n_lightning.files import InputError
from n2n_lightning.inference.denoiser import TrainedDenoiser


def move_to_device(model: TrainedDenoiser, device: str, fast: bool) -> None:
    """Move a network to a device.

    Args:
        model: the network, or a mean of several.
        device: as torch names it.
        fast: compute in bfloat16.

    Raises:
        InputError: there is no such device.
    """
    for part in model.modules():  # of a mean there are several
        if isinstance(part, TrainedDenoiser):
            part.fast = fast
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            "device", device, "cannot be used here; cpu, cuda, cuda:1 or mps, as there are"
        ) from error
