"""From a run folder or checkpoint to its network, without running any code that the file may name."""

import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from n2n_lightning import axes as axes_of
from n2n_lightning.axes import HEIGHT, WIDTH, around, as_pages, frames, has_alpha, of_picture
from n2n_lightning.files import InputError, load_torch
from n2n_lightning.formats.picture import TYPES
from n2n_lightning.missing import lost, margin_value, quiet
from n2n_lightning.networks import apply, pad_to_multiple
from n2n_lightning.ranges import Range
from n2n_lightning.tiles import TILE, spans, tiled

PRETRAINED = Path(__file__).parent / "pretrained.ckpt"
# What the network is shown of values outside its range: where pictures of any kind come, and where those of its own do.
KNOWN, OWN = (-1.0, 2.0), (-4.0, 8.0)
Array = TypeVar("Array", np.ndarray, Tensor)


def checkpoint_of(path: str | Path) -> Path:
    """The checkpoint file of a run folder, its best where there is one; a file is itself.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
    if path.suffix in (".onnx", ".pt2"):
        raise InputError(f"{path}: an export for other programs; here its run folder or .ckpt is needed")
    if not path.is_dir():
        return path
    for name in ("best.ckpt", "last.ckpt"):
        if (path / "checkpoints" / name).is_file():
            return path / "checkpoints" / name
    raise InputError(f"{path}: not a run folder; it has no checkpoints/best.ckpt or last.ckpt")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint as plain data and tensors: `state_dict`, `n2n_lightning` and what Lightning stores."""
    path = checkpoint_of(path)
    content = load_torch(path)
    if not isinstance(content, dict) or "state_dict" not in content or "n2n_lightning" not in content:
        raise InputError(f"{path}: not a checkpoint of n2n_lightning")
    return content


