"""The best way to denoise some data: candidates, a budget, and scores without clean images."""
