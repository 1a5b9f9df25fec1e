"""A trained network, ready to use, built from a checkpoint without running code from the file."""

import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from n2n_lightning import networks
from n2n_lightning.arrays.axes import (
    as_pages,
    channels_last,
    of_pages,
    of_picture,
    of_volumes,
)
from n2n_lightning.arrays.bad_pixels import inpaint
from n2n_lightning.arrays.outlier_lists import OutlierCounts
from n2n_lightning.arrays.transparency import has_alpha
from n2n_lightning.config.choices import DTYPES, OUTLIERS
from n2n_lightning.devices.choice import device_of, fast_type
from n2n_lightning.files import InputError, one_of, option
from n2n_lightning.formats import mosaics
from n2n_lightning.formats.picture import TYPES
from n2n_lightning.inference import array_types, rounding
from n2n_lightning.inference.checkpoint import PRETRAINED, CheckpointInfo, read_checkpoint
from n2n_lightning.inference.error_maps import check_possible, errors_of
from n2n_lightning.inference.options import DenoiseOptions, NoisyArray
from n2n_lightning.inference.page import (
    Page,
    PageStack,
    page_axes,
    pages_or_none,
    part_or_none,
)
from n2n_lightning.inference.prepared_pages import PreparedPages
from n2n_lightning.inference.texture import put_back
from n2n_lightning.inference.tiling import averaged, in_memory, overlap_of, spans, tile_of, tiled

# Values outside its range are clamped for the network: for a network of pictures of any kind, and
# for one with a known range.
CLAMP_ANY, CLAMP_OWN = (-1.0, 2.0), (-4.0, 8.0)
Array = TypeVar("Array", np.ndarray, Tensor)


