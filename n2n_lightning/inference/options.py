"""Options of denoising, and facts about an array that is denoised."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from n2n_lightning.arrays.normalization import IntensityScaling
from n2n_lightning.formats.picture import ReadAs, Values
from n2n_lightning.inference.page import part_or_none

if TYPE_CHECKING:
    from n2n_lightning.inference.movie_frames import MovieFrames


@dataclass(frozen=True)
class DenoiseOptions:
    """Options of the command `denoise` and of `TrainedDenoiser.denoise`, which documents them.

    A new option is a field here, an option of the command's parser of the same name, and its use.

    Attributes:
        tile, batch, tta, scale, black, strength, uneven, outliers, outlier_map, errors, dtype: see
            `TrainedDenoiser.denoise`.
        unbias: take the bias against brightness out of the result, see `unbiasing`.
        mosaic: RGGB, BGGR, GRBG, GBRG, none, or auto: as the file states.
        label_images: copy or denoise label images and masks.
        axes: letters of the axes of arrays in files (axes.LETTERS); None: not said.
    """

    tile: int | str | None = "auto"
    batch: int = 1
    tta: bool = False
    scale: float | None = None
    black: float = 0.0
    strength: float = 1.0
    uneven: bool = False
    outliers: str = "auto"
    outlier_map: bool = False
    errors: bool = False
    unbias: bool = False
    dtype: str = "auto"
    mosaic: str = "auto"
    label_images: str = "copy"
    axes: str | None = None

    @classmethod
    def of(cls, arguments: Any) -> "DenoiseOptions":
        """Return the options among the parsed arguments of a command."""
        return cls(**{option.name: getattr(arguments, option.name) for option in fields(cls)})


@dataclass(frozen=True)
class NoisyArray:
    """An array to denoise, and what is known about it.

    Attributes:
        array: stored values, of a type in TYPES.
        axes: letters of its axes (axes.LETTERS).
        alpha: the last channel is transparency, which is copied, unless the network takes as many
            channels.
        colour: the channels are colours of one picture. Others, as of fluorescence, are denoised
            together only by a network that was trained on the user's captures with as many.
        nodata_values: stored values that mark missing pixels, besides those found automatically.
        invalid: bool, in the shape of `array`: True where a pixel is missing whatever its value.
            It is copied, and the network does not see it.
        unit: (factor, offset) that convert stored values to physical ones, if the file states
            them; the range of training is converted if its unit was another one.
        near: for a network with a context and an array of one frame: the frames around it, in the
            order of `frame_offsets.frames`, with the same axes.
        near_moves: rows and columns by which each of these is moved onto the array, see
            registration.way_onto; none: they stay.
        second: another capture of the same scenes, like `array`: outliers that it lacks are
            replaced.
        defects: coordinates of defective pixels, (n, 3): channel, row, column. They are replaced
            in every page.
        movie: all frames of the movie of which `array` has some, see movie_frames; None: `array`
            has all. Dead frames are copied, and not shown to the network.
        mosaic: a frame of a colour camera before demosaicking; its four planes are denoised apart,
            without `defects` and `movie`.
        limits: the scaling between stored values and those of the network; None: judged.
        part: its pages are parts of larger ones, whose margins are among `nodata_values`.
        usual_residuals: of these larger pages, see `Page`.
    """

    array: np.ndarray
    axes: str
    alpha: bool = False
    colour: bool = True
    nodata_values: tuple[float, ...] = ()
    invalid: np.ndarray | None = None
    unit: tuple[float, float] | None = None
    near: Sequence[np.ndarray] = ()
    near_moves: Sequence[tuple[int, int]] = ()
    second: np.ndarray | None = None
    defects: np.ndarray | None = None
    movie: "MovieFrames | None" = None
    mosaic: bool = False
    limits: IntensityScaling | None = None
    part: bool = False
    usual_residuals: Sequence[Any] | None = None

    @classmethod
    def of(cls, values: Values, reading: ReadAs, near: Sequence[np.ndarray] = ()) -> "NoisyArray":
        """Return an array of a file.

        Args:
            values: the array, and what its file states.
            reading: how it is read.
            near: frames around it, see `near`.

        Returns:
            The array with what the file states about it.
        """
        return cls(
            values.array,
            reading.axes,
            reading.alpha,
            reading.colour,
            values.nodata_values,
            values.invalid,
            values.unit,
            near,
        )

    def plane(self, place: tuple[slice, ...]) -> "NoisyArray":
        """Return one of the four planes of a mosaic.

        Args:
            place: its pixels, see `mosaics.planes`.

        Returns:
            An array with the same facts, without defects and movie.
        """
        return replace(
            self,
            array=self.array[place],
            invalid=part_or_none(self.invalid, place),
            second=part_or_none(self.second, place),
            near=[frame[place] for frame in self.near],
            defects=None,
            movie=None,
            mosaic=False,
        )
