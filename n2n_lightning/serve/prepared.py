"""A file as `denoise` sees it, prepared for previews: what is measured on the whole of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from n2n_lightning.files import InputError
from n2n_lightning.formats import opened
from n2n_lightning.formats.picture import AskedAxes
from n2n_lightning.inference.array_plans import copied_ones, result_types
from n2n_lightning.inference.block_grid import grid_of
from n2n_lightning.inference.denoiser import TrainedDenoiser
from n2n_lightning.inference.file_denoiser import FileDenoiser
from n2n_lightning.inference.options import DenoiseOptions, NoisyArray
from n2n_lightning.inference.page import page_axes
from n2n_lightning.inference.plan import Job
from n2n_lightning.inference.prepared_pages import PreparedPages
from n2n_lightning.inference.stream_facts import StreamFacts, measured_facts
from n2n_lightning.inference.streaming import regions_of
from n2n_lightning.serve.shown import ShownArray, View


@dataclass(frozen=True)
class PreparedPage:
    """A page, or a part of a large one, ready for tiles.

    Attributes:
        pages: it is one of these.
        place: which one.
        first_row, first_column: of the part in the whole page.
        plane: number of the visible plane of a volume; None: the page is a plane.
    """

    pages: PreparedPages
    place: tuple[int, ...]
    first_row: int = 0
    first_column: int = 0
    plane: int | None = None


class PreparedFile:
    """A file, a network and options, with what is measured before any pixel is denoised.

    The steps are those of `FileDenoiser.denoise`, so that a preview has the values of the result.

    Args:
        job: the file.
        model: the network.
        options: as the command has them.

    Attributes:
        lines: what is to be said about the file.

    Raises:
        InputError: the file cannot be read, or the options do not suit it.
    """

    def __init__(self, job: Job, model: TrainedDenoiser, options: DenoiseOptions) -> None:
        self.model = model
        self.options = options
        self.lines: list[str] = []
        asked = AskedAxes(options.axes, model.layout, model.dims)
        self.picture = opened(job.source, job.part)
        self.readings = [self.picture.read_as(values, asked) for values in self.picture.values]
        self.regions = regions_of(self.picture, self.readings, model, options)
        self.facts: StreamFacts | None = None
        self.arrays: list[NoisyArray] = []
        self._prepared: dict[int, PreparedPages] = {}
        self._types: Sequence[Any] | None = None
        if self.regions is not None:
            self._measure()
            return
        self.copied = copied_ones(self.picture, self.readings, options, self.lines)
        denoiser = FileDenoiser(model, options, asked, None)
        self.arrays = denoiser.arrays_of(
            job, self.picture, self.readings, self.copied, None, self.lines
        )

    def _measure(self) -> None:
        """Measure a large array on a sample, as its blocks need it."""
        assert self.regions is not None
        (reading,) = self.readings
        axes = page_axes(reading.axes, self.model.dims)
        self.grid = grid_of(self.model, self.regions.shape, axes, self.regions.chunks)
        self.facts = measured_facts(
            self.model,
            self.picture,
            reading,
            self.regions,
            axes,
            self.options,
            self.grid.divided,
        )
        self.copied = [self.facts.copied]
        self.lines += self.facts.lines

    def dtype(self, number: int) -> np.dtype:
        """Return the type of the result of an array; some blocks are denoised to decide it."""
        if self.facts is not None:
            return np.dtype(self.facts.dtype)
        if self._types is None:
            self._types = result_types(
                self.model, self.picture, self.arrays, self.options, self.lines, self.copied
            )
        kind = self._types[number]
        return self.picture.values[number].dtype if kind is None else np.dtype(kind)

    def page(self, number: int, shown: ShownArray, view: View) -> PreparedPage | None:
        """Return the page with a view.

        Args:
            number: of the array.
            shown: the array.
            view: what is visible.

        Returns:
            The page; None where it is copied.

        Raises:
            InputError: the network cannot take it, or there is no preview of such a file.
        """
        if self.copied[number]:
            return None
        if self.facts is not None:
            return self._page_of_regions(shown, view)
        noisy = self.arrays[number]
        if noisy.mosaic:
            raise InputError("no preview of colour mosaics; saved results are denoised")
        if number not in self._prepared:
            self._prepared[number] = PreparedPages(self.model, noisy, noisy.array, self.options)
        pages = self._prepared[number]
        place, plane = self._place(noisy.axes, view)
        if pages.is_dead(place):
            return None
        return PreparedPage(pages, place, plane=plane)

    def _place(self, axes: str, view: View) -> tuple[tuple[int, ...], int | None]:
        """Return the place of the page among those of an array, and the plane of a volume."""
        letters = page_axes(axes, self.model.dims)
        inside = "DHWC" if self.model.dims == 3 else "HWC"
        place = []
        for axis, letter in enumerate(letters):
            if letter not in inside:
                place.append(view.place[axis])
        plane = None
        if self.model.dims == 3:
            plane = view.place[letters.index("D")] if "D" in letters else 0
        return tuple(place), plane

    def _page_of_regions(self, shown: ShownArray, view: View) -> PreparedPage:
        """Read a page of a large file, or a part of it with what the network sees around."""
        assert self.regions is not None
        assert self.facts is not None
        (reading,) = self.readings
        (values,) = self.picture.values
        axes = page_axes(reading.axes, self.model.dims)
        height, width = shown.size
        rows = slice(0, height)
        columns = slice(0, width)
        if self.grid.divided:
            rows = view.rows
            columns = view.columns
        region = shown.region(view.place, rows, columns, every_channel=True)
        plane = None
        if self.model.dims == 3 and "D" in axes:
            depth = axes.index("D")
            plane = view.place[depth]
            if not self.grid.divided:
                region = (*region[:depth], slice(0, shown.shape[depth]), *region[depth + 1 :])
        outer = self.grid.with_halo(region)
        if plane is not None:
            plane -= outer[axes.index("D")].start
        noisy = NoisyArray(
            np.asarray(self.regions.read(outer)),
            axes,
            colour=reading.colour,
            nodata_values=self.facts.nodata_values,
            unit=values.unit,
            limits=self.facts.limits,
            part=self.grid.divided,
            usual_residuals=self.facts.usual_residuals,
        )
        first_row = outer[axes.index("H")].start
        first_column = outer[axes.index("W")].start
        noisy = replace(noisy, defects=self._defects(axes, noisy, first_row, first_column))
        pages = PreparedPages(self.model, noisy, noisy.array, self.options)
        place = pages.places[0]
        return PreparedPage(pages, place, first_row, first_column, plane)

    def _defects(
        self, axes: str, noisy: NoisyArray, first_row: int, first_column: int
    ) -> np.ndarray | None:
        """Return the known defects of the detector within a part, by its rows and columns."""
        assert self.facts is not None
        if self.facts.defects is None:
            # one page is too few to tell
            return np.zeros((0, 3), np.int64) if "N" in axes else None
        height = noisy.array.shape[axes.index("H")]
        width = noisy.array.shape[axes.index("W")]
        points = self.facts.defects - np.array([0, first_row, first_column])
        places = points[:, 1:]
        inside = ((places >= 0) & (places < (height, width))).all(1)
        return points[inside]
