"""SUPPORT's way with movies, built from parts of this project: a network blind to its middle pixel.

Eom et al. (Nature Methods 2023) train with the noisy frame itself as target: their network sees the
frames around it, and of the frame all but the pixel that is predicted, in training and in use. It
is not on the package index; this is its principle with the network, crops and steps of
benchmarks/movies.py, for a comparison in equal time, not their software.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from n2n_lightning.networks import DRUNet

CONTEXT = 2  # frames on either side
DILATIONS = (1, 2, 4, 8)  # doubled, so that no sum of offsets is zero
FEATURES = 16
CROP = 64
BATCH = 16
LEARNING_RATE = 0.002


class HoleConv(nn.Conv2d):
    """A 3 x 3 convolution that does not see the pixel in the middle."""

    def __init__(self, channels: int, out_channels: int, dilation: int) -> None:
        super().__init__(channels, out_channels, 3, padding=dilation, dilation=dilation)
        hole = torch.ones(3, 3)
        hole[1, 1] = 0
        self.register_buffer("hole", hole)

    def forward(self, images: Tensor) -> Tensor:
        return self._conv_forward(images, self.weight * self.hole, self.bias)


class BlindSpotNetwork(nn.Module):
    """Predict each pixel of the middle frame from everything but itself.

    Input (B, 2n + 1, H, W), frames in order of time; output (B, 1, H, W).
    """

    def __init__(self) -> None:
        super().__init__()
        around = 2 * CONTEXT
        self.around = DRUNet(around, [16, 32, 64], [1, 1, 1], out_channels=1)
        self.features = nn.Conv2d(around + 1, FEATURES, 3, padding=1)
        layers = []
        for i, dilation in enumerate(DILATIONS):
            layers.append(HoleConv(FEATURES if i else 1, FEATURES, dilation))
        self.middle = nn.ModuleList(layers)
        seen = FEATURES * (len(DILATIONS) + 1)
        self.last = nn.Sequential(nn.Conv2d(seen, 32, 1), nn.ReLU(), nn.Conv2d(32, 1, 1))

    def forward(self, frames: Tensor) -> Tensor:
        middle = frames[:, CONTEXT : CONTEXT + 1]
        others = torch.cat([frames[:, :CONTEXT], frames[:, CONTEXT + 1 :]], 1)
        guess = self.around(others)
        features = self.features(torch.cat([others, guess], 1))
        maps = [features]
        seen = middle
        for layer in self.middle:
            # what the neighbouring frames show at the pixel itself may be seen
            seen = functional.relu(layer(seen)) + features
            maps.append(seen)
        return guess + self.last(torch.cat(maps, 1))


def windows(movie: Tensor) -> Tensor:
    """Return the frames around each frame, (T, 2n + 1, H, W); the end frames are repeated."""
    last = len(movie) - 1
    numbers = torch.arange(len(movie))[:, None] + torch.arange(-CONTEXT, CONTEXT + 1)
    return movie[numbers.clamp(0, last)]


def denoise(stored: np.ndarray, crops: int, seed: int = 0) -> np.ndarray:
    """Train on a movie, and denoise it.

    Args:
        stored: noisy, (T, H, W).
        crops: of 64 x 64, in all.
        seed: of weights and crops.

    Returns:
        The movie, (T, H, W), in its unit.
    """
    torch.manual_seed(seed)
    low, high = np.percentile(stored, (0.1, 99.9))
    movie = torch.from_numpy((stored - low) / (high - low)).float()
    frames = windows(movie)
    # a copy of the frame in the middle would show it the pixel that it has to predict
    usable = range(CONTEXT, len(movie) - CONTEXT)
    network = BlindSpotNetwork()
    optimiser = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    steps = crops // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        batch = []
        for _ in range(BATCH):
            t = usable[int(torch.randint(len(usable), ()))]
            row = int(torch.randint(movie.shape[1] - CROP + 1, ()))
            column = int(torch.randint(movie.shape[2] - CROP + 1, ()))
            batch.append(frames[t, :, row : row + CROP, column : column + CROP])
        shown = torch.stack(batch)
        difference = network(shown) - shown[:, CONTEXT : CONTEXT + 1]
        # the mean of both losses, as in the paper's methods
        loss = difference.abs().mean() / 2 + difference.square().mean() / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.inference_mode():
        denoised = torch.cat([network(frames[t : t + 1])[0] for t in range(len(frames))])
    return denoised.double().numpy() * (high - low) + low
