"""Undersampled spectrum, as in MRI."""

import torch
from torch import Tensor

from n2n_lightning.arrays.axes import size
from n2n_lightning.noise.base import Noise, Strength, checked_strength, drawn


class KSpace(Noise):
    """MRI from few samples of the spectrum: noisy = F^-1(m F(clean) / p) (the paper, section 3.4).

    m ~ Bernoulli(p(k)), p(k) = exp(-decay |k|): each frequency k, in cycles per image, is measured
    with probability p(k) and weighted by 1/p(k), so that the mean over draws is the clean image.
    Real images have a symmetric spectrum: one half is drawn.

    Args:
        decay: 0.03 keeps about a tenth of the spectrum of a 256 x 256 image.
    """

    def __init__(self, decay: Strength = 0.03, frozen: bool = False) -> None:
        super().__init__(frozen)
        self.decay = checked_strength("decay", decay, 0, 1)

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        h, w = size(image)
        ky = torch.fft.fftfreq(h, 1 / h, device=image.device)
        kx = torch.fft.rfftfreq(w, 1 / w, device=image.device)
        frequency = (ky[:, None] ** 2 + kx**2).sqrt()
        decay = drawn(self.decay, image, generator)
        p = (-decay * frequency).exp()
        draws = torch.rand(p.shape, generator=generator, device=image.device)
        weight = (draws < p) / p
        spectrum = torch.fft.rfft2(image) * weight
        return torch.fft.irfft2(spectrum, s=(h, w))
