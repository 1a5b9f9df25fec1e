"""Networks of the report: the baseline and the U-Net of its Table 1."""

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from n2n_lightning.networks.network import Network


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    """Return a 3x3 convolution, batch normalisation, which has the bias, and LeakyReLU 0.1."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding="same", bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.1, inplace=True),
    )


def _output(inputs: int, channels: int) -> nn.Sequential:
    """Return the report's 1x1 output with ReLU.

    It starts at mid-grey: below zero the ReLU passes no gradient back.
    """
    convolution = nn.Conv2d(inputs, channels, 1)
    nn.init.constant_(convolution.bias, 0.5)  # type: ignore[arg-type]
    return nn.Sequential(convolution, nn.ReLU())


class _ReportNetwork(Network):
    """Encoder of the report's networks: c0..c6, 48 channels, 2x2 pooling after c1..c5."""

    multiple = 32

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.c0 = _layer(channels, 48)
        self.c1 = _layer(48, 48)
        self.c2 = _layer(48, 48)
        self.c3 = _layer(48, 48)
        self.c4 = _layer(48, 48)
        self.c5 = _layer(48, 48)
        self.c6 = _layer(48, 48)
        self.pool = nn.MaxPool2d(2)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")

    def encode(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encode images.

        Returns:
            The deepest map, 48 channels at 1/32 of the size, and the pooled maps at 1/2, 1/4, 1/8
            and 1/16.
        """
        x = self.c0(image)
        pooled = []
        for layer in (self.c1, self.c2, self.c3, self.c4, self.c5):
            x = self.pool(layer(x))
            pooled.append(x)
        return self.c6(x), pooled[:-1]


@final
class EncoderDecoder(_ReportNetwork):
    """Baseline of the report: 7 encoder and 11 decoder layers, no skip connections.

    12.11 dB in the report.
    The decoder is the U-Net's of Table 1 without its skip connections and transposed convolutions.
    """

    def __init__(self, channels: int = 3, out_channels: int | None = None) -> None:
        super().__init__(channels)
        self.dec5a = _layer(48, 96)
        self.dec5b = _layer(96, 96)
        self.dec4a = _layer(96, 96)
        self.dec4b = _layer(96, 96)
        self.dec3a = _layer(96, 96)
        self.dec3b = _layer(96, 96)
        self.dec2a = _layer(96, 64)
        self.dec2b = _layer(64, 64)
        self.dec1a = _layer(64, 32)
        self.dec1b = _layer(32, 32)
        self.output = _output(32, out_channels or channels)

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
    """U-Net of the report, its Table 1 (22.96 dB in the report).

    Interpreted so that every number of the table fits: `up` counts the channels after nearest
    upsampling and concatenation with the pooled map of that size (the last has none), `ct` is a 3x3
    transposed convolution of stride 1.
    """

    def __init__(self, channels: int = 3, out_channels: int | None = None) -> None:
        super().__init__(channels)
        self.ct5 = _transposed(96, 144)
        self.dec5a = _layer(144, 96)
        self.dec5b = _layer(96, 96)
        self.ct4 = _transposed(144, 144)
        self.dec4a = _layer(144, 96)
        self.dec4b = _layer(96, 96)
        self.ct3 = _transposed(144, 144)
        self.dec3a = _layer(144, 96)
        self.dec3b = _layer(96, 96)
        self.ct2 = _transposed(144, 144)
        self.dec2a = _layer(144, 64)
        self.dec2b = _layer(64, 64)
        self.ct1 = _transposed(64, 64)
        self.dec1a = _layer(64, 32)
        self.dec1b = _layer(32, 32)
        self.output = _output(32, out_channels or channels)

    def body(self, image: Tensor) -> Tensor:
        x, (half, quarter, eighth, sixteenth) = self.encode(image)
        x = self.ct5(self._up_and_join(x, sixteenth))
        x = self.dec5b(self.dec5a(x))
        x = self.ct4(self._up_and_join(x, eighth))
        x = self.dec4b(self.dec4a(x))
        x = self.ct3(self._up_and_join(x, quarter))
        x = self.dec3b(self.dec3a(x))
        x = self.ct2(self._up_and_join(x, half))
        x = self.dec2b(self.dec2a(x))
        x = self.ct1(self.up(x))
        x = self.dec1b(self.dec1a(x))
        return self.output(x)

    def _up_and_join(self, x: Tensor, skip: Tensor) -> Tensor:
        """Double the size of feature maps and append a skip connection."""
        upsampled = self.up(x)
        return torch.cat((upsampled, skip), 1)


class _Transposed(nn.ConvTranspose2d):
    """3x3 transposed convolution of stride 1, which keeps the size.

    Computed as a convolution with kernels turned by 180 degrees, which is faster on CPUs.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        turned = self.weight.transpose(0, 1).flip(2, 3)
        return F.conv2d(image, turned, self.bias, padding=1)


def _transposed(inputs: int, outputs: int) -> nn.Sequential:
    """Return the transposed convolution and LeakyReLU 0.1."""
    return nn.Sequential(
        _Transposed(inputs, outputs),
        nn.LeakyReLU(0.1, inplace=True),
    )
