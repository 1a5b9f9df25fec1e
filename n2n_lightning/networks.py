"""Denoising networks: plain modules that know nothing of training.

Every network takes float images (B, C, H, W), values in [0, 1] up to noise, of any height and width, and returns the
denoised images in the same shape.
"""

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


def _transposed(inputs: int, outputs: int) -> nn.Sequential:
    """3x3 transposed convolution of stride 1, which keeps the size, and LeakyReLU 0.1."""
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.1, inplace=True))


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


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with LeakyReLU 0.1."""
    first, second = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
    return nn.Sequential(first, nn.LeakyReLU(0.1, inplace=True), second, nn.LeakyReLU(0.1, inplace=True))


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
