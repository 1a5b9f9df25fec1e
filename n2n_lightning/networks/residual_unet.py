"""Default network: a U-Net that estimates the noise."""

from itertools import pairwise
from typing import final

from torch import Tensor, nn

from n2n_lightning.networks.network import (
    CONVOLUTION,
    MAX_POOL,
    Network,
    checked_dims,
    receptive_radius_of,
    sizes,
    two_convolutions,
    upsample_and_join,
)


@final
class ResidualUNet(Network):
    """U-Net of blocks of two 3x3 convolutions that estimates the noise: output = input - estimate.

    Ronneberger et al., MICCAI 2015, with the residual output of DnCNN (Zhang et al., TIP 2017),
    nearest upsampling and LeakyReLU 0.1 (Lehtinen et al., ICML 2018), without normalisation, which
    helps little in denoising U-Nets.

    Args:
        channels: of the images.
        width: channels of the first level; each level below has twice as many.
        levels: number of sizes that the network works at, full size included.
        out_channels: of the result, where the input has more channels: several frames.
        dims: 2 for images, 3 for volumes.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 32,
        levels: int = 3,
        out_channels: int | None = None,
        dims: int = 2,
    ) -> None:
        super().__init__()
        convolution = CONVOLUTION[checked_dims(dims)]
        self._pool = MAX_POOL[dims]
        self.out_channels = out_channels or channels
        sizes(width=width, levels=levels)
        self.multiple = 2 ** (levels - 1)
        # two convolutions of 3x3 at each size, and the last
        self.receptive_radius = receptive_radius_of([2] * levels) + 1
        widths = [width * 2**level for level in range(levels)]
        steps = zip([channels, *widths], widths, strict=False)
        self.encoder = nn.ModuleList(two_convolutions(a, b, dims) for a, b in steps)
        self.decoder = nn.ModuleList(
            two_convolutions(a + b, a, dims) for a, b in reversed(list(pairwise(widths)))
        )
        self.output = convolution(width, self.out_channels, 3, padding=1)
        for module in self.modules():
            if isinstance(module, convolution):
                nn.init.kaiming_normal_(module.weight, a=0.1)
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.output.weight)  # training starts from the noisy image itself

    def body(self, image: Tensor) -> Tensor:
        skips = [self.encoder[0](image)]
        for block in list(self.encoder)[1:]:
            skips.append(block(self._pool(skips[-1], 2)))
        x = skips.pop()
        for block in self.decoder:
            x = block(upsample_and_join(x, skips.pop()))
        return self.start(image, self.out_channels) - self.output(x)
