"""Noise2Noise experiments: train image denoisers from pairs of noisy images, without clean targets."""

__version__ = "0.1.0"
