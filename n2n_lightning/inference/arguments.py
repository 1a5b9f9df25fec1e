"""Arguments of `denoise`: what each means, and which cannot go together."""

from argparse import SUPPRESS, BooleanOptionalAction
from pathlib import Path
from typing import Any

from n2n_lightning.config.choices import DTYPES, LABEL_IMAGES, LAUNCHERS, OUTLIERS
from n2n_lightning.files import InputError, Parser, one_of

CHOICES = {"outliers": OUTLIERS, "dtype": DTYPES, "label_images": LABEL_IMAGES}  # of options


def add_denoise_options(p: Parser) -> None:
    """Add all options of the command to its parser.

    Args:
        p: the parser.
    """
    _add_input_options(p)
    _add_result_options(p)
    _add_compute_options(p)
    _add_sharing_options(p)
    _add_reading_options(p)


def _add_input_options(p: Parser) -> None:
    """Add the options that name the input, the output and the checkpoint."""
    p.add_argument(
        "pictures",
        nargs="*",
        metavar="PICTURE",
        help="files, folders (with all in them) or 'patterns*.tif'",
    )
    p.add_argument(
        "-o",
        "--out",
        type=Path,
        help="a folder; for a single picture also a file name",
    )
    p.add_argument(
        "--checkpoint",
        type=Path,
        help="a run folder or a checkpoint file; movie: the built-in one for movies; default: that"
        " one where files state an axis of time, else the built-in one for pictures",
    )
    p.add_argument(
        "--movie",
        action=BooleanOptionalAction,
        help="without --checkpoint: the built-in one for movies, which sees frames around each, or"
        " frame by frame; default: by the axes",
    )
    p.add_argument(
        "--adapt", action="store_true", help="let the checkpoint learn from the pictures first"
    )
    p.add_argument(
        "--best",
        action="store_true",
        help="compare candidates by scores without clean images, train some, and take the best"
        " (docs/how-to/best.md)",
    )
    p.add_argument(
        "--choice",
        type=Path,
        metavar="DIR",
        help="repeat what --best chose in the folder of its results",
    )
    p.add_argument(
        "--minutes",
        type=float,
        help="how long --adapt (default 5) or --best (30, of processor time) may take",
    )
    p.add_argument(
        "--second",
        type=Path,
        help="with --best, --errors, --certify, --unbias: other captures, a file or a folder",
    )
    p.add_argument(
        "--halves",
        action="store_true",
        help="of two pictures, halves of one specimen, write the mean result",
    )


def _add_result_options(p: Parser) -> None:
    """Add the options for which pixels change, by how much, and the files written beside them."""
    p.add_argument(
        "--strength",
        type=float,
        default=1.0,
        help="0 to 1: a mix of picture and result (default 1)",
    )
    p.add_argument(
        "--uneven",
        action="store_true",
        help="the noise differs from place to place: put no texture back",
    )
    p.add_argument(
        "--outliers",
        default="auto",
        help="isolated pixels that stand out: auto keeps their values, unless there is evidence"
        " against them; replace;"
        " keep treats them as any pixel",
    )
    p.add_argument(
        "--outlier-map", action="store_true", help="write OUT/NAME.outliers.tif: 1 left, 2 replaced"
    )
    p.add_argument(
        "--errors",
        action="store_true",
        help="write the expected error of each pixel, OUT/NAME.error.tif (docs/explanation/"
        "error-maps.md)",
    )
    p.add_argument(
        "--certify",
        action="store_true",
        help="write which values hold, OUT/certificate.html and OUT/NAME.certificate.json"
        " (docs/explanation/certificate.md)",
    )
    p.add_argument(
        "--unbias", action="store_true", help="correct brightness by --second or --halves"
    )
    p.add_argument("--regions", help="with --certify: a label image whose regions are compared")
    p.add_argument(
        "--tolerance", type=float, help="with --certify: the difference that is allowed (0.02)"
    )
    p.add_argument(
        "--bad-pixels", type=Path, help="a mask of the detector, not 0 where a pixel is defective"
    )
    p.add_argument(
        "--page",
        action="store_true",
        help="write OUT/page.html, with a slider between before and after",
    )
    p.add_argument(
        "--overwrite", action="store_true", help="replace pictures that are there already"
    )


