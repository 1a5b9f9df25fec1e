"""PSNR gathered over validation batches, in both definitions."""

from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.image import PeakSignalNoiseRatio


class _PerImage(PeakSignalNoiseRatio):
    """PSNR of each image or volume, whatever the number of its axes."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds.flatten(1), target.flatten(1))


def psnr_metrics(prefix: str) -> MetricCollection:
    """Return both definitions of PSNR as metrics, in dB, for images with values in [0, 1].

    `{prefix}_psnr`: the mean over images of 10 log10(1 / MSE of the image), what papers print
    ("Mn"). `{prefix}_psnr_total`: 10 log10(1 / MSE over all pixels of all images) ("T"). It is
    never the larger one, since log is concave, and reads about 1 dB lower on the report's data; the
    two must not be compared with one another.

    Returns:
        Called or updated with (output, clean), each (B, C, H, W) or (B, C, D, H, W).

    >>> import torch
    >>> noisy = torch.tensor([0.1, 0.01]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    >>> scores = psnr_metrics("val")(noisy, torch.zeros(2, 1, 4, 4))
    >>> {name: round(value.item(), 2) for name, value in scores.items()}
    {'val_psnr': 30.0, 'val_psnr_total': 22.97}
    """
    return MetricCollection(
        {
            f"{prefix}_psnr": _PerImage(data_range=1.0, dim=1, reduction="elementwise_mean"),
            f"{prefix}_psnr_total": PeakSignalNoiseRatio(data_range=1.0),
        },
        compute_groups=False,
    )
