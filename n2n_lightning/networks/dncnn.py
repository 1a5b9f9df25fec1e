"""DnCNN, convolutions at full size."""

from typing import final

from torch import Tensor, nn

from n2n_lightning.files import InputError
from n2n_lightning.networks.network import BATCH_NORM, CONVOLUTION, Network, checked_dims, sizes


@final
class DnCNN(Network):
    """Convolutions at full size that estimate the noise (Zhang et al., IEEE TIP 2017).

    output = input - estimate. The first layer has no normalisation, the last neither normalisation
    nor activation, as in the paper, which has 17 to 20 layers; 7 of 64 channels are enough for
    images of 32 x 32.

    Args:
        channels: of the images.
        width: channels of the inner layers.
        layers: convolutions, 3 or more.
        batch_norm: normalise the inner layers, as the paper does.
        out_channels: of the result, where the input has more channels: several frames.
        dims: 2 for images, 3 for volumes.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 64,
        layers: int = 7,
        batch_norm: bool = True,
        out_channels: int | None = None,
        dims: int = 2,
    ) -> None:
        super().__init__()
        convolution = CONVOLUTION[checked_dims(dims)]
        normalisation = BATCH_NORM[dims]
        self.out_channels = out_channels or channels
        sizes(width=width, layers=layers)
        if layers < 3:
            raise InputError("model.layers", layers, "must be 3 or more")
        body: list[nn.Module] = [convolution(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(layers - 2):
            body.append(convolution(width, width, 3, padding=1, bias=not batch_norm))
            if batch_norm:
                body.append(normalisation(width))
            body.append(nn.ReLU(inplace=True))
        self.layers = nn.Sequential(*body, convolution(width, self.out_channels, 3, padding=1))
        self.receptive_radius = layers  # a pixel for each 3x3 convolution
        for module in self.layers:
            if isinstance(module, convolution):
                nn.init.kaiming_normal_(module.weight)

    def body(self, image: Tensor) -> Tensor:
        return self.start(image, self.out_channels) - self.layers(image)
