"""The page of `n2n serve`: look at pictures, preview denoising, write results."""
