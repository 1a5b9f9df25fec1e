"""Means of regions of a movie over time, noisy and denoised: what users publish."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from n2n_lightning.arrays.blocks import cut_blocks

ACTIVE_REGIONS = 8  # squares that are looked at where no regions are given
ACTIVE_SIDE = 16  # pixels of a side of these


@dataclass
class Traces:
    """Means of regions over time, in stored units.

    Attributes:
        labels: (H, W), whole numbers: the region of each pixel; 0: none.
        means: by frame and region the means of the noisy frame and of what was added, by name.
    """

    labels: np.ndarray
    means: dict[tuple[int, int], dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.regions = [int(label) for label in np.unique(self.labels) if label > 0]

    def add(self, frame: int, images: dict[str, np.ndarray]) -> None:
        """Add a frame, or further versions of one.

        Args:
            frame: its number.
            images: by name: noisy, denoised and other versions of it, (H, W) or (C, H, W), NaN
                where a pixel is unknown in one of them; the means are over pixels known in all,
                NaN where a region has none.
        """
        known = np.ones(self.labels.shape, bool)
        planes = {}
        for name, image in images.items():
            planes[name] = np.float64(image).reshape(-1, *self.labels.shape).mean(0)
            known &= np.isfinite(planes[name])
        labels = np.where(known, self.labels, 0).ravel()
        size = max(self.regions, default=0) + 1
        pixels = np.bincount(labels, minlength=size)
        sums = {}
        for name, plane in planes.items():
            sums[name] = np.bincount(labels, np.where(known, plane, 0).ravel(), size)
        for region in self.regions:
            means = self.means.setdefault((frame, region), {})
            for name in planes:
                means[name] = np.nan
                if pixels[region]:
                    means[name] = float(sums[name][region] / pixels[region])

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each frame and region: `frame`, `region`, and the means by name."""
        rows = []
        for (frame, region), means in self.means.items():
            rows.append({"frame": frame, "region": region, **means})
        return rows

    def largest_differences(self, name: str) -> dict[int, dict[str, float]]:
        """Find where a result differs most from the noisy frames.

        Args:
            name: of the result.

        Returns:
            By region: `frame`, `noisy`, `denoised` and `difference` of the frame in which the mean
            of the region differs most, and `spread`, the standard deviation of the differences over
            time: most of it is the noise of the noisy mean. Regions without a known pixel have
            none.
        """
        largest = {}
        for region in self.regions:
            rows = []
            for row in self.rows():
                if row["region"] == region and np.isfinite(row["noisy"]):
                    rows.append(row)
            if not rows:
                continue
            differences = np.array([row[name] - row["noisy"] for row in rows])
            worst = int(np.argmax(abs(differences)))
            largest[region] = {
                "frame": rows[worst]["frame"],
                "noisy": rows[worst]["noisy"],
                "denoised": rows[worst][name],
                "difference": float(differences[worst]),
                "spread": float(differences.std()),
            }
        return largest


def active_regions(frames: Iterable[np.ndarray]) -> np.ndarray:
    """Label the squares of a movie whose means vary most over time.

    Args:
        frames: (H, W) each; NaN where a pixel is unknown.

    Returns:
        (H, W), uint16: 1 for the most active of up to ACTIVE_REGIONS squares, and so on.
    """
    count = 0
    total: Any = 0.0
    squares: Any = 0.0
    size = (0, 0)
    for frame in frames:
        size = frame.shape
        side = min(ACTIVE_SIDE, *size)
        means = np.nanmean(cut_blocks(frame, side), axis=(1, 3))
        count += 1
        total = total + means
        squares = squares + means**2
    variances = np.nan_to_num(squares / count - (total / count) ** 2)
    labels = np.zeros(size, np.uint16)
    order = np.argsort(-variances, axis=None)[:ACTIVE_REGIONS]
    for label, place in enumerate(order, 1):
        row, column = np.unravel_index(place, variances.shape)
        rows = slice(row * side, (row + 1) * side)
        labels[rows, column * side : (column + 1) * side] = label
    return labels
