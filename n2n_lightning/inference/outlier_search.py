"""Decisions about outliers of an array, by the evidence of other captures and scenes."""

import numpy as np

from n2n_lightning.arrays.axes import evenly
from n2n_lightning.arrays.outlier_lists import (
    LOOKED,
    PageOutliers,
    Read,
    defects_of,
    find_outliers,
    lacking_at,
)
from n2n_lightning.inference.page import Page, PageInput, PageStack

KEPT = 16  # pages whose outliers are remembered: of movies, neighbouring frames ask for them


class OutlierSearch:
    """Find the outliers of the pages of an array, and decide which are replaced.

    Args:
        choice: one of choices.OUTLIERS.
        pages: the array.
        letters: what its stacked axes are, one each. Captures (K) are evidence against one another,
            and so are images (N) of different scenes; frames of a movie are not, for an event is in
            one of them alone.
        defects: pixels that are known to be defective, (n, 3): channel, row, column.
        second: another capture of each page, of the same shape; None: there is none.
    """

    def __init__(
        self,
        choice: str,
        pages: PageStack,
        letters: str,
        defects: np.ndarray | None = None,
        second: np.ndarray | None = None,
    ) -> None:
        self.second = second
        self.choice = choice
        self.pages = pages
        self.letters = letters
        self.defects = defects
        self._known: dict[tuple[int, ...], PageOutliers] = {}
        stacked = pages.stacked
        if (
            defects is None
            and choice == "auto"
            and letters == "N"
            and stacked[0] >= 3
            and not pages.volumes
        ):
            readers = [reader(pages.at((i,))) for i in evenly(stacked[0], LOOKED)]
            self.defects = defects_of(readers, pages.size)

    def of(self, page: Page, other: PageInput | None = None) -> np.ndarray:
        """Find the outliers of a page.

        Args:
            page: the page.
            other: another page, searched in its place with its scaling.

        Returns:
            Coordinates (n, 3): channel, row, column; of volumes (n, 4).
        """
        if self.choice == "keep":
            return np.zeros((0, len(page.size) + 1), np.int64)
        return find_outliers(reader(page, other), page.size, flanks=self.choice == "auto")

    def at(self, place: tuple[int, ...]) -> PageOutliers:
        """Return the outliers of a page, searched for when it is first asked for.

        Args:
            place: of the page.

        Returns:
            Those that are left and those that are replaced.
        """
        if place not in self._known:
            while len(self._known) >= KEPT:
                del self._known[next(iter(self._known))]
            self._known[place] = self._decided(place)
        return self._known[place]

    def as_input(self, place: tuple[int, ...]) -> PageInput:
        """Return a page as the network is shown it around another.

        Args:
            place: of the page.

        Returns:
            Its stored values, mask and outliers.
        """
        page = self.pages.at(place)
        return PageInput(page.source, page.invalid, self.at(place).all)

    def _decided(self, place: tuple[int, ...]) -> PageOutliers:
        page = self.pages.at(place)
        points = self.of(page)
        gone = np.full(len(points), self.choice == "replace")
        if self.choice == "auto" and len(points):
            gone = self._lacking(page, points, place)
        replaced = points[gone]
        if self.defects is not None and len(self.defects) and not self.pages.volumes:
            replaced = np.unique(np.concatenate((replaced, self.defects)), axis=0)
            known = set(map(tuple, replaced.tolist()))
            gone = np.array([tuple(point) in known for point in points.tolist()], bool)
        return PageOutliers(points[~gone], replaced)

    def _lacking(self, page: Page, points: np.ndarray, place: tuple[int, ...]) -> np.ndarray:
        """Return which outliers of a page the captures next to it all lack."""
        others = []
        if self.second is not None:
            second = PageInput(self.second[place])
            others.append(reader(page, second))
        for neighbour in self._captures_beside(place):
            others.append(reader(self.pages.at(neighbour)))
        result = np.full(len(points), bool(others))
        for other in others:
            result &= lacking_at(points, reader(page), other, page.size)
        return result

    def _captures_beside(self, place: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the places of the captures before and after one; none without an axis K."""
        if "K" not in self.letters:
            return []
        axis = self.letters.index("K")
        captures = []
        for k in (place[axis] - 1, place[axis] + 1):
            if 0 <= k < self.pages.stacked[axis]:
                captures.append((*place[:axis], k, *place[axis + 1 :]))
        return captures


def reader(page: Page, other: PageInput | None = None) -> Read:
    """Return the function with which `outliers.find_outliers` reads pixels.

    Args:
        page: the page.
        other: another page, read in its place with its scaling.

    Returns:
        A function of a place that gives its pixels in network units, (C, h, w).
    """
    return lambda place: page.normalized(place, other)
