"""Movies: a network of single frames that is shown the mean of those that agree."""

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from n2n_lightning.networks.block_unet import DRUNet
from n2n_lightning.networks.network import Network, middle_frame

# Pixels of a side, in which frames are compared, and in which the change of a frame is kept. By
# `benchmarks/movies.py checkpoint`: 7 gains 0.4 dB more on still movies, but loses 5% of events of
# one frame and a tenth of a cell's brightness, where 5 loses 3.5%.
REGION = 5
NOISE_REGION = 9  # in which the noise is measured
# How far frames of a still place may differ, and how fast weights fall beyond it: the squared mean
# of a region, and its mean square, in units of those of noise. By the same benchmark lower ones,
# (1, 0.5) and (1.1, 0.1), lose 0.6 dB on still movies, and keep no more of the events.
CHANGE, CHANGE_FALL = 1.5, 1.0
ENERGY, ENERGY_FALL = 1.2, 0.15
FLAT = 0.05  # contrast of a region without structure: variance in units of that of the noise
SMALLEST = 1e-12  # variance, where there is no noise


@final
class TemporalDRUNet(Network):
    """DRUNet of grey frames, shown the weighted mean of a frame and of those around it.

    A first pass denoises the frame alone; what it removes is its noise. Frames around weigh less
    where they differ from it by more than noise does, so that a second pass, of the weighted mean,
    has less noise and nothing that moved (Dubois & Sabri, IEEE Trans. Commun. 1984, weight frames
    so). No comparison of frames can tell a faint event from noise. So what the first pass has more
    than the second is added to the result, smoothed along its structures by a guided filter (He,
    Sun & Tang, IEEE TPAMI 2013): a cell that lights up does so in its shape.

    Args:
        channels: frames that it is shown, an odd number; the middle one is denoised.
        widths, blocks, equivariant: of the DRUNet.
        out_channels: 1.
    """

    def __init__(
        self,
        channels: int = 5,
        widths: Sequence[int] = (32, 64, 96),
        blocks: Sequence[int] = (2, 2, 2),
        out_channels: int = 1,
        equivariant: bool = True,
    ) -> None:
        super().__init__()
        self.denoiser = DRUNet(out_channels, widths, blocks, equivariant=equivariant)
        self.equivariant = equivariant
        self.multiple = self.denoiser.multiple
        assert self.denoiser.receptive_radius
        self.receptive_radius = 2 * self.denoiser.receptive_radius + NOISE_REGION

    def body(self, image: Tensor) -> Tensor:
        middle = middle_frame(image, 1)
        alone = self.denoiser.body(middle)
        noise = middle - alone
        least = max(SMALLEST, torch.finfo(noise.dtype).tiny)
        variance = region_mean(noise.square(), NOISE_REGION).clamp(min=least)
        together = self.denoiser.body(self.averaged(image, middle, variance))
        return together + along_structures(alone - together, together, FLAT * variance)

    @staticmethod
    def averaged(frames: Tensor, middle: Tensor, variance: Tensor) -> Tensor:
        """Return the weighted mean of frames.

        Args:
            frames: (B, F, H, W).
            middle: the frame that is denoised, (B, 1, H, W).
            variance: of its noise, (B, 1, H, W), larger than 0.

        Returns:
            (B, 1, H, W).
        """
        of_difference = 2 * variance
        difference = frames - middle
        energy = region_mean(difference.square(), REGION)
        mean = region_mean(difference, REGION)
        squared_mean = REGION**2 * region_mean(mean.square(), REGION)
        change = F.relu(squared_mean / of_difference - CHANGE) / CHANGE_FALL
        excess = F.relu(energy / of_difference - ENERGY) / ENERGY_FALL
        weights = torch.exp(-change - excess)
        weights = weights * (energy > 0)  # a copy, as at the ends of a movie, adds nothing
        total = 1 + weights.sum(1, keepdim=True)
        return middle + (weights * difference).sum(1, keepdim=True) / total


def along_structures(change: Tensor, guide: Tensor, flat: Tensor) -> Tensor:
    """Smooth by a guided filter: in each region the result is linear in the guide.

    Args:
        change: (B, 1, H, W).
        guide: in that shape.
        flat: variance of the guide that is no structure, in that shape.

    Returns:
        In that shape.
    """
    mean_guide = region_mean(guide, REGION)
    mean_change = region_mean(change, REGION)
    covariance = region_mean(guide * change, REGION) - mean_guide * mean_change
    variance = region_mean(guide.square(), REGION) - mean_guide.square()
    slope = covariance / (variance.clamp(min=0) + flat)
    offset = mean_change - slope * mean_guide
    return region_mean(slope, REGION) * guide + region_mean(offset, REGION)


def region_mean(images: Tensor, side: int) -> Tensor:
    """Return the mean around each pixel, of what is inside of the image.

    Args:
        images: (B, C, H, W).
        side: of the region, in pixels, odd.

    Returns:
        In that shape.
    """
    return F.avg_pool2d(images, side, 1, side // 2, count_include_pad=False)
