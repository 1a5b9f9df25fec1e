"""Stein's unbiased risk estimate."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from n2n_lightning.metrics import sure
from n2n_lightning.metrics.noise_model import noise_line_of_residual


def test_steins_estimate_finds_the_best_of_several_filters():
    """Noise that grows with brightness; the estimate against the error, to 1/50 of the noise."""
    draws = np.random.default_rng(3)
    clean = gaussian_filter(draws.normal(size=(4, 128, 128)), (0, 6, 6)) * 4000 + 1000
    variance = 200 + 2 * clean
    noisy = clean + draws.normal(size=clean.shape) * np.sqrt(variance)
    widths = (0.5, 1.0, 2.0, 4.0, 8.0)
    smooth = [lambda image, width=w: gaussian_filter(image, width) for w in widths]
    images = list(noisy)
    images[0][3, 4] = np.nan
    found = [sure.sure(f, images[1:], (200.0, 2.0)) for f in smooth]
    truth = [np.mean((gaussian_filter(noisy[1:], (0, w, w)) - clean[1:]) ** 2) for w in widths]
    assert found == pytest.approx(truth, rel=0.02, abs=0.02 * variance.mean())
    assert np.argmin(found) == np.argmin(truth)
    a, b = noise_line_of_residual(images, list(clean))
    assert (a, b) == (pytest.approx(200, abs=120), pytest.approx(2, rel=0.1))
    assert sure.sure(lambda image: image, images[:1], (200.0, 2.0)) == pytest.approx(
        variance[0].mean(), rel=0.1
    )
    assert noise_line_of_residual([np.zeros((8, 8))], [np.zeros((8, 8))]) == (0.0, 0.0)
