"""Changes added to the frames around one: a network learns when not to trust them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.devices.copies import sent

RADII = (1.5, 10.0)  # pixels: from points to cells
# In standard deviations of the noise of a pixel: from changes that a cell's mean alone shows, to
# those that every pixel shows.
STRENGTHS = (0.5, 3.0)
DISCS = 16  # of a window of 64 x 64, each present in half of them; 6 did half as much
WINDOW = 64 * 64
NORMAL_QUARTILE = 0.6745  # the median of |x|, x normal with a standard deviation of 1
SIDES = 3  # the frames before, after, or both


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
        size = axes.size(frames[:, 0])
        height, width = size[-2:]
        discs = max(1, round(DISCS * height * width / WINDOW))
        shape = (len(frames), discs)
        masks = _soft_discs(shape, size, draws)
        in_window = torch.rand(len(frames), 1, generator=draws) < self.share
        half = torch.rand(shape, generator=draws) < 0.5
        strengths = _log_uniform(STRENGTHS, shape, draws)
        negative = torch.randint(2, shape, generator=draws).bool()
        signed = torch.where(negative, -strengths, strengths)
        present = torch.where(in_window & half, signed, 0)
        amounts = present * _noise(frames).cpu()[:, None]
        direction = torch.randint(SIDES, shape, generator=draws)[:, None]
        at = distances.cpu()[:, :, None]
        before = at < 0
        after = at > 0
        shown = (before & (direction != 1)) | (after & (direction != 0))
        weights = torch.where(shown, amounts[:, None], 0)
        added = torch.einsum("bfs,bs...->bf...", weights, masks)
        return frames + sent(added[:, :, None], frames.device)


def _log_uniform(
    limits: tuple[float, float], shape: tuple[int, ...], draws: torch.Generator
) -> Tensor:
    """Draw numbers whose logarithm is uniform between those of the limits."""
    low, high = torch.tensor(limits).log()
    u = torch.rand(shape, generator=draws)
    return (low + (high - low) * u).exp()


def _soft_discs(shape: tuple[int, int], size: tuple[int, ...], draws: torch.Generator) -> Tensor:
    """Draw discs, or balls, with soft edges: (B, discs, H, W) or (B, discs, D, H, W)."""
    ones = [1] * len(size)
    radii = _log_uniform(RADII, shape, draws)
    squares = torch.zeros(*shape, *ones)
    for axis, length in enumerate(size):
        center = length * torch.rand(*shape, 1, generator=draws)
        along = torch.arange(length) + 0.5 - center
        sides = list(ones)
        sides[axis] = length
        squares = squares + along.square().reshape(*shape, *sides)
    edge = radii.reshape(*shape, *ones) + 0.5
    return (edge - squares.sqrt()).clamp(0, 1)


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
