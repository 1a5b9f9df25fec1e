"""Denoise pictures: `python -m n2n_lightning.denoise PICTURES... -o OUT`.

PNG, JPEG, TIFF and .npy, of any size, bit depth and number of channels; what goes in comes out.
Without --checkpoint it takes the one that the package brings along, for photographs with noise of
any strength.
"""

import sys
import time
from argparse import BooleanOptionalAction
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2n_lightning.config.choices import DTYPES, LABEL_IMAGES, OUTLIERS
from n2n_lightning.files import InputError, Parser, command, one_of
from n2n_lightning.formats import opened
from n2n_lightning.formats.picture import AskedAxes, Picture, ReadAs, Values
from n2n_lightning.formats.units import converted
from n2n_lightning.inference.plan import Job, folder_of, halves_of, planned, refuse_inputs
from n2n_lightning.inference.skipped_files import left_alone

if TYPE_CHECKING:
    from n2n_lightning.inference.certificates import CertifyOptions, FileCertificate
    from n2n_lightning.inference.denoiser import TrainedDenoiser
    from n2n_lightning.inference.file_denoiser import AxesNotes, FileDenoiser
    from n2n_lightning.inference.options import DenoiseOptions
    from n2n_lightning.inference.outlier_files import DetectorDefects

CHOICES = {"outliers": OUTLIERS, "dtype": DTYPES, "label_images": LABEL_IMAGES}  # of options


