"""The names that the sources of data had in the first version: n2n_lightning.data has them now."""

from n2n_lightning.data import Course, Images, NoisyPairs, OwnPairs, Photos

__all__ = ["Course", "Images", "NoisyPairs", "OwnPairs", "Photos"]
