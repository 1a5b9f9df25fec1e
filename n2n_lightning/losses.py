"""Losses between a denoised image and its target, in float32.

Pixels that the target does not have are NaN in it and count neither in the value nor in the gradient: missing pixels of
a sensor, and the masked loss of the paper's Bernoulli experiment (Lehtinen et al., ICML 2018, section 3.2).
"""

import torch
from torch import Tensor, nn


class Loss(nn.Module):
    """The mean over the target's pixels of a penalty of each; 0 where the target has no pixel at all.

    Call with two tensors of equal shape; returns a scalar.
    """

    def penalty(self, output: Tensor, target: Tensor) -> Tensor:
        """The penalty of each pixel, in the shape of the two."""
        raise NotImplementedError

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        present = ~target.isnan()
        # The missing targets are replaced before the arithmetic: 0 * NaN in the backward pass would still be NaN.
        penalty = self.penalty(output, torch.where(present, target, output.detach()))
        return torch.where(present, penalty, 0).sum() / present.sum().clamp(min=1)


class L2(Loss):
    """(output - target)^2: learns the mean of the targets, right for noise of zero mean (paper, equation 5)."""

    def penalty(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square()
