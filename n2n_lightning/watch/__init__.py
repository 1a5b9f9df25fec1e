"""`n2n watch`: pictures are denoised as an instrument writes them."""
