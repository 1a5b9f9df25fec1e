"""Sources of noisy pairs, one file per choice of conf/data/."""

from n2n_lightning.data.course import Course
from n2n_lightning.data.datamodule import NoisyPairs
from n2n_lightning.data.images import Images
from n2n_lightning.data.movie import Movie
from n2n_lightning.data.pairs import PairedImages
from n2n_lightning.data.photo_movies import PhotoMovies
from n2n_lightning.data.photos import Photos
from n2n_lightning.data.samplers import BatchIndex
from n2n_lightning.data.single_image import SingleImages

__all__ = [
    "BatchIndex",
    "Course",
    "Images",
    "Movie",
    "NoisyPairs",
    "PairedImages",
    "PhotoMovies",
    "Photos",
    "SingleImages",
]
