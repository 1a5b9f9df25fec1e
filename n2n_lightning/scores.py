"""How good denoised images are: both definitions of PSNR, SSIM, and how sure that is."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.image import PeakSignalNoiseRatio

RESAMPLES = 2000  # of the bootstrap


class _PerImage(PeakSignalNoiseRatio):
    """PSNR of each image or volume, whatever the number of its axes."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds.flatten(1), target.flatten(1))


def psnr_metrics(prefix: str) -> MetricCollection:
    """The two definitions of PSNR for images with values in [0, 1], in dB.

    `{prefix}_psnr`: the mean over images of 10 log10(1 / MSE of the image), what papers print ("Mn").
    `{prefix}_psnr_total`: 10 log10(1 / MSE over all pixels of all images) ("T"). It is never the larger one, since log
    is concave, and reads about 1 dB lower on the report's data; the two must not be compared with one another.

    >>> import torch
    >>> clean, noisy = torch.zeros(2, 1, 4, 4), torch.tensor([0.1, 0.01]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    >>> {name: round(value.item(), 2) for name, value in psnr_metrics("val")(noisy, clean).items()}
    {'val_psnr': 30.0, 'val_psnr_total': 22.97}
    """
    return MetricCollection(
        {
            f"{prefix}_psnr": _PerImage(data_range=1.0, dim=1, reduction="elementwise_mean"),
            f"{prefix}_psnr_total": PeakSignalNoiseRatio(data_range=1.0),
        },
        compute_groups=False,
    )


def score(denoise: Callable[[Any], Any], data: Any, device: str = "cpu") -> dict[str, Any]:
    """Scores of each image, and the seconds that denoising took.

    Returns:
        mse, mse_uint8, ssim: lists, one value per image; `images`: the denoised images, in [0, 1]; `seconds`.

    PSNR is 10 log10(1 / mse). SSIM is that of Wang et al. (TIP 2004): Gaussian window of 1.5 pixels, 11 x 11.
    """
    found: dict[str, Any] = {"mse": [], "mse_uint8": [], "ssim": [], "images": [], "seconds": 0.0}
    for noisy, clean in pairs(data):
        noisy = noisy.to(device)
        started = time.perf_counter()
        with torch.inference_mode():
            output = denoise(noisy).float().cpu()
        found["seconds"] += time.perf_counter() - started
        shown = output.clamp(0, 1) if data.bounded else output
        rounded = (shown * 255).round() / 255
        found["mse"] += (shown - clean).double().square().mean((1, 2, 3)).tolist()
        found["mse_uint8"] += (rounded - clean).double().square().mean((1, 2, 3)).tolist()
        found["ssim"] += [_ssim(*pair) for pair in zip(shown.numpy(), clean.numpy(), strict=True)]
        found["images"] += list(shown)
    return found


def _ssim(image: Any, clean: Any) -> float:
    """SSIM of one image (C, H, W) by scikit-image; NaN where the image is smaller than the window."""
    from skimage.metrics import structural_similarity

    if min(clean.shape[1:]) < 11:
        return float("nan")
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(clean, image, data_range=1.0, channel_axis=0, **window))


def summarise(found: dict[str, Any], reference: dict[str, Any] | None) -> dict[str, Any]:
    """Means with 95% bootstrap intervals over the images; the paired difference to `reference` in mean PSNR."""
    mse, rounded = np.array(found["mse"]), np.array(found["mse_uint8"])
    each = -10 * np.log10(np.maximum(mse, 1e-20))
    draws = np.random.default_rng(0).integers(0, len(mse), (RESAMPLES, len(mse)))

    def interval(values: Any) -> list[float]:
        return [float(v) for v in np.percentile(values, (2.5, 97.5))]

    result = {
        "psnr": float(each.mean()),
        "psnr_interval": interval(each[draws].mean(1)),
        "psnr_total": float(-10 * np.log10(max(mse.mean(), 1e-20))),
        "psnr_total_interval": interval(-10 * np.log10(np.maximum(mse[draws].mean(1), 1e-20))),
        "ssim": float(np.mean(found["ssim"])),
        "psnr_uint8": float((-10 * np.log10(np.maximum(rounded, 1e-20))).mean()),
        "psnr_total_uint8": float(-10 * np.log10(max(rounded.mean(), 1e-20))),
        "images": len(mse),
        "images_per_second": len(mse) / max(found["seconds"], 1e-9),
    }
    if reference is not None:
        difference = each + 10 * np.log10(np.maximum(np.array(reference["mse"]), 1e-20))
        result |= {"difference": float(difference.mean()), "difference_interval": interval(difference[draws].mean(1))}
    return result


def noisy_scores(data: Any) -> dict[str, Any]:
    """The noisy input's scores; its values outside [0, 1] count as they are, for its noise must not be clipped."""
    found = score(lambda image: image, data)
    found["mse"] = [
        m for noisy, clean in pairs(data) for m in (noisy - clean).double().square().mean((1, 2, 3)).tolist()
    ]
    return found


def pairs(data: Any) -> Iterator[tuple[Any, Any]]:
    """Noisy and clean validation images in batches, float (B, C, H, W); the same for every candidate."""
    for batch in data.val_dataloader():
        ready = data.on_after_batch_transfer(batch, 0)
        yield ready["input"], ready["target"]
