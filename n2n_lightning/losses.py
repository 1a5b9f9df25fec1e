"""Losses between a denoised image and its target, in float32.

Missing pixels of the target are NaN and count neither in the value nor in the gradient: missing
pixels of a sensor, and the masked loss of the paper's Bernoulli experiment (Lehtinen et al., ICML
2018, section 3.2).
"""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

from n2n_lightning.files import InputError


class Loss(nn.Module):
    """Mean of a penalty over the known pixels of the target; 0 where none is known.

    Call with two tensors of equal shape; returns a scalar.

    >>> output, target = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 2.0], [3.0, torch.nan]]]])
    >>> L2()(output, target).item(), L1()(output, target).item()
    (4.666666507720947, 2.0)
    """

    def penalty(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the penalty of each pixel.

        Args:
            output: of the network, (B, C, H, W) or (B, C, D, H, W).
            target: in that shape, finite.

        Returns:
            In that shape.
        """
        raise NotImplementedError

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        _refuse_other_shape(output, target)
        total, count = self._sums(output, target, list(range(len(output.shape))))
        return total / count

    def _sums(self, output: Tensor, target: Tensor, over: list[int]) -> tuple[Tensor, Tensor]:
        """Sum the penalties of the known pixels over some axes, and count these: 1 at least."""
        present = ~target.isnan()
        # The missing targets are replaced before the arithmetic: 0 * NaN in the backward pass would
        # still be NaN.
        known = torch.where(present, target, output.detach())
        penalty = self.penalty(output, known)
        total = torch.where(present, penalty, 0).sum(over)
        return total, present.sum(over).clamp(min=1)


def _refuse_other_shape(output: Tensor, target: Tensor) -> None:
    if output.shape != target.shape:
        shape = tuple(output.shape)
        wanted = tuple(target.shape)
        raise ValueError(f"the network returns {shape} where the target is {wanted}")


class L2(Loss):
    """(output - target)^2 learns the mean of the targets: for noise of zero mean (equation 5)."""

    def penalty(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square()


class L1(Loss):
    """|output - target| learns the median of the targets: for text on images (section 3.2)."""

    def penalty(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).abs()


class L0(Loss):
    """(|output - target| + 1e-8)^gamma learns the mode of the targets (section 3.2).

    gamma falls from 2 to 0 over the run.

    Attributes:
        progress: share of the run that is done, 0 to 1; the training loop sets it before each step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.progress = 0.0

    def penalty(self, output: Tensor, target: Tensor) -> Tensor:
        gamma = 2 * (1 - self.progress)
        return ((output - target).abs() + 1e-8) ** gamma


class HDR(Loss):
    """(output - target)^2 / (output + 0.01)^2 for images of high dynamic range (section 3.3).

    The denominator passes no gradient, or the loss would not learn the mean; outputs below 0 count
    as 0 in it.
    """

    def penalty(self, output: Tensor, target: Tensor) -> Tensor:
        brightness = output.detach().clamp(min=0) + 0.01
        return (output - target).square() / brightness.square()


class LogL2(Loss):
    """Mean over images of log(mean squared error + (0.5/255)^2), which is linear in the mean PSNR.

    Images with weak noise count as much as those with strong noise, whose errors are thousands of
    times larger. For clean targets only: errors against noisy targets are mostly their noise.
    """

    def penalty(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        _refuse_other_shape(output, target)
        total, count = self._sums(output, target, list(range(1, len(output.shape))))
        errors = total / count
        half_step = 0.5 / 255  # of 8 bit
        return (errors + half_step**2).log().mean()


class RegionalLogL2(LogL2):
    """LogL2, and the squared bias of regional means, as a share of the mean squared error.

    The mean squared error alone lets a network take faint events for noise. The same window with
    other noise has errors e1 and e2; as the noises are independent, the mean of (G e1) (G e2) over
    pixels, G a mean over `side` x `side` pixels, is an unbiased estimate of the squared bias of
    what a region's mean shows.

    Args:
        weight: of the bias.
        side: of the regions, in pixels.
    """

    def __init__(self, weight: float = 4.0, side: int = 7) -> None:
        super().__init__()
        self.weight = weight
        self.side = side

    def second_pass(
        self,
        denoise: Callable[[Tensor], Tensor],
        batch: dict[str, Tensor],
        output: Tensor,
    ) -> Tensor:
        """Return the term to add to the loss.

        Args:
            denoise: the network, not used.
            batch: with `window`: rows 0 and 1, 2 and 3, ... are of one window each, see
                data.photo_movies.PhotoMovies; and `target`, clean, (B, C, H, W).
            output: of the network, in the shape of the target.

        Returns:
            A scalar; it may be below 0.
        """
        if "window" not in batch:
            raise InputError("loss", "regional", "needs data=photo_movies, which has noise twice")
        error = output - batch["target"]
        power = error.detach().square().flatten(1).mean(1) + (0.5 / 255) ** 2
        region = functional.avg_pool2d(error, self.side, stride=1)
        squared_bias = (region[0::2] * region[1::2]).flatten(1).mean(1)
        power_of_window = (power[0::2] + power[1::2]) / 2
        return self.weight * (squared_bias / power_of_window).mean()


class Neighbor2NeighborRegularizer(nn.Module):
    """Regulariser of Neighbor2Neighbor (Huang et al., CVPR 2021, equation 6).

    gamma |f(g1) - g2 - (g1(f(y)) - g2(f(y)))|^2, where g1 and g2 take one pixel each of every 2 x 2
    cell of y: differences of the two beyond their noise are in the denoised image, too, and are no
    error of f. f(y) has no gradient. The weight rises over the run, to gamma at its end.

    Other losses may have a second pass through the network in the same way: the result of their
    method `second_pass(denoise, batch, output)` is added to the loss.

    Args:
        gamma: weight at the end of the run.

    Attributes:
        progress: share of the run that is done, 0 to 1; the training loop sets it before each step.
    """

    def __init__(self, gamma: float = 1.0) -> None:
        super().__init__()
        self.gamma = gamma
        self.progress = 0.0

    def second_pass(
        self,
        denoise: Callable[[Tensor], Tensor],
        batch: dict[str, Tensor],
        output: Tensor,
    ) -> Tensor:
        """Return the term to add to the loss.

        Args:
            denoise: the network.
            batch: with `whole`, `cells` and `target`, see data.self_supervised.Neighbor2Neighbor.
            output: f(g1).

        Returns:
            A scalar.
        """
        with torch.no_grad():
            whole = denoise(batch["whole"])
            first_cells, second_cells = batch["cells"].unbind(1)
            first = subsampled(whole, first_cells)
            second = subsampled(whole, second_cells)
        target = batch["target"] + first - second
        return self.gamma * self.progress * L2()(output, target)


def subsampled(images: Tensor, cells: Tensor) -> Tensor:
    """Take one pixel of each 2 x 2 cell of images, or of the planes of volumes.

    Args:
        images: (B, C, H, W) or (B, C, D, H, W).
        cells: number of the pixel in each cell, 0 1 above 2 3: (B, H/2, W/2), or (B, D, H/2, W/2).

    Returns:
        (B, C, H/2, W/2) or (B, C, D, H/2, W/2).

    >>> subsampled(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[[2]]])).item()
    3.0
    """
    offsets = product((0, 1), (0, 1))
    four = torch.stack([images[..., dy::2, dx::2] for dy, dx in offsets])
    index = cells[:, None].expand(four.shape[1:])
    return four.gather(0, index[None])[0]
