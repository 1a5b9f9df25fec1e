"""Pages of an array as a network is shown them: scaled, with their outliers and frames around."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from n2n_lightning.arrays.axes import as_pages, stacked_letters
from n2n_lightning.inference.movie_frames import movie_of
from n2n_lightning.inference.options import DenoiseOptions, NoisyArray
from n2n_lightning.inference.outlier_search import OutlierSearch
from n2n_lightning.inference.page import Page, PageInput, page_axes, pages_or_none


class PreparedPages:
    """Pages of an array with everything that the network is shown of each.

    What all pages share is measured once: the intensity range, dead frames, drift, defects.

    Args:
        model: the denoiser.TrainedDenoiser.
        noisy: the array, no mosaic.
        result: in its shape, see `TrainedDenoiser.denoise_into`.
        options: those of arrays.

    Attributes:
        places: numbers of the pages on the stacked axes, in order.
        together: all channels go through the network at once.

    Raises:
        InputError: the network cannot take such an array.
    """

    def __init__(
        self, model: Any, noisy: NoisyArray, result: np.ndarray, options: DenoiseOptions
    ) -> None:
        self.model = model
        self.noisy = noisy
        self.pages = model.pages_of(noisy, result, options)
        self.places: list[tuple[int, ...]] = self.pages.places
        self.together: bool = self.pages.together
        axes = page_axes(noisy.axes, model.dims)
        movie = noisy.movie
        if movie is None:
            context = 0 if noisy.near else model.context
            movie = movie_of(noisy.array, axes, model.dims, context, noisy.invalid)
        self.movie = movie
        several = len(movie.pages) > 1 and self.pages.stacked
        takes = self.together or model.channels == 1
        model.check_context(takes and bool(noisy.near or several))
        second = pages_or_none(noisy.second, axes, model.dims)
        self._near = self._given_frames(axes)
        self._positions: dict[int, np.ndarray] = {}
        if model.align and model.context and not self._near:
            read = self.pages.at(self.places[0]).whole
            self._positions = movie.positions(model.context, model.sees_middle, read)
        letters = stacked_letters(axes, model.dims)
        self._search = OutlierSearch(options.outliers, self.pages, letters, noisy.defects, second)

    def is_dead(self, place: tuple[int, ...]) -> bool:
        """Return True for a page of a dead frame, which is copied."""
        return self.movie.is_dead(place)

    def at(self, place: tuple[int, ...]) -> Page:
        """Return a page, ready for the network.

        Args:
            place: one of `places`.

        Returns:
            The page with its outliers and the frames around it; of a dead frame without both.
        """
        page: Page = self.pages.at(place)
        if self.is_dead(place):
            return page
        page.outliers = self._search.at(place)
        page.usual_residuals = self.noisy.usual_residuals
        if self._near or self.model.context:
            around = self._surroundings(page, place)
            page.near = self._moved_onto(place, around)
        return page

    def _given_frames(self, axes: str) -> list[PageInput]:
        """Return the frames that were given with an array, moved onto it."""
        noisy = self.noisy
        near = [PageInput(as_pages(frame, axes, self.model.dims)) for frame in noisy.near]
        if not noisy.near_moves:
            return near
        return [page.moved(*way) for page, way in zip(near, noisy.near_moves, strict=True)]

    def _surroundings(self, page: Page, place: tuple[int, ...]) -> Sequence[PageInput]:
        """Return the frames around one that the network sees: those given, else of the movie."""
        model = self.model
        movie = self.movie
        shown = self._near
        if not shown:
            places = movie.around(place, model.context, model.sees_middle)
            if movie.is_whole:
                return [self._search.as_input(other) for other in places]
            shown = [movie.input(other) for other in places]
        return [replace(frame, outliers=self._search.of(page, frame)) for frame in shown]

    def _moved_onto(self, place: tuple[int, ...], around: Sequence[PageInput]) -> list[PageInput]:
        """Return the frames around one, without drift where it is known how far they are."""
        if not self._positions:
            return list(around)
        numbers = self.movie.neighbours(place, self.model.context, self.model.sees_middle)
        return self.movie.moved_onto(place, numbers, around, self._positions)
