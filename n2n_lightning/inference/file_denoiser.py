"""Files denoised one after the other: each comes out as a file of its kind."""

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from n2n_lightning.arrays.outlier_lists import OutlierCounts
from n2n_lightning.files import PASSING, DiskFull, InputError, PassingError, one_line, replacing
from n2n_lightning.formats import Picture, ending, opened
from n2n_lightning.formats.picture import AskedAxes, ReadAs, Values
from n2n_lightning.formats.units import in_unit_of, mean_of_halves, rescaled
from n2n_lightning.inference.array_plans import (
    copied_ones,
    copy_file,
    is_mosaic,
    result_types,
)
from n2n_lightning.inference.certificates import (
    CertifyOptions,
    FileCertificate,
    certificates_of,
    certificates_of_pair,
)
from n2n_lightning.inference.denoiser import TrainedDenoiser
from n2n_lightning.inference.error_files import write_errors
from n2n_lightning.inference.error_maps import ErrorMap, check_possible, errors_of, errors_of_pair
from n2n_lightning.inference.movie_frames import Series, movies_of_picture
from n2n_lightning.inference.options import DenoiseOptions, NoisyArray
from n2n_lightning.inference.outlier_files import DetectorDefects, page_shape, write_map
from n2n_lightning.inference.plan import Job, refuse_inputs
from n2n_lightning.inference.streaming import StreamedFile, regions_of
from n2n_lightning.inference.unbiasing import (
    CapturePair,
    denoise_unbiased,
    store_mean,
    unbiased_halves,
)


@dataclass
class DenoisedFile:
    """Facts about a file that was denoised.

    Attributes:
        target: the result.
        notes: what could not be preserved, in words.
        counts: how many outliers were left and replaced.
        marks: the map of the outliers of each array, if it was asked for.
        errors: the expected errors of each array, likewise.
        certificate: of its pages, likewise; without pages where nothing was denoised.
        seconds: duration.
        lines: further messages, printed before it.
        biases: the bias of each channel that was taken out, if that was asked for.
        voxels: the number of values of all arrays.
    """

    target: Path
    notes: list[str]
    counts: OutlierCounts
    marks: list[np.ndarray]
    seconds: float
    lines: Sequence[str] = ()
    errors: list[ErrorMap] = field(default_factory=list)
    certificate: FileCertificate = field(default_factory=FileCertificate)
    biases: list[str] = field(default_factory=list)
    voxels: int = 0

    def __str__(self) -> str:
        errors = [one.line() for one in self.errors]
        notes = "; ".join(note for note in (*self.notes, str(self.counts), *errors) if note)
        bracket = f" ({notes})" if notes else ""
        line = f"{self.target}{bracket}  {self.seconds:.1f} s"
        biases = [f"  {bias}" for bias in self.biases]
        return "\n".join([*self.lines, line, *biases, *self.certificate.lines()])


@dataclass
class AxesNotes:
    """Prints how the arrays of files were read, each way once.

    Attributes:
        printed: lines that were printed.
    """

    printed: set[str] = field(default_factory=set)

    def print(self, source: Path, line: str) -> None:
        """Print a line, unless it was printed for an earlier file.

        Args:
            source: the file.
            line: how an array of it was read; empty: nothing to say.
        """
        if line and line not in self.printed:
            self.printed.add(line)
            print(f"{source.name}: {line}", flush=True)


