"""Which pixels a blind spot hides: those whose noise is correlated with the one that is learnt.

A network that sees a pixel whose noise has something in common with the hidden one learns to copy
that, and its loss on hidden pixels falls all the same. Hiding more than that costs detail.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from n2n_lightning.arrays.axes import evenly
from n2n_lightning.data.intensity import IntensityStats
from n2n_lightning.data.mask import Mask, Offset
from n2n_lightning.data.scene_sample import sample_scenes, valid_values
from n2n_lightning.data.scene_set import SceneSet, middle
from n2n_lightning.files import option
from n2n_lightning.metrics.autocorrelation import LAGS, pair_autocorrelation
from n2n_lightning.metrics.movie_noise import MovieNoise
from n2n_lightning.metrics.noise_law import CORRELATED
from n2n_lightning.metrics.single_noise import MAX_SIDE, MIN_SIDE, SingleNoise, single_noise

REACH = 5  # pixels to the farthest one that is hidden
MOST_PIXELS = 25  # of a plane: of photographs even 3 x 3 hide too much (benchmarks/blind_spots.py)
DEPTH_PLANES = 4  # of a volume, across its planes, in which their correlation is measured
INSTEAD = (
    "two captures of each scene (data=pairs), or a checkpoint as it is (denoise without training)"
)
# what is said of masks that are no lines: Kodak's photographs, benchmarks/blind_spots.py
WHERE_SMOOTH = (
    "helps only where the scene is smoother than the mask is wide, which photographs are not"
)


@dataclass(frozen=True)
class MaskChoice:
    """A mask, and why it was chosen.

    Attributes:
        mask: the pixels that are hidden around each that is learnt.
        reason: in words.
        farther: True if noise is correlated beyond REACH.
    """

    mask: Mask
    reason: str
    farther: bool = False

    @property
    def too_large(self) -> bool:
        """True if a mask hides too much to help."""
        return self.mask.pixels > MOST_PIXELS

    def lines(self) -> list[str]:
        """Return what a run says of it: the choice, and where it does not help."""
        chosen = f"{option('data.mask', self.mask.text)} (auto): {self.reason}"
        lines = [chosen]
        if self.too_large:
            lines.append(
                f"warning: masks do not help against this noise: {self.mask.pixels} pixels would be"
                f" hidden around each, and more than {MOST_PIXELS} cost more than they bring;"
                f" what helps: {INSTEAD}"
            )
        elif not self.mask.along_line:
            lines.append(f"warning: this mask {WHERE_SMOOTH}; what helps: {INSTEAD}")
        elif self.farther:
            lines.append(
                f"warning: this noise is correlated over more than {REACH} pixels: what reaches"
                f" farther, such as stripes, stays in the result; what helps: {INSTEAD}"
            )
        return lines

    def cut_to(self, mask: Mask) -> list[str]:
        """Return what a run says where it has room for a part of the mask alone, a line or none.

        Args:
            mask: the part that it hides.
        """
        left_out = len(self.mask.offsets) - len(mask.offsets)
        if not left_out:
            return []
        used = option("data.mask", mask.text)
        return [f"warning: {used} instead: the images or windows have no room for {left_out} more"]


def correlated_offsets(
    autocorrelation: np.ndarray, error: np.ndarray | float, reach: int = REACH
) -> list[tuple[int, int]]:
    """Return the offsets whose noise is correlated with a pixel's, rows and columns.

    An offset counts if its correlation is above 0.1 by more than its standard error. Doubtful ones
    do not: a correlation c that is left out tells c^2 of the noise's variance, 1 to 4% of it where
    there is doubt, while each hidden pixel is one less to know the scene by.

    Args:
        autocorrelation: (2 LAGS + 1, 2 LAGS + 1), 1 in the middle.
        error: its standard error, in that shape, or of all offsets.
        reach: rows and columns to the farthest.
    """
    surely = abs(autocorrelation) - error > CORRELATED
    surely[LAGS, LAGS] = False
    offsets = []
    for row, column in np.argwhere(surely) - LAGS:
        if max(abs(row), abs(column)) <= reach:
            offsets.append((int(row), int(column)))
    return offsets


def mask_of_autocorrelation(
    autocorrelation: np.ndarray, error: np.ndarray | float, across: Sequence[float] = ()
) -> tuple[Mask, bool]:
    """Return the mask that noise of an autocorrelation needs.

    Args:
        autocorrelation, error: in the plane, see `correlated_offsets`.
        across: correlation with the next plane of a volume or frame of a movie, the one after it,
            and so on; with other pixels of these planes it is multiplied by that in the plane.

    Returns:
        The mask, and whether noise is correlated beyond REACH.
    """
    offsets: list[Offset] = []
    farther = False
    for distance, factor in enumerate([1.0, *across]):
        if distance and not factor > CORRELATED:
            break
        offsets.append((distance, 0, 0))
        for row, column in correlated_offsets(factor * autocorrelation, error, LAGS):
            if max(abs(row), abs(column)) > REACH:
                farther = True
            else:
                offsets.append((distance, row, column))
    return Mask.around(offsets), farther


def mask_of_images(noises: Sequence[SingleNoise], across: Sequence[float] = ()) -> MaskChoice:
    """Choose the mask for single images by the noise of some of them.

    The majority of the images decides whether their noise is white, and the medians of those that
    agree decide on its correlation.

    Args:
        noises: of each image.
        across: correlation with the planes before and after, see `mask_of_autocorrelation`.
    """
    verdicts = Counter(noise.white for noise in noises)
    white = verdicts[True] >= verdicts[False]
    if white and not verdicts[True]:
        reasons = [noise.reason for noise in noises if noise.reason]
        return _single_pixels([*reasons, "it cannot be told from the picture's structure"][0])
    agree = [noise for noise in noises if noise.white is white]
    if not white:
        ((kind, _),) = Counter(noise.kind for noise in agree).most_common(1)
        agree = [noise for noise in agree if noise.kind == kind]
    autocorrelation, error = _medians(agree)
    mask, farther = mask_of_autocorrelation(autocorrelation, error, across)
    pictures = "one picture shows" if len(agree) == 1 else f"{len(agree)} pictures show"
    return MaskChoice(mask, f"{in_words(autocorrelation, error)}, as {pictures} it", farther)


def _medians(noises: Sequence[SingleNoise]) -> tuple[np.ndarray, np.ndarray]:
    """Return the medians of the autocorrelations of some images, and of their errors."""
    correlations = [noise.autocorrelation for noise in noises]
    errors = [np.asarray(noise.correlation_error) for noise in noises]
    autocorrelation: np.ndarray = np.median(correlations, 0)
    error: np.ndarray = np.median(errors, 0)
    return autocorrelation, error


def _single_pixels(reason: str) -> MaskChoice:
    """Return the choice where the correlation is not measurable, for a reason."""
    shown = f"single pixels, for the noise's correlation is not measurable: {reason}"
    return MaskChoice(Mask(), shown)


def in_words(autocorrelation: np.ndarray, error: np.ndarray | float) -> str:
    """Return what the noise of neighbouring pixels has in common, in words."""
    offsets = correlated_offsets(autocorrelation, error)
    if not offsets:
        return "the noise of neighbouring pixels is independent"
    along_row = autocorrelation[LAGS, LAGS + 1]
    along_column = autocorrelation[LAGS + 1, LAGS]
    beside = np.broadcast_to(error, autocorrelation.shape)[LAGS, LAGS + 1]
    return (
        f"the noise of {len(offsets)} pixels around each is correlated with it"
        f" ({along_row:.2f} along rows, {along_column:.2f} along columns, +- {beside:.2g})"
    )


def mask_of_pairs(pairs: Sequence[tuple[Tensor, Tensor]]) -> MaskChoice | None:
    """Choose the mask by captures of the same scenes, whose differences are noise.

    Args:
        pairs: two captures each, (C, H, W), NaN where a pixel is unknown.

    Returns:
        None where they do not differ, or have no known pixel in common.
    """
    differences = [(first - second).double().numpy() for first, second in pairs]
    measured = pair_autocorrelation(differences)
    if measured is None:
        return None
    autocorrelation, error = measured
    mask, farther = mask_of_autocorrelation(autocorrelation, error)
    captures = f"captures of {len(pairs)} scenes show"
    return MaskChoice(mask, f"{in_words(autocorrelation, error)}, as {captures} it", farther)


def mask_of_movies(noises: Sequence[MovieNoise]) -> MaskChoice:
    """Choose the mask for movies: what the noise of any of them needs.

    Args:
        noises: of the movies.
    """
    known = [noise for noise in noises if np.isfinite(noise.autocorrelation).all()]
    if not known:
        reasons = {noise.reason for noise in noises if noise.reason}
        return _single_pixels("; ".join(sorted(reasons)))
    mask = Mask()
    farther = False
    for noise in known:
        in_time = [abs(noise.in_time)] if np.isfinite(noise.in_time) else []
        of_movie, beyond = mask_of_autocorrelation(
            noise.autocorrelation, noise.correlation_error, in_time
        )
        mask = mask.joined(of_movie)
        farther = farther or beyond
    strongest = max(known, key=lambda noise: len(noise.in_space))
    reason = in_words(strongest.autocorrelation, strongest.correlation_error)
    frames, _, _ = mask.sides
    if frames > 1:
        strongest_in_time = max(abs(noise.in_time) for noise in known)
        reason += f"; that of neighbouring frames is correlated, too ({strongest_in_time:.2f})"
    return MaskChoice(mask, reason, farther)


def fitting(mask: Mask, crop: Sequence[int] | None, smallest: Sequence[int]) -> Mask:
    """Return the part of a mask that windows and halves of the data have room for.

    Args:
        mask: as the noise needs it.
        crop: sides of the windows; None: whole images.
        smallest: sides of the smallest image or frame; a single one is cut in two.
    """
    *_, height, width = crop or smallest
    half = max(smallest) // 2
    least = min(height, width, half)
    largest = max(1, (least - 4) // 2)
    is_even = largest % 2 == 0
    odd = largest - is_even
    return mask.within(odd, odd)


def choose_mask(scenes: SceneSet, stats: IntensityStats) -> MaskChoice:
    """Choose the mask for single images or volumes, as `check` does.

    Args:
        scenes: one capture of each is measured, of volumes single planes.
        stats: what their values mean.
    """
    sample = sample_scenes(scenes.planes(), stats)
    noises = [single_noise(captures[0]) for captures in sample.scenes]
    return mask_of_noise(noises, scenes, stats)


def mask_of_noise(
    noises: Sequence[SingleNoise], scenes: SceneSet, stats: IntensityStats
) -> MaskChoice:
    """Choose the mask for single images or volumes by the noise of some images or planes.

    Args:
        noises: of each.
        scenes: those that they are of; volumes are measured across their planes, too.
        stats: what their values mean.
    """
    if scenes.dims == 2:
        return mask_of_images(noises)
    across = correlation_across_planes(scenes, stats)
    choice = mask_of_images(noises, across or ())
    if across is not None:
        return choice
    doubt = "; across planes it is not measurable, and taken as independent"
    return MaskChoice(choice.mask, choice.reason + doubt, choice.farther)


def correlation_across_planes(scenes: SceneSet, stats: IntensityStats) -> list[float] | None:
    """Measure the correlation of the noise of planes of a volume, one, two, ... planes apart.

    Args:
        scenes: volumes; the first one is measured, in sections across its planes.
        stats: what their values mean.

    Returns:
        Correlations above 0.1 beyond their error, up to the first that is not; None where that
        cannot be told.
    """
    if scenes.smallest[0] < MIN_SIDE:
        return None
    volume = middle(scenes.image(0, 0), MAX_SIDE)
    height = volume.shape[2]
    noises = []
    for row in evenly(height, DEPTH_PLANES + 2)[1:-1]:
        section, _ = valid_values(volume[:, :, row], stats)
        noises.append(single_noise(section))
    known = [noise for noise in noises if noise.white is not None]
    if not known:
        return None
    autocorrelation, error = _medians(known)
    correlations: list[float] = []
    for distance in range(1, REACH + 1):
        at = (LAGS + distance, LAGS)
        if not autocorrelation[at] - error[at] > CORRELATED:
            break
        correlations.append(float(autocorrelation[at]))
    return correlations
