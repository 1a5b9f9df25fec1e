"""PSNR of a mean squared error, for images with values in [0, 1]."""

import math
from typing import Any


def psnr(error: float) -> float:
    """Return the PSNR of a mean squared error.

    Returns:
        10 log10(1 / error), in dB; infinite for 0 or less, NaN for NaN.
    """
    if error <= 0:
        return math.inf
    return -10 * math.log10(error)


def psnr_of_each(errors: Any) -> Any:
    """Return the PSNR of each error of an array; all are larger than 0.

    Returns:
        10 log10(1 / error), in dB, in the shape of `errors`.
    """
    import numpy as np  # not at the top: run folders are read without NumPy

    return -10 * np.log10(errors)
