"""U-Nets of blocks: NAFNet, and a small DRUNet."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from n2n_lightning.arrays import axes
from n2n_lightning.files import InputError, option
from n2n_lightning.networks.network import (
    CONVOLUTION,
    Network,
    checked_dims,
    middle_frame,
    receptive_radius_of,
    sizes,
)


class _NAFBlock(nn.Module):
    """Block of NAFNet: gated depthwise convolution, then a gated layer, both with layer norm.

    Without channel attention, a mean over the whole image, which would make results depend on the
    size of the image. Both branches start at zero, as in the paper.
    """

    receptive_radius = 1

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, 1e-6)
        self.norm2 = nn.LayerNorm(width, 1e-6)
        self.widen = nn.Conv2d(width, 2 * width, 1)
        self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.narrow = nn.Conv2d(width, width, 1)
        self.widen2 = nn.Conv2d(width, 2 * width, 1)
        self.narrow2 = nn.Conv2d(width, width, 1)
        self.beta = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        wide = self.widen(_channelwise(self.norm1, x))
        gated = _gated(self.depthwise(wide))
        x = x + self.beta * self.narrow(gated)
        wide = self.widen2(_channelwise(self.norm2, x))
        gated = _gated(wide)
        return x + self.gamma * self.narrow2(gated)


def _gated(x: Tensor) -> Tensor:
    """Return the product of the first half of the channels with the second half."""
    first, second = x.chunk(2, 1)
    return first * second


def _channelwise(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Normalise over the channels of each pixel."""
    # The exporter would tie layer_norm to the number of images of its example.
    if torch.compiler.is_exporting():
        variance, mean = torch.var_mean(x, 1, keepdim=True, correction=0)
        normal = (x - mean) * torch.rsqrt(variance + norm.eps)
        weight = norm.weight[:, None, None]
        bias = norm.bias[:, None, None]
        return normal * weight + bias
    channels_last = x.permute(0, 2, 3, 1)
    return norm(channels_last).permute(0, 3, 1, 2)