def _add_input_options(p: Parser) -> None:
    """Add the options that name the input, the output and the checkpoint."""
    p.add_argument(
        "pictures",
        nargs="+",
        metavar="PICTURE",
        help="files, folders (with all in them) or 'patterns*.tif'",
    )
    p.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
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
    p.add_argument("--minutes", type=float, help="how long --adapt may take (default 5)")
    p.add_argument(
        "--second",
        type=Path,
        help="with --errors, --certify, --unbias: other captures, a file or a folder",
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


def parser() -> Parser:
    """Return the parser of the command line."""
    p = Parser(prog="python -m n2n_lightning.denoise", description=__doc__)
    _add_input_options(p)
    _add_result_options(p)
    _add_compute_options(p)
    _add_reading_options(p)
    return p


def page(jobs: Sequence[Job], out: Path, asked: AskedAxes, errors: bool = False) -> str | None:
    """Write the page of before and after next to the results.

    Args:
        jobs: the pictures; those without a result are left out.
        out: the folder of the results, or the name of the only one.
        asked: what decides the axes of arrays.
        errors: show the expected errors of the results, too.

    Returns:
        What to say about it; None where there are no results.
    """
    from n2n_lightning.inference.error_files import read_errors
    from n2n_lightning.reporting import slider

    folder = folder_of(out)
    pairs = []
    for job in jobs:
        if job.target.exists():
            before, after = opened(job.source, job.part), opened(job.target, job.part)
            maps = read_errors(job.target) if errors else []
            for number, (values, result) in enumerate(
                zip(before.values, after.values, strict=True)
            ):
                axes = before.read_as(values, asked).axes
                layers = {"expected error": maps[number].reshape(values.shape)} if maps else None
                arrays = (values.array, result.array)
                pairs.append(slider.pair(job.source.name, *arrays, axes, layers))
    if not pairs:
        return None
    slider.write_page(folder / "page.html", pairs, f"Before and after: {folder.resolve().name}")
    return f"{folder / 'page.html'}: before and after"


def adapted(
    jobs: Sequence[Job], args: Any, device: str, asked: AskedAxes, axes_notes: "AxesNotes"
) -> "TrainedDenoiser":
    """Adapt the checkpoint to the pictures, and save it next to the results.

    Args:
        jobs: the pictures.
        args: of the command.
        device: on which it is trained.
        asked: what decides the axes of arrays.
        axes_notes: prints how arrays are read.

    Returns:
        The adapted network.

    Raises:
        InputError: the pictures do not allow it.
    """
    from n2n_lightning.inference.checkpoint import PRETRAINED, checkpoint_of
    from n2n_lightning.training import adaptation

    if args.scale is not None:
        raise InputError(
            "scale",
            args.scale,
            "goes without --adapt, which finds the range of the pictures itself",
        )
    folder = args.out if jobs[0].target != args.out else args.out.parent
    path = folder / "adapted.ckpt"
    inputs = [job.source for job in jobs]
    if args.checkpoint:
        inputs.append(checkpoint_of(args.checkpoint))
    refuse_inputs(path, inputs)
    if path.exists() and not args.overwrite:
        raise InputError(
            f"{path}: is there already; --checkpoint takes it, --overwrite adapts anew"
        )
    # No more images are used in training, so no more pictures are read.
    step = -(-len(jobs) // adaptation.MAX_IMAGES)
    arrays = _training_arrays(jobs[::step], args.label_images, asked, axes_notes)
    units = {values.unit for values, *_ in arrays}
    unit = units.pop() if len(units) == 1 else None
    pictures = []
    nodata_values: set[float] = set()
    for values, reading, name in arrays:
        values = values if unit else converted(values)
        pictures.append((values.measured, reading.axes, reading.alpha, reading.colour, name))
        nodata_values |= set(values.nodata_values)
    images, names = adaptation.collected(pictures)
    minutes = args.minutes or 5.0
    with adaptation.progress_bar(minutes) as advance:
        started = time.perf_counter()
        result = adaptation.adapt(
            args.checkpoint or PRETRAINED,
            images,
            names,
            minutes,
            device,
            tuple(sorted(nodata_values)),
            allow=args.allow,
            advance=advance,
            outliers=args.outliers,
            unit=unit or (1.0, 0.0),
        )
    adaptation.save(result.model, result.info, path)
    seconds = time.perf_counter() - started
    plural = "s" if len(images) > 1 else ""
    learnt = f"learnt from {len(images)} image{plural} for {seconds:.0f} s"
    if result.share == 0:
        print(
            f"{learnt}, which improved nothing by Stein's estimate: the checkpoint is used as it"
            " was"
        )
    else:
        part = f", of which {result.share:.0%} is used (more was worse)"
        print(f"{learnt}{'' if result.share == 1 else part}: --checkpoint {path} takes it")
    return result.model


def _training_arrays(
    jobs: Sequence[Job], label_images: str, asked: AskedAxes, axes_notes: "AxesNotes"
) -> list[tuple[Values, ReadAs, str]]:
    """Read the arrays of pictures, without label images and masks: values, axes, and file name."""
    from n2n_lightning.formats.label_images import is_label_image

    arrays = []
    for job in jobs:
        picture = opened(job.source, job.part)
        for values in picture.values:
            reading = picture.read_as(values, asked)
            axes_notes.print(job.source, reading.line)
            copied = label_images == "copy" and (
                picture.mask or is_label_image(values.array, reading.axes)
            )
            if not copied:
                arrays.append((values, reading, str(job.source)))
    if not arrays:
        raise InputError(f"{jobs[0].source}: label images alone, from which nothing can be learnt")
    return arrays


def _detector_defects(
    model: "TrainedDenoiser",
    jobs: Sequence[Job],
    args: Any,
    options: "DenoiseOptions",
    asked: AskedAxes,
) -> "DetectorDefects | None":
    """Return the defects in a mask, or print and return those that different scenes share."""
    from n2n_lightning.inference.outlier_files import defects_of_folders, read_mask

    if args.bad_pixels:
        return read_mask(args.bad_pixels)
    if args.outliers != "auto" or args.halves or model.context:
        return None
    defects = defects_of_folders(model, jobs, options, asked)
    for (folder, _), points in defects.folders.items():
        pixels = len({tuple(point[1:]) for point in points.tolist()})
        print(
            f"{folder}: {pixels} pixels stand out in most of its different pictures: detector"
            " defects, replaced"
        )
    return defects


def checked_arguments(args: Any) -> None:
    """Raises InputError where options cannot be."""
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
    if args.minutes is not None and not args.adapt:
        raise InputError("minutes", args.minutes, "goes with --adapt")


def _check_errors(args: Any) -> None:
    """Raise InputError where the options of error maps and certificates cannot be."""
    if args.errors and args.adapt:
        raise InputError(
            "errors",
            True,
            "goes without --adapt: errors are known of a network that has not seen the pictures",
        )
    if args.second and (args.halves or not (args.errors or args.certify or args.unbias)):
        reason = "goes with --errors, --certify, --unbias, without --halves"
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


def main() -> int:
    args = parser().parse_args()
    checked_arguments(args)
    from n2n_lightning.formats.fits_planes import good_flags, parsed

    with good_flags(parsed(args.dq_good)):
        return run(args)


def run(args: Any) -> int:
    """Denoise all pictures.

    Args:
        args: of the command.

    Returns:
        The exit status: 0, or 1 where a picture failed.

    Raises:
        InputError: an option cannot work, so that no picture was denoised.
    """
    skipped: list[Path] = []
    if args.halves:
        jobs = halves_of(args.pictures, args.out)
    else:
        jobs, skipped = planned(args.pictures, args.out, args.overwrite)
    if args.page:
        refuse_inputs(folder_of(args.out) / "page.html", [job.source for job in jobs], "page")
    _refuse_maps(args, jobs)
    seconds = _second_captures(args, jobs)
    missing = [job for job in jobs if args.overwrite or not job.target.exists()]
    progress = _tile_progress()
    denoiser = _file_denoiser(args, jobs, missing, progress)
    failed = 0
    existing = 0
    results = jobs[:1] if args.halves else jobs
    certificates: list[FileCertificate] = []
    with progress:
        for job in results:
            itself = job.target.resolve() == job.source.resolve()  # which FileDenoiser refuses
            if job.target.exists() and not args.overwrite and not itself:
                existing += 1
                continue
            try:
                if args.halves:
                    result = denoiser.denoise_halves(*jobs)
                else:
                    result = denoiser.denoise(job, _opened(seconds.get(job.source)))
                print(result, flush=True)
                certificates.append(result.certificate)
            except InputError as error:
                print("error:", error, file=sys.stderr, flush=True)
                failed += 1
    if args.page:
        line = page(results, args.out, denoiser.asked, args.errors)
        if line:
            print(line)
    if args.certify:
        _write_certificates(folder_of(args.out), certificates)
    _print_left_out(skipped, existing, failed, len(jobs))
    return 1 if failed else 0


def _opened(path: Path | None) -> Picture | None:
    """Open a second capture, where there is one."""
    if path is None:
        return None
    return opened(path)


def _print_left_out(skipped: list[Path], existing: int, failed: int, count: int) -> None:
    """Print which pictures have no new result."""
    if skipped:
        print("\n".join(left_alone(skipped)))
    if existing:
        print(f"{existing} of {count} pictures were there already; --overwrite replaces them")
    if failed:
        print(f"{failed} of {count} pictures failed", file=sys.stderr)


def _refuse_maps(args: Any, jobs: Sequence[Job]) -> None:
    """Raise InputError where a map would be written over one of the pictures."""
    from n2n_lightning.inference.error_files import refuse_error_files
    from n2n_lightning.inference.outlier_files import refuse_maps

    if args.outlier_map:
        refuse_maps(jobs)
    if args.errors:
        refuse_error_files(jobs)
    if args.certify:
        from n2n_lightning.inference.certificates import refuse_certificates

        refuse_certificates(jobs, folder_of(args.out))


def _write_certificates(folder: Path, certificates: "Sequence[FileCertificate]") -> None:
    """Write the page of the certificates, and print its name."""
    from n2n_lightning.inference.certificates import PAGE
    from n2n_lightning.reporting.certificate_page import write_certificates

    certified = [certificate for certificate in certificates if certificate.pages]
    if certified:
        write_certificates(folder / PAGE, certified)
        print(f"{folder / PAGE}: which values hold")


def _second_captures(args: Any, jobs: Sequence[Job]) -> dict[Path, Path]:
    """Return the second captures of pictures; raise InputError where a file would be replaced."""
    from n2n_lightning.inference.error_files import second_captures

    if not args.second:
        return {}
    captures = second_captures(args.pictures, args.second, jobs)
    for job in jobs:
        refuse_inputs(job.target, captures.values())
    return captures


def _file_denoiser(
    args: Any, jobs: Sequence[Job], missing: Sequence[Job], progress: Any
) -> "FileDenoiser":
    """Return the denoiser of the files: network on its device, options, facts of the folders."""
    from n2n_lightning.inference.bundled import checkpoint_for
    from n2n_lightning.inference.checkpoint import MOVIE
    from n2n_lightning.inference.denoiser import load
    from n2n_lightning.inference.file_denoiser import AxesNotes, FileDenoiser
    from n2n_lightning.inference.movie_frames import series_of
    from n2n_lightning.inference.options import DenoiseOptions
    from n2n_lightning.inference.tiling import spans, tile_of

    checkpoint = args.checkpoint or checkpoint_for(args, jobs)
    by_axes = checkpoint == MOVIE and args.movie is None
    if by_axes:
        print("movies, denoised with the frames around each; --no-movie: frame by frame")
    model = load(checkpoint, args.allow)
    tile = args.tile or tile_of(model.dims, model.overlap, model.multiple)
    spans(2 * tile, tile, model.multiple, model.overlap)  # says so, if the tile is too small
    options = replace(DenoiseOptions.of(args), tile=tile)
    asked = AskedAxes(args.axes, model.layout, model.dims)
    axes_notes = AxesNotes()
    device = _device_of(args.device)
    if args.adapt and missing:
        model = adapted(missing, args, device, asked, axes_notes)
    model.fast = args.fast
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            "device", device, "cannot be used here; cpu, cuda, cuda:1 or mps, as there are"
        ) from error
    frames_are_files = bool(model.context) and not by_axes
    if frames_are_files and len(missing) > 1 and all(job.part is None for job in missing):
        print(
            "the files of a folder are taken for frames of one movie, in the order of their names"
        )
    defects = _detector_defects(model, missing, args, options, asked)
    series = {}
    if frames_are_files and missing and not args.halves:
        series = series_of(jobs, model.context)
    certify = _certify_options(args) if args.certify else None
    return FileDenoiser(
        model, options, asked, progress, series, defects, args.bad_pixels, axes_notes, certify
    )


def _certify_options(args: Any) -> "CertifyOptions":
    """Return the options of certificates; raise InputError where the regions cannot be read."""
    from n2n_lightning.inference.certificates import CertifyOptions
    from n2n_lightning.metrics.certificate import ALLOWED_DIFFERENCE
    from n2n_lightning.reporting.movie_scores import read_labels

    labels = read_labels(args.regions) if args.regions else None
    return CertifyOptions(args.tolerance or ALLOWED_DIFFERENCE, labels)


def _device_of(name: str) -> str:
    """Return the name of a device; for `auto` the GPU, if there is one."""
    import torch

    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _tile_progress() -> Any:
    """Return a progress bar that counts tiles, shown on terminals."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tiles"),
        TimeRemainingColumn(),
        console=Console(highlight=False, soft_wrap=True),
        transient=True,
        redirect_stderr=sys.stderr.isatty(),
        disable=not sys.stdout.isatty(),
    )


if __name__ == "__main__":
    command(main, parser)
