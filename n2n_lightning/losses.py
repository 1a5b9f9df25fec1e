"""Losses between a denoised image and its target, in float32.

Pixels that the target does not have are NaN in it and count neither in the value nor in the
gradient: missing pixels of a sensor, and the masked loss of the paper's Bernoulli experiment
(Lehtinen et al., ICML 2018, section 3.2).
"""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor, nn


class Loss(nn.Module):
    """The mean over the target's pixels of a penalty of each; 0 where the target has no pixel at all.

    Call with two tensors of equal shape; returns a scalar.

    >>> output, target = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 2.0], [3.0, torch.nan]]]])
    >>> L2()(output, target).item(), L1()(output, target).item()
    (4.666666507720947, 2.0)
    """

    def penalty(self, output: Tensor, target: Tensor) -> Tensor:
        """The penalty of each pixel, in the shape of the two."""
        raise NotImplementedError

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        if output.shape != target.shape:
            raise ValueError(
                f"the network returns {tuple(output.shape)} where the target is {tuple(target.shape)}"
            )
        present = ~target.isnan()
        # The missing targets are replaced before the arithmetic: 0 * NaN in the backward pass would
        # still be NaN.
        penalty = self.penalty(output, torch.where(present, target, output.detach()))
        return torch.where(present, penalty, 0).sum() / present.sum().clamp(min=1)


class L2(Loss):
    """(output - target)^2: learns the mean of the targets, right for noise of zero mean (paper, equation 5)."""

    def penalty(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square()


class L1(Loss):
    """|output - target|: learns the median of the targets, right for text and other overlays (paper, section 3.2)."""

    def penalty(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).abs()


class L0(Loss):
    """(|output - target| + 1e-8)^gamma, gamma falling from 2 to 0 over the run: learns the mode (paper, section 3.2).

    `progress`, from 0 to 1, is the share of the run that is done; whoever trains sets it before
    each step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.progress = 0.0

    def penalty(self, output: Tensor, target: Tensor) -> Tensor:
        return ((output - target).abs() + 1e-8) ** (2 * (1 - self.progress))


class HDR(Loss):
    """(output - target)^2 / (output + 0.01)^2 for images of high dynamic range (paper, section 3.3).

    The denominator passes no gradient, or the loss would not learn the mean; outputs below 0 count
    as 0 in it.
    """

    def penalty(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square() / (output.detach().clamp(min=0) + 0.01).square()


class LogL2(Loss):
    """The mean over images of log((mean squared error of the image) + (0.5/255)^2): the mean of their PSNRs.

    Images with weak noise count as much as those with strong noise, whose errors are thousands of
    times larger. For clean targets: the errors against noisy ones are mostly those of the targets.
    """

    def penalty(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        means = torch.stack(
            [super(LogL2, self).forward(*image) for image in zip(output, target, strict=True)]
        )
        return (means + (0.5 / 255) ** 2).log().mean()


class Neighbor2NeighborRegularizer(nn.Module):
    """The regulariser of Neighbor2Neighbor (Huang et al., CVPR 2021, equation 6), a second pass through the network.

    gamma |f(g1) - g2 - (g1(f(y)) - g2(f(y)))|^2, where g1 and g2 take one pixel each of every 2 x 2
    cell of y: what the two differ by beside their noise is in the denoised image, too, and is no
    error of f. f(y) has no gradient. Its weight rises with `progress`, from 0 to 1, to gamma at the
    end of the run.

    A second pass of one's own is made like this: a loss with a method `second_pass(denoise, batch,
    output)` whose result is added to it; `batch` is what the data hand on.
    """

    def __init__(self, gamma: float = 1.0) -> None:
        super().__init__()
        self.gamma, self.progress = gamma, 0.0

    def second_pass(
        self, denoise: Callable[[Tensor], Tensor], batch: dict[str, Tensor], output: Tensor
    ) -> Tensor:
        """What is added to the loss.

        Args:
            denoise: the network.
            batch: with `whole`, `cells` and `target`, as data.methods.Neighbours makes them.
            output: f(g1).
        """
        with torch.no_grad():
            whole = denoise(batch["whole"])
            first, second = (subsampled(whole, batch["cells"][:, i]) for i in (0, 1))
        target = batch["target"] + first - second
        return self.gamma * self.progress * L2()(output, target)


def subsampled(images: Tensor, cells: Tensor) -> Tensor:
    """Of each 2 x 2 cell of (B, C, H, W) the pixel with a number, (B, H/2, W/2) in 0 1 / 2 3: (B, C, H/2, W/2).

    Of (B, C, D, H, W) each plane for itself.

    >>> subsampled(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[[2]]])).item()
    3.0
    """
    four = torch.stack([images[..., i::2, j::2] for i, j in product((0, 1), (0, 1))])
    index = cells[:, None].expand(four.shape[1:])
    return four.gather(0, index[None])[0]