class _ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), 3x3, without normalisation (Lim et al., CVPRW 2017)."""

    receptive_radius = 2

    def __init__(self, width: int, dims: int = 2) -> None:
        super().__init__()
        self.first = CONVOLUTION[dims](width, width, 3, padding=1)
        self.second = CONVOLUTION[dims](width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class _Difference(nn.Module):
    """3x3 convolution without bias whose weights sum to 0.

    A constant added to the image has no effect.
    Pixels are repeated at the border: zeros would have an effect. In float32: in half precision
    differences would be those of rounding, and in TF32 the constant would leave some behind.
    """

    def __init__(self, inputs: int, outputs: int, dims: int) -> None:
        super().__init__()
        layer = CONVOLUTION[dims](inputs, outputs, 3, bias=False)
        self.weight = layer.weight
        self._convolve = {2: F.conv2d, 3: F.conv3d}[dims]

    def forward(self, image: Tensor) -> Tensor:
        with _in_float32(image):
            mean = self.weight.flatten(1).mean(1)
            weight = self.weight - axes.per_image(mean, self.weight)
            sides = 2 * len(axes.size(image))
            border = [1] * sides
            padded = F.pad(image.float(), border, mode="replicate")
            result: Tensor = self._convolve(padded, weight.float())
            return result.to(self.weight.dtype)  # of a model after .half()


@contextmanager
def _in_float32(image: Tensor) -> Iterator[None]:
    """Compute convolutions in float32 for a while: neither in half precision nor in TF32.

    An exported network has neither, and should name no device.
    """
    if torch.compiler.is_exporting():
        yield
        return
    cudnn: Any = torch.backends.cudnn
    before = cudnn.conv.fp32_precision
    with torch.autocast(image.device.type, enabled=False):
        cudnn.conv.fp32_precision = "ieee"
        try:
            yield
        finally:
            cudnn.conv.fp32_precision = before


def shuffled(x: Tensor) -> Tensor:
    """Upsample by pixel shuffle (Shi et al., CVPR 2016) by 2 along all spatial axes.

    Images (B, 4 C, H, W) become (B, C, 2 H, 2 W), volumes (B, 8 C, D, H, W) become (B, C, 2 D, 2 H,
    2 W).

    Returns:
        The upsampled feature maps.
    """
    if not axes.deep(x):
        return F.pixel_shuffle(x, 2)
    batch, channels, depth, height, width = x.shape
    outputs = channels // 8
    x = x.view(batch, outputs, 2, 2, 2, depth, height, width)
    x = x.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(batch, outputs, 2 * depth, 2 * height, 2 * width)


class _BlockUNet(Network):
    """U-Net of blocks that estimates the noise: output = input - estimate.

    2x2 convolutions of stride 2 down, 1x1 convolutions and pixel shuffle up; skip connections are
    added.

    Args:
        block: makes a block for a number of channels.
        reach: receptive radius of a block, in pixels.
        channels: of the images.
        widths: channels at each size, full size first.
        blocks: blocks at each size, on the way down and again on the way up.
        out_channels: of the result; None: as many as the input has.
        equivariant: see DRUNet.
        dims: 2 for images, 3 for volumes.
        middle: see DRUNet.
    """

    def __init__(
        self,
        block: Callable[[int], nn.Module],
        reach: int,
        channels: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        out_channels: int | None,
        equivariant: bool = False,
        dims: int = 2,
        middle: bool = False,
    ) -> None:
        super().__init__()
        self.equivariant = equivariant
        self.middle = middle
        convolution = CONVOLUTION[checked_dims(dims)]
        self.out_channels = out_channels or channels
        sizes(widths=widths)
        sizes(0, blocks=blocks)
        if len(widths) != len(blocks):
            raise InputError(
                f"{option('model.widths', list(widths))} and"
                f" {option('model.blocks', list(blocks))}: must be equally many"
            )
        self.multiple = 2 ** (len(widths) - 1)
        radius = receptive_radius_of([reach * count for count in blocks])
        self.receptive_radius = radius + 2  # the first convolution and the last
        levels = list(zip(widths, blocks, strict=True))
        steps = list(pairwise(widths))

        def chain(width: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(block(width) for _ in range(count)))

        # made in both cases: the weights of the other layers depend on the draws before them
        first = convolution(channels, widths[0], 3, padding=1)
        self.first = _Difference(channels, widths[0], dims) if equivariant else first
        self.encoder = nn.ModuleList(chain(*level) for level in levels)
        self.down = nn.ModuleList(convolution(a, b, 2, stride=2) for a, b in steps)
        self.up = nn.ModuleList(
            convolution(b, 2**dims * a, 1, bias=False) for a, b in reversed(steps)
        )
        self.decoder = nn.ModuleList(chain(*level) for level in reversed(levels[:-1]))
        self.output = convolution(widths[0], self.out_channels, 3, padding=1)
        nn.init.zeros_(self.output.weight)  # training starts from the noisy image itself
        nn.init.zeros_(self.output.bias)
        if equivariant:
            for module in self.modules():
                if isinstance(module, convolution):
                    module.bias = None

    def body(self, image: Tensor) -> Tensor:
        x = self.encoder[0](self.first(image))
        skips = []
        smaller_levels = list(self.encoder)[1:]
        for down, blocks in zip(self.down, smaller_levels, strict=True):
            skips.append(x)
            x = blocks(down(x))
        for up, blocks in zip(self.up, self.decoder, strict=True):
            upsampled = shuffled(up(x))
            x = blocks(upsampled + skips.pop())
        if self.middle:
            start = middle_frame(image, self.out_channels)
        else:
            start = self.start(image, self.out_channels)
        return start - self.output(x)


@final
class NAFNet(_BlockUNet):
    """NAFNet (Chen et al., ECCV 2022), a U-Net without activation functions, see _NAFBlock.

    Args:
        channels: of the images.
        widths: channels at each size, full size first.
        blocks: blocks at each size, on the way down and again on the way up.
        out_channels: of the result, where the input has more channels: several frames.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (32, 64, 128),
        blocks: Sequence[int] = (2, 2, 2),
        out_channels: int | None = None,
    ) -> None:
        super().__init__(
            _NAFBlock, _NAFBlock.receptive_radius, channels, widths, blocks, out_channels
        )


@final
class DRUNet(_BlockUNet):
    """U-Net of residual blocks: a small DRUNet (Zhang et al., IEEE TPAMI 2022) without noise map.

    Args:
        channels: of the images.
        widths: channels at each size, full size first.
        blocks: blocks at each size, on the way down and again on the way up.
        out_channels: of the result, where the input has more channels: several frames.
        equivariant: f(a x + b) = a f(x) + b for any a > 0 and b: the result depends on neither unit
            nor black level. No layer has a bias (Mohan et al., ICLR 2020), and the first one sees
            differences of pixels alone; Herbreteau et al., NeurIPS 2023, do the same with all
            layers.
        dims: 2 for images, 3 for volumes.
        middle: of several frames, the noise is subtracted from the middle one; False: from their
            mean.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (32, 64, 96),
        blocks: Sequence[int] = (2, 2, 2),
        out_channels: int | None = None,
        equivariant: bool = False,
        dims: int = 2,
        middle: bool = False,
    ) -> None:
        block = partial(_ResidualBlock, dims=dims)
        super().__init__(
            block,
            _ResidualBlock.receptive_radius,
            channels,
            widths,
            blocks,
            out_channels,
            equivariant,
            dims,
            middle,
        )
