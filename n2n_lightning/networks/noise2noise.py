"""The U-Net of the Noise2Noise paper."""

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from n2n_lightning.networks.network import (
    CONVOLUTION,
    MAX_POOL,
    Network,
    checked_dims,
    two_convolutions,
    upsample_and_join,
)


@final
class Noise2NoiseUNet(Network):
    """U-Net of the Noise2Noise paper (Lehtinen et al., ICML 2018, appendix table 2).

    991,203 parameters for RGB: 3x3 convolutions, LeakyReLU 0.1 after all but the last, He
    initialisation, no normalisation. Works on values shifted to [-0.5, 0.5].

    Args:
        channels: of the images.
        out_channels: of the result, where the input has more channels: several frames.
        dims: 2 for images, 3 for volumes.

    >>> sum(parameter.numel() for parameter in Noise2NoiseUNet().parameters())
    991203
    """

    multiple = 32

    def __init__(self, channels: int = 3, out_channels: int | None = None, dims: int = 2) -> None:
        super().__init__()
        convolution = CONVOLUTION[checked_dims(dims)]
        self._pool = MAX_POOL[dims]
        self.conv0 = convolution(channels, 48, 3, padding=1)
        self.encoder = nn.ModuleList(convolution(48, 48, 3, padding=1) for _ in range(6))
        inputs = (96, 144, 144, 144)
        self.decoder = nn.ModuleList(two_convolutions(n, 96, dims) for n in inputs)
        self.dec1a = convolution(96 + channels, 64, 3, padding=1)
        self.dec1b = convolution(64, 32, 3, padding=1)
        self.output = convolution(32, out_channels or channels, 3, padding=1)
        for module in self.modules():
            if isinstance(module, convolution):
                nn.init.kaiming_normal_(module.weight, a=0.1)
                nn.init.zeros_(module.bias)

    def body(self, image: Tensor) -> Tensor:
        image = image - 0.5
        skips = [image]
        x = F.leaky_relu(self.conv0(image), 0.1)
        for layer in list(self.encoder)[:5]:  # conv1 .. conv5, each with pooling
            x = self._pool(F.leaky_relu(layer(x), 0.1), 2)
            skips.append(x)
        skips.pop()  # pool5 is no skip connection
        x = F.leaky_relu(self.encoder[5](x), 0.1)
        for block in self.decoder:  # upsample5 .. upsample2, with pool4 .. pool1
            x = block(upsample_and_join(x, skips.pop()))
        x = upsample_and_join(x, skips.pop())
        x = F.leaky_relu(self.dec1a(x), 0.1)
        x = F.leaky_relu(self.dec1b(x), 0.1)
        return self.output(x) + 0.5
