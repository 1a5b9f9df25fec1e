"""Arrays and folders of random numbers, saved as files of each kind."""

import h5py
import numpy as np
import tifffile
import torch
from PIL import Image


def numbers(*shape: int, dtype: str = "uint16") -> np.ndarray:
    draws = np.random.default_rng(0)
    return (
        draws.random(shape).astype(dtype)
        if "float" in dtype
        else draws.integers(0, 200, shape).astype(dtype)
    )


def save(path, array: np.ndarray) -> str:
    suffix = path.suffix
    if suffix in (".pt", ".pkl"):
        torch.save(torch.from_numpy(array), path)
    elif suffix == ".npy":
        np.save(path, array)
    elif suffix == ".npz":
        np.savez(path, images=array)
    elif suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["deep/images"] = array
    else:
        colour = {"photometric": "rgb"} if array.shape[-1] == 3 else {"photometric": "minisblack"}
        tifffile.imwrite(path, array, **colour)
    return str(path)


def folder_of(folder, names, shape=(12, 12, 3), dtype="uint8", suffix="png"):
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        array = np.random.default_rng(i).integers(0, 200, shape).astype(dtype)
        Image.fromarray(array).save(folder / f"{name}.{suffix}")
    return str(folder)