def _add_compute_options(p: Parser) -> None:
    """Add the options of memory, speed and device."""
    p.add_argument(
        "--tta",
        action="store_true",
        help="average over the 8 flips and quarter turns: 8 times slower",
    )
    p.add_argument(
        "--tile",
        type=int,
        help="tile size in pixels (default 1024, of volumes 112); smaller needs less memory",
    )
    p.add_argument(
        "--fast",
        action="store_true",
        help="compute in bfloat16: half the time where the device has it",
    )
    p.add_argument(
        "--batch",
        type=int,
        default=1,
        help="tiles at a time (default 1); more may be faster on a GPU",
    )
    p.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, mps; default: a GPU where there is one"
    )


def _add_sharing_options(p: Parser) -> None:
    """Add the options for several processes that fill one folder."""
    p.add_argument(
        "--jobs",
        type=int,
        help="processes, each with a GPU where there are some, else with a share of the cores",
    )
    p.add_argument(
        "--launcher",
        help="start --jobs processes by slurm (an array of tasks) or ray (a cluster)",
    )
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="with --launcher: a key of conf/hydra/launcher, as partition=gpu",
    )
    p.add_argument(
        "--status",
        type=Path,
        metavar="OUT",
        help="print how far the processes of a folder of results are, and end",
    )
    p.add_argument(
        "--summary", type=Path, metavar="FILE", help="write the numbers of --status as JSON"
    )
    # a process that --jobs or --launcher started
    p.add_argument("--worker", action="store_true", help=SUPPRESS)
    # a process that the page of n2n serve started
    p.add_argument("--progress-lines", action="store_true", help=SUPPRESS)
    p.add_argument(
        "--mixed",
        action="store_true",
        help="accept processors, devices and versions whose values differ by rounding",
    )


def _add_reading_options(p: Parser) -> None:
    """Add the options that say how stored values are read and of which type the result is."""
    p.add_argument("--scale", type=float, help="the stored value that is white; default: judged")
    p.add_argument(
        "--black",
        type=float,
        default=0.0,
        help="with --scale: the stored value that is black (default 0)",
    )
    p.add_argument(
        "--axes",
        "--layout",
        help="what the axes of the arrays are, as NHW: images, height, width; C: channels",
    )
    p.add_argument(
        "--dq-good", help="bits of FITS data quality flags that are harmless, as 4+8, or all"
    )
    p.add_argument(
        "--mosaic", default="auto", help="RGGB, BGGR, GRBG, GBRG: a colour camera's raw frame; none"
    )
    p.add_argument(
        "--label-images",
        default="copy",
        help="what becomes of label images and masks: copy (default) or denoise",
    )
    p.add_argument(
        "--dtype",
        default="auto",
        help="of whole numbers: auto, keep or float32 (docs/reference/values.md)",
    )
    p.add_argument(
        "--allow",
        action="append",
        default=[],
        help="a module whose networks the checkpoint may name",
    )


