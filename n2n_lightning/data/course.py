"""The report's files."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.data.datamodule import NoisyPairs
from n2n_lightning.data.datasets import Captures, Pairs
from n2n_lightning.data.options import size_of
from n2n_lightning.data.scene_set import EqualSizeScenes
from n2n_lightning.files import InputError, load_torch, sha256


class Course(NoisyPairs):
    """The report's files in the folder `root`, as the course wrote them with torch.save.

    `train_data.pkl` is a tuple of two uint8 tensors (N, 3, H, W), two noisy versions of each image;
    `val_data.pkl` a tuple (noisy, clean) of the same kind. The report has N = 50,000 and 1,000, H =
    W = 32.

    Args:
        root: the folder.
        train_pairs: how many of the training pairs to use, from the first; all if None.
        val_pairs: the same for validation.
        swap: let either image of a pair be the input, at random.
        **common: see NoisyPairs.
    """

    def __init__(
        self,
        root: str,
        train_pairs: int | None = None,
        val_pairs: int | None = None,
        swap: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.root = Path(root)
        self.train_pairs = train_pairs
        self.val_pairs = val_pairs
        self.swap = swap
        if self.supervised:
            raise InputError(
                "target",
                "clean",
                "data=course has no clean training images; data=photos and data=images have",
            )

    def setup(self, stage: str | None = None) -> None:
        """Read the files, see NoisyPairs; to validate, train_data.pkl may be missing."""
        if stage != "validate" or self.val is not None or (self.root / "train_data.pkl").exists():
            super().setup(stage)
            return
        path = self.root / "val_data.pkl"
        noisy, clean = read_course(path, self.val_pairs, "data.val_pairs")
        self.fingerprint = {
            "name": "course",
            "val": len(noisy),
            "sha256": {path.name: sha256(path)},
        }
        self.val = Pairs(noisy, clean)

    def load(self) -> tuple[Dataset, Dataset]:
        """Read both files, see NoisyPairs.

        Returns:
            Noisy pairs to train on, and noisy and clean ones to validate on.
        """
        if not self.root.is_dir():
            raise InputError(
                "data.root",
                self.root,
                "no such folder; it should hold train_data.pkl and val_data.pkl (data=photos"
                " needs no files)",
            )
        first, second = read_course(self.root / "train_data.pkl", self.train_pairs)
        noisy, clean = read_course(self.root / "val_data.pkl", self.val_pairs, "data.val_pairs")
        if first.shape[1:] != noisy.shape[1:]:
            raise InputError(
                f"{self.root}: training images are {size_of(first)},"
                f" validation images {size_of(noisy)}; they must agree"
            )
        self.fingerprint = {
            "name": "course",
            "train": len(first),
            "val": len(noisy),
            "sha256": {
                name: sha256(self.root / name) for name in ("train_data.pkl", "val_data.pkl")
            },
        }
        names = [f"pair {i}" for i in range(len(first))]
        scenes = EqualSizeScenes([first, second], names)
        return Captures(scenes, self.seed, self.swap), Pairs(noisy, clean)


def read_course(
    path: Path, count: int | None = None, field: str = "data.train_pairs"
) -> tuple[Tensor, Tensor]:
    """Read a file of the report's data.

    Args:
        path: the file, written with torch.save.
        count: how many of the pairs, from the first; None: all.
        field: the option of `count`, for messages.

    Returns:
        Its two tensors, (N, 3, H, W) uint8.

    Raises:
        InputError: the file is missing, damaged or of another kind, or `count` does not fit.
    """
    content = load_torch(path)
    if not isinstance(content, tuple | list) or len(content) != 2:
        kind = type(content).__name__
        if isinstance(content, tuple | list | dict):
            kind = f"{len(content)} items"
        raise InputError(f"{path}: should hold a tuple of two tensors, found {kind}")
    for tensor in content:
        _refuse_unless_rgb(tensor, path)
    first, second = content
    if first.shape != second.shape:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise InputError(f"{path}: the two tensors differ in shape: {shapes}")
    if count is None:
        return first, second
    if not 1 <= count <= len(first):
        most = len(first)
        raise InputError(field, count, f"{path} holds {most} pairs, so 1 to {most} would work")
    return first[:count], second[:count]


def _refuse_unless_rgb(tensor: Any, path: Path) -> None:
    """Raise InputError unless an object of a file is a tensor of 8 bit RGB images."""
    if not isinstance(tensor, Tensor):
        raise InputError(
            f"{path}: should hold a tuple of two tensors, found a {type(tensor).__name__} in it"
        )
    if tensor.dtype != torch.uint8:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise InputError(f"{path}: should hold uint8 values 0..255, found {kind}")
    shape = tuple(tensor.shape)
    if len(shape) != 4 or shape[1] != 3 or 0 in shape:
        raise InputError(f"{path}: should hold RGB images (N, 3, H, W), found shape {shape}")
