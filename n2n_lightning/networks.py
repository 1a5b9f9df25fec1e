"""Denoising networks: plain modules that know nothing of training.

Every network takes float images (B, C, H, W), values in [0, 1] up to noise, of any height and width, and returns the
denoised images in the same shape.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Network(nn.Module):
    """The base of the networks here: pads any image to what `body` can take, and crops the result.

    `multiple` is the number that height and width must be divisible by inside `body`.
    """

    multiple = 1

    def body(self, image: Tensor) -> Tensor:
        """The network itself, for heights and widths divisible by `multiple`."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        return self.body(pad_to_multiple(image, self.multiple))[..., :height, :width]


def multiply_accumulates(network: nn.Module, channels: int = 3) -> int:
    """How many multiplications, each with an addition, a network makes per pixel, counted on an image of 64 x 64."""
    from torch.utils.flop_counter import FlopCounterMode

    training, image = network.training, torch.zeros(1, channels, 64, 64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(image)
    network.train(training)
    return round(counter.get_total_flops() / 2 / 64**2)


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Extends an image (B, C, H, W) at the bottom and right, by reflection, until `multiple` divides H and W.

    Where the padding is wider than the image (torch's own reflection refuses that) it is reflected again and again; a
    side of one pixel is repeated.
    """
    for dim in (-2, -1):
        size = image.shape[dim]
        missing = -size % multiple
        if torch.compiler.is_exporting() or missing:  # an exported network has to take any size
            position = torch.arange(size + missing, device=image.device)
            period = torch.full_like(position, torch.sym_max(2 * (size - 1), 1))
            image = image.index_select(dim, (position % period - (size - 1)).abs().neg() + size - 1)
    return image


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    """3x3 convolution, batch normalisation (which has the bias, so that the convolution needs none), LeakyReLU 0.1."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding="same", bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.1, inplace=True),
    )


def _output(inputs: int, channels: int) -> nn.Sequential:
    """The report's 1x1 output with ReLU. It starts at mid-grey: below zero the ReLU passes no gradient back."""
    convolution = nn.Conv2d(inputs, channels, 1)
    nn.init.constant_(convolution.bias, 0.5)  # type: ignore[arg-type]
    return nn.Sequential(convolution, nn.ReLU())


class _ReportNetwork(Network):
    """What the report's two networks share: seven encoder layers c0..c6 of 48 channels, 2x2 pooling after c1..c5."""

    multiple = 32

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.c0 = _layer(channels, 48)
        self.c1, self.c2, self.c3, self.c4, self.c5, self.c6 = (_layer(48, 48) for _ in range(6))
        self.pool = nn.MaxPool2d(2)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")

    def encode(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The deepest map, 48 channels at 1/32 of the size, and the pooled maps at 1/2, 1/4, 1/8 and 1/16."""
        x = self.c0(image)
        pooled = []
        for layer in (self.c1, self.c2, self.c3, self.c4, self.c5):
            x = self.pool(layer(x))
            pooled.append(x)
        return self.c6(x), pooled[:-1]


@final
class EncoderDecoder(_ReportNetwork):
    """The report's baseline: 7 encoder and 11 decoder layers, no skip connections (12.11 dB in the report).

    The decoder is the U-Net's of Table 1 without its skip connections and transposed convolutions.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__(channels)
        self.dec5a, self.dec5b = _layer(48, 96), _layer(96, 96)
        self.dec4a, self.dec4b = _layer(96, 96), _layer(96, 96)
        self.dec3a, self.dec3b = _layer(96, 96), _layer(96, 96)
        self.dec2a, self.dec2b = _layer(96, 64), _layer(64, 64)
        self.dec1a, self.dec1b = _layer(64, 32), _layer(32, 32)
        self.output = _output(32, channels)

    def body(self, image: Tensor) -> Tensor:
        x, _ = self.encode(image)
        x = self.dec5b(self.dec5a(self.up(x)))
        x = self.dec4b(self.dec4a(self.up(x)))
        x = self.dec3b(self.dec3a(self.up(x)))
        x = self.dec2b(self.dec2a(self.up(x)))
        x = self.dec1b(self.dec1a(self.up(x)))
        return self.output(x)


@final
class UNet(_ReportNetwork):
    """The report's U-Net, its Table 1 (22.96 dB in the report).

    Read so that every number of the table fits: `up` counts the channels after nearest upsampling and concatenation
    with the pooled map of that size (the last has none), `ct` is a 3x3 transposed convolution of stride 1.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__(channels)
        self.ct5, self.dec5a, self.dec5b = _transposed(96, 144), _layer(144, 96), _layer(96, 96)
        self.ct4, self.dec4a, self.dec4b = _transposed(144, 144), _layer(144, 96), _layer(96, 96)
        self.ct3, self.dec3a, self.dec3b = _transposed(144, 144), _layer(144, 96), _layer(96, 96)
        self.ct2, self.dec2a, self.dec2b = _transposed(144, 144), _layer(144, 64), _layer(64, 64)
        self.ct1, self.dec1a, self.dec1b = _transposed(64, 64), _layer(64, 32), _layer(32, 32)
        self.output = _output(32, channels)

    def body(self, image: Tensor) -> Tensor:
        x, pooled = self.encode(image)
        x = self.dec5b(self.dec5a(self.ct5(torch.cat((self.up(x), pooled.pop()), 1))))
        x = self.dec4b(self.dec4a(self.ct4(torch.cat((self.up(x), pooled.pop()), 1))))
        x = self.dec3b(self.dec3a(self.ct3(torch.cat((self.up(x), pooled.pop()), 1))))
        x = self.dec2b(self.dec2a(self.ct2(torch.cat((self.up(x), pooled.pop()), 1))))
        x = self.dec1b(self.dec1a(self.ct1(self.up(x))))
        return self.output(x)


class _Transposed(nn.ConvTranspose2d):
    """A 3x3 transposed convolution of stride 1, which keeps the size.

    It is a convolution with the kernels turned by half a circle, which is the faster one on CPUs.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        return F.conv2d(image, self.weight.transpose(0, 1).flip(2, 3), self.bias, padding=1)


def _transposed(inputs: int, outputs: int) -> nn.Sequential:
    """The transposed convolution and LeakyReLU 0.1."""
    return nn.Sequential(_Transposed(inputs, outputs), nn.LeakyReLU(0.1, inplace=True))


@final
class ResidualUNet(Network):
    """A U-Net of blocks of two 3x3 convolutions that estimates the noise: output = input - estimate.

    Ronneberger et al., MICCAI 2015, with the residual output of DnCNN (Zhang et al., TIP 2017), nearest upsampling and
    LeakyReLU 0.1 (Lehtinen et al., ICML 2018) and no normalisation, which helps little in denoising U-Nets.

    Args:
        channels: of the images.
        width: channels of the first level; each level below has twice as many.
        levels: how many sizes the network works at, the image's own included.
    """

    def __init__(self, channels: int = 3, width: int = 32, levels: int = 3) -> None:
        super().__init__()
        _sizes(width=width, levels=levels)
        self.multiple = 2 ** (levels - 1)
        widths = [width * 2**level for level in range(levels)]
        self.encoder = nn.ModuleList(_block(a, b) for a, b in zip([channels, *widths], widths, strict=False))
        self.decoder = nn.ModuleList(_block(a + b, a) for a, b in reversed(list(pairwise(widths))))
        self.output = nn.Conv2d(width, channels, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.1)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.output.weight)  # training starts from the noisy image itself

    def body(self, image: Tensor) -> Tensor:
        skips = [self.encoder[0](image)]
        for block in list(self.encoder)[1:]:
            skips.append(block(F.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for block in self.decoder:
            x = block(torch.cat((F.interpolate(x, scale_factor=2, mode="nearest"), skips.pop()), 1))
        return image - self.output(x)


def _sizes(least: int = 1, **values: int | Sequence[int]) -> None:
    """Raises ValueError unless these options of the model group hold whole numbers of at least `least`."""
    for name, value in values.items():
        several = name in ("widths", "blocks")
        found = [value] if not several else list(value) if isinstance(value, Sequence) else []
        if not found or not all(isinstance(n, int) and not isinstance(n, bool) and n >= least for n in found):
            wanted = "a list of whole numbers" if several else "a whole number"
            raise ValueError(f"model.{name}={value}: must be {wanted}, {least} or more")


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with LeakyReLU 0.1."""
    first, second = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
    return nn.Sequential(first, nn.LeakyReLU(0.1, inplace=True), second, nn.LeakyReLU(0.1, inplace=True))


@final
class DnCNN(Network):
    """Convolutions at full size that estimate the noise: output = input - estimate (Zhang et al., IEEE TIP 2017).

    The first layer has no normalisation, the last neither normalisation nor activation, as in the paper, which has 17
    to 20 layers; 7 of 64 channels are enough for images of 32 x 32.

    Args:
        channels: of the images.
        width: channels of the layers between.
        layers: convolutions, 3 or more.
        batch_norm: normalise in between, as the paper does.
    """

    def __init__(self, channels: int = 3, width: int = 64, layers: int = 7, batch_norm: bool = True) -> None:
        super().__init__()
        _sizes(width=width, layers=layers)
        if layers < 3:
            raise ValueError(f"model.layers={layers}: must be 3 or more")
        body: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(layers - 2):
            body.append(nn.Conv2d(width, width, 3, padding=1, bias=not batch_norm))
            body += [nn.BatchNorm2d(width)] if batch_norm else []
            body.append(nn.ReLU(inplace=True))
        self.layers = nn.Sequential(*body, nn.Conv2d(width, channels, 3, padding=1))
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def body(self, image: Tensor) -> Tensor:
        return image - self.layers(image)


class _NAFBlock(nn.Module):
    """A block of NAFNet: gated depthwise convolution, then a gated layer, each after layer normalisation.

    Without its channel attention, a mean over the whole image, whose result would change with the size of the image.
    Both branches start at nothing, as in the paper.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.widen = nn.Conv2d(width, 2 * width, 1)
        self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.narrow = nn.Conv2d(width, width, 1)
        self.widen2, self.narrow2 = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(width, width, 1)
        self.beta, self.gamma = (nn.Parameter(torch.zeros(1, width, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.depthwise(self.widen(_channelwise(self.norm1, x))).chunk(2, 1)
        x = x + self.beta * self.narrow(a * b)
        a, b = self.widen2(_channelwise(self.norm2, x)).chunk(2, 1)
        return x + self.gamma * self.narrow2(a * b)


def _channelwise(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Layer normalisation over the channels of each pixel."""
    if torch.compiler.is_exporting():  # the exporter ties layer_norm to the number of images of its example
        variance, mean = torch.var_mean(x, 1, keepdim=True, correction=0)
        normal = (x - mean) * torch.rsqrt(variance + norm.eps)
        return normal * norm.weight[:, None, None] + norm.bias[:, None, None]
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), 3x3, without normalisation (Lim et al., CVPRW 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class _BlockUNet(Network):
    """A U-Net of blocks: 2x2 convolutions of stride 2 down, 1x1 convolutions and pixel shuffle up, skips are added.

    It estimates the noise: output = input - estimate.
    """

    def __init__(self, block: type[nn.Module], channels: int, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        _sizes(widths=widths)
        _sizes(0, blocks=blocks)
        if len(widths) != len(blocks):
            raise ValueError(f"model.widths={list(widths)} and model.blocks={list(blocks)}: must be equally many")
        self.multiple = 2 ** (len(widths) - 1)
        steps = list(pairwise(widths))

        def chain(width: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(block(width) for _ in range(count)))

        self.first = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(chain(w, n) for w, n in zip(widths, blocks, strict=True))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in steps)
        self.up = nn.ModuleList(nn.Conv2d(b, 4 * a, 1, bias=False) for a, b in reversed(steps))
        self.decoder = nn.ModuleList(chain(w, n) for w, n in reversed(list(zip(widths, blocks, strict=True))[:-1]))
        self.output = nn.Conv2d(widths[0], channels, 3, padding=1)
        nn.init.zeros_(self.output.weight)  # training starts from the noisy image itself
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def body(self, image: Tensor) -> Tensor:
        x = self.encoder[0](self.first(image))
        skips = []
        for down, blocks in zip(self.down, list(self.encoder)[1:], strict=True):
            skips.append(x)
            x = blocks(down(x))
        for up, blocks in zip(self.up, self.decoder, strict=True):
            x = blocks(F.pixel_shuffle(up(x), 2) + skips.pop())
        return image - self.output(x)


@final
class NAFNet(_BlockUNet):
    """NAFNet (Chen et al., ECCV 2022), a U-Net of blocks without activation functions, see _NAFBlock.

    Args:
        channels: of the images.
        widths: channels at each size, the image's own first.
        blocks: blocks at each size, on the way down and again on the way up.
    """

    def __init__(
        self, channels: int = 3, widths: Sequence[int] = (32, 64, 128), blocks: Sequence[int] = (2, 2, 2)
    ) -> None:
        super().__init__(_NAFBlock, channels, widths, blocks)


@final
class DRUNet(_BlockUNet):
    """A U-Net of residual blocks, as DRUNet (Zhang et al., IEEE TPAMI 2022) but smaller and blind: no noise map.

    Args:
        channels, widths, blocks: see NAFNet.
    """

    def __init__(
        self, channels: int = 3, widths: Sequence[int] = (32, 64, 96), blocks: Sequence[int] = (2, 2, 2)
    ) -> None:
        super().__init__(_ResidualBlock, channels, widths, blocks)


@final
class Noise2NoiseUNet(Network):
    """The U-Net of the Noise2Noise paper (Lehtinen et al., ICML 2018, appendix table 2): 991,203 parameters for RGB.

    3x3 convolutions, LeakyReLU 0.1 after all but the last, He initialisation, no normalisation. It works on values
    shifted to [-0.5, 0.5].

    Args:
        channels: of the images.
    """

    multiple = 32

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(channels, 48, 3, padding=1)
        self.encoder = nn.ModuleList(nn.Conv2d(48, 48, 3, padding=1) for _ in range(6))
        inputs = (96, 144, 144, 144)
        self.decoder = nn.ModuleList(_block(n, 96) for n in inputs)
        self.dec1a, self.dec1b = nn.Conv2d(96 + channels, 64, 3, padding=1), nn.Conv2d(64, 32, 3, padding=1)
        self.output = nn.Conv2d(32, channels, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.1)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def body(self, image: Tensor) -> Tensor:
        image = image - 0.5
        skips = [image]
        x = F.leaky_relu(self.conv0(image), 0.1)
        for layer in list(self.encoder)[:5]:  # conv1 .. conv5, each with pooling
            x = F.max_pool2d(F.leaky_relu(layer(x), 0.1), 2)
            skips.append(x)
        skips.pop()  # pool5 is the way down, not a skip
        x = F.leaky_relu(self.encoder[5](x), 0.1)
        for block in self.decoder:  # upsample5 .. upsample2, with pool4 .. pool1
            x = block(torch.cat((F.interpolate(x, scale_factor=2, mode="nearest"), skips.pop()), 1))
        x = torch.cat((F.interpolate(x, scale_factor=2, mode="nearest"), skips.pop()), 1)
        x = F.leaky_relu(self.dec1b(F.leaky_relu(self.dec1a(x), 0.1)), 0.1)
        return self.output(x) + 0.5