def checked_arguments(args: Any) -> None:
    """Raises InputError where options cannot be."""
    _check_sharing(args)
    for name, least in (("tile", 1), ("batch", 1), ("scale", 1e-30)):
        if (value := getattr(args, name)) is not None and not least <= value <= 1e30:
            raise InputError(name, value, "must be larger than 0, and finite")
    for name, choices in CHOICES.items():
        one_of(getattr(args, name), choices, name)
    if not 0 <= args.strength <= 1:
        raise InputError("strength", args.strength, "must be 0 (the picture as it is) to 1")
    if args.black and args.scale is None:
        raise InputError("black", args.black, "say with --scale which stored value is white")
    if args.scale is not None and not args.black < args.scale:
        raise InputError("scale", args.scale, f"must be larger than --black {args.black:g}")
    if args.movie is not None and args.checkpoint:
        raise InputError("movie", args.movie, "chooses a built-in one; leave out --checkpoint")
    if args.movie and (args.adapt or args.halves or args.errors):
        other = next(name for name in ("adapt", "halves", "errors") if getattr(args, name))
        raise InputError("movie", True, f"--{other} works with the checkpoint for pictures")
    if args.halves and args.adapt:
        raise InputError(
            "halves", True, "the result is the mean of two; --adapt learns from single pictures"
        )
    _check_errors(args)
    if args.minutes is not None and not 0 < args.minutes <= 1e4:
        raise InputError("minutes", args.minutes, "must be larger than 0")
    if args.minutes is not None and not (args.adapt or args.best):
        raise InputError("minutes", args.minutes, "goes with --adapt or --best")
    _check_choice(args)


def _check_choice(args: Any) -> None:
    """Raise InputError where options cannot go with --best or --choice."""
    if not args.best and not args.choice:
        return
    name = "best" if args.best else "choice"
    value = True if args.best else args.choice
    if args.best and args.choice:
        raise InputError("choice", args.choice, "repeats a choice, and --best makes one")
    decided = ["checkpoint", "movie", "adapt", "halves", "scale", "uneven"]
    if args.best:  # errors of networks that have seen the pictures are not known
        decided += ["errors", "certify", "unbias"]
    for other in decided:
        if getattr(args, other):
            raise InputError(name, value, f"goes without --{other}")
    if args.strength != 1:
        raise InputError(name, value, "goes without --strength")


def _check_sharing(args: Any) -> None:
    """Raise InputError where the options of several processes cannot be."""
    missing = []
    if not args.pictures:
        missing.append("PICTURE")
    if args.out is None:
        missing.append("-o/--out")
    if missing:
        raise InputError(f"the following arguments are required: {', '.join(missing)}")
    if args.jobs is not None and not 1 <= args.jobs <= 10_000:
        raise InputError("jobs", args.jobs, "must be 1 or more")
    if args.launcher is not None:
        one_of(args.launcher, LAUNCHERS, "launcher")
    if args.set and args.launcher is None:
        raise InputError("set", args.set[0], "goes with --launcher")
    if args.jobs is None and args.launcher is None:
        return
    for name in ("adapt", "best", "halves", "certify"):
        if getattr(args, name):
            reason = "is the work of one process; leave out --jobs and --launcher"
            raise InputError(name, True, reason)
    if args.jobs is not None and args.launcher is None and ":" in args.device:
        raise InputError("device", args.device, "with --jobs each process gets a GPU of its own")


def _check_errors(args: Any) -> None:
    """Raise InputError where the options of error maps and certificates cannot be."""
    if args.errors and args.adapt:
        raise InputError(
            "errors",
            True,
            "goes without --adapt: errors are known of a network that has not seen the pictures",
        )
    scored = args.errors or args.certify or args.unbias or args.best
    if args.second and (args.halves or not scored):
        reason = "goes with --best, --errors, --certify, --unbias, without --halves"
        raise InputError("second", args.second, reason)
    if args.unbias:
        from n2n_lightning.inference.unbiasing import check_unbias

        check_unbias(args)
    if args.certify and args.adapt:
        raise InputError(
            "certify",
            True,
            "goes without --adapt: a network that has seen the noise of the pictures fits it",
        )
    for name in ("regions", "tolerance"):
        if getattr(args, name) is not None and not args.certify:
            raise InputError(name, getattr(args, name), "goes with --certify")
    if args.tolerance is not None and not 0 < args.tolerance < 1:
        raise InputError("tolerance", args.tolerance, "must be between 0 and 1")
