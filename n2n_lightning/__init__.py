"""Train image denoisers from noisy images alone, without clean targets.

In Python: `inspect_images`, `fit`, `score`, `best`, and `load` for a network that denoises
(api.py); the other public names are parts to build on. On the command line: `n2n train`, or
`python -m n2n_lightning train`, and the other commands in README.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from n2n_lightning.api import BestResult as BestResult
    from n2n_lightning.api import FitResult as FitResult
    from n2n_lightning.api import best as best
    from n2n_lightning.api import fit as fit
    from n2n_lightning.api import inspect_images as inspect_images
    from n2n_lightning.api import score as score
    from n2n_lightning.data import Course as Course
    from n2n_lightning.data import Images as Images
    from n2n_lightning.data import Movie as Movie
    from n2n_lightning.data import NoisyPairs as NoisyPairs
    from n2n_lightning.data import PairedImages as PairedImages
    from n2n_lightning.data import Photos as Photos
    from n2n_lightning.data import SingleImages as SingleImages
    from n2n_lightning.data.self_supervised import SelfSupervision as SelfSupervision
    from n2n_lightning.files import InputError as InputError
    from n2n_lightning.formats import Picture as Picture
    from n2n_lightning.formats import opened as opened
    from n2n_lightning.inference.denoiser import TrainedDenoiser as TrainedDenoiser
    from n2n_lightning.inference.denoiser import load as load
    from n2n_lightning.inference.tiling import averaged as averaged
    from n2n_lightning.inspection import InspectionReport as InspectionReport
    from n2n_lightning.losses import Loss as Loss
    from n2n_lightning.metrics.noisy_reference import squared_errors as squared_errors
    from n2n_lightning.metrics.psnr_over_batches import psnr_metrics as psnr_metrics
    from n2n_lightning.networks import Network as Network
    from n2n_lightning.noise import Noise as Noise
    from n2n_lightning.randomness import generator as generator
    from n2n_lightning.training.module import Denoiser as Denoiser

__version__ = "1.0.0"
HOMES = {
    "BestResult": "api",
    "Course": "data",
    "Denoiser": "training.module",
    "FitResult": "api",
    "Images": "data",
    "InputError": "files",
    "InspectionReport": "inspection",
    "Loss": "losses",
    "Movie": "data",
    "Network": "networks",
    "Noise": "noise",
    "NoisyPairs": "data",
    "PairedImages": "data",
    "Photos": "data",
    "Picture": "formats",
    "SelfSupervision": "data.self_supervised",
    "SingleImages": "data",
    "TrainedDenoiser": "inference.denoiser",
    "averaged": "inference.tiling",
    "best": "api",
    "fit": "api",
    "generator": "randomness",
    "inspect_images": "api",
    "load": "inference.denoiser",
    "opened": "formats",
    "psnr_metrics": "metrics.psnr_over_batches",
    "score": "api",
    "squared_errors": "metrics.noisy_reference",
}
__all__ = sorted(HOMES)


def __getattr__(name: str) -> Any:
    # Imported on first use, so that commands that do not need torch do not wait for it.
    if name in HOMES:
        return getattr(importlib.import_module(f"n2n_lightning.{HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *HOMES])
