"""Files of torch.save: a tensor, or a tuple of tensors, one per capture, as in the report."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.files import InputError, load_torch
from n2n_lightning.formats.picture import TYPES, Picture, Values


class Pt(Picture):
    """One array per tensor of the file."""

    kind = "PyTorch"
    tuples = True
    channels_first = True
    floats = True

    def _read(self) -> None:
        content = load_torch(self.path)
        self.container: Any = None
        tensors = [content]
        if isinstance(content, tuple | list):
            self.container = type(content)
            tensors = list(content)
        if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors):
            raise InputError("should hold a tensor or a tuple of tensors")
        for tensor in tensors:
            if str(tensor.dtype).removeprefix("torch.") not in TYPES:
                allowed = ", ".join(TYPES)
                raise InputError(f"values of type {tensor.dtype}: must be one of {allowed}")
        self.values = [Values(tensor.numpy()) for tensor in tensors]

    def _save(self, path: Path, results: list[np.ndarray]) -> None:
        tensors: Any = [torch.from_numpy(result) for result in results]
        torch.save(self.container(tensors) if self.container else tensors[0], path)
