"""Changes added to the frames around one: a network learns when not to trust them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from n2n_lightning.arrays import axes

RADII = (1.5, 10.0)  # pixels: from points to cells
# In standard deviations of the noise of a pixel: from changes that a cell's mean alone shows, to
# those that every pixel shows.
STRENGTHS = (0.5, 3.0)
SPOTS = 16  # of a window of 64 x 64, each present in half of them; 6 did half as much
WINDOW = 64 * 64
NORMAL_QUARTILE = 0.6745  # the median of |x|, x normal with a standard deviation of 1
DIRECTIONS = 3  # the frames before, after, or both


@dataclass(frozen=True)
class AddedChanges:
    """Adds soft discs to the frames around the one in the middle, never to that one itself.

    Events are rare in a movie: a network that is short of examples takes a part of what begins in
    a frame for noise, and shows a part of it in the frame before. Discs that the frames before or
    after show, and the middle one does not, are examples without end. The target stays what was
    captured, so what is learnt is the mean of the truth given what is shown.

    Attributes:
        share: of the windows that get discs.
    """

    share: float = 0.0

    def __call__(self, frames: Tensor, distances: Tensor, draws: torch.Generator) -> Tensor:
        """Return the frames with discs added.

        Args:
            frames: (B, F, C, H, W) or (B, F, C, D, H, W), NaN where a pixel is missing.
            distances: of each frame from the one in the middle, in frames, (B, F).
            draws: random generator, on the CPU.

        Returns:
            In that shape.
        """
        count = len(frames)
        size = axes.size(frames[:, 0])
        spots = max(1, round(SPOTS * torch.Size(size[-2:]).numel() / WINDOW))
        masks = _discs(count, spots, size, draws)
        present = torch.rand(count, 1, generator=draws) < self.share
        present = present & (torch.rand(count, spots, generator=draws) < 0.5)
        strengths = _log_uniform(STRENGTHS, (count, spots), draws)
        signs = torch.randint(2, (count, spots), generator=draws) * 2 - 1
        amounts = present * signs * strengths * _noise(frames).cpu()[:, None]
        direction = torch.randint(DIRECTIONS, (count, spots), generator=draws)
        distances = distances.cpu()[:, :, None]
        before = (distances < 0) & (direction != 1)[:, None]
        after = (distances > 0) & (direction != 0)[:, None]
        weights = (before | after) * amounts[:, None]
        added = torch.einsum("bfs,bs...->bf...", weights, masks)
        return frames + added[:, :, None].to(frames.device)


def _log_uniform(
    limits: tuple[float, float], shape: tuple[int, ...], draws: torch.Generator
) -> Tensor:
    """Draw numbers whose logarithm is uniform between those of the limits."""
    low, high = torch.tensor(limits).log()
    return (low + (high - low) * torch.rand(shape, generator=draws)).exp()


def _discs(count: int, spots: int, size: tuple[int, ...], draws: torch.Generator) -> Tensor:
    """Draw discs, or balls, with soft edges: (count, spots, H, W) or (count, spots, D, H, W)."""
    radii = _log_uniform(RADII, (count, spots), draws)
    squares = torch.zeros(count, spots, *[1] * len(size))
    for axis, length in enumerate(size):
        center = torch.rand(count, spots, 1, generator=draws) * length
        along = (torch.arange(length) + 0.5 - center).square()
        shape = [1] * len(size)
        shape[axis] = length
        squares = squares + along.reshape(count, spots, *shape)
    edge = radii.reshape(count, spots, *[1] * len(size))
    return (edge + 0.5 - squares.sqrt()).clamp(0, 1)


def _noise(frames: Tensor) -> Tensor:
    """Return the standard deviation of the noise of a pixel, (B,), from differences of frames."""
    middle = frames.shape[1] // 2
    medians = []
    for neighbour in (middle - 1, middle + 1):
        differences = (frames[:, middle] - frames[:, neighbour]).abs().flatten(1)
        medians.append(differences.nanmedian(1).values)
    # at an end of the movie one of them is the frame itself
    typical = torch.maximum(*medians).nan_to_num()
    return typical / (NORMAL_QUARTILE * 2**0.5)
