"""The report's files."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n_lightning.data.datamodule import NoisyPairs
from n2n_lightning.data.datasets import Captures, Pairs
from n2n_lightning.data.options import size_of
from n2n_lightning.data.scenes import EqualSizeScenes
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
        self.root, self.train_pairs, self.val_pairs, self.swap = (
            Path(root),
            train_pairs,
            val_pairs,
            swap,
        )
        if self.supervised:
            raise InputError(
                "target",
                "clean",
                "data=course has no clean training images; data=photos and data=images have",
            )

    def setup(self, stage: str | None = None) -> None:
        """Reads the files; to validate, the one with the training pairs need not be there."""
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
                f"{self.root}: training images are {size_of(first)}, validation images"
                f" {size_of(noisy)}; they must agree"
            )
        self.fingerprint = {
            "name": "course",
            "train": len(first),
            "val": len(noisy),
            "sha256": {
                name: sha256(self.root / name) for name in ("train_data.pkl", "val_data.pkl")
            },
        }
        scenes = EqualSizeScenes([first, second], [f"pair {i}" for i in range(len(first))])
        return Captures(scenes, self.seed, self.swap), Pairs(noisy, clean)


def read_course(
    path: Path, count: int | None = None, field: str = "data.train_pairs"
) -> tuple[Tensor, Tensor]:
    """The two tensors of a file of the report's data, (N, 3, H, W) uint8, or the first `count` of each.

    Raises:
        InputError: the file is missing, damaged or of another kind, or `count`, the value of `field`,
            does not fit.
    """
    content = load_torch(path)
    if not isinstance(content, tuple | list) or len(content) != 2:
        found = (
            f"{len(content)} items"
            if isinstance(content, tuple | list | dict)
            else type(content).__name__
        )
        raise InputError(f"{path}: should hold a tuple of two tensors, found {found}")
    for tensor in content:
        if not isinstance(tensor, Tensor):
            raise InputError(
                f"{path}: should hold a tuple of two tensors, found a {type(tensor).__name__} in it"
            )
        if tensor.dtype != torch.uint8:
            raise InputError(
                f"{path}: should hold uint8 values 0..255, found {str(tensor.dtype)[6:]}"
            )
        if len(tensor.shape) != 4 or tensor.shape[1] != 3 or 0 in tensor.shape:
            raise InputError(
                f"{path}: should hold RGB images (N, 3, H, W), found shape {tuple(tensor.shape)}"
            )
    a, b = content
    if a.shape != b.shape:
        raise InputError(
            f"{path}: the two tensors differ in shape: {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if count is None:
        return a, b
    if not 1 <= count <= len(a):
        raise InputError(field, count, f"{path} holds {len(a)} pairs, so 1 to {len(a)} would work")
    return a[:count], b[:count]
