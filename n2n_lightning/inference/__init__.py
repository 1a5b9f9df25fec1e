"""From a checkpoint and an array to a denoised array."""
