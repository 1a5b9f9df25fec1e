"""A small network that judges the noise of one picture, block by block.

It sees the power of a picture in the 24 filters of a cosine transform of 5 x 5. Only ratios of
powers enter, so that the unit and the black level of a picture do not matter.
`benchmarks/train_noise_network.py` trains it.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("noise_network.npz")
CELL = 4  # pixels: side of the cells over which the power of a filter is averaged
NOISE_BLOCK = 8  # pixels: side of the blocks that are judged
FILTER_SIDE = 5  # pixels
FEATURES = 48
SURROUNDINGS = 9  # cells: side of the window whose mean power is the reference
POWER_FLOOR = 1e-8  # of the mean power of the picture: where it does not change at all
KINDS = ("white", "along rows", "along columns", "in all directions")
# rows and columns to the pixels whose correlation is judged
JUDGED_LAGS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0))


class BlockJudgement(NamedTuple):
    """What the network says of each block; each (B, rows, columns), or with one axis more.

    Attributes:
        white_variance: log of the noise's variance, were it white.
        white_error: log of the expected deviation of that.
        white_weight: log of the block's weight for it.
        variance: log of the noise's variance, whatever its correlation.
        weight: log of the block's weight for it and what follows.
        kinds: score of each of `KINDS`, (B, 4, rows, columns).
        correlations: at `JUDGED_LAGS`, (B, 6, rows, columns).
    """

    white_variance: Tensor
    white_error: Tensor
    white_weight: Tensor
    variance: Tensor
    weight: Tensor
    kinds: Tensor
    correlations: Tensor


class NoiseNetwork(nn.Module):
    """Judges the noise in blocks of 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        count = FILTER_SIDE**2 - 1
        self.register_buffer("filters", _cosines(), persistent=False)
        self.mix = nn.Conv2d(2 * count + 1, FEATURES, 1)
        self.reduce = nn.Conv2d(FEATURES, FEATURES, 3, stride=2, padding=1)
        self.near = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.far = nn.Conv2d(FEATURES, FEATURES, 3, padding=2, dilation=2)
        self.head = nn.Conv2d(FEATURES, 5 + len(KINDS) + len(JUDGED_LAGS), 1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    filters: Tensor

    def forward(self, image: Tensor) -> BlockJudgement:
        """Judge planes whose sides are multiples of 8.

        Args:
            image: (B, 1, H, W), in any unit, without NaN.
        """
        relative, reference = self._relative_power(image)
        x = F.relu(self.mix(relative))
        x = F.relu(self.reduce(x))
        x = x + F.relu(self.near(x))
        x = x + F.relu(self.far(x))
        out = self.head(x)
        of_block = F.avg_pool2d(reference, NOISE_BLOCK // CELL)[:, 0]
        return BlockJudgement(
            white_variance=out[:, 0] + of_block,
            white_error=out[:, 1].clamp(-5, 3),
            white_weight=out[:, 2],
            variance=out[:, 3] + of_block,
            weight=out[:, 4],
            kinds=out[:, 5 : 5 + len(KINDS)],
            correlations=out[:, 5 + len(KINDS) :].tanh(),
        )

    @torch.no_grad()
    def _relative_power(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return logs of the power of each filter in cells, and of the power around them.

        Returns:
            (B, 49, cell rows, cell columns), relative to the second, (B, 1, ...).
        """
        padded = F.pad(image, [FILTER_SIDE // 2] * 4, mode="reflect")
        filtered = F.conv2d(padded, self.filters)
        power = F.avg_pool2d(filtered.square(), CELL)
        magnitude = F.avg_pool2d(filtered.abs(), CELL).square()
        floor = POWER_FLOOR * power.mean((1, 2, 3), keepdim=True) + 1e-30
        log_power = (power + floor).log()
        log_magnitude = (magnitude + floor).log()
        level = log_power.mean(1, keepdim=True)
        half = SURROUNDINGS // 2
        reference = F.avg_pool2d(
            level, SURROUNDINGS, stride=1, padding=half, count_include_pad=False
        )
        relative = torch.cat([log_power, log_magnitude, level], 1) - reference
        return relative, reference


def _cosines() -> Tensor:
    """Return the filters of the cosine transform but for the constant, (24, 1, 5, 5)."""
    from scipy.fft import dct

    rows = dct(np.eye(FILTER_SIDE), norm="ortho", axis=0)
    planes = np.einsum("iy,jx->ijyx", rows, rows).reshape(-1, 1, FILTER_SIDE, FILTER_SIDE)
    return torch.from_numpy(planes[1:].astype(np.float32))


@cache
def noise_network() -> NoiseNetwork:
    """Return the network with the weights that come with the package."""
    network = NoiseNetwork()
    with np.load(WEIGHTS) as stored:
        weights = {name: torch.from_numpy(stored[name].astype(np.float32)) for name in stored}
    network.load_state_dict(weights)
    return network.eval()
