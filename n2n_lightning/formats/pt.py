"""Files of torch.save: a tensor, or a tuple of tensors, one per capture, as the report's own files."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.files import InputError, load_torch
from n2n_lightning.formats.picture import TYPES, Picture, Values


class Pt(Picture):
    """One array per tensor of the file."""

    kind, tuples, channels_first, floats = "PyTorch", True, True, True

    def __init__(self, path: Path, part: str | None = None) -> None:
        super().__init__(path, part)
        content = load_torch(path)
        self.container = type(content) if isinstance(content, tuple | list) else None
        parts = list(content) if self.container else [content]
        if not parts or not all(isinstance(part, Tensor) for part in parts):
            raise InputError(f"{path}: should hold a tensor or a tuple of tensors")
        for tensor in parts:
            if str(tensor.dtype)[6:] not in TYPES:
                raise InputError(
                    f"{path}: values of type {tensor.dtype}: must be one of {', '.join(TYPES)}"
                )
        self.values = [Values(tensor.numpy()) for tensor in parts]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        tensors: Any = [torch.from_numpy(result) for result in results]
        torch.save(self.container(tensors) if self.container else tensors[0], path)

    def _save_as(self, path: Path, results: list[np.ndarray]) -> None:
        self._save(path, results)
