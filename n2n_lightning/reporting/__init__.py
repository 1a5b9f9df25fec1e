"""Reports for people: HTML pages, sliders between images, sample images of runs."""
