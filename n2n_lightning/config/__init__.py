"""The configuration as people type it: overrides, and what is wrong with them."""
