"""Arrays of pixels: what their axes mean, their range of values, missing pixels and outliers."""
