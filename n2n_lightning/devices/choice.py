"""The device that is taken, and the precision that it computes fastest in."""

import re
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

# AMD's GPUs with bfloat16 in their matrix units (MI200 and later, Radeon 7000 and later): others
# emulate it.
BFLOAT16_OF_AMD = ("gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")
BFLOAT16_OF_NVIDIA = (8, 0)  # capability: Ampere


def device_of(name: str) -> str:
    """Return the name of a device; for `auto` a GPU, if there is one that torch has kernels for."""
    if name != "auto":
        return name
    card = usable_card()
    if card is not None:
        return "cuda" if card == 0 else f"cuda:{card}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def usable_card() -> int | None:
    """Return the number of the first GPU that torch has kernels for; say where others are there."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for number in range(count):
        if has_kernels(number):
            return number
    if count:
        _say_too_old(torch.cuda.get_device_name(0))
    return None


@cache
def _say_too_old(name: str) -> None:
    built_for = ", ".join(torch.cuda.get_arch_list())
    print(
        f"{name}: this torch has no kernels for it ({built_for}); the CPU computes",
        file=sys.stderr,
        flush=True,
    )


def has_kernels(number: int) -> bool:
    """Return True if this build of torch can compute on a GPU.

    Kernels of an architecture (sm_86) run on GPUs of the same major number and an equal or higher
    minor one, intermediate code (compute_90) on all later ones.

    Args:
        number: of the GPU.
    """
    built_for = torch.cuda.get_arch_list()
    if torch.version.hip:
        name = _name_of_amd(number)
        return not built_for or name in [one.partition(":")[0] for one in built_for]
    capability = torch.cuda.get_device_capability(number)
    for architecture in built_for:
        matched = re.match(r"(sm|compute)_(\d+)(\d)", architecture)
        if matched is None:
            continue
        kind, major, minor = matched.groups()
        version = (int(major), int(minor))
        same_major = version[0] == capability[0]
        if version <= capability and (same_major or kind == "compute"):
            return True
    return not built_for


def _name_of_amd(number: int) -> str:
    """Return the architecture of an AMD GPU, as gfx90a."""
    name: str = torch.cuda.get_device_properties(number).gcnArchName
    return name.partition(":")[0]


def fast_type(device: torch.device) -> torch.dtype:
    """Return the short type of floats that a device computes fast: float16 on older GPUs."""
    if device.type == "cuda" and not computes_bfloat16(device.index or 0):
        return torch.float16
    return torch.bfloat16


@cache
def computes_bfloat16(number: int) -> bool:
    """Return True if a GPU has units for bfloat16, rather than emulating it."""
    if torch.version.hip:
        return _name_of_amd(number).startswith(BFLOAT16_OF_AMD)
    return torch.cuda.get_device_capability(number) >= BFLOAT16_OF_NVIDIA


def numbers_of(devices: Any) -> Sequence[int]:
    """Return the numbers of the GPUs that Lightning's `devices` names.

    Args:
        devices: how many (2, "2"), which ([1], "0,1"), or all (-1, "-1", "auto").

    >>> numbers_of(2), numbers_of([1]), numbers_of("0,3")
    (range(0, 2), [1], [0, 3])
    """
    if isinstance(devices, str) and "," in devices:
        return [int(number) for number in devices.split(",") if number.strip()]
    if isinstance(devices, str | int):
        count = -1 if devices == "auto" else int(devices)
        return range(torch.cuda.device_count() if count < 0 else count)
    return list(devices)
