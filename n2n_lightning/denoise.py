"""Denoise pictures: `n2n denoise PICTURES... -o OUT`.

PNG, JPEG, TIFF and .npy, of any size, bit depth and number of channels; what goes in comes out.
Without --checkpoint it takes the one that the package brings along, for photographs with noise of
any strength.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2n_lightning.files import InputError, Parser, command
from n2n_lightning.formats import opened
from n2n_lightning.formats.picture import AskedAxes, Picture, ReadAs, Values
from n2n_lightning.formats.star_files import is_star, write_denoised
from n2n_lightning.formats.units import converted
from n2n_lightning.inference.arguments import add_denoise_options, checked_arguments
from n2n_lightning.inference.plan import Job, folder_of, halves_of, planned, refuse_inputs
from n2n_lightning.inference.skipped_files import left_alone

if TYPE_CHECKING:
    from n2n_lightning.inference.certificates import CertifyOptions, FileCertificate
    from n2n_lightning.inference.denoiser import TrainedDenoiser
    from n2n_lightning.inference.file_denoiser import AxesNotes, DenoisedFile, FileDenoiser
    from n2n_lightning.inference.options import DenoiseOptions
    from n2n_lightning.inference.outlier_files import DetectorDefects
    from n2n_lightning.inference.shared_output import NoClaim
    from n2n_lightning.runs.claims import Claim


def parser() -> Parser:
    """Return the parser of the command line."""
    p = Parser(prog="n2n denoise", description=__doc__)
    add_denoise_options(p)
    return p


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


def main() -> int:
    args = parser().parse_args()
    if args.status:
        from n2n_lightning.inference.progress_watch import print_status

        return print_status(args.status, args.summary)
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
    from n2n_lightning.devices.choice import device_of
    from n2n_lightning.inference.checkpoint import checkpoint_of
    from n2n_lightning.inference.progress_watch import watch_of
    from n2n_lightning.inference.shared_output import Help, output_for
    from n2n_lightning.inference.tally import Tally
    from n2n_lightning.inference.tile_progress import ProgressLines

    skipped: list[Path] = []
    if args.halves:
        jobs = halves_of(args.pictures, args.out)
    else:
        jobs, skipped = planned(args.pictures, args.out, args.overwrite)
    if args.page:
        refuse_inputs(folder_of(args.out) / "page.html", [job.source for job in jobs], "page")
    _refuse_maps(args, jobs)
    seconds = _second_captures(args, jobs)
    if (args.jobs or args.launcher) and not args.worker:
        return _by_workers(args, jobs, skipped)
    missing = [job for job in jobs if args.overwrite or not job.target.exists()]
    checkpoint = _checkpoint(args, jobs)
    progress = ProgressLines() if args.progress_lines else _tile_progress()
    denoisers = _file_denoisers(args, checkpoint, jobs, missing, seconds, progress)
    results = jobs[:1] if args.halves else jobs
    tally = Tally(len(jobs))
    certificates: list[FileCertificate] = []
    file = checkpoint_of(checkpoint)
    with progress, output_for(args, file, device_of(args.device), results, missing) as output:
        todo = output.missing(results)
        for job, claim in output.claimed(todo):
            halves = jobs if args.halves else _halves_of(job)
            second = seconds.get(job.source)
            helps = isinstance(claim, Help)
            result = _denoised(denoisers[job], job, claim, second, halves, helps)
            if helps:  # the process that holds the picture says what it was
                continue
            if isinstance(result, InputError):
                again = "; it is tried again" if output.failed(job, str(result)) else ""
                print(f"error: {result}{again}", file=sys.stderr, flush=True)
                continue
            print(result, flush=True)
            certificates.append(result.certificate)
        tally.existing = len(results) - len(todo)
        tally.failed = output.failures(todo)
        tally.elsewhere = len(todo) - len(certificates) - tally.failed
        if args.summary and not args.worker:
            watch_of(args.out, output).write_summary(args.summary)
    if args.worker:
        return tally.status
    if args.page:
        _write_page(args, results, denoisers[jobs[0]].asked)
    if args.certify:
        _write_certificates(folder_of(args.out), certificates)
    _write_stars(args, jobs)
    if skipped:
        print("\n".join(left_alone(skipped)))
    tally.print()
    return tally.status


def _by_workers(args: Any, jobs: Sequence[Job], skipped: Sequence[Path]) -> int:
    """Denoise the pictures by --jobs processes; return the exit status."""
    from n2n_lightning.inference.bundled import checkpoint_for
    from n2n_lightning.inference.denoiser import load
    from n2n_lightning.inference.tally import Tally
    from n2n_lightning.inference.workers import denoise_by_workers

    watch = denoise_by_workers(args, len(jobs))
    if not watch.was_begun:  # each process said why
        return 2
    watch.write_summary(args.summary)
    tally = Tally(len(jobs), watch.existing, failed=len(watch.failed))
    tally.missing = len(jobs) - watch.done - tally.failed
    if args.page:
        model = load(args.checkpoint or checkpoint_for(args, jobs), args.allow, device="cpu")
        _write_page(args, jobs, AskedAxes(args.axes, model.layout, model.dims))
    _write_stars(args, jobs)
    if skipped:
        print("\n".join(left_alone(skipped)))
    tally.print()
    return tally.status


def _write_page(args: Any, jobs: Sequence[Job], asked: AskedAxes) -> None:
    """Write the page of pictures before and after, and print where it is."""
    from n2n_lightning.reporting.before_after import write_before_after

    line = write_before_after(jobs, args.out, asked, args.errors, args.certify)
    if line:
        print(line)


def _halves_of(job: Job) -> list[Job]:
    """Return the halves of a tomogram of a star file; none of another picture."""
    if job.other_half is None:
        return []
    return [job._replace(other_half=None), Job(job.other_half, job.target)]


def _write_stars(args: Any, jobs: Sequence[Job]) -> None:
    """Write each star file among the pictures with the column of the denoised tomograms."""
    results = {job.source: job.target for job in jobs if job.other_half is not None}
    for text in args.pictures:
        if not is_star(text):
            continue
        target = folder_of(args.out) / Path(text).name
        refuse_inputs(target, [text])
        missing = [path for path in results.values() if not path.exists()]
        if missing:
            print(f"{target}: is written when all tomograms are denoised")
        else:
            write_denoised(Path(text), target, results)
            print(f"{target}: the denoised tomograms, with the columns of {text}")


def _denoised(
    denoiser: "FileDenoiser",
    job: Job,
    claim: "Claim | NoClaim",
    second: Path | None,
    halves: Sequence[Job],
    helps: bool,
) -> "DenoisedFile | InputError":
    """Denoise one picture, or two halves, while it is claimed; return the error if that fails."""
    try:
        with claim:
            if halves:
                result = denoiser.denoise_halves(*halves)
            else:
                result = denoiser.denoise(job, _opened(second), helps)
            claim.finish({"voxels": result.voxels, "seconds": result.seconds})
    except InputError as error:
        return error
    return result


def _opened(path: Path | None) -> Picture | None:
    """Open a second capture, where there is one."""
    if path is None:
        return None
    return opened(path)


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


def _checkpoint(args: Any, jobs: Sequence[Job]) -> Path:
    """Return the checkpoint that is named or suits the files, or the file of a choice."""
    from n2n_lightning.inference.bundled import checkpoint_for

    if args.best or args.choice:
        folder: Path = args.choice or folder_of(args.out)
        return folder / "choice.json"
    return args.checkpoint or checkpoint_for(args, jobs)


def _file_denoisers(
    args: Any,
    checkpoint: Path,
    jobs: Sequence[Job],
    missing: Sequence[Job],
    seconds: dict[Path, Path],
    progress: Any,
) -> "dict[Job, FileDenoiser]":
    """Return the denoiser of each file: the same for all, or what was chosen for its kind."""
    if not args.best and not args.choice:
        denoiser = _file_denoiser(args, checkpoint, jobs, missing, progress)
        return dict.fromkeys(jobs, denoiser)
    from n2n_lightning.selection.for_files import chosen_denoisers

    denoisers: dict[Job, FileDenoiser] = {}
    for model, of_kind in chosen_denoisers(args, jobs, missing, seconds):
        without_result = [job for job in missing if job in of_kind]
        denoiser = _file_denoiser(args, checkpoint, of_kind, without_result, progress, model)
        denoisers |= dict.fromkeys(of_kind, denoiser)
    return denoisers


def _file_denoiser(
    args: Any,
    checkpoint: Path,
    jobs: Sequence[Job],
    missing: Sequence[Job],
    progress: Any,
    model: "TrainedDenoiser | None" = None,
) -> "FileDenoiser":
    """Return the denoiser of the files: network on its device, options, facts of the folders."""
    from n2n_lightning.devices.choice import device_of
    from n2n_lightning.inference.checkpoint import MOVIE
    from n2n_lightning.inference.denoiser import load
    from n2n_lightning.inference.device import move_to_device
    from n2n_lightning.inference.file_denoiser import AxesNotes, FileDenoiser
    from n2n_lightning.inference.movie_frames import series_of
    from n2n_lightning.inference.options import DenoiseOptions
    from n2n_lightning.inference.tiling import spans, tile_of

    by_axes = model is not None
    if model is None:
        by_axes = checkpoint == MOVIE and args.movie is None
        if by_axes:
            print("movies, denoised with the frames around each; --no-movie: frame by frame")
        model = load(checkpoint, args.allow, device="cpu")
    device = device_of(args.device)
    tile = args.tile or tile_of(model.dims, model.overlap, model.multiple, device)
    spans(2 * tile, tile, model.multiple, model.overlap)  # says so, if the tile is too small
    options = replace(DenoiseOptions.of(args), tile=tile)
    asked = AskedAxes(args.axes, model.layout, model.dims)
    axes_notes = AxesNotes()
    if args.adapt and missing:
        model = adapted(missing, args, device, asked, axes_notes)
    move_to_device(model, device, args.fast)
    frames_are_files = bool(model.context) and not by_axes
    if frames_are_files and len(missing) > 1 and all(job.part is None for job in missing):
        print(
            "the files of a folder are taken for frames of one movie, in the order of their names"
        )
    # of all pictures: a run that is continued replaces the same pixels
    defects = _detector_defects(model, jobs if missing else [], args, options, asked)
    series = {}
    if frames_are_files and missing and not args.halves:
        series = series_of(jobs, model.context)
    certify = _certify_options(args) if args.certify else None
    return FileDenoiser(
        model,
        options,
        asked,
        progress,
        series,
        defects,
        args.bad_pixels,
        axes_notes,
        certify,
        args.overwrite,
        args.mixed,
        args.tile is not None,
    )


def _certify_options(args: Any) -> "CertifyOptions":
    """Return the options of certificates; raise InputError where the regions cannot be read."""
    from n2n_lightning.inference.certificates import CertifyOptions
    from n2n_lightning.metrics.certificate import ALLOWED_DIFFERENCE
    from n2n_lightning.reporting.movie_scores import read_labels

    labels = read_labels(args.regions) if args.regions else None
    return CertifyOptions(args.tolerance or ALLOWED_DIFFERENCE, labels)


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
