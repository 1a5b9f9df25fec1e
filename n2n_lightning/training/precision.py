"""What the device of a run asks of its precision, its optimiser and its kernels."""

from typing import Any

import torch

from n2n_lightning.devices.choice import computes_bfloat16, numbers_of, usable_card

ON_GPU = ("auto", "gpu", "cuda")  # choices of trainer.accelerator that take a card of CUDA


def precision(options: dict[str, Any]) -> str:
    """Return the precision of training, as Lightning names it.

    `auto` is bf16-mixed where the device computes faster in bfloat16 than in float32, else 32-true.

    Args:
        options: of the trainer group.
    """
    if options["precision"] != "auto":
        return str(options["precision"])
    if _takes_cards(options):
        cards = numbers_of(options.get("devices", 1))
        fast = bool(cards) and all(computes_bfloat16(number) for number in cards)
    elif torch.backends.mps.is_available() and options["accelerator"] in ("auto", "gpu", "mps"):
        fast = False
    else:
        capabilities = torch.cpu.get_capabilities()
        fast = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return "bf16-mixed" if fast else "32-true"


def _takes_cards(options: dict[str, Any]) -> bool:
    """Return True if a run is on cards of CUDA; `auto` takes none that torch has no kernels for."""
    accelerator = options.get("accelerator", "auto")
    if not torch.cuda.is_available() or accelerator not in ON_GPU:
        return False
    return accelerator != "auto" or usable_card() is not None


def on_cards(options: dict[str, Any]) -> list[str]:
    """Change options of the trainer that cannot work on the cards of this machine.

    Args:
        options: of the trainer group, changed in place.

    Returns:
        A line for each.
    """
    if not torch.cuda.is_available() or options.get("accelerator", "auto") not in ON_GPU:
        return []
    if not _takes_cards(options):
        options["accelerator"] = "cpu"
        return ["trainer.accelerator: cpu; this torch has no kernels for the GPU"]
    if options.get("deterministic") is not True:
        return []
    options["deterministic"] = "warn"
    return [
        "trainer.deterministic: warn; on GPUs the gradients of pooling and padding have no"
        " deterministic kernel"
    ]


def without_fused(config: dict[str, Any], used: str) -> tuple[dict[str, Any], list[str]]:
    """Leave the optimiser unfused where gradients are scaled and clipped.

    A fused one scales them back by itself, inside its step, when they were clipped already:
    Lightning refuses it.

    Args:
        config: of the run.
        used: its precision.

    Returns:
        The configuration, and a line where it changed.
    """
    scaled = used in ("16", "16-mixed")
    clipped = config["trainer"].get("gradient_clip_val")
    if not (scaled and clipped and config["optim"].get("fused")):
        return config, []
    optimiser = {**config["optim"], "fused": False}
    return {**config, "optim": optimiser}, [f"optim.fused: false, for {used} with clipping"]
