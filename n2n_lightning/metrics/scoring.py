"""Score a denoiser on validation data, with and without clean images, with confidence intervals."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from n2n_lightning.arrays import axes
from n2n_lightning.arrays.outliers import listed_in
from n2n_lightning.metrics.noisy_reference import RESAMPLES, Estimates, summarise_estimates
from n2n_lightning.metrics.psnr import psnr, psnr_of_each


def score_clean(denoise: Callable[[Any], Any], data: Any, device: str = "cpu") -> dict[str, Any]:
    """Scores of each image, and the seconds that denoising took.

    Returns:
        mse, mse_uint8, ssim: lists, one value per image; `images`: the denoised images, in [0, 1];
            `seconds`.

    PSNR is 10 log10(1 / mse). SSIM is that of Wang et al. (TIP 2004): Gaussian window of 1.5
    pixels, 11 x 11; of volumes 11 x 11 x 11, and `ssim_planes` is that of their planes.
    """
    found: dict[str, Any] = {"mse": [], "mse_uint8": [], "ssim": [], "images": [], "seconds": 0.0}
    found |= {"mse_without": [], "outliers": 0}
    for ready in _batches(data):
        noisy, clean, listed = ready["input"].to(device), ready["target"], listed_in(ready)
        started = time.perf_counter()
        with torch.inference_mode():
            output = denoise(noisy).float().cpu()
        found["seconds"] += time.perf_counter() - started
        shown = output.clamp(0, 1) if data.bounded else output
        shown = listed.restored(shown)
        found["outliers"] += listed.count
        found["mse_without"] += (
            (shown - listed.without(clean)).double().square().flatten(1).nanmean(1).tolist()
        )
        rounded = (shown * 255).round() / 255
        found["mse"] += (shown - clean).double().square().flatten(1).mean(1).tolist()
        found["mse_uint8"] += (rounded - clean).double().square().flatten(1).mean(1).tolist()
        both = list(zip(shown.numpy(), clean.numpy(), strict=True))
        found["ssim"] += [_ssim(*pair) for pair in both]
        if len(axes.size(clean)) == 3:
            planes = [[_ssim(a[:, z], b[:, z]) for z in range(a.shape[1])] for a, b in both]
            found.setdefault("ssim_planes", []).extend(float(np.mean(each)) for each in planes)
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
    """Means with 95% bootstrap intervals over the images; the paired difference to `reference` in mean PSNR.

    Of what `score_noisy` found, the estimate (`summarise_estimates`).
    """
    if "estimates" in found:
        result = summarise_estimates(
            found["estimates"], reference["estimates"] if reference else None
        )
        if found["outliers"]:
            error = found["estimates_without"].error
            result["psnr_estimate_without_outliers"] = psnr(error) if error > 0 else None
            result["outlier_pixels"] = found["outliers"]
        speed = len(found["images"]) / max(found["seconds"], 1e-9)
        return {**result, "images": len(found["images"]), "images_per_second": speed}
    mse, rounded = np.array(found["mse"]), np.array(found["mse_uint8"])
    each = psnr_of_each(np.maximum(mse, 1e-20))
    draws = np.random.default_rng(0).integers(0, len(mse), (RESAMPLES, len(mse)))

    def interval(values: Any) -> list[float]:
        return [float(v) for v in np.percentile(values, (2.5, 97.5))]

    result = {
        "psnr": float(each.mean()),
        "psnr_interval": interval(each[draws].mean(1)),
        "psnr_total": psnr(max(mse.mean(), 1e-20)),
        "psnr_total_interval": interval(psnr_of_each(np.maximum(mse[draws].mean(1), 1e-20))),
        "ssim": float(np.mean(found["ssim"])),
        **({"ssim_planes": float(np.mean(found["ssim_planes"]))} if "ssim_planes" in found else {}),
        "psnr_uint8": float(psnr_of_each(np.maximum(rounded, 1e-20)).mean()),
        "psnr_total_uint8": psnr(max(rounded.mean(), 1e-20)),
        "images": len(mse),
        "images_per_second": len(mse) / max(found["seconds"], 1e-9),
    }
    if found["outliers"]:
        known = np.maximum(np.array(found["mse_without"]), 1e-20)
        result["psnr_without_outliers"] = float(psnr_of_each(known).mean())
        result["outlier_pixels"] = found["outliers"]
    if reference is not None:
        difference = each - psnr_of_each(np.maximum(np.array(reference["mse"]), 1e-20))
        result |= {
            "difference": float(difference.mean()),
            "difference_interval": interval(difference[draws].mean(1)),
        }
    return result


def score_noisy(denoise: Callable[[Any], Any], data: Any, device: str = "cpu") -> dict[str, Any]:
    """The same without clean images: of pairs of noisy captures that were kept back, which are both denoised.

    Returns:
        estimates: all that is known of the errors (`Estimates`); mse, errors: those of each pair of
        captures, the second with the noisy input's; `images`: the denoised first captures;
        `seconds`.
    """
    found: dict[str, Any] = {"estimates": Estimates(), "images": [], "seconds": 0.0}
    found |= {"estimates_without": Estimates(), "outliers": 0}
    for ready in _batches(data):
        started = time.perf_counter()
        noise = ready.get("target_noise")
        inputs = ("input", "other_input") if noise is None else ("input",)
        with torch.inference_mode():
            outputs = [denoise(ready[name].to(device)).float().cpu() for name in inputs]
        found["seconds"] += (time.perf_counter() - started) / len(inputs)  # of one capture
        captures, listed = [ready["other_target"], ready["target"]], listed_in(ready)
        outputs = [listed.restored(outputs[0]), *map(listed.other_restored, outputs[1:])]
        without = [listed.without(capture) for capture in captures]
        found["outliers"] += listed.count
        found["estimates"].add(captures, outputs, ready["scene"].tolist(), noise)
        found["estimates_without"].add(without, outputs, ready["scene"].tolist(), noise)
        found["images"] += list(outputs[0])
    found["errors"] = found["estimates"].each()
    found["mse"] = [error for error, _ in found["errors"]]
    return found


def noisy_scores(data: Any) -> dict[str, Any]:
    """The noisy input's scores; its values outside [0, 1] count as they are, for its noise must not be clipped."""
    found = score_clean(lambda image: image, data)
    found["mse"], found["mse_without"] = [], []
    for ready in _batches(data):
        clean, listed = ready["target"], listed_in(ready)
        noisy = listed.restored(ready["input"])
        for name, reference in (("mse", clean), ("mse_without", listed.without(clean))):
            found[name] += (noisy - reference).double().square().flatten(1).nanmean(1).tolist()
    return found


def validation_batches(data: Any) -> Iterator[tuple[Any, Any]]:
    """Noisy and clean validation images in batches, float (B, C, H, W); the same for every candidate."""
    for ready in _batches(data):
        yield listed_in(ready).restored(ready["input"]), ready["target"]


def _batches(data: Any) -> Iterator[dict[str, Any]]:
    """Validation batches as they are scored, see NoisyPairs."""
    for batch in data.val_dataloader():
        yield data.on_after_batch_transfer(batch, 0)
