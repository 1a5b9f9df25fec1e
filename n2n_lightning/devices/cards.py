"""The GPUs of this machine, found without CUDA or ROCm, which a process must not start twice."""

import os
import re
import subprocess
from collections.abc import Sequence

# What hides GPUs from a process, the one that counts first: ROCm takes CUDA's name, too.
VARIABLES = ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")


def gpus() -> list[str]:
    """Return the GPUs of this process, each as `show_only` takes it.

    Returns:
        What a variable names; else the UUIDs of NVIDIA's, or those of the slices of one that is
        divided (MIG), else the numbers of AMD's.
    """
    for variable in VARIABLES:
        visible = os.environ.get(variable)
        if visible is not None:
            names = [name.strip() for name in visible.split(",")]
            return [name for name in names if name not in ("", "-1")]
    return [name for names in _of_nvidia() for name in names] or _of_amd()


def show_only(gpu: str, env: "os._Environ[str] | dict[str, str]") -> None:
    """Leave a process one GPU.

    Args:
        gpu: one of `gpus`.
        env: its environment, changed in place.
    """
    given = [variable for variable in VARIABLES if variable in env]
    env[given[0] if given else "CUDA_VISIBLE_DEVICES"] = gpu


def lock_name(gpu: str) -> str:
    """Return the same name for a GPU that one process knows by number and another by UUID."""
    if not gpu.isdigit():
        whole = [name for names in _of_nvidia() for name in names if name.startswith(gpu)]
        return whole[0] if len(whole) == 1 else gpu.replace("/", "_")
    cards = _of_nvidia()
    if int(gpu) < len(cards) and len(cards[int(gpu)]) == 1:
        return cards[int(gpu)][0]
    return gpu


def _of_nvidia() -> list[list[str]]:
    """Return the name of each NVIDIA GPU, or those of its slices."""
    cards: list[list[str]] = []
    divided = False
    for line in _output(["nvidia-smi", "-L"]).splitlines():
        uuid = re.search(r"\(UUID: ([^)]+)\)", line)
        if line.startswith("GPU "):
            cards.append([uuid[1] if uuid else str(len(cards))])
            divided = False
        elif line.strip().startswith("MIG ") and uuid and cards:
            cards[-1] = [*cards[-1], uuid[1]] if divided else [uuid[1]]
            divided = True
    return cards


def _of_amd() -> list[str]:
    """Return the numbers of AMD's GPUs."""
    listed = _output(["rocm-smi", "--showid"])
    numbers = re.findall(r"^GPU\[(\d+)\]", listed, re.MULTILINE)
    return list(dict.fromkeys(numbers))


def _output(command: Sequence[str]) -> str:
    """Return the output of a tool; empty where there is none, or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