class Trained(nn.Module):
    """A trained network, ready to use.

    Called, it takes and returns float images (B, C, H, W), values in [0, 1] up to noise, of any height and width.

    Attributes:
        network: the network itself.
        channels: of the images that it takes; `denoise` takes others, too.
        scale: the stored value that PSNR takes for white, where the training data had one.
        range: the stored value that was 0 for the network in training, and how much above it was 1; None: judged by
            type and values, see ranges.levels.
        context: of a movie, how many frames before and after one the network is shown in place of it; 0: the frame.
        thinned: whether it was trained on halves of photon counts: it is shown such halves, and the mean is the result.
    """

    def __init__(
        self,
        network: nn.Module,
        channels: int,
        scale: float | None = None,
        range: tuple[float, float] | None = None,
        context: int = 0,
        thinned: bool = False,
    ) -> None:
        super().__init__()
        self.context, self.thinned = context, thinned
        # Channels last: 1.4 times as fast on a CPU, with the same result.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.channels, self.scale = channels, scale
        self.range = range or ((0.0, scale) if scale else None)
        self.inputs = channels * (2 * context or 1)  # channels that the network itself takes
        self.equivariant = bool(getattr(network, "equivariant", False))  # does not mind units and black levels
        self.multiple: int = getattr(network, "multiple", 32)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        if self.context:
            if image.shape[1] != self.inputs:
                raise InputError(f"the checkpoint is for movies: it sees {2 * self.context} frames around each")
            return apply(self.network, image.contiguous(memory_format=torch.channels_last))
        if image.shape[1] != self.channels and self.channels in (1, 3):  # each channel as a grey picture
            planes = [plane.repeat_interleave(self.channels, 1) for plane in image.split(1, 1)]
            return torch.cat([self(plane).mean(1, keepdim=True) for plane in planes], 1)
        return apply(self.network, image.contiguous(memory_format=torch.channels_last))

    def denoise(
        self,
        array: Array,
        tile: int | None = TILE,
        tta: bool = False,
        axes: str = "auto",
        scale: float | None = None,
        batch: int = 1,
        black: float = 0.0,
    ) -> Array:
        """Denoises one image, or several of one size.

        Args:
            array: a numpy array or torch tensor of a type in TYPES, on any device.
            tile: height and width of the tiles that large images are denoised in; None: the whole image at once.
            tta: average over the 8 flips and quarter turns (8 times slower, 0.1 to 0.2 dB better).
            axes: what the axes are, see n2n_lightning.axes; `auto` takes axes.of_picture. Where both would fit,
                channels are last in numpy arrays and first in tensors.
            scale: the stored value that is white, 1.0 for the network, where 0 is black. By default the checkpoint's,
                else both are judged by type and values, see ranges.levels.
            batch: tiles that go through the network together.
            black: with `scale`: the stored value that is black.

        Returns:
            An array of the same kind, shape and type. Of 4 channels on the last axis the fourth is taken for
            transparency and returned as it is, unless the network was trained on 4. A colour network denoises images
            with other than 3 channels one channel at a time. Missing pixels (NaN, infinite, a margin of one value)
            stay as they are; single wild ones (missing.wild) are replaced and touch no others.

        Raises:
            InputError: the array is of another kind.

        >>> import numpy as np
        >>> from n2n_lightning import load
        >>> model = load()
        >>> noisy = np.random.default_rng(0).normal(128, 20, (40, 60, 3)).clip(0, 255).astype(np.uint8)
        >>> clean = model.denoise(noisy)
        >>> clean.shape, clean.dtype, bool(clean.std() < noisy.std() / 3)
        ((40, 60, 3), dtype('uint8'), True)
        """
        tensor = isinstance(array, Tensor)
        if not isinstance(array, Tensor | np.ndarray):
            raise InputError(f"a {type(array).__name__}: must be a numpy array or a torch tensor")
        if isinstance(array, Tensor) and str(array.dtype)[6:] not in TYPES:  # bfloat16, which numpy does not have
            raise InputError(f"values of type {array.dtype}: must be one of {', '.join(TYPES)}")
        pixels = array.detach().cpu().numpy() if isinstance(array, Tensor) else array
        axes = of_picture(pixels.shape, channels_first=tensor) if axes == "auto" else axes
        result = np.empty_like(pixels)
        self.denoise_into(
            result,
            pixels,
            axes,
            has_alpha(pixels.shape, axes),
            tile=tile,
            tta=tta,
            scale=scale,
            batch=batch,
            black=black,
        )
        return torch.from_numpy(result).to(array.device) if isinstance(array, Tensor) else result

    def denoise_into(
        self,
        result: np.ndarray,
        array: np.ndarray,
        axes: str,
        alpha: bool = False,
        colour: bool = True,
        tile: int | None = TILE,
        tta: bool = False,
        scale: float | None = None,
        batch: int = 1,
        black: float = 0.0,
        fills: tuple[float, ...] = (),
        advance: Callable[[int], Any] = lambda tiles: None,
        near: Sequence[np.ndarray] = (),
    ) -> None:
        """`denoise` from one array into another, either of which may be mapped from a file that is larger than memory.

        Args:
            alpha: whether the last channel is transparency, to be left as it is; not where the network takes so many.
            colour: whether the channels are colours of one picture. Others, as of fluorescence, go through together
                only if the network was trained on captures of one's own, of as many channels.
            fills: stored values that mean that a pixel is missing, beside those that are found by themselves.
            advance: called with the number of tiles that were finished.
            near: with a context, and an array that is one frame: those around it, `axes.frames`, of the same axes.
            result, array, axes, tile, tta, scale, batch, black: see `denoise`.
        """
        if array.dtype.name not in TYPES:
            raise InputError(f"values of type {array.dtype}: must be one of {', '.join(TYPES)}")
        if scale is not None and not 1e-30 <= scale - black <= 1e30:
            raise InputError(f"scale={scale}: must be larger than {black:g}, and finite")
        source, sink = as_pages(array, axes), as_pages(result, axes)
        *stacked, height, width, channels = source.shape
        colours = channels - (alpha and channels != self.channels)
        if colours != self.channels and self.channels not in (1, 3):
            raise InputError(f"{colours} channels: the checkpoint is for images with {self.channels}")
        together = colours == self.channels and (colour or self.range is not None)
        if self.context and not (together and (near or (stacked and stacked[0] > 1))):
            raise InputError(
                f"the checkpoint is for movies of {self.channels} channels: it sees {self.context} frames on either"
                " side of each, and needs a stack of frames"
            )
        places = list(np.ndindex(*stacked))
        gaps = {p: _gaps(source[p][..., :colours], fills) for p in {places[0], places[len(places) // 2], places[-1]}}
        fixed = self.range if scale is None else (black, scale - black)
        everywhere = sorted({fill for found in gaps.values() for fill in found})
        limits = Range.of(source[..., :colours], fixed, together, everywhere, self.equivariant)
        device = next(self.parameters()).device
        each = self._together if together else self._planes
        run = averaged(each, self.multiple) if tta else each

        with torch.inference_mode():
            for place in places:
                beside = [as_pages(frame, axes) for frame in near]
                if self.context and not near:
                    beside = [source[around(place[0], k, stacked[0]), *place[1:]] for k in frames(self.context)]
                page = _Page(source[place], sink[place], colours, limits, device, beside)
                page.fills = gaps[place] if place in gaps else _gaps(page.source[..., :colours], fills)
                tiled(run, page.read, page.write, (height, width), tile, self.multiple, batch, advance)

    def tiles(self, array: np.ndarray, axes: str, tile: int | None = TILE) -> int:
        """How many tiles `denoise_into` will finish."""
        *stacked, height, width, _ = as_pages(array, axes).shape
        return math.prod(stacked) * len(spans(height, tile, self.multiple)) * len(spans(width, tile, self.multiple))

    def _together(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) of the network's own number of channels; missing and wild values do not spread.

        What lies far outside the range that the network knows goes around it: bright stars stay as they are.
        """
        images = quiet(images)
        inside = images.clamp(*(OWN if self.range or self.equivariant else KNOWN))
        if self.context:
            return self(inside).float()
        if self.thinned:
            return self._halves(inside) + (images - inside)
        return self(inside).float() + (images - inside)

    def _halves(self, images: Tensor) -> Tensor:
        """The mean of the results for both halves of photon counts, each with twice its light, as in training."""
        black, span = self.range or (0.0, 1.0)
        counts = (images * span + black).round().clamp(min=0).cpu().double()
        draws = torch.Generator().manual_seed(0)  # the same picture has the same result
        first = torch.binomial(counts, torch.full_like(counts, 0.5), generator=draws)
        one, other = (self(((2 * half - black) / span).to(images)).float() for half in (first, counts - first))
        return (one + other) / 2

    def _planes(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) of any number of channels, each shown to the network as a grey picture."""
        return torch.cat([self._together(plane) for plane in images.split(1, 1)], 1)


class _Page:
    """One page (H, W, C) on its way to the network and back; `near` are the pages that it sees in place of it."""

    def __init__(
        self,
        source: np.ndarray,
        sink: np.ndarray,
        colours: int,
        limits: Range,
        device: torch.device,
        near: Sequence[np.ndarray] = (),
    ) -> None:
        self.source, self.sink, self.colours, self.limits, self.device = source, sink, colours, limits, device
        self.near = near or [source]
        self.fills: tuple[float, ...] = ()

    def read(self, rows: slice, columns: slice) -> Tensor:
        """Pixels for the network, (C, h, w), of several pages one after the other; NaN where they are missing."""
        found = []
        for page in self.near:
            pixels = page[rows, columns, : self.colours]
            values, gone = self.limits.shown(pixels), lost(pixels, self.fills)
            if gone is not None:
                values[gone] = np.nan
            found.append(torch.from_numpy(values).permute(2, 0, 1))
        return torch.cat(found).to(self.device)

    def write(self, rows: slice, columns: slice, values: Tensor) -> None:
        """The network's result (C, h, w); missing pixels and transparency are those of the source."""
        pixels, found = self.source[rows, columns], values.permute(1, 2, 0).cpu().numpy()
        before = pixels[..., : self.colours]
        result, gone = self.limits.stored(found, before), lost(before, self.fills)
        self.sink[rows, columns, : self.colours] = result if gone is None else np.where(gone, before, result)
        self.sink[rows, columns, self.colours :] = pixels[..., self.colours :]


def _gaps(page: np.ndarray, fills: tuple[float, ...]) -> tuple[float, ...]:
    """The values that mean that a pixel of a page is missing: declared ones, and that of a margin."""
    margin = margin_value(page)
    return fills if margin is None or margin in fills else (*fills, margin)


def averaged(network: Callable[[Tensor], Tensor], multiple: int = 1) -> Callable[[Tensor], Tensor]:
    """The mean over the 8 flips and quarter turns of the input, each turned back: (B, C, H, W) -> the same.

    Images are padded to a multiple of `multiple` first, so that what the network pads does not move with the turns.
    """

    def denoise(image: Tensor) -> Tensor:
        size = axes_of.size(image)
        image = pad_to_multiple(image, multiple)
        total: Any = 0.0
        count = 0
        for turned in (False, True):
            for dims in axes_of.flips(image):
                x = image.transpose(HEIGHT, WIDTH) if turned else image
                y = network(x.flip(dims)).flip(dims)
                total = total + (y.transpose(HEIGHT, WIDTH) if turned else y)
                count += 1
        whole: Tensor = axes_of.cropped(total, size)
        return whole / count

    return denoise


def load(path: str | Path = PRETRAINED, allow: Sequence[str] = ()) -> Trained:
    """The trained network of a run folder or checkpoint, in eval mode on the CPU.

    Args:
        path: a run folder (its best checkpoint, or else its last) or a checkpoint file; by default the one that the
            package brings along, for photographs with noise of any strength.
        allow: names of modules outside this package whose classes the checkpoint may name; importing a module runs it.

    Raises:
        InputError: the file is missing, damaged, not ours, or names a class of a module that is not allowed.
    """
    content = read_checkpoint(path)
    try:
        ours = dict(content["n2n_lightning"])
        spec = dict(ours["model"])
        module_name, _, class_name = str(spec.pop("_target_")).rpartition(".")
        scale = None if ours.get("scale") is None else float(ours["scale"])
        limits = None if ours.get("range") is None else (float(ours["range"][0]), float(ours["range"][1]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: does not say what its network is") from error
    if module_name not in ("n2n_lightning.networks", *allow):
        raise InputError(f"{path}: its network is from {module_name}; --allow {module_name} if you trust that module")
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):  # before it is called: it could do anything
            raise TypeError(f"{class_name} is no network")
        network = kind(**spec)
        weights = {k.removeprefix("network."): v for k, v in content["state_dict"].items() if k.startswith("network.")}
        network.load_state_dict(weights)
    except Exception as error:
        raise InputError(f"{path}: its network cannot be built: {' '.join(str(error).split())[:200]}") from error
    context = int(ours.get("context") or 0)
    channels = spec.get("channels") or next((p.shape[1] for p in network.parameters() if len(p.shape) == 4), 3)
    return Trained(network, int(channels) // (2 * context or 1), scale, limits, context, bool(ours.get("thinned")))
