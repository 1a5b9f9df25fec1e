"""The noise of single images, each measured by itself."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from n2n_lightning.data.scene_sample import SceneSample
from n2n_lightning.inspection import measures
from n2n_lightning.inspection.measures import Correlations
from n2n_lightning.metrics.autocorrelation import LAGS
from n2n_lightning.metrics.single_noise import SingleNoise, single_noise

_ROWS, _COLUMNS = measures.LAGS
DIRECTIONS = {
    "along rows": (_ROWS,),
    "along columns": (_COLUMNS,),
    "in all directions": (_ROWS, _COLUMNS),
}


@dataclass(frozen=True)
class SingleImageNoise:
    """The noise of some single images; what is said of all is the median or the majority.

    Attributes:
        noises: of each image.
    """

    noises: tuple[SingleNoise, ...]

    @property
    def measured(self) -> list[SingleNoise]:
        """The noises that are measurable."""
        return [noise for noise in self.noises if noise.measurable]

    @property
    def reason(self) -> str:
        """Why no noise is measurable; empty if one is."""
        return "" if self.measured else self.noises[0].reason

    @property
    def sigma(self) -> float | None:
        """Standard deviation at the mean brightness; None where it is not measurable."""
        sigmas = [noise.sigma for noise in self.measured]
        return float(np.median(sigmas)) if sigmas else None

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the deviation of one image, not narrower for several of them."""
        ends = [noise.interval() for noise in self.measured]
        low, high = np.median(ends, 0).tolist()
        return low, high

    @property
    def line(self) -> tuple[float, float] | None:
        """a and b of the variance, a + b brightness; None where it is not measurable."""
        lines = [(noise.a.mean(), noise.b.mean()) for noise in self.measured]
        if not lines:
            return None
        a, b = np.median(lines, 0).tolist()
        return a, b

    @property
    def white(self) -> bool | None:
        """True if the noise of neighbouring pixels is independent; None where it cannot be told."""
        verdicts = Counter(noise.white for noise in self.noises)
        if not verdicts[True] and not verdicts[False]:
            return None
        return verdicts[True] >= verdicts[False]

    @property
    def directions(self) -> tuple[str, ...]:
        """Directions in which the noise is correlated, keys of `measures.LAGS`."""
        if self.white is not False:
            return ()
        kinds = Counter(noise.kind for noise in self.noises if noise.white is False)
        ((kind, _),) = kinds.most_common(1)
        return DIRECTIONS[kind]

    @property
    def correlations(self) -> Correlations:
        """Correlations at 1 and 2 pixels, by direction; empty where `white` is None."""
        known = [noise for noise in self.noises if noise.white is not None]
        if not known:
            return {}
        correlations = np.median([noise.autocorrelation for noise in known], 0)
        measured = {}
        for name, offsets in measures.LAGS.items():
            at_one, at_two = (float(correlations[LAGS + dy, LAGS + dx]) for dy, dx in offsets)
            measured[name] = (at_one, at_two)
        return measured


def single_image_noise(sample: SceneSample) -> SingleImageNoise:
    """Measure the noise of single images.

    Args:
        sample: the first capture of each scene is used.
    """
    return SingleImageNoise(tuple(single_noise(captures[0]) for captures in sample.scenes))
