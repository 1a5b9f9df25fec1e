"""Where noisy pairs come from, and how they reach the training device. One file per choice of conf/data/."""

from n2n_lightning.data.batches import Key
from n2n_lightning.data.course import Course
from n2n_lightning.data.images import Images
from n2n_lightning.data.module import NoisyPairs
from n2n_lightning.data.movie import Movie
from n2n_lightning.data.pairs import OwnPairs
from n2n_lightning.data.photos import Photos
from n2n_lightning.data.single import OwnSingle

__all__ = ["Course", "Images", "Key", "Movie", "NoisyPairs", "OwnPairs", "OwnSingle", "Photos"]
