"""The model of this machine's processor: with another one, results differ by rounding."""

import platform
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path

# Lines of /proc/cpuinfo that name it; on ARM numbers do.
_NAMES = ("model name", "cpu model", "cpu")
_NUMBERS = ("CPU implementer", "CPU part", "CPU variant")


@cache
def processor_name() -> str:
    """Return the model of the processor, or what the system says of it."""
    with suppress(OSError):
        name = name_in(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
        if name:
            return name
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
            return done.stdout.strip()
    return platform.processor() or platform.machine()


def name_in(cpuinfo: str) -> str:
    """Return the processor that /proc/cpuinfo names; empty where it names none.

    >>> name_in("processor\\t: 0\\nmodel name\\t: AMD EPYC 7763\\nflags\\t\\t: fpu")
    'AMD EPYC 7763'
    >>> name_in("CPU implementer\\t: 0x41\\nCPU variant\\t: 0x3\\nCPU part\\t: 0xd0c")
    '0x41 0xd0c 0x3'
    """
    facts: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    for name in _NAMES:
        if facts.get(name):
            return facts[name]
    return " ".join(facts[name] for name in _NUMBERS if name in facts)