@dataclass
class FileDenoiser:
    """A network and options that denoise files.

    Attributes:
        model: the network.
        options: how each array is denoised.
        asked: what decides the axes of arrays.
        progress: rich.progress.Progress that shows the tiles.
        series: the movie of each folder whose files are frames of one.
        defects: known defects of the detector; None: none.
        mask: the file of --bad-pixels, which no result may replace.
        axes_notes: prints how arrays are read.
        certify: options of certificates; None: none are written.
        overwrite: results that other processes began are begun anew.
        mixed: values may differ by rounding from those of other processes.
        tile_asked: the person named the side of tiles, which large files then have, too.
    """

    model: TrainedDenoiser
    options: DenoiseOptions
    asked: AskedAxes
    progress: Any
    series: dict[Path, Series] = field(default_factory=dict)
    defects: DetectorDefects | None = None
    mask: Path | None = None
    axes_notes: AxesNotes = field(default_factory=AxesNotes)
    certify: CertifyOptions | None = None
    overwrite: bool = False
    mixed: bool = False
    tile_asked: bool = False

    def denoise(self, job: Job, second: Picture | None = None, helps: bool = False) -> DenoisedFile:
        """Denoise one file.

        Args:
            job: the file, and its result.
            second: another capture of the same scenes; outliers that it lacks are replaced.
            helps: another process has the file, which goes block by block.

        Returns:
            Facts about the result, to be printed.

        Raises:
            InputError: it cannot be read or must not be written.
        """
        source, target = job.source, job.target
        series = self.series.get(source.parent)
        dead = series.dead(source) if series else ""
        if target.resolve() == source.resolve():
            raise InputError(f"{source}: would replace itself; name another folder with -o")
        picture = opened(source, job.part)
        refuse_inputs(target, [*picture.sources, self.mask])
        started = time.perf_counter()
        done = DenoisedFile(target, [], OutlierCounts(), [], 0.0, [])
        with _explained_errors(source, target):
            readings = [picture.read_as(values, self.asked) for values in picture.values]
            streamed = self._stream(job, picture, readings, second, helps)
            if streamed is not None or helps:
                return streamed or done
            lines: list[str] = []
            copied = copied_ones(picture, readings, self.options, lines)
            if all(copied) and copy_file(picture, target):
                if self.options.outlier_map:
                    done.marks = [np.zeros(values.shape, np.uint8) for values in picture.values]
                done.errors = [ErrorMap.unknown_of(values.shape) for values in picture.values]
            else:
                for reading in readings:
                    self.axes_notes.print(source, reading.line)
                untouched = [True] * len(copied) if dead else copied
                arrays = self.arrays_of(job, picture, readings, untouched, second, lines)
                if self.options.errors:
                    for noisy in arrays:
                        check_possible(self.model, noisy)
                types = result_types(self.model, picture, arrays, self.options, lines, copied)
                self._write(job, picture, arrays, types, untouched, done)
                movies = [noisy.movie.line() for noisy in arrays if noisy.movie]
                done.notes = [picture.note, *movies]
                if any(noisy.near_moves for noisy in arrays) and series:
                    lines += series.lines()
                if dead:
                    done.notes.append(f"left as it was: {dead}")
            self._write_maps(source, done)
        done.lines = lines
        done.voxels = sum(math.prod(values.shape) for values in picture.values)
        done.seconds = time.perf_counter() - started
        return done

    def _write_maps(self, source: Path, done: DenoisedFile) -> None:
        """Write what was asked for beside a result."""
        if self.options.outlier_map:
            write_map(done.target, done.marks)
        if self.options.errors:
            write_errors(done.target, done.errors)
        if done.certificate.pages:
            done.certificate.source = source.name
            done.certificate.write(done.target)

    def _stream(
        self,
        job: Job,
        picture: Picture,
        readings: Sequence[ReadAs],
        second: Picture | None,
        helps: bool,
    ) -> DenoisedFile | None:
        """Denoise a large array block by block; None where it has to be done as a whole."""
        with_others = second is not None or job.source.parent in self.series
        if with_others or self.certify is not None:
            return None
        regions = regions_of(picture, readings, self.model, self.options)
        if regions is None:
            return None
        started = time.perf_counter()
        (reading,) = readings
        self.axes_notes.print(job.source, reading.line)
        defects = None
        if self.defects is not None:
            pages = page_shape(regions.shape, reading.axes)
            defects = self.defects.of(job.source, pages)
        task = self.progress.add_task(job.source.name, total=1.0)
        file = StreamedFile(
            self.model,
            self.options,
            picture,
            reading,
            regions,
            job.target,
            defects,
            self.mixed,
            self.tile_asked,
            lambda share: self.progress.advance(task, share),
        )
        try:
            streamed = file.run(self.overwrite, helps)
        finally:
            self.progress.remove_task(task)
        if streamed is None:
            return None
        notes = [streamed.note]
        seconds = time.perf_counter() - started
        done = DenoisedFile(job.target, notes, streamed.counts, [], seconds, streamed.lines)
        done.voxels = math.prod(regions.shape)
        return done

    def arrays_of(
        self,
        job: Job,
        picture: Picture,
        readings: Sequence[ReadAs],
        untouched: Sequence[bool],
        second: Picture | None,
        lines: list[str],
    ) -> list[NoisyArray]:
        """Return the arrays of a file with what is known about each.

        Args:
            job: the file.
            picture: the file, opened.
            readings: how its arrays are read.
            untouched: whether each is copied.
            second: another capture of the same scenes.
            lines: gets what is to be said.
        """
        letters = [reading.axes for reading in readings]
        movies = movies_of_picture(picture, letters, self.model.dims, self.model.context)
        arrays = []
        for number, values in enumerate(picture.values):
            reading = readings[number]
            near = self._near(job, reading.axes, values)
            noisy = replace(
                NoisyArray.of(values, reading, near),
                near_moves=self._near_moves(job, near),
                movie=movies[number],
            )
            if untouched[number]:
                arrays.append(noisy)
                continue
            defects = None
            if self.defects is not None:
                defects = self.defects.of(job.source, page_shape(values.shape, reading.axes))
            capture = None if second is None else _capture_of(job.source, values, number, second)
            mosaic = is_mosaic(picture, values, reading.axes, self.options.mosaic, lines)
            noisy = replace(noisy, second=capture, defects=defects, mosaic=mosaic)
            arrays.append(noisy)
        return arrays

    def _near(self, job: Job, axes: str, values: Values) -> list[np.ndarray]:
        """Return the frames around a file that is a frame of a movie, in the unit of its values."""
        series = self.series.get(job.source.parent)
        if series is None or job.source not in series.places:
            return []
        if not set(axes) <= set("CHW"):
            return []
        number = series.places[job.source]
        model = self.model
        frames = []
        for t in series.review.neighbours(number, model.context, model.sees_middle):
            picture = opened(series.paths[t])
            frames.append(in_unit_of(values, picture.values[0]))
        return frames

    def _near_moves(self, job: Job, near: Sequence[np.ndarray]) -> list[tuple[int, int]]:
        """Return how far the frames around a file are moved; none: they stay."""
        series = self.series.get(job.source.parent)
        model = self.model
        if not near or series is None or not model.align:
            return []
        number = series.places[job.source]
        numbers = series.review.neighbours(number, model.context, model.sees_middle)
        return series.moves(job.source, numbers)

    def _write(
        self,
        job: Job,
        picture: Picture,
        arrays: Sequence[NoisyArray],
        types: Sequence[Any],
        untouched: Sequence[bool],
        done: DenoisedFile,
    ) -> None:
        """Denoise the arrays of a file into its result; `done` gets outliers and their maps."""
        model, options = self.model, self.options
        total = sum(model.tiles(noisy.array, noisy.axes, options.tile) for noisy in arrays)
        task = self.progress.add_task(job.source.name, total=total)

        def advance(tiles: int) -> None:
            self.progress.advance(task, tiles)

        try:
            with (
                replacing(job.target, folder=job.source.is_dir()) as temporary,
                picture.written(temporary, types) as results,
            ):
                for number, noisy in enumerate(arrays):
                    marks = None
                    if options.outlier_map:
                        marks = np.zeros(noisy.array.shape, np.uint8)
                        done.marks.append(marks)
                    if untouched[number]:
                        results[number][...] = noisy.array
                        done.errors.append(ErrorMap.unknown_of(noisy.array.shape))
                        continue
                    # no name here may hold a result: Windows renames no file that is mapped
                    if options.unbias:
                        self._write_unbiased(results[number], number, noisy, advance, marks, done)
                    else:
                        self._write_result(results[number], number, noisy, advance, marks, done)
        finally:
            self.progress.remove_task(task)

    def _write_result(
        self,
        result: np.ndarray,
        number: int,
        noisy: NoisyArray,
        advance: Any,
        marks: np.ndarray | None,
        done: DenoisedFile,
    ) -> None:
        """Denoise an array into its result; `done` gets the facts."""
        model, options = self.model, self.options
        done.counts += model.denoise_into(result, noisy, options, advance, marks)
        if options.errors:
            done.errors.append(errors_of(model, noisy, result, options))
        if self.certify is not None:
            certified = certificates_of(model, noisy, result, options, self.certify)
            done.certificate.add(certified, number)

    def _write_unbiased(
        self,
        result: np.ndarray,
        number: int,
        noisy: NoisyArray,
        advance: Any,
        marks: np.ndarray | None,
        done: DenoisedFile,
    ) -> None:
        """Denoise an array without its bias, see `denoise_unbiased`; `done` gets the facts."""
        model, options = self.model, self.options
        unbiased = denoise_unbiased(model, result, noisy, options, advance, marks)
        done.counts += unbiased.counts
        done.biases += unbiased.lines
        if self.certify is not None:
            certified = certificates_of_pair(model, unbiased.pair, options, self.certify)
            done.certificate.add(certified, number)

    def denoise_halves(self, first: Job, second: Job) -> DenoisedFile:
        """Denoise two halves of a specimen and write the mean of the results like the first.

        Args:
            first, second: the halves, with the same target.

        Returns:
            Facts about the mean, to be printed.

        Raises:
            InputError: they differ in shape or type, or cannot be read or written.
        """
        target = first.target
        pictures = [opened(job.source, job.part) for job in (first, second)]
        for picture in pictures:
            refuse_inputs(target, [*picture.sources, self.mask])
        shapes = [[(v.shape, v.dtype) for v in picture.values] for picture in pictures]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"{first.source} and {second.source}: differ in shape or type, so they are no two"
                " halves"
            )
        started = time.perf_counter()
        lines: list[str] = []
        types = self._types_of_halves(pictures[0], lines)
        # One decision for both halves and all arrays.
        unbias = self.options.unbias
        unrounded = "float32" in types or (unbias and pictures[0].floats)
        dtype = "float32" if unrounded else "keep"
        options = replace(
            self.options, label_images="denoise", dtype=dtype, errors=False, unbias=False
        )
        of_halves = replace(self, options=options, series={}, certify=None)
        with _explained_errors(first.source, target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".halves") as folder:
                denoised = []
                results = []
                for number, job in enumerate((first, second)):
                    half = Job(job.source, Path(folder, f"{number}{ending(target)}"), job.part)
                    denoised.append(of_halves.denoise(half, pictures[1 - number]))
                    results.append(opened(half.target, half.part))
                pairs: list[CapturePair] = []
                if unbias or self.certify is not None:
                    pairs = self._pairs_of_halves(pictures, results)
                biases: list[str] = []
                corrected: list[CapturePair] = []
                for pair in pairs if unbias else ():
                    unbiased = unbiased_halves(self.model, pair, options)
                    corrected.append(unbiased.pair)
                    biases += unbiased.lines
                _write_mean(first, pictures[0], results, types, corrected)
                errors = []
                if self.options.errors:
                    errors = self._errors_of_halves(pictures, results, options)
                    write_errors(target, errors)
                certificate = self._certificate_of_halves(corrected or pairs, options)
                if certificate.pages:
                    certificate.source = f"{first.source.name}, {second.source.name}"
                    certificate.write(target)
            marks = []
            if options.outlier_map:
                for one, other in zip(denoised[0].marks, denoised[1].marks, strict=True):
                    marks.append(np.maximum(one, other))
                write_map(target, marks)
        counts = denoised[0].counts + denoised[1].counts
        seconds = time.perf_counter() - started
        notes = denoised[0].notes
        done = DenoisedFile(target, notes, counts, marks, seconds, lines, errors, certificate)
        done.biases = biases
        return done

    def _pairs_of_halves(
        self, pictures: Sequence[Picture], results: Sequence[Picture]
    ) -> list[CapturePair]:
        """Return the arrays of two halves, each with its result."""
        pairs: list[CapturePair] = []
        for number, values in enumerate(pictures[0].values):
            noisy = NoisyArray.of(values, pictures[0].read_as(values, self.asked))
            other = replace(noisy, array=in_unit_of(values, pictures[1].values[number]))
            denoised = [in_unit_of(values, result.values[number]) for result in results]
            pairs.append(list(zip((noisy, other), denoised, strict=True)))
        return pairs

    def _certificate_of_halves(
        self, pairs: Sequence[CapturePair], options: DenoiseOptions
    ) -> FileCertificate:
        """Return the certificate of two denoised halves; without pages where none is asked for."""
        certificate = FileCertificate()
        if self.certify is not None:
            for number, pair in enumerate(pairs):
                certified = certificates_of_pair(self.model, pair, options, self.certify)
                certificate.add(certified, number)
        return certificate

    def _errors_of_halves(
        self, pictures: Sequence[Picture], results: Sequence[Picture], options: DenoiseOptions
    ) -> list[ErrorMap]:
        """Return the errors of the mean of two denoised halves, of each array."""
        maps = []
        for number, values in enumerate(pictures[0].values):
            noisy = NoisyArray.of(values, pictures[0].read_as(values, self.asked))
            other = replace(noisy, array=in_unit_of(values, pictures[1].values[number]))
            denoised = [in_unit_of(values, result.values[number]) for result in results]
            pair = (noisy, other)
            maps.append(errors_of_pair(self.model, pair, denoised, options, of_mean=True))
        return maps

    def _types_of_halves(self, picture: Picture, lines: list[str]) -> list[Any]:
        """Decide the types of the mean, float32 for all arrays of integers where one needs it."""
        arrays = []
        for values in picture.values:
            arrays.append(NoisyArray.of(values, picture.read_as(values, self.asked)))
        types = result_types(self.model, picture, arrays, self.options, lines)
        if "float32" not in types:
            return types
        return ["float32" if noisy.array.dtype.kind in "iu" else None for noisy in arrays]


