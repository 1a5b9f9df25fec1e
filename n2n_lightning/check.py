"""Inspect noisy data before training: `n2n check NOISY [TARGET]`.

Prints what captures and their noise are like, what follows from it, and, last, the command that
trains on them. NOISY and TARGET are what `data.noisy=` and `data.target=` take: files or folders of
any format and layout (docs/how-to/pairs.md).
"""

import shlex
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2n_lightning.files import InputError, Parser, command, json_text, replacing
from n2n_lightning.inference.plan import refuse_inputs

if TYPE_CHECKING:
    from n2n_lightning.inspection import InspectionReport

COLUMNS = 118  # of a printed line


def parser() -> Parser:
    p = Parser(prog="n2n check", description=__doc__.splitlines()[0])
    p.add_argument(
        "noisy", metavar="NOISY", help="file or folder with the first captures, or with all of them"
    )
    p.add_argument(
        "target", nargs="?", metavar="TARGET", help="file or folder with the second captures"
    )
    p.add_argument(
        "--layout",
        "--axes",
        default="auto",
        help="the axes of the arrays, e.g. NKHW (data.layout=)",
    )
    p.add_argument(
        "--exclude", action="append", default=[], help="a pattern of names that are left out"
    )
    p.add_argument(
        "--dq-good", help="bits of FITS data quality flags that are harmless, as 4+8, or all"
    )
    p.add_argument("--out", type=Path, help="a folder for a page, check.html, and its picture")
    p.add_argument("--json", type=Path, help="write all numbers here")
    return p


def read_captures(args: Any, volumes: bool) -> Any:
    """Read the captures that the options name; one capture per scene if there is no second one.

    Args:
        args: the options.
        volumes: True if the files hold volumes, see `holds_volumes`.

    Returns:
        The scenes, see data/scene_set.py.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    from n2n_lightning.data.reading import read_any, read_scenes
    from n2n_lightning.formats import is_one
    from n2n_lightning.formats.fits_planes import good_flags, parsed
    from n2n_lightning.paths import is_pattern

    for path in (args.noisy, args.target):
        if path is None or ":" in path or is_pattern(path):
            continue
        if not Path(path).exists():
            raise InputError(f"{path}: no such file or folder")
    with good_flags(parsed(args.dq_good)):
        # halves, a file each, as training reads them
        if volumes and args.target and not is_one(Path(args.noisy)):
            return read_scenes(args.noisy, args.target, args.layout, args.exclude, 3)
        return read_any(args.noisy, args.target, args.layout, args.exclude)


def holds_volumes(path: str) -> bool:
    """Return True if a file, or the first one of a folder or pattern, has planes of a volume.

    Returns:
        False if there is no file.
    """
    from n2n_lightning.data.file_matching import is_file, pictures
    from n2n_lightning.formats import opened
    from n2n_lightning.paths import is_pattern

    if not is_file(path):
        if not Path(path).is_dir() and not is_pattern(path):
            return False
        files = pictures(Path(path), deep=True)
        if not files:
            return False
        path = str(files[0])
    return any("D" in (values.axes or "") for values in opened(path).values)


def train_command(args: Any, report: "InspectionReport", volumes: bool) -> str:
    """Return the command that trains on these data; the noisier captures are named first.

    Args:
        args: the options.
        report: of the inspection.
        volumes: True if the files hold volumes.

    Returns:
        The command line, quoted for a shell.
    """
    advice = list(report.advice or [])
    noisy, target = args.noisy, args.target
    if report.reversed and target:
        noisy, target = target, noisy
        advice.append("data.swap=false")
    halves = report.source == "pairs" and target and volumes
    words = ["n2n", "train"]
    words.append("experiment=half_volumes" if halves else f"data={report.source}")
    words.append(f"data.noisy={noisy}")
    if target:
        words.append(f"data.target={target}")
    if args.layout != "auto":
        words.append(f"data.layout={args.layout}")
    if args.dq_good:
        words.append(f"data.dq_good={args.dq_good}")
    if args.exclude:
        words.append(f"data.exclude=[{','.join(args.exclude)}]")
    return shlex.join([*words, *advice])


def write_check_page(report: "InspectionReport", out: Path, last: str) -> None:
    """Write check.html, check.md and their figure.

    Args:
        report: of the inspection.
        out: the folder.
        last: the command that trains, or the reason why none fits.
    """
    from n2n_lightning.inspection.figure import figure
    from n2n_lightning.reporting.html import HtmlReport

    content = HtmlReport(out)
    content.heading("A look at the data", 1)
    for finding in report.findings:
        content.paragraph(f"{finding.name}: {finding.line}", "failed" if finding.bad else "")
    content.figure(
        "check.png", figure(report), "One capture, its noise, and what the noise is like"
    )
    if report.advice is None:
        content.paragraph(last, "failed")
    else:
        content.heading("What fits")
        content.code(last)
    content.write("check", "A look at the data")


def refuse_outputs(args: Any) -> None:
    """Check that no output would replace an input or be read as one.

    Args:
        args: the options.

    Raises:
        InputError: it would.
    """
    from n2n_lightning.formats import split

    inputs = [split(path)[0] for path in (args.noisy, args.target) if path is not None]
    if args.json:
        refuse_inputs(args.json, inputs, "json")
    if not args.out:
        return
    if args.out.exists() and not args.out.is_dir():
        raise InputError("out", args.out, "is a file; name a folder")
    for path in inputs:
        if path.is_dir() and args.out.resolve().is_relative_to(path.resolve()):
            raise InputError(
                "out", args.out, "its check.png would be among the inputs; name another folder"
            )


def print_findings(report: "InspectionReport") -> None:
    """Print a line for each finding, wrapped under its name."""
    for finding in report.findings:
        indent = " " * len(finding.head)
        lines = textwrap.fill(
            finding.line, COLUMNS, initial_indent=finding.head, subsequent_indent=indent
        )
        print(lines)


def main() -> int:
    args = parser().parse_args()
    refuse_outputs(args)
    from n2n_lightning.inspection import inspect

    volumes = holds_volumes(args.noisy)
    captures = read_captures(args, volumes)
    report = inspect(captures, volumes)
    print_findings(report)
    line = captures.layout.line() if captures.layout else ""
    if line:
        print(f"  axes        {Path(args.noisy).name}: {line}; --layout says otherwise")
    if volumes:
        remark = "experiment=half_volumes trains on two halves of whole volumes"
        if not args.target:
            remark = (
                "planes, directions and time points of it are no captures of one scene,"
                " and no movie"
            )
        print(f"  volumes     looked at plane by plane; {remark}")
    if report.advice is None:
        last = f"no command fits: {report.why}"
    else:
        last = train_command(args, report, volumes)
    if args.json:
        with replacing(args.json) as temporary:
            temporary.write_text(json_text(report.numbers), encoding="utf-8")
    if args.out:
        write_check_page(report, args.out, last)
        print(f"page: {args.out / 'check.html'}", file=sys.stderr)
    print(last)
    return 0


if __name__ == "__main__":
    command(main, parser)