class TrainedDenoiser(nn.Module):
    """A trained network, ready to use.

    Called, it takes and returns float images (B, C, H, W), values in [0, 1] up to noise, of any
    height and width; where it was trained on volumes, (B, C, D, H, W).

    Attributes:
        network: the network itself.
        channels: of the images that it takes; `denoise` takes others, too.
        dims: their spatial axes, 2, or 3 of volumes.
        info: what its checkpoint says of it. Its facts are attributes of the denoiser, too; where
            `range` is unknown and `scale` is known, the range is 0 to `scale`.
        fast: whether it computes in bfloat16, see load.
    """

    def __init__(
        self,
        network: nn.Module,
        channels: int,
        info: CheckpointInfo | None = None,
        fast: bool = False,
    ) -> None:
        super().__init__()
        info = info or CheckpointInfo()
        self.info = info
        self.fast = fast
        self.scale = info.scale
        self.range = info.range or ((0.0, info.scale) if info.scale else None)
        self.unit = info.unit
        self.context = info.context
        self.sees_middle = info.sees_middle
        self.align = info.align
        self.thinned = info.thinned
        self.blind = info.blind
        self.layout = info.layout
        # Channels last: 1.4 times as fast on a CPU, with the same result.
        self.network = networks.to_channels_last(network)
        self.channels = channels
        self.inputs = channels * info.input_frames  # channels that the network itself takes
        # does not mind units and black levels
        self.equivariant = bool(getattr(network, "equivariant", False))
        self.dims: int = getattr(network, "dims", 2)
        self.multiple: int = getattr(network, "multiple", 32)
        self.overlap = overlap_of(network, self.dims)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        if self.context:
            if image.shape[1] != self.inputs:
                shown = f"{2 * self.context} frames around each"
                if self.sees_middle:
                    shown = f"each frame and {shown}"
                raise InputError(f"the checkpoint is for movies: it sees {shown}")
            return self._through(image)
        # each channel as a grey picture
        if image.shape[1] != self.channels and self.channels in (1, 3):
            planes = [plane.repeat_interleave(self.channels, 1) for plane in image.split(1, 1)]
            return torch.cat([self(plane).mean(1, keepdim=True) for plane in planes], 1)
        return self._through(image)

    def _through(self, image: Tensor) -> Tensor:
        if not self.fast:
            # other than float32 after .half() or .double()
            weights = next(self.network.parameters(), image).dtype
            return networks.apply(self.network, channels_last(image.to(weights))).to(image.dtype)
        with torch.autocast(image.device.type, fast_type(image.device)):
            return networks.apply(self.network, channels_last(image)).to(image.dtype)

    def denoise(
        self,
        array: Array,
        tile: int | str | None = "auto",
        tta: bool = False,
        axes: str = "auto",
        scale: float | None = None,
        batch: int = 1,
        black: float = 0.0,
        strength: float = 1.0,
        uneven: bool = False,
        outliers: str = "auto",
        outlier_map: bool = False,
        dtype: str = "auto",
        mosaic: str = "none",
        errors: bool = False,
        second: Array | None = None,
        advance: Callable[[int], Any] | None = None,
    ) -> Any:
        """Denoises one image, or several of one size.

        Args:
            array: a numpy array or torch tensor of a type in TYPES, on any device. Masked values
                are missing ones; arrays with units (astropy's Quantity) and matrices are taken,
                too.
            tile: sides of the tiles of large images, `auto`: 1024, on GPUs with room for it
                2048 or 4096, of volumes 112; None: the whole image at once.
            tta: average over the 8 flips and quarter turns (8 times slower, 0.1 to 0.2 dB better).
            axes: see n2n_lightning.arrays.axes; `auto` takes what the network was trained on, where
                that was an array like this one, or else axes.of_picture, or axes.of_volumes. Where
                both would fit, channels are last in numpy arrays and first in tensors.
            scale: the stored value that is white, 1.0 for the network, where 0 is black. By default
                the checkpoint's, else both are judged by type and values, see normalization.levels.
            batch: tiles that go through the network together.
            black: with `scale`: the stored value that is black.
            strength: 0 to 1: a mix of the image and its result.
            uneven: the noise differs from place to place, as in a montage: what a blind network
                removed from texture is not put back.
            outliers: what happens to isolated pixels that stand out as no lens could make them
                (`outliers.outlier_mask`): undersampled stars, Bragg peaks, hot pixels, cosmic
                rays. `auto` returns them as they are stored, unless another capture (K) lacks them,
                or the same pixel stands out in most of several different images; `replace` replaces
                all of them; `keep` treats them as any pixel.
            outlier_map: return a map of them, too.
            dtype: the type of the result for arrays of integers: `keep` rounds to theirs, `float32`
                does not, `auto` takes float32 where rounding would do harm, as to sparse photon
                counts, see n2n_lightning.inference.rounding.
            mosaic: RGGB, BGGR, GRBG or GBRG for a raw frame of a colour camera; an array does not
                say it: auto is none.
            errors: return the expected error of each pixel, too (inference/error_maps.py): from
                `second`, from the captures of an array with the axis K, or from the noise of one
                picture, which is measured.
            second: another capture of the same scenes, of the same shape.
            advance: called with the number of tiles that were finished (`tiles` is their number);
                what it raises ends the call.

        Returns:
            An array of the same kind, shape and type, but for `dtype`, with the mask or the unit;
            with `outlier_map` also an array of its shape, uint8, that is 1 where an isolated
            outlier was left as stored and 2 where one was replaced; with `errors` also one of
            standard deviations, float32, NaN where the error cannot be known. Of 4 channels on the
            last axis the fourth is returned as it is where its values are those of transparency
            (transparency.has_alpha), unless the network was trained on 4. A colour network denoises
            images with other than 3 channels one channel at a time. Missing pixels (NaN, infinite,
            masked, a margin of one value) stay as they are; isolated outliers change no other
            pixels.

        Raises:
            InputError: the array is of another kind.

        >>> import numpy as np
        >>> from n2n_lightning import load
        >>> model = load()
        >>> noisy = np.random.default_rng(0).normal(128, 20, (40, 60, 3))
        >>> noisy = noisy.clip(0, 255).astype(np.uint8)
        >>> clean = model.denoise(noisy)
        >>> clean.shape, clean.dtype, bool(clean.std() < noisy.std() / 3)
        ((40, 60, 3), dtype('uint8'), True)
        """
        pixels, invalid = array_types.plain(array)
        if axes == "auto":
            axes = self._axes_of(pixels.shape, channels_first=isinstance(array, Tensor))
        one_of(outliers, OUTLIERS, "outliers")
        one_of(dtype, DTYPES, "dtype")
        options = DenoiseOptions(
            tile=tile,
            batch=batch,
            tta=tta,
            scale=scale,
            black=black,
            strength=strength,
            uneven=uneven,
            outliers=outliers,
            dtype=dtype,
        )
        named_mosaic = mosaics.checked(mosaic) not in ("none", "auto")
        noisy = NoisyArray(
            pixels,
            axes,
            has_alpha(pixels, axes),
            invalid=invalid,
            mosaic=named_mosaic and "C" not in axes,
            second=None if second is None else array_types.plain(second)[0],
        )
        if noisy.second is not None and noisy.second.shape != pixels.shape:
            raise InputError(f"second: of shape {noisy.second.shape}, not {pixels.shape}")
        if errors:
            check_possible(self, noisy)
        if dtype == "auto":
            floats = rounding.lossy(self, noisy, options) is not None
        else:
            floats = dtype == "float32" and pixels.dtype.kind in "iu"
        result = np.empty_like(pixels, np.float32 if floats else None)
        marks = np.zeros(pixels.shape, np.uint8) if outlier_map else None
        self.denoise_into(result, noisy, options, advance, marks)
        denoised: Any = array_types.like(array, result)
        maps: list[np.ndarray] = [] if marks is None else [marks]
        if errors:
            maps.append(errors_of(self, noisy, result, options).values)
        if not maps:
            return denoised
        if isinstance(array, Tensor):
            return denoised, *[torch.from_numpy(one).to(array.device) for one in maps]
        return denoised, *maps

    def _axes_of(self, shape: tuple[int, ...], channels_first: bool) -> str:
        """Return the axes of an array: as in training for arrays of its kind, else by its shape."""
        # an array states nothing
        if self.layout is not None and self.layout.suits(shape, self.layout.stated):
            return self.layout.axes
        deep = of_volumes(shape) if self.dims == 3 else None
        return deep or of_picture(shape, channels_first)

    def denoise_into(
        self,
        result: np.ndarray,
        noisy: NoisyArray,
        options: DenoiseOptions | None = None,
        advance: Callable[[int], Any] | None = None,
        marks: np.ndarray | None = None,
    ) -> OutlierCounts:
        """Denoise one array into another; both may be mapped from files larger than memory.

        Args:
            result: in the shape of the array, of its type or of a float type, which is not
                rounded.
            noisy: the array, and what is known about it.
            options: those of arrays (`tile` to `outliers`); None: the defaults.
            advance: called with the number of tiles that were finished.
            marks: uint8, in the shape of the array: set to 1 where an outlier was left, to 2 where
                one was replaced, else to 0.

        Returns:
            The numbers of outliers that were left and replaced.

        Raises:
            InputError: the network cannot take such an array.
        """
        options = options or DenoiseOptions()
        if noisy.mosaic:
            counts = OutlierCounts()
            for colour in mosaics.planes(noisy.axes):
                marked = part_or_none(marks, colour)
                plane = noisy.plane(colour)
                counts += self.denoise_into(result[colour], plane, options, advance, marked)
            return counts
        axes = page_axes(noisy.axes, self.dims)
        map_pages = pages_or_none(marks, axes, self.dims)
        if map_pages is not None:
            map_pages[...] = 0
        counts = OutlierCounts()
        with torch.inference_mode():
            pages = PreparedPages(self, noisy, result, options)
            for place in pages.places:
                page = pages.at(place)
                if pages.is_dead(place):
                    page.sink[...] = page.source
                    if advance:
                        tiles = self.tiles(noisy.array, axes, options.tile)
                        advance(tiles // len(pages.places))
                    continue
                self._denoise_page(page, pages.together, options, advance)
                counts += OutlierCounts.of(page.outliers)
                if map_pages is not None:
                    page.outliers.mark(map_pages[place])
        return counts

    def pages_of(self, noisy: NoisyArray, result: np.ndarray, options: DenoiseOptions) -> PageStack:
        """Return an array and its result as pages.

        Args:
            noisy: the array; its frames, captures and defects are not used.
            result: in its shape.
            options: `scale` and `black` are used.

        Returns:
            The pages, with the scaling between stored values and those of the network.

        Raises:
            InputError: the network cannot take such an array.
        """
        array = noisy.array
        scale = options.scale
        black = options.black
        if array.dtype.name not in TYPES:
            raise InputError(f"values of type {array.dtype}: must be one of {', '.join(TYPES)}")
        if scale is not None and not 1e-30 <= scale - black <= 1e30:
            raise InputError("scale", scale, f"must be larger than {black:g}, and finite")
        axes = page_axes(noisy.axes, self.dims)
        source = as_pages(array, axes, self.dims)
        sink = as_pages(result, axes, self.dims)
        masks = pages_or_none(noisy.invalid, axes, self.dims)
        _, _, channels = of_pages(source.shape, self.dims)
        colours = self.colours_of(noisy, channels)
        if colours != self.channels and self.channels not in (1, 3):
            raise InputError(
                f"{colours} channels: the checkpoint is for images with {self.channels}"
            )
        together = self.takes_together(noisy, colours)
        device = next(self.parameters()).device
        declared = noisy.nodata_values
        pages = PageStack(source, sink, masks, self.dims, colours, declared, device, noisy.part)
        if noisy.limits is not None:
            pages.limits = noisy.limits
            pages.together = together
            return pages
        fixed = self.range_in(noisy.unit)
        if scale is not None:
            fixed = (black, scale - black)
        pages.judge(fixed, together, self.equivariant)
        return pages

    def colours_of(self, noisy: NoisyArray, channels: int) -> int:
        """Return the number of channels that are denoised; the others are transparency.

        Args:
            noisy: the array.
            channels: all channels of its pages.

        Returns:
            `channels`, or one less.
        """
        transparent = noisy.alpha and channels != self.channels
        return channels - transparent

    def takes_together(self, noisy: NoisyArray, colours: int) -> bool:
        """Return True if the channels go through the network at once, False if one by one.

        Args:
            noisy: the array.
            colours: channels that are denoised.

        Returns:
            True for colours of one picture, or the user's own channels, as many as the network's.
        """
        return colours == self.channels and (noisy.colour or self.range is not None)

    def run_on_tiles(self, together: bool, tta: bool) -> Callable[[Tensor], Tensor]:
        """Return the function that denoises tiles of `Page.read`.

        Args:
            together: all channels go through the network at once, otherwise one by one.
            tta: average over the 8 flips and quarter turns.

        Returns:
            Takes and returns (B, C, h, w), or volumes, in network units; NaN is inpainted.
        """
        run: Callable[[Tensor], Tensor] = self._together if together else self._planes
        if tta:
            run = averaged(run, self.multiple)
        return in_memory(run, self.overlap, self.multiple)

    def _denoise_page(
        self,
        page: Page,
        together: bool,
        options: DenoiseOptions,
        advance: Callable[[int], Any] | None,
    ) -> None:
        """Send a page through the network, tile by tile, and finish what needs all of it."""
        tiled(
            self.run_on_tiles(together, options.tta),
            page.read,
            page.write,
            page.size,
            self._tile(options.tile),
            self.multiple,
            options.batch,
            advance or _ignore_progress,
            self.overlap,
        )
        if self.blind and self.dims == 2 and not options.uneven:
            put_back(page, together)
        if options.strength != 1:
            page.mix(options.strength)

    def range_in(self, unit: tuple[float, float] | None) -> tuple[float, float] | None:
        """Return the range of training in another unit.

        Args:
            unit: (factor, offset) that convert stored values to physical ones; None: unknown.

        Returns:
            The stored value that is 0 for the network, and how far above it 1 is; in the unit of
            training if either unit is unknown, None if the range is.
        """
        if (
            self.range is None
            or unit is None
            or self.unit is None
            or unit == self.unit
            or not unit[0] / self.unit[0] > 0
        ):
            return self.range
        black, span = self.range
        factor, offset = self.unit
        new_factor, new_offset = unit
        new_black = (black * factor + offset - new_offset) / new_factor
        return new_black, span * factor / new_factor

    def check_context(self, surrounded: bool) -> None:
        """Raise InputError where the network sees frames around each, and there are none.

        Args:
            surrounded: there are.
        """
        if self.context and not surrounded:
            channels = (
                "grey movies" if self.channels == 1 else f"movies of {self.channels} channels"
            )
            raise InputError(
                f"the checkpoint is for {channels}: it sees {self.context} frames on either side of"
                " each, and needs a stack of frames"
            )

    def tiles(self, array: np.ndarray, axes: str, tile: int | str | None = "auto") -> int:
        """Return the number of tiles that `denoise_into` will finish.

        Args:
            array, axes: see `NoisyArray`.
            tile: see `denoise`.

        Returns:
            The tiles of all pages or volumes.
        """
        letters = page_axes(axes, self.dims)
        pages = as_pages(array, letters, self.dims)
        stacked, size, _ = of_pages(pages.shape, self.dims)
        side = self._tile(tile)
        count = math.prod(stacked)
        for length in size:
            count *= len(spans(length, side, self.multiple, self.overlap))
        return count

    def _tile(self, tile: int | str | None) -> int | None:
        if isinstance(tile, str):
            device = next(self.parameters()).device
            return tile_of(self.dims, self.overlap, self.multiple, str(device))
        return tile

    def _together(self, images: Tensor) -> Tensor:
        """Denoise images (B, C, H, W) with the channels of the network; inpaint missing values.

        The excess of values far outside the range of the network bypasses it, as of bright stars.
        """
        images = inpaint(images)
        inside = images.clamp(*(CLAMP_OWN if self.range or self.equivariant else CLAMP_ANY))
        if self.context:
            output = self(inside).float()
            if self.sees_middle:
                output += (images - inside)[:, self._middle]
            return output
        if self.thinned:
            return self._halves(inside) + (images - inside)
        return self(inside).float() + (images - inside)

    @property
    def _middle(self) -> slice:
        """The channels of the predicted frame among those of the input; with `sees_middle`."""
        first = self.context * self.channels
        return slice(first, first + self.channels)

    def _halves(self, images: Tensor) -> Tensor:
        """Return the mean of the results for both halves of photon counts, each doubled."""
        black, span = self.range or (0.0, 1.0)
        counts = (images * span + black).round().clamp(min=0).cpu().double()
        draws = torch.Generator().manual_seed(0)  # the same picture has the same result
        first = torch.binomial(counts, torch.full_like(counts, 0.5), generator=draws)
        results = []
        for half in (first, counts - first):
            normalized = (2 * half - black) / span
            results.append(self(normalized.to(images)).float())
        one, other = results
        return (one + other) / 2

    def _planes(self, images: Tensor) -> Tensor:
        """Denoise images (B, C, H, W) of any number of channels, each as a grey picture.

        Of movies the channels of the frames follow one another: (B, F x C, H, W).
        """
        by_frame = images.unflatten(1, (self.info.input_frames, -1))
        planes = [self._together(plane) for plane in by_frame.unbind(2)]
        return torch.cat(planes, 1)


def _ignore_progress(tiles: int) -> None:
    pass


def load(
    path: str | Path = PRETRAINED,
    allow: Sequence[str] = (),
    fast: bool = False,
    device: str = "auto",
) -> TrainedDenoiser:
    """Load the trained network of a run folder or checkpoint, in eval mode.

    Args:
        path: a run folder (its best checkpoint, or else its last) or a checkpoint file; by default
            the bundled one, for photographs with noise of any strength. `movie` is the bundled one
            for movies, which sees two frames on either side of each.
        allow: names of modules outside this package whose classes the checkpoint may name;
            importing a module runs it.
        fast: compute in bfloat16, on GPUs without it (before Ampere) in float16: about half the
            time where the device has it, and a result that differs by some hundredths of the
            noise's standard deviation.
        device: where it computes; `auto`: a GPU if there is one.

    Returns:
        The network.

    Raises:
        InputError: the file is missing, damaged, not ours, or names a class of a module that is not
            allowed.
    """
    content = read_checkpoint(path)
    info = CheckpointInfo.of(content["n2n_lightning"], path)
    network = _built_network(info, content["state_dict"], path, allow)
    channels = info.model.get("channels")
    if channels is None:
        weights = (p for p in network.parameters() if len(p.shape) >= 4)
        first = next(weights, None)
        channels = 3 if first is None else first.shape[1]
    model = TrainedDenoiser(network, int(channels) // info.input_frames, info, fast)
    return model.to(device_of(device))


def _built_network(
    info: CheckpointInfo, state: dict[str, Tensor], path: str | Path, allow: Sequence[str]
) -> nn.Module:
    """Build the network of a checkpoint, see `load`."""
    arguments = dict(info.model)
    module_name, _, class_name = str(arguments.pop("_target_")).rpartition(".")
    if module_name not in ("n2n_lightning.networks", *allow):
        raise InputError(
            f"{path}: its network is from {module_name}; {option('allow', module_name)} if you"
            " trust that module"
        )
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
        # before it is called: it could do anything
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise TypeError(f"{class_name} is no network")
        network = kind(**arguments)
        network.load_state_dict(
            {
                name.removeprefix("network."): value
                for name, value in state.items()
                if name.startswith("network.")
            }
        )
    except Exception as error:
        raise InputError(
            f"{path}: its network cannot be built: {' '.join(str(error).split())[:200]}"
        ) from error
    return network