def _capture_of(source: Path, values: Values, number: int, second: Picture) -> np.ndarray:
    """Return the array of another capture, in the unit of the first; raise InputError if unlike."""
    if number >= len(second.values) or second.values[number].shape != values.shape:
        raise InputError(f"{source} and {second.path}: differ in shape, so they are no captures")
    return in_unit_of(values, second.values[number])


def _write_mean(
    job: Job,
    picture: Picture,
    results: Sequence[Picture],
    types: Sequence[Any],
    corrected: Sequence[CapturePair],
) -> None:
    """Write the mean of two denoised halves, or of corrected ones, as a file like the first."""
    with (
        replacing(job.target, folder=job.source.is_dir()) as temporary,
        picture.written(temporary, types) as means,
    ):
        for number, mean in enumerate(means):
            first, second = (result.values[number] for result in results)
            mean_of_halves(mean, first, second)
            unit = picture.values[number].unit
            if first.unit != unit:  # floats of FITS are stored in the unit itself
                mean[...] = rescaled(mean, first.unit, unit)
            if corrected:
                store_mean(mean, corrected[number])


@contextmanager
def _explained_errors(source: Path, target: Path) -> Iterator[None]:
    """Turn every error of a picture into a line, so that the other pictures are denoised.

    Libraries that write raise errors of their own, and so does a device without memory.
    """
    try:
        yield
    except InputError as error:
        named = str(error).startswith(str(source))
        raise InputError(str(error) if named else f"{source}: {error}") from error
    except DiskFull as error:
        raise InputError(str(error)) from error
    except OSError as error:
        kind = PassingError if error.errno in PASSING else InputError
        raise kind(f"{target}: cannot be written: {error.strerror or error}") from error
    except Exception as error:
        reason = one_line(error, 200)
        raise PassingError(f"{source}: {type(error).__name__}: {reason}") from error
