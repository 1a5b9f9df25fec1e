"""Say what is installed here and what is missing: `n2n doctor`, made to be pasted into a report.

Names of files and of people are not in it.
"""

import os
import platform
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from importlib.util import find_spec
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from n2n_lightning import __version__
from n2n_lightning.files import Parser, command

PACKAGE = "n2n_lightning"
# That decide the speed.
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
COLLECTIONS = ("all", "formats", "dev")  # extras that name others


def parser() -> Parser:
    """Return the parser of the command line."""
    return Parser(prog="n2n doctor", description=__doc__)


def main() -> int:
    """Print the report.

    Returns:
        The exit status: 1 where a package that every command needs is missing or too old.
    """
    parser().parse_args()
    problems = missing_requirements(None)
    sections = (_machine_lines(), _torch_lines(), _package_lines(), _extra_lines())
    for section in sections:
        print("\n".join(section))
    for problem in problems:
        print(f"missing: {problem}")
    if problems:
        print(f"pip install --upgrade {PACKAGE} installs what is missing")
    return 1 if problems else 0


def missing_requirements(extra: str | None) -> list[str]:
    """Return what is missing or of a version that was not meant, for an extra of pip.

    Args:
        extra: its name; None: what every command needs.

    Returns:
        A phrase for each: `zarr>=3 (2.18 is installed)`.
    """
    missing = []
    for requirement in _requirements(extra):
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            missing.append(f"{requirement.name}{requirement.specifier}")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wanted = f"{requirement.name}{requirement.specifier}"
            missing.append(f"{wanted} ({installed} is installed)")
    return missing


def _requirements(extra: str | None) -> list[Requirement]:
    """Return the packages that an extra needs beyond the base, or that the base needs."""
    chosen = []
    for line in requires(PACKAGE) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        in_base = marker is None or marker.evaluate({"extra": ""})
        if extra is None:
            wanted = in_base
        else:
            wanted = not in_base and marker is not None and marker.evaluate({"extra": extra})
        if wanted and requirement.name.replace("-", "_") != PACKAGE:
            chosen.append(requirement)
    return chosen


def _machine_lines() -> list[str]:
    """Return the lines about program, system and processor."""
    processor, flags = _processor()
    memory = psutil.virtual_memory().total / 2**30
    return [
        f"{PACKAGE} {__version__}",
        f"Python {platform.python_version()}, {platform.platform()}",
        f"processor: {processor}, {os.cpu_count()} threads, {' '.join(flags) or 'no known flags'}",
        f"memory: {memory:.0f} GiB",
    ]


def _processor() -> tuple[str, list[str]]:
    """Return the name of the processor and those of its flags that decide the speed."""
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.processor() or platform.machine(), []
    fields: dict[str, str] = {}
    text = information.read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    words = (fields.get("flags") or fields.get("Features") or "").split()
    name = fields.get("model name", platform.machine())
    return name, [flag for flag in INSTRUCTION_SETS if flag in words]


def _torch_lines() -> list[str]:
    """Return the lines about torch and the devices that it sees."""
    if find_spec("torch") is None:
        return ["torch: not installed"]
    import torch

    lines = [f"torch {torch.__version__}, {torch.get_num_threads()} threads"]
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        memory = card.total_memory / 2**30
        lines.append(f"device cuda:{number}: {card.name}, {memory:.0f} GiB")
    if torch.backends.mps.is_available():
        lines.append("device mps")
    if len(lines) == 1:
        lines.append("device: cpu (no GPU that this build of torch can use)")
    return lines


def _package_lines() -> list[str]:
    """Return the versions of the packages that every command needs."""
    versions = []
    for requirement in _requirements(None):
        if requirement.name != "torch":
            try:
                versions.append(f"{requirement.name} {version(requirement.name)}")
            except PackageNotFoundError:
                versions.append(f"{requirement.name} missing")
    return ["packages: " + ", ".join(versions)]


def _extra_lines() -> list[str]:
    """Return a line for each extra: installed, or what is missing and what installs it."""
    lines = []
    for extra in metadata(PACKAGE).get_all("Provides-Extra") or ():
        if extra in COLLECTIONS:
            continue
        missing = missing_requirements(extra)
        if missing:
            install = f"pip install '{PACKAGE}[{extra}]'"
            lines.append(f"{extra}: missing {', '.join(missing)}; {install}")
        else:
            lines.append(f"{extra}: installed")
    return lines


if __name__ == "__main__":
    command(main, parser)
