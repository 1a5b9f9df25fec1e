"""Denoise pictures: `python -m n2n_lightning.denoise PICTURES... -o OUT`.

PNG, JPEG, TIFF and .npy, of any size, bit depth and number of channels; what goes in comes out.
Without --checkpoint it takes the one that the package brings along, for photographs with noise of
any strength.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from n2n_lightning.config.choices import DTYPES, LABEL_IMAGES, OUTLIERS
from n2n_lightning.files import DiskFull, InputError, Parser, command, one_of, replacing
from n2n_lightning.formats import ending, opened
from n2n_lightning.formats.converters import left_alone
from n2n_lightning.formats.picture import AskedAxes
from n2n_lightning.formats.units import converted, in_unit_of, mean_of_halves, rescaled
from n2n_lightning.inference.plan import Job, folder_of, halves_of, planned, refuse_inputs

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
        help="a run folder or a checkpoint file; default: the built-in one",
    )
    p.add_argument(
        "--adapt", action="store_true", help="let the checkpoint learn from the pictures first"
    )
    p.add_argument("--minutes", type=float, help="how long --adapt may take (default 5)")
    p.add_argument(
        "--halves",
        action="store_true",
        help="of two pictures, halves of one specimen, write the mean result",
    )


def _add_result_options(p: Parser) -> None:
    """Add the options that decide which pixels change, by how much, and what is written with them."""
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
        help="isolated pixels that stand out: auto keeps their values, unless there is evidence against them; replace;"
        " keep treats them as any pixel",
    )
    p.add_argument(
        "--outlier-map", action="store_true", help="write OUT/NAME.outliers.tif: 1 left, 2 replaced"
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


def _near(model: Any, job: Job, axes: str, series: Any, values: Any) -> list[Any]:
    """The frames around a file that is one frame of a movie, for a checkpoint that sees them in place of it.

    Args:
        series: movie_frames.Series, the movie that its folder holds; None: it holds none.
        values: formats.Values of the file; those of the others are converted to their unit.
    """
    if series is None or job.source not in series.places or not set(axes) <= set("CHW"):
        return []
    around = series.review.neighbours(series.places[job.source], model.context)
    return [in_unit_of(values, opened(series.paths[t]).values[0]) for t in around]


def say_once(args: Any, source: Path, line: str) -> None:
    """Prints how the array of a file was read, where no file before it was read in the same way."""
    said = vars(args).setdefault("said", set())
    if line and line not in said:
        said.add(line)
        print(f"{source.name}: {line}", flush=True)


@dataclass
class Denoised:
    """What is known of a file that was denoised.

    Attributes:
        target: the result.
        notes: what could not stay as it is, in words.
        counts: outliers.OutlierCounts.
        marks: of each of its arrays the map of its outliers, where that was asked for.
        seconds: how long it took.
        lines: what else is said of it, each on a line before.
    """

    target: Path
    notes: list[str]
    counts: Any
    marks: list[Any]
    seconds: float
    lines: Sequence[str] = ()

    def __str__(self) -> str:
        said = "; ".join(note for note in (*self.notes, str(self.counts)) if note)
        return "\n".join(
            [*self.lines, f"{self.target}{f' ({said})' if said else ''}  {self.seconds:.1f} s"]
        )


def _explained(error: Exception, source: Path, target: Path) -> InputError:
    """Why a picture could not be denoised, in a line."""
    if isinstance(error, InputError):
        return InputError(
            str(error) if str(error).startswith(str(source)) else f"{source}: {error}"
        )
    if isinstance(error, DiskFull):
        return InputError(str(error))
    if isinstance(error, OSError):
        return InputError(f"{target}: cannot be written: {error.strerror or error}")
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(f"{source}: {type(error).__name__}: {reason}")


def denoise_file(
    model: Any,
    job: Job,
    args: Any,
    progress: Any,
    series: Any = None,
    defects: Any = None,
    second: Any = None,
) -> Denoised:
    """Denoises one file.

    Args:
        series: the movie that its folder holds; None: it holds none.
        defects: outlier_files.DetectorDefects; None: none are known.
        second: formats.Picture of another capture of the same scene; None: there is none.

    Raises:
        InputError: it cannot be read or must not be written.
    """
    import numpy as np

    from n2n_lightning.arrays.outliers import OutlierCounts
    from n2n_lightning.inference.array_plans import (
        are_mosaics,
        copied_ones,
        copy_file,
        result_types,
    )
    from n2n_lightning.inference.movie_frames import movies_of_picture
    from n2n_lightning.inference.outlier_files import page_shape, write_map

    source, target = job.source, job.target
    counts, marks = OutlierCounts(), []
    dead = series.dead(source) if series else ""
    if target.resolve() == source.resolve():
        raise InputError(f"{source}: would replace itself; name another folder with -o")
    picture = opened(source, job.part)
    refuse_inputs(target, [*picture.sources, args.bad_pixels])
    started = time.perf_counter()
    task = None
    lines: list[str] = []
    try:
        readings = [picture.read_as(values, AskedAxes.of(args)) for values in picture.values]
        copied = copied_ones(picture, readings, args, lines)
        if all(copied) and copy_file(picture, target):
            if args.outlier_map:
                marks = [np.zeros(v.shape, np.uint8) for v in picture.values]
                write_map(target, marks)
            return Denoised(target, [], counts, marks, time.perf_counter() - started, lines)
        for reading in readings:
            say_once(args, source, reading.line)
        total = sum(
            model.tiles(v.array, r.axes, args.tile)
            for v, r in zip(picture.values, readings, strict=True)
        )
        task = progress.add_task(source.name, total=total)
        options = {
            "tile": args.tile,
            "tta": args.tta,
            "scale": args.scale,
            "batch": args.batch,
            "black": args.black,
        }
        options |= {"strength": args.strength, "uneven": args.uneven, "outliers": args.outliers}
        options["advance"] = lambda tiles: progress.advance(task, tiles)
        frames = movies_of_picture(picture, [r.axes for r in readings], model.dims, model.context)
        near = _near(model, job, readings[0].axes, series, picture.values[0])
        apart = are_mosaics(picture, readings, args.mosaic, copied, lines)
        dtypes = result_types(model, picture, readings, args, near, lines, copied, apart)
        with (
            replacing(target, folder=source.is_dir()) as temporary,
            picture.written(temporary, dtypes) as results,
        ):
            for number, reading in enumerate(readings):
                values = picture.values[number]
                if dead or copied[number]:
                    marks += [np.zeros(values.shape, np.uint8)] if args.outlier_map else []
                    results[number][...] = values.array
                    continue
                options["near"] = _near(model, job, reading.axes, series, values)
                options |= {
                    "nodata_values": values.nodata_values,
                    "invalid": values.invalid,
                    "unit": values.unit,
                }
                options["second"] = (
                    None if second is None else in_unit_of(values, second.values[number])
                )
                page = page_shape(values.shape, reading.axes)
                options["defects"] = None if defects is None else defects.of(source, page)
                options["outlier_map"] = (
                    np.zeros(values.shape, np.uint8) if args.outlier_map else None
                )
                marks.append(options["outlier_map"])
                run = (
                    model.denoise_mosaic
                    if apart[number]
                    else partial(model.denoise_into, movie=frames[number])
                )
                counts += run(
                    results[number],
                    values.array,
                    reading.axes,
                    reading.alpha,
                    reading.colour,
                    **options,
                )
        if args.outlier_map:
            write_map(target, marks)
    except (
        Exception
    ) as error:  # of a library that writes, of a device without memory: the other pictures go on
        raise _explained(error, source, target) from error
    finally:
        if task is not None:
            progress.remove_task(task)
    notes = [picture.note, *(movie.line() for movie in frames), dead and f"left as it was: {dead}"]
    return Denoised(target, notes, counts, marks, time.perf_counter() - started, lines)


def halves(model: Any, jobs: list[Job], args: Any, progress: Any, defects: Any = None) -> Denoised:
    """Denoises two halves of one specimen and writes the mean of the results, as a file like the first one.

    Raises:
        InputError: they are not two alike, or cannot be read or written.
    """
    import numpy as np

    from n2n_lightning.inference.array_plans import result_types
    from n2n_lightning.inference.outlier_files import write_map

    first, second = jobs
    first.target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=first.target.parent, prefix=".halves") as folder:
        parts = [
            Job(j.source, Path(folder, f"{k}{ending(j.target)}"), j.part)
            for k, j in enumerate(jobs)
        ]
        pictures = [opened(job.source, job.part) for job in jobs]
        shapes = [[(v.shape, v.dtype) for v in picture.values] for picture in pictures]
        for picture in pictures:
            refuse_inputs(first.target, [*picture.sources, args.bad_pixels])
        lines: list[str] = []
        if shapes[0] != shapes[1]:
            raise InputError(
                f"{first.source} and {second.source}: differ in shape or type, so they are no two"
                " halves"
            )
        started = time.perf_counter()
        readings = [
            pictures[0].read_as(values, AskedAxes.of(args)) for values in pictures[0].values
        ]
        dtypes = result_types(model, pictures[0], readings, args, [], lines)
        same = copy(args)
        same.label_images = "denoise"
        if "float32" in dtypes:  # one decision for both halves and all arrays
            dtypes = [
                "float32" if values.dtype.kind in "iu" else None for values in pictures[0].values
            ]
        same.dtype = "float32" if "float32" in dtypes else "keep"
        first_half, second_half = (
            denoise_file(model, part, same, progress, None, defects, other)
            for part, other in zip(parts, reversed(pictures), strict=True)
        )
        results = [opened(part.target, part.part) for part in parts]
        as_folder = first.source.is_dir()
        written = pictures[0].written
        with (
            replacing(first.target, folder=as_folder) as temporary,
            written(temporary, dtypes) as means,
        ):
            for mean, a, b, source in zip(
                means, *(result.values for result in (*results, pictures[0])), strict=True
            ):
                mean_of_halves(mean, a, b)
                if a.unit != source.unit:  # floats of FITS are stored in the unit itself
                    mean[...] = rescaled(mean, a.unit, source.unit)
    counts = first_half.counts + second_half.counts
    both_marks = zip(first_half.marks, second_half.marks, strict=True)
    marks = [np.maximum(*both) for both in both_marks] if args.outlier_map else []
    if args.outlier_map:
        write_map(first.target, marks)
    return Denoised(
        first.target, first_half.notes, counts, marks, time.perf_counter() - started, lines
    )


def page(jobs: list[Job], args: Any) -> str | None:
    """Writes the page of before and after beside the results; returns what to say of it."""
    from n2n_lightning.reporting import slider

    folder = folder_of(args.out)
    pairs = []
    for job in jobs:
        if job.target.exists():
            before, after = opened(job.source, job.part), opened(job.target, job.part)
            for values, result in zip(before.values, after.values, strict=True):
                axes = before.read_as(values, AskedAxes.of(args)).axes
                pairs.append(slider.pair(job.source.name, values.array, result.array, axes))
    if not pairs:
        return None
    slider.write_page(folder / "page.html", pairs, f"Before and after: {folder.resolve().name}")
    return f"{folder / 'page.html'}: before and after"


def adapted(jobs: list[Job], args: Any, device: str) -> Any:
    """The checkpoint after it has learnt from the pictures; kept beside the results, for the next time.

    Raises:
        InputError: the pictures do not allow it.
    """
    from n2n_lightning.formats.label_images import is_label_image
    from n2n_lightning.inference.checkpoint import PRETRAINED, checkpoint_of
    from n2n_lightning.training import adaptation

    if args.scale is not None:
        raise InputError(
            "scale",
            args.scale,
            "goes without --adapt, which finds the range of the pictures itself",
        )
    folder = args.out if jobs[0].target != args.out else args.out.parent
    kept, minutes = folder / "adapted.ckpt", args.minutes or 5.0
    refuse_inputs(
        kept, [args.checkpoint and checkpoint_of(args.checkpoint), *(job.source for job in jobs)]
    )
    if kept.exists() and not args.overwrite:
        raise InputError(
            f"{kept}: is there already; --checkpoint takes it, --overwrite adapts anew"
        )
    held, arrays, nodata_values = [], [], set()
    # no more are learnt from, so no more are read
    for job in jobs[:: -(-len(jobs) // adaptation.MAX_IMAGES)]:
        picture = opened(job.source, job.part)
        for values in picture.values:
            read = picture.read_as(values, AskedAxes.of(args))
            say_once(args, job.source, read.line)
            if args.label_images == "copy" and (
                picture.mask or is_label_image(values.array, read.axes)
            ):
                continue
            held.append((values, read, str(job.source)))
    if not held:
        raise InputError(f"{jobs[0].source}: label images alone, from which nothing can be learnt")
    units = {values.unit for values, *_ in held}
    for values, read, name in held:
        values = values if len(units) == 1 else converted(values)
        arrays.append((values.measured, read.axes, read.alpha, read.colour, name))
        nodata_values |= set(values.nodata_values)
    images, names = adaptation.collected(arrays)
    with adaptation.progress_bar(minutes) as advance:
        started = time.perf_counter()
        checkpoint = args.checkpoint or PRETRAINED
        unit = units.pop() if len(units) == 1 else (1.0, 0.0)
        more = {"allow": args.allow, "advance": advance, "outliers": args.outliers, "unit": unit}
        found = adaptation.adapt(
            checkpoint, images, names, minutes, device, tuple(sorted(nodata_values)), **more
        )
    adaptation.save(found.model, found.info, kept)
    learnt = f"learnt from {len(images)} image{'s'[: len(images) > 1]} for {time.perf_counter() - started:.0f} s"
    if found.share == 0:
        print(
            f"{learnt}, which improved nothing by Stein's estimate: the checkpoint is used as it"
            " was"
        )
    else:
        far = "" if found.share == 1 else f", of which {found.share:.0%} is used (more was worse)"
        print(f"{learnt}{far}: --checkpoint {kept} takes it")
    return found.model


def _defects(model: Any, jobs: list[Job], args: Any) -> Any:
    """The outlier_files.DetectorDefects of a mask, or of folders of different scenes, which are named."""
    from n2n_lightning.inference.outlier_files import defects_of_folders, read_mask

    if args.bad_pixels:
        return read_mask(args.bad_pixels)
    if args.outliers != "auto" or args.halves or model.context:
        return None
    defects = defects_of_folders(model, jobs, args)
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
    if args.halves and args.adapt:
        raise InputError(
            "halves", True, "the result is the mean of two; --adapt learns from single pictures"
        )
    if args.minutes is not None and not 0 < args.minutes <= 1e4:
        raise InputError("minutes", args.minutes, "must be larger than 0")
    if args.minutes is not None and not args.adapt:
        raise InputError("minutes", args.minutes, "goes with --adapt")


def main() -> int:
    args = parser().parse_args()
    checked_arguments(args)
    from n2n_lightning.formats.fits_planes import good_flags, parsed

    with good_flags(parsed(args.dq_good)):
        return run(args)


def run(args: Any) -> int:
    """Denoises all pictures; returns the exit status."""
    jobs, skipped = (
        (halves_of(args.pictures, args.out), [])
        if args.halves
        else planned(args.pictures, args.out, args.overwrite)
    )
    if args.page:
        refuse_inputs(folder_of(args.out) / "page.html", [job.source for job in jobs], "page")

    import torch
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from n2n_lightning.inference.checkpoint import PRETRAINED
    from n2n_lightning.inference.denoiser import load
    from n2n_lightning.inference.outlier_files import refuse_maps
    from n2n_lightning.inference.tiling import spans, tile_of

    if args.outlier_map:
        refuse_maps(jobs)
    model = load(args.checkpoint or PRETRAINED, args.allow)
    args.trained_layout, args.dims = model.layout, model.dims
    tile = args.tile or tile_of(model.dims, model.overlap, model.multiple)
    spans(2 * tile, tile, model.multiple, model.overlap)  # says so, if the tile is too small
    args.tile = tile
    device = args.device
    if device == "auto":
        device = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    missing = [job for job in jobs if args.overwrite or not job.target.exists()]
    if args.adapt and missing:
        model = adapted(missing, args, device)
    model.fast = args.fast
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            "device", device, "cannot be used here; cpu, cuda, cuda:1 or mps, as there are"
        ) from error

    if model.context and len(missing) > 1 and all(job.part is None for job in missing):
        print(
            "the files of a folder are taken for frames of one movie, in the order of their names"
        )
    defects = _defects(model, missing, args)
    from n2n_lightning.inference.movie_frames import series_of

    series = series_of(jobs, model.context) if model.context and missing and not args.halves else {}
    failed = there = 0
    title, count = TextColumn("{task.description}", markup=False), MofNCompleteColumn()
    columns = (title, BarColumn(), count, TextColumn("tiles"), TimeRemainingColumn())
    console = Console(highlight=False, soft_wrap=True)
    options = {"console": console, "transient": True, "redirect_stderr": sys.stderr.isatty()}
    with Progress(*columns, **options, disable=not sys.stdout.isatty()) as progress:  # type: ignore[arg-type]
        for job in jobs[: 1 if args.halves else None]:
            itself = job.target.resolve() == job.source.resolve()  # which `denoise_file` refuses
            if job.target.exists() and not args.overwrite and not itself:
                there += 1
                continue
            try:
                if args.halves:
                    print(halves(model, jobs, args, progress, defects), flush=True)
                    continue
                print(
                    denoise_file(
                        model, job, args, progress, series.get(job.source.parent), defects
                    ),
                    flush=True,
                )
            except InputError as error:
                print("error:", error, file=sys.stderr, flush=True)
                failed += 1
    if args.page and (line := page(jobs[: 1 if args.halves else None], args)):
        print(line)
    if skipped:
        print("\n".join(left_alone(skipped)))
    if there:
        print(f"{there} of {len(jobs)} pictures were there already; --overwrite replaces them")
    if failed:
        print(f"{failed} of {len(jobs)} pictures failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    command(main, parser)
