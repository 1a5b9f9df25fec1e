"""Arrays other than plain NumPy: masked, with units, matrices, tensors; refusals of others."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.files import InputError
from n2n_lightning.formats.picture import TYPES

# What to pass in place of an object, by the first part of the module of its class.
INSTEAD = {
    "PIL": "np.asarray(image)",
    "dask": "array.compute(), or let dask call it: array.map_blocks(model.denoise)",
    "xarray": "array.values",
    "pandas": "table.to_numpy()",
    "zarr": "array[...]",
    "h5py": "dataset[...]",
    "astropy": "np.ma.array(image.data, mask=image.mask)",
    "ccdproc": "np.ma.array(image.data, mask=image.mask)",
    "jax": "np.asarray(array)",
    "cupy": "array.get()",
}


def plain(array: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Take the values of an array of any kind that can be denoised.

    Args:
        array: a NumPy array of a type in TYPES, or of a subclass such as a masked array, an astropy
            Quantity or a matrix; or a tensor on any device.

    Returns:
        The values as a plain array, and bool of the same shape, True where a mask says that they
        are missing; None where there is no mask.

    Raises:
        InputError: it is of another kind or type; the message says what to pass.
    """
    if isinstance(array, Tensor):
        _check_type(str(array.dtype)[6:], "tensor")
        return np.asarray(array.detach().cpu()), None
    if not isinstance(array, np.ndarray):
        raise InputError(_instead(array))
    if not isinstance(array, np.ma.MaskedArray) and getattr(array, "mask", None) is not None:
        raise InputError(
            f"a {type(array).__name__}: pass np.ma.array(values, mask=mask) in its place"
        )
    _check_type(array.dtype.name, "array")
    if len(array.shape) < 2:
        raise InputError(f"an array of shape {array.shape}: an image has two axes or more")
    if isinstance(array, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(array)
        return np.asarray(array.data), mask if mask.any() else None
    return np.asarray(array), None


def like(array: Any, result: np.ndarray) -> Any:
    """Give a result the kind of the array that it is made from: mask, unit, class or device.

    Args:
        array: what `plain` was given.
        result: plain values of the same shape and type.

    Returns:
        An array or tensor like `array`, with the values of `result`.
    """
    if isinstance(array, Tensor):
        return torch.from_numpy(result).to(array.device)
    if isinstance(array, np.ma.MaskedArray):
        mask = array.mask
        if mask is not np.ma.nomask:
            mask = mask.copy()
        return np.ma.array(result, mask=mask, fill_value=array.fill_value, hard_mask=array.hardmask)
    if type(array) in (np.ndarray, np.memmap):
        return result
    same_class = np.empty_like(array)  # with its unit
    same_class.view(np.ndarray)[...] = result
    return same_class


def _check_type(name: str, kind: str) -> None:
    """Raises InputError for types of values that are not denoised."""
    if name in TYPES:
        return
    convert = {"array": "array.astype(np.float32)", "tensor": "tensor.float()"}[kind]
    hint = {"bool": "a mask is no image", "complex64": "", "complex128": ""}.get(
        name, f"pass {convert}"
    )
    if name.startswith("complex"):
        hint = "pass the magnitude, or the real and the imaginary part as two images"
    raise InputError(f"values of type {name}: must be one of {', '.join(TYPES)}; {hint}")


def _instead(array: Any) -> str:
    """The message for an object that is neither a NumPy array nor a tensor."""
    kind = type(array)
    module = kind.__module__.partition(".")[0]
    if module == "numpy" or isinstance(array, int | float | complex):
        return f"a single value ({kind.__name__}): an image has two axes or more"
    if module in INSTEAD:
        what = INSTEAD[module]
    elif isinstance(array, list | tuple):
        what = "np.asarray(values, np.float32)"
    elif hasattr(array, "__array__"):
        what = "np.asarray(it)"
    else:
        return f"a {kind.__name__}: must be a numpy array or a torch tensor"
    return f"a {kind.__name__}: must be a numpy array or a torch tensor; pass {what}"
