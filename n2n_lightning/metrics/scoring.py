"""Score a denoiser on validation data, with and without clean images, with confidence intervals."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.arrays.outlier_lists import listed_in
from n2n_lightning.metrics.noisy_reference import Estimates, resampled_rows, summarise_estimates
from n2n_lightning.metrics.psnr import psnr, psnr_of_each

# Sides of the window of SSIM in pixels: 3.5 standard deviations of 1.5 pixels on either side, as
# in Wang et al.
SSIM_WINDOW = 11
LEAST_ERROR = 1e-20  # of a mean squared error, for the logarithm: 200 dB

Denoise = Callable[[Any], Any]


def score_clean(denoise: Denoise, data: Any, device: str = "cpu") -> dict[str, Any]:
    """Score against clean images, each image by itself.

    PSNR is 10 log10(1 / mse). SSIM is that of Wang et al. (TIP 2004): Gaussian window of 1.5
    pixels, 11 x 11; of volumes 11 x 11 x 11, and `ssim_planes` is that of their planes.

    Args:
        denoise: a function of a batch (B, C, H, W) or (B, C, D, H, W), in units of white.
        data: a NoisyPairs, set up.
        device: where the batches are denoised.

    Returns:
        mse, mse_uint8, mse_without (outliers), ssim: lists, one value per image; `images`: the
        denoised images, in [0, 1]; `outliers`: the number of their pixels; `seconds`.
    """
    scores: dict[str, Any] = {
        "mse": [],
        "mse_uint8": [],
        "mse_without": [],
        "ssim": [],
        "images": [],
        "outliers": 0,
        "seconds": 0.0,
    }
    for batch in _batches(data):
        noisy = batch["input"].to(device)
        clean = batch["target"]
        listed = listed_in(batch)
        started = time.perf_counter()
        with torch.inference_mode():
            output = denoise(noisy).float().cpu()
        scores["seconds"] += time.perf_counter() - started
        shown = output.clamp(0, 1) if data.bounded else output
        shown = listed.restored(shown)
        rounded = (shown * 255).round() / 255
        scores["outliers"] += listed.count
        scores["mse_without"] += _known_errors(shown, listed.without(clean))
        scores["mse"] += _errors(shown, clean)
        scores["mse_uint8"] += _errors(rounded, clean)
        for image, truth in zip(shown.numpy(), clean.numpy(), strict=True):
            scores["ssim"].append(_ssim(image, truth))
            if axes.deep(clean):
                scores.setdefault("ssim_planes", []).append(_ssim_of_planes(image, truth))
        scores["images"] += list(shown)
    return scores


def _errors(images: Tensor, clean: Tensor) -> list[float]:
    """Return the mean squared error of each image of a batch."""
    errors: list[float] = _squares(images, clean).mean(1).tolist()
    return errors


def _known_errors(images: Tensor, clean: Tensor) -> list[float]:
    """Return the mean squared error of each image of a batch, over pixels that are not NaN."""
    errors: list[float] = _squares(images, clean).nanmean(1).tolist()
    return errors


def _squares(images: Tensor, clean: Tensor) -> Tensor:
    """Return the squared errors of the pixels of each image: (B, pixels), float64."""
    difference = (images - clean).double()
    return difference.square().flatten(1)


def _ssim(image: Any, clean: Any) -> float:
    """Return SSIM of an image (C, H, W) by scikit-image; NaN for one smaller than the window."""
    from skimage.metrics import structural_similarity

    if min(clean.shape[1:]) < SSIM_WINDOW:
        return float("nan")
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(clean, image, data_range=1.0, channel_axis=0, **window))


def _ssim_of_planes(volume: Any, clean: Any) -> float:
    """Return the mean SSIM of the planes of a volume (C, D, H, W)."""
    scores = []
    for z in range(clean.shape[1]):
        scores.append(_ssim(volume[:, z], clean[:, z]))
    return float(np.mean(scores))


def summarise(scores: dict[str, Any], reference: dict[str, Any] | None) -> dict[str, Any]:
    """Summarise the scores of images: means with 95% bootstrap intervals over the images.

    Args:
        scores: what `score_clean` or `score_noisy` returned.
        reference: the same of another denoiser, for the paired difference in mean PSNR; None: no
            difference.

    Returns:
        The row of the table, plain numbers: PSNR in dB as the mean over images and of the mean
        squared error (total), SSIM, images per second; of `score_noisy` the estimate
        (`summarise_estimates`).
    """
    if "estimates" in scores:
        return _summarise_noisy(scores, reference)
    mse = np.array(scores["mse"])
    rounded = np.array(scores["mse_uint8"])
    each = _decibels(mse)
    draws = resampled_rows(len(mse))
    means = each[draws].mean(1)
    totals = _decibels(mse[draws].mean(1))
    row: dict[str, Any] = {
        "psnr": float(each.mean()),
        "psnr_interval": _interval(means),
        "psnr_total": psnr(max(mse.mean(), LEAST_ERROR)),
        "psnr_total_interval": _interval(totals),
        "ssim": float(np.mean(scores["ssim"])),
    }
    if "ssim_planes" in scores:
        row["ssim_planes"] = float(np.mean(scores["ssim_planes"]))
    row |= {
        "psnr_uint8": float(_decibels(rounded).mean()),
        "psnr_total_uint8": psnr(max(rounded.mean(), LEAST_ERROR)),
        **_speed(scores),
    }
    if scores["outliers"]:
        without_outliers = _decibels(scores["mse_without"])
        row["psnr_without_outliers"] = float(without_outliers.mean())
        row["outlier_pixels"] = scores["outliers"]
    if reference is not None:
        difference = each - _decibels(reference["mse"])
        row["difference"] = float(difference.mean())
        row["difference_interval"] = _interval(difference[draws].mean(1))
    return row


def _summarise_noisy(scores: dict[str, Any], reference: dict[str, Any] | None) -> dict[str, Any]:
    other = None
    if reference is not None:
        other = reference["estimates"]
    row = summarise_estimates(scores["estimates"], other)
    if scores["outliers"]:
        error = scores["estimates_without"].error
        row["psnr_estimate_without_outliers"] = None
        if error > 0:
            row["psnr_estimate_without_outliers"] = psnr(error)
        row["outlier_pixels"] = scores["outliers"]
    return row | _speed(scores)


def _speed(scores: dict[str, Any]) -> dict[str, Any]:
    count = len(scores["images"])
    seconds = max(scores["seconds"], 1e-9)
    return {"images": count, "images_per_second": count / seconds}


def _decibels(errors: Any) -> Any:
    """Return the PSNR of each mean squared error, in dB."""
    return psnr_of_each(np.maximum(errors, LEAST_ERROR))


def _interval(values: np.ndarray) -> list[float]:
    """Return the ends of the 95% interval of resampled means."""
    low, high = np.percentile(values, (2.5, 97.5))
    return [float(low), float(high)]


def score_noisy(denoise: Denoise, data: Any, device: str = "cpu") -> dict[str, Any]:
    """Score without clean images: on pairs of noisy captures that were kept back.

    Args:
        denoise: a function of a batch (B, C, H, W) or (B, C, D, H, W), in units of white.
        data: a NoisyPairs, set up, that validates on noisy captures.
        device: where the batches are denoised.

    Returns:
        estimates, estimates_without (outliers): the errors (`Estimates`); errors: of each pair the
        error and that of its noisy input; mse: the first of these; `images`: the denoised first
        captures; `outliers`: the number of their pixels; `seconds`.
    """
    estimates = Estimates()
    estimates_without = Estimates()
    images: list[Tensor] = []
    outliers = 0
    seconds = 0.0
    for batch in _batches(data):
        started = time.perf_counter()
        noise = batch.get("target_noise")
        names = ("input", "other_input") if noise is None else ("input",)
        with torch.inference_mode():
            outputs = [denoise(batch[name].to(device)).float().cpu() for name in names]
        seconds += (time.perf_counter() - started) / len(names)  # of one capture
        captures = [batch["other_target"], batch["target"]]
        listed = listed_in(batch)
        outputs = [listed.restored(outputs[0]), *map(listed.other_restored, outputs[1:])]
        without = [listed.without(capture) for capture in captures]
        scenes = batch["scene"].tolist()
        estimates.add(captures, outputs, scenes, noise)
        estimates_without.add(without, outputs, scenes, noise)
        images += list(outputs[0])
        outliers += listed.count
    errors = estimates.each()
    return {
        "estimates": estimates,
        "estimates_without": estimates_without,
        "images": images,
        "outliers": outliers,
        "seconds": seconds,
        "errors": errors,
        "mse": [error for error, _ in errors],
    }


def noisy_scores(data: Any) -> dict[str, Any]:
    """Score the noisy input against clean images.

    Its values outside [0, 1] count as they are: clipping would change its noise.

    Args:
        data: a NoisyPairs, set up.

    Returns:
        See `score_clean`.
    """
    scores = score_clean(lambda image: image, data)
    scores["mse"] = []
    scores["mse_without"] = []
    for batch in _batches(data):
        clean = batch["target"]
        listed = listed_in(batch)
        noisy = listed.restored(batch["input"])
        scores["mse"] += _known_errors(noisy, clean)
        scores["mse_without"] += _known_errors(noisy, listed.without(clean))
    return scores


def validation_batches(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yield noisy and clean validation images in batches, the same for every candidate.

    Yields:
        Two batches, float (B, C, H, W) or (B, C, D, H, W).
    """
    for batch in _batches(data):
        noisy = listed_in(batch).restored(batch["input"])
        yield noisy, batch["target"]


def _batches(data: Any) -> Iterator[dict[str, Any]]:
    """Yield validation batches as they are scored, see NoisyPairs."""
    for batch in data.val_dataloader():
        yield data.on_after_batch_transfer(batch, 0)
