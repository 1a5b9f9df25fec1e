"""Look at noisy data before training: `python -m n2n_lightning.check NOISY [TARGET]`.

Says what captures and their noise are like, what follows from it, and, last, the command that
trains on them. NOISY and TARGET are what `data.noisy=` and `data.target=` take: files or folders of
any format and layout (docs/how-to/pairs.md).
"""

import json
import shlex
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2n_lightning.files import InputError, Parser, command, replacing
from n2n_lightning.inference.plan import refuse_inputs

if TYPE_CHECKING:
    from n2n_lightning.inspection import InspectionReport


def parser() -> Parser:
    p = Parser(prog="python -m n2n_lightning.check", description=__doc__.splitlines()[0])
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


def read(args: Any, volumes: bool) -> Any:
    """The captures that the options name; where there is one of each scene, single images.

    Args:
        args: the options.
        volumes: whether the files hold volumes, see `holds_volumes`.
    """
    from n2n_lightning.data.reading import read_any, read_scenes
    from n2n_lightning.formats import is_one
    from n2n_lightning.formats.fits_planes import good_flags, parsed
    from n2n_lightning.paths import is_pattern

    for path in (args.noisy, args.target):
        if path is not None and ":" not in path and not (Path(path).exists() or is_pattern(path)):
            raise InputError(f"{path}: no such file or folder")
    with good_flags(parsed(args.dq_good)):
        # halves, a file each, as training reads them
        if volumes and args.target and not is_one(Path(args.noisy)):
            return read_scenes(args.noisy, args.target, args.layout, args.exclude, 3)
        return read_any(args.noisy, args.target, args.layout, args.exclude)


def holds_volumes(path: str) -> bool:
    """Whether a file, or the first one of a folder or pattern, says that its planes are those of a volume."""
    from n2n_lightning.data.file_matching import is_file, pictures
    from n2n_lightning.formats import opened
    from n2n_lightning.paths import is_pattern

    if not is_file(path):
        files = pictures(Path(path), deep=True) if Path(path).is_dir() or is_pattern(path) else []
        path = str(files[0]) if files else ""
    return bool(path) and any("D" in (values.axes or "") for values in opened(path).values)


def train_command(args: Any, report: "InspectionReport", volumes: bool) -> str:
    """The command that trains on these data; the noisier captures are named first.

    Args:
        args: the options.
        report: what was found.
        volumes: whether the files hold volumes.
    """
    advice = list(report.advice or [])
    noisy, target = args.noisy, args.target
    if report.reversed and target:
        noisy, target = target, noisy
        advice.append("data.swap=false")
    halves = report.source == "pairs" and target and volumes
    kind = "experiment=half_volumes" if halves else f"data={report.source}"
    words = ["python", "-m", "n2n_lightning.train", kind, f"data.noisy={noisy}"]
    words += [f"data.target={target}"] if target else []
    words += [f"data.layout={args.layout}"] if args.layout != "auto" else []
    words += [f"data.dq_good={args.dq_good}"] if args.dq_good else []
    words += [f"data.exclude=[{','.join(args.exclude)}]"] if args.exclude else []
    return shlex.join([*words, *advice])


def page(report: "InspectionReport", out: Path, last: str) -> None:
    """Writes check.html, check.md and their picture."""
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


def refuse(args: Any) -> None:
    """Raises InputError where the options would have an input written over, or a picture put among the inputs."""
    from n2n_lightning.formats import split

    inputs = [split(path)[0] for path in (args.noisy, args.target) if path is not None]
    if args.json:
        refuse_inputs(args.json, inputs, "json")
    if args.out:
        if args.out.exists() and not args.out.is_dir():
            raise InputError("out", args.out, "is a file; name a folder")
        for path in inputs:
            if path.is_dir() and args.out.resolve().is_relative_to(path.resolve()):
                raise InputError(
                    "out", args.out, "its check.png would be among the inputs; name another folder"
                )


def main() -> int:
    args = parser().parse_args()
    refuse(args)
    from n2n_lightning.inspection import inspect

    volumes = holds_volumes(args.noisy)
    captures = read(args, volumes)
    report = inspect(captures, volumes)
    for finding in report.findings:
        head = f"{'!' if finding.bad else ' '} {finding.name:12}"
        print(
            textwrap.fill(finding.line, 118, initial_indent=head, subsequent_indent=" " * len(head))
        )
    if captures.layout and (line := captures.layout.line()):
        print(f"  axes        {Path(args.noisy).name}: {line}; --layout says otherwise")
    if volumes:
        what = "experiment=half_volumes trains on two halves of whole volumes"
        if not args.target:
            what = "planes, directions and time points of it are no captures of one scene, and no movie"
        print(f"  volumes     looked at plane by plane; {what}")
    last = (
        f"no command fits: {report.why}"
        if report.advice is None
        else train_command(args, report, volumes)
    )
    if args.json:
        with replacing(args.json) as temporary:
            temporary.write_text(json.dumps(report.numbers, indent=2) + "\n", encoding="utf-8")
    if args.out:
        page(report, args.out, last)
        print(f"page: {args.out / 'check.html'}", file=sys.stderr)
    print(last)
    return 0


if __name__ == "__main__":
    command(main, parser)
