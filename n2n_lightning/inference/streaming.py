"""Large arrays from disk to disk: block by block, by any number of processes, resumed after a kill.

The result is a file `OUT.partial`, into which all processes write, renamed by the one that ends it.
Next to it the state folder `OUT.state` has the claims on blocks (runs/claims.py), what was measured
on the array once, and what was asked for. It goes when all is done.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch

from n2n_lightning.arrays.axes import as_pages, of_pages
from n2n_lightning.arrays.frame_checks import FrameReview
from n2n_lightning.arrays.outlier_lists import OutlierCounts
from n2n_lightning.files import InputError, move, one_line
from n2n_lightning.formats import Picture
from n2n_lightning.formats.picture import ReadAs
from n2n_lightning.formats.regions import Region, Regions, is_large, whole_pieces
from n2n_lightning.inference.block_grid import (
    BLOCK_VOXELS,
    Block,
    BlockGrid,
    grid_of,
    inside_of,
)
from n2n_lightning.inference.movie_frames import MovieFrames
from n2n_lightning.inference.options import DenoiseOptions, NoisyArray
from n2n_lightning.inference.page import page_axes
from n2n_lightning.inference.shared_output import (
    LARGE_STATE,
    WORKERS,
    computing_of,
    refuse_other_computing,
    remove_state,
)
from n2n_lightning.inference.stream_facts import StreamFacts, measured_facts
from n2n_lightning.inference.tiling import least_tile, tile_of
from n2n_lightning.runs.claims import TRIES, Claim, Claims

# Side of tiles in pages: with the bundled network those of 1024 take 650 MB, those of 640 250 MB.
STREAMED_TILE = 640
# Of a block of divided pages, to keep a worker near 600 MiB: what is read at once, a chunk of
# 128 x 128 x 128 with its halo, and what is denoised at once, some planes of it.
READ_BYTES = 2**26
DENOISED_VOXELS = 2**22
PARTIAL = ".partial"
WAIT_SECONDS = 0.5  # between two looks at what other processes hold
LISTED_BLOCKS = 3  # blocks that failed, of which a message gives the reason
WRITTEN_VOXELS = 2**21  # of a smaller resolution, written at a time


@dataclass
class Streamed:
    """What is said about a file that was denoised block by block.

    Attributes:
        counts: of its outliers.
        lines: messages.
        note: what could not be preserved.
    """

    counts: OutlierCounts = field(default_factory=OutlierCounts)
    lines: list[str] = field(default_factory=list)
    note: str = ""


class AsWholeError(Exception):
    """A result of its type is written as a whole."""


class FinishedElsewhereError(Exception):
    """Another process finished the result, and removed its state."""


def regions_of(
    picture: Picture, readings: Sequence[ReadAs], model: Any, options: DenoiseOptions
) -> Regions | None:
    """Return the array of a file that is denoised block by block; None: the file as a whole.

    A whole is what is small, what shows several things at once (frames around each, a second
    capture, transparency), and what gets maps of the whole picture.

    Args:
        picture: the file.
        readings: how its arrays are read.
        model: the denoiser.TrainedDenoiser.
        options: how it is denoised.
    """
    if len(picture.values) != 1 or picture.mask or model.context:
        return None
    (values,) = picture.values
    (reading,) = readings
    large = is_large(values.shape, values.dtype.itemsize)
    if not large or values.invalid is not None or reading.alpha:
        return None
    mosaic = values.mosaic if options.mosaic == "auto" else options.mosaic
    if mosaic not in ("", "none") or options.errors or options.unbias or options.outlier_map:
        return None
    return picture.regions()


@dataclass
class StreamedFile:
    """A large array on its way from one file to another.

    Attributes:
        model: the denoiser.TrainedDenoiser.
        options: how it is denoised.
        picture: its file.
        reading: how it is read.
        regions: the array.
        target: the result.
        defects: pixels of the detector that are known to be defective, (n, 3); None: none.
        mixed: values may differ by rounding from those of other processes.
        tile_asked: the person named the side of tiles, which may be the usual one.
        advance: called with the share of the work that was finished, of `total`.
    """

    model: Any
    options: DenoiseOptions
    picture: Picture
    reading: ReadAs
    regions: Regions
    target: Path
    defects: np.ndarray | None = None
    mixed: bool = False
    tile_asked: bool = False
    advance: Callable[[float], Any] = field(default=lambda share: None)

    def __post_init__(self) -> None:
        model = self.model
        name = self.target.name
        regions = self.regions
        default = tile_of(model.dims, model.overlap, model.multiple)
        tile = self.options.tile
        if model.dims == 2 and tile in ("auto", default) and not self.tile_asked:
            least = least_tile(model.overlap, model.multiple)
            tile = max(min(STREAMED_TILE, default), least)
        self.options = replace(self.options, tile=tile)
        self.axes = page_axes(self.reading.axes, model.dims)
        self.partial = self.target.with_name(name + PARTIAL)
        self.state = self.target.with_name(name + LARGE_STATE)
        self.grid: BlockGrid = grid_of(model, regions.shape, self.axes, regions.chunks)

    def asked(self) -> dict[str, Any]:
        """Return what all processes that write one result must have in common."""
        options = asdict(self.options)
        options["scale"] = options["scale"] and float(options["scale"])
        weights = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            weights.update(name.encode())
            weights.update(value.detach().cpu().float().numpy().tobytes())
        device = str(next(self.model.parameters()).device)
        precision = "bfloat16" if self.model.fast else "float32"
        source: list[Any] = [
            str(self.picture.path.name),
            self.picture.part,
            list(self.regions.shape),
        ]
        if self.picture.path.is_file():
            status = self.picture.path.stat()
            source += [status.st_size, status.st_mtime_ns]
        defects = None
        if self.defects is not None:
            defects = hashlib.sha256(self.defects.tobytes()).hexdigest()
        return {
            "checkpoint": weights.hexdigest(),
            "options": options,
            "mask of bad pixels": defects,
            "computing": computing_of(device, precision),
            "source": source,
            "axes": self.axes,
        }

    def run(self, overwrite: bool = False, helps: bool = False) -> Streamed | None:
        """Denoise what is missing of the result, together with other processes that do the same.

        Args:
            overwrite: begin anew, where no process is at work on it.
            helps: another process began it; what is finished meanwhile is not begun again.

        Returns:
            What is to be said about it; None where a result of its type is written as a whole.

        Raises:
            InputError: the result was begun with other options, or blocks failed three times.
        """
        self.target.parent.mkdir(parents=True, exist_ok=True)
        before = _identity(self.target)
        try:
            if helps and not self._is_begun():
                raise FinishedElsewhereError
            claims = self._opened_state(overwrite)
            with self._registered():
                return self._attempt(claims)
        except AsWholeError:
            remove_state(self.state)
            return None
        except FinishedElsewhereError:
            if not helps and _identity(self.target) == before:
                return self.run()  # another process began anew, or writes it as a whole
            return Streamed(lines=[f"{self.target.name}: finished by another process"])

    def _attempt(self, claims: Claims) -> Streamed:
        """Denoise what is missing; an error before the first block is forgotten."""
        try:
            return self._run(claims)
        except (AsWholeError, FinishedElsewhereError):
            raise
        except BaseException:
            self._forget_beginning(claims)
            raise

    def _registered(self) -> Claim:
        """Return the claim of this process on taking part, while which no other begins anew."""
        worker = Claims(self.state / WORKERS).claim(uuid4().hex)
        assert worker is not None  # its name is new
        self._check_still_there(worker)
        return worker

    def _is_begun(self) -> bool:
        return (self.state / "asked.json").exists()

    def _forget_beginning(self, claims: Claims) -> None:
        """Remove what an error left before there is a block to go on from."""
        if claims.done_count() == 0 and not claims.held():
            remove_state(self.state)
            _remove(self.partial)

    def _run(self, claims: Claims) -> Streamed:
        threads = torch.get_num_threads()
        torch.set_num_threads(self._read_state("asked")["threads"])
        try:
            if self.regions.together:
                self._share_blocks(claims)
            else:
                self._share(claims, ["all"], lambda piece: self._denoise_alone(), tries=1)
        finally:
            torch.set_num_threads(threads)
        facts = self._facts()
        done = Streamed(lines=list(facts.lines), note=self.picture.note)
        for _, note in claims.notes():
            done.counts += OutlierCounts(note.get("left", 0), note.get("replaced", 0))
        self._share(claims, ["end"], lambda piece: self._end(), tries=1)
        remove_state(self.state)
        return done

    def _share_blocks(self, claims: Claims) -> None:
        """Do the blocks that no other process does, and then the smaller resolutions."""
        self._share(claims, ["begin"], lambda piece: self._begin(), tries=1)
        facts = self._facts()
        blocks = {block.name: block for block in self.grid.blocks()}
        self._share(claims, blocks, lambda name: self._denoise(blocks[name], facts))
        for level, (shape, pieces) in enumerate(self.regions.levels):
            self._share_level(claims, level, shape, pieces)

    def _denoise_alone(self) -> dict[str, Any]:
        """Write a file that one process writes at a time; a killed one begins anew."""
        self._begin()
        facts = self._facts()
        counts = OutlierCounts()
        for block in self.grid.blocks():
            note = self._denoise(block, facts)
            counts += OutlierCounts(note["left"], note["replaced"])
        return {"left": counts.left, "replaced": counts.replaced}

    def _opened_state(self, overwrite: bool) -> Claims:
        """Open the state folder; raise InputError where it is of another checkpoint or options."""
        asked = {**self.asked(), "threads": torch.get_num_threads()}
        begun = self._read_state("asked") if self._is_begun() else None
        living = Claims(self.state / WORKERS).held()
        if overwrite and begun is not None and not living:
            remove_state(self.state)
            _remove(self.partial)
            begun = None
        if begun is not None:
            for name, value in asked.items():
                if name in ("threads", "computing"):
                    continue
                if begun.get(name) != json.loads(json.dumps(value)):
                    raise InputError(
                        f"{self.target}: was begun with another {name}; go on with that one, or"
                        " --overwrite begins anew"
                    )
            if not self.mixed:
                refuse_other_computing(self.target, begun.get("computing", {}), asked["computing"])
        claims = Claims(self.state)
        if begun is None:
            self.state.mkdir(exist_ok=True)
            self._write_state("asked", asked)
        elif not living:
            claims.forget_failures()
        return claims

    def _read_state(self, name: str) -> Any:
        try:
            text = (self.state / f"{name}.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            raise FinishedElsewhereError from None
        return json.loads(text)

    def _write_state(self, name: str, content: Any) -> None:
        path = self.state / f"{name}.json"
        temporary = path.with_name(f"{name}-{uuid4().hex}")
        text = json.dumps(content)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)

    def _facts(self) -> StreamFacts:
        facts = StreamFacts.from_json(self._read_state("facts"))
        if self.defects is not None:
            facts = replace(facts, defects=self.defects)
        return facts

    def _begin(self) -> dict[str, Any]:
        """Measure the array, and create the result without values."""
        facts = measured_facts(
            self.model,
            self.picture,
            self.reading,
            self.regions,
            self.axes,
            self.options,
            self.grid.divided,
        )
        dtype = np.dtype(facts.dtype)
        if not self.regions.holds(dtype):
            raise AsWholeError
        _remove(self.partial)
        self.regions.create(self.partial, dtype)
        self._write_state("plan", {"blocks": self.pieces, "voxels": math.prod(self.grid.shape)})
        self._write_state("facts", facts.to_json())
        return {}

    def _end(self) -> dict[str, Any]:
        """Finish the result, and give it its name."""
        if not self.partial.exists() and self.target.exists():
            return {}  # by a process that was killed then
        self.regions.finish(self.partial)
        move(self.partial, self.target, self.regions.folder)
        return {}

    def _share(
        self,
        claims: Claims,
        names: Iterable[str],
        work: Callable[[str], dict[str, Any]],
        tries: int = TRIES,
    ) -> None:
        """Do the pieces of a step that no other process does, and wait until all are done.

        Args:
            claims: of the result.
            names: of the pieces.
            work: does one, and returns its note.
            tries: 1: an error ends the command, for a piece that all others need.

        Raises:
            InputError: some failed three times.
        """
        missing = list(names)
        while missing:
            left: list[str] = []
            worked = False
            for name in missing:
                if not self._is_begun():
                    raise FinishedElsewhereError
                claim = claims.claim(name)
                if claim is not None:
                    worked = True
                    self._check_still_there(claim)
                    try:
                        with claim:
                            claim.finish(work(name))
                    except Exception:  # the reason is in the claim
                        if tries == 1:
                            raise
                if not claims.is_done(name):
                    left.append(name)
            if left and not worked:
                given_up = claims.given_up()
                failed = {name: given_up[name] for name in left if name in given_up}
                if len(failed) == len(left):
                    raise InputError(_failures(self.picture.path, failed))
                time.sleep(WAIT_SECONDS)
            missing = left

    def _check_still_there(self, claim: Claim) -> None:
        """Raise FinishedElsewhereError where a claim made the state anew, as it was gone."""
        if self._is_begun():
            return
        claim.remove()
        for place in (self.state / WORKERS, self.state):
            for folder in (place / "claims", place / "done", place):
                with suppress(OSError):  # another process did the same, or began anew
                    folder.rmdir()
        raise FinishedElsewhereError

    def _denoise(self, block: Block, facts: StreamFacts) -> dict[str, Any]:
        """Denoise a block into the result; return the numbers of its outliers."""
        sides = [part.stop - part.start for part in block.inner]
        dtype = np.dtype(facts.dtype)
        result = np.empty(sides, dtype)
        counts = OutlierCounts()
        blank = True
        values_read = READ_BYTES // self.regions.dtype.itemsize
        values_denoised = DENOISED_VOXELS if self.grid.divided else BLOCK_VOXELS
        for part in self._slabs(block, values_read):
            source = self.regions.read(part.outer)
            inside = result[inside_of(part.inner, block.inner)]
            if facts.copied or self._is_blank(source[part.within]):
                inside[...] = source[part.within]
                blank = blank and self._is_blank(source[part.within])
                continue
            blank = False
            for slab in self._slabs(part, values_denoised):
                values = source[inside_of(slab.outer, part.outer)]
                place = inside_of(slab.inner, part.inner)
                counts += self._denoise_slab(slab, values, inside[place], facts)
        if not blank:
            with self.regions.writer(self.partial, dtype) as sink:
                sink[block.inner] = result
        self.advance(1 / self.pieces)
        return {**asdict(counts), "voxels": result.size}

    def _denoise_slab(
        self, slab: Block, source: np.ndarray, result: np.ndarray, facts: StreamFacts
    ) -> OutlierCounts:
        """Denoise planes of a block into its result."""
        (values,) = self.picture.values
        noisy = NoisyArray(
            source,
            self.axes,
            colour=self.reading.colour,
            nodata_values=facts.nodata_values,
            unit=values.unit,
            defects=self._defects_of(slab, facts),
            limits=facts.limits,
            part=self.grid.divided,
            usual_residuals=facts.usual_residuals,
        )
        if self.grid.divided:
            noisy = replace(noisy, movie=_still(noisy, self.model.dims))
        whole = np.empty(source.shape, result.dtype)
        marks = np.zeros(source.shape, np.uint8)
        self.model.denoise_into(whole, noisy, self.options, None, marks)
        result[...] = whole[slab.within]
        pages = as_pages(marks[slab.within], self.axes, self.model.dims)
        left = (pages == 1).any(-1)
        replaced = (pages == 2).any(-1)
        return OutlierCounts(int(left.sum()), int(replaced.sum()))

    def _defects_of(self, slab: Block, facts: StreamFacts) -> np.ndarray | None:
        """Return the defects within a slab, by its own rows and columns."""
        if facts.defects is None:
            # images (N) of one block are too few to tell
            return np.zeros((0, 3), np.int64) if "N" in self.axes else None
        rows = slab.outer[self.axes.index("H")]
        columns = slab.outer[self.axes.index("W")]
        corner = np.array([0, rows.start, columns.start])
        height = rows.stop - rows.start
        width = columns.stop - columns.start
        points = facts.defects - corner
        places = points[:, 1:]
        not_before = (places >= 0).all(1)
        not_after = (places < (height, width)).all(1)
        return points[not_before & not_after]

    def _is_blank(self, values: np.ndarray) -> bool:
        """Return True if all values are the fill value of the file."""
        fill = self.regions.fill
        if fill is None:
            return False
        if np.isnan(fill):
            return bool(np.isnan(values).all())
        return bool((values == fill).all())

    def _slabs(self, block: Block, most: int) -> list[Block]:
        """Divide a block along its longest stacked axis.

        Args:
            block: the block.
            most: values of a part, about.
        """
        sides = [part.stop - part.start for part in block.outer]
        spatial = "DHWC" if self.model.dims == 3 else "HWC"
        stacked = [i for i, letter in enumerate(self.axes) if letter not in spatial]
        voxels = math.prod(sides)
        if voxels <= most or not stacked:
            return [block]
        axis = max(stacked, key=sides.__getitem__)
        step = max(1, most * sides[axis] // voxels)
        whole = block.inner[axis]
        slabs = []
        for start in range(whole.start, whole.stop, step):
            stop = min(start + step, whole.stop)
            planes = slice(start, stop)
            inner = list(block.inner)
            inner[axis] = planes
            outer = list(block.outer)
            outer[axis] = planes
            slabs.append(Block(block.name, tuple(inner), tuple(outer)))
        return slabs

    def _share_level(
        self, claims: Claims, level: int, shape: tuple[int, ...], pieces: tuple[int, ...]
    ) -> None:
        """Fill a smaller resolution."""
        sides = list(pieces)
        for axis in reversed(range(len(sides))):
            count = max(1, WRITTEN_VOXELS // math.prod(sides))
            pieces_along = -(-shape[axis] // pieces[axis])
            sides[axis] *= min(count, pieces_along)
        regions: dict[str, Region] = {}
        for region in whole_pieces(shape, sides):
            corner = ".".join(str(part.start) for part in region)
            name = f"resolution {level + 1} {corner}"
            regions[name] = region

        def reduce(name: str) -> dict[str, Any]:
            self.regions.reduce(self.partial, level, regions[name])
            return {}

        self._share(claims, regions, reduce)

    @property
    def pieces(self) -> int:
        """Number of the blocks."""
        count = 1
        for length, side in zip(self.grid.shape, self.grid.sides, strict=True):
            count *= -(-length // side)
        return count


def _still(noisy: NoisyArray, dims: int) -> MovieFrames:
    """Return the pages of a part of a stack, of which none is dead: a part does not tell."""
    pages = as_pages(noisy.array, noisy.axes, dims)
    stacked, _, _ = of_pages(pages.shape, dims)
    count = stacked[0] if stacked else 1
    review = FrameReview(count)
    return MovieFrames(pages, None, review, range(count))


def _failures(path: Path, failed: dict[str, str]) -> str:
    """Return the line about pieces that failed three times."""
    listed = []
    for name, reason in list(failed.items())[:LISTED_BLOCKS]:
        listed.append(f"{name} ({one_line(ValueError(reason), 120)})")
    more = len(failed) - len(listed)
    if more:
        listed.append(f"{more} more")
    return (
        f"{path}: failed {TRIES} times: {', '.join(listed)}; all others are done, and the same"
        " command tries these again"
    )


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what differs between a file or folder and one that takes its place; None of none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
