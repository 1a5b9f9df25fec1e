"""A widget of napari that denoises a layer; napari itself is no dependency."""
