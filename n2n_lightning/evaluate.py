"""Score checkpoints on the same noisy images: `python -m n2n_lightning.evaluate RUN ... --data course --root DIR`.

For each run folder or checkpoint: both PSNRs, SSIM, the PSNRs after rounding to 8 bit, parameters, speed, a 95%
bootstrap interval over the images, and the paired difference to the first one.
"""

import csv
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError, Parser, command, replacing

RESAMPLES = 2000


def parser() -> Parser:
    p = Parser(prog="python -m n2n_lightning.evaluate", description=__doc__.splitlines()[0])
    p.add_argument("candidates", nargs="*", metavar="RUN", help="run folders or checkpoint files")
    p.add_argument("--data", default="photos", choices=("photos", "course", "images", "pairs"), help="what to score on")
    p.add_argument("--root", help="folder of --data course or images")
    p.add_argument("--val", help="--data images: folder of the photographs to score on (the last tenth of --root)")
    p.add_argument("--noise", default="pixelate", help="corruption of photos and images, e.g. gaussian:sigma=25")
    p.add_argument("--noisy", help="--data pairs: file or folder with noisy captures, for the tuning of --classical")
    p.add_argument("--target", help="--data pairs: the second captures")
    p.add_argument("--val-noisy", help="--data pairs: the noisy images to score on")
    p.add_argument("--clean", help="--data pairs: their clean images")
    p.add_argument("--layout", default="auto", help="--data pairs: the axes of the arrays, e.g. NKHW")
    p.add_argument("--tta", action="store_true", help="average over the 8 flips and quarter turns")
    p.add_argument("--classical", action="store_true", help="add classical filters, tuned on noisy training pairs only")
    p.add_argument("--device", default="cpu", help="cpu, cuda, ...")
    p.add_argument("--allow", action="append", default=[], help="a module whose networks checkpoints may name")
    p.add_argument("--json", type=Path, help="write the scores here")
    p.add_argument("--csv", type=Path, help="write the scores of each image here")
    p.add_argument("--picture", type=Path, help="draw the worst and best images of the first candidate here (PNG)")
    return p


def make_data(args: Any, scale: float | None = None) -> Any:
    """The source of data that the options name, set up; `scale` is that of the checkpoints, for your own images."""
    from n2n_lightning import data as sources

    def needed(option: str) -> str:
        value = getattr(args, option.replace("-", "_"))
        if value is None:
            raise InputError(f"--data {args.data}: needs --{option}")
        return str(value)

    if args.data == "course":
        data: sources.NoisyPairs = sources.Course(needed("root"), batch_size=1)
    elif args.data == "photos":
        data = sources.Photos(make_noise(args.noise), batch_size=1)
    elif args.data == "images":
        data = sources.Images(make_noise(args.noise), needed("root"), args.val, batch_size=1)
    else:
        options = {"clean": needed("clean"), "val_noisy": args.val_noisy, "layout": args.layout, "scale": scale}
        noisy = args.noisy or needed("val-noisy")
        if args.noisy is None:  # nothing to train or tune on: the scored images stand in, and are not looked at
            options["val_noisy"], args.target = noisy, noisy
        data = sources.OwnPairs(noisy, args.target, batch_size=1, **options)
    data.setup()
    return data


def make_noise(text: str) -> Any:
    """`gaussian:sigma=25` -> Gaussian(sigma=25)."""
    from n2n_lightning import noise

    name, _, rest = text.partition(":")
    kinds = {k.__name__.lower(): k for k in noise.Noise.__subclasses__()}
    if name not in kinds:
        raise InputError(f"--noise {text}: is none of {', '.join(sorted(kinds))}")
    try:
        options = {k: json.loads(v) for k, v in (part.split("=") for part in rest.split(":") if part)}
        made: noise.Noise = kinds[name](**options)
        return made
    except (ValueError, TypeError) as error:
        raise InputError(f"--noise {text}: {error}") from None


def pairs(data: Any) -> Iterator[tuple[Any, Any]]:
    """Noisy and clean validation images in batches, float (B, C, H, W); the same for every candidate."""
    for batch in data.val_dataloader():
        ready = data.on_after_batch_transfer(batch, 0)
        yield ready["input"], ready["target"]


def score(denoise: Callable[[Any], Any], data: Any, device: str = "cpu") -> dict[str, Any]:
    """Scores of each image, and the seconds that denoising took.

    Returns:
        mse, mse_uint8, ssim: lists, one value per image; `images`: the denoised images, in [0, 1]; `seconds`.

    PSNR is 10 log10(1 / mse). SSIM is that of Wang et al. (TIP 2004): Gaussian window of 1.5 pixels, 11 x 11.
    """
    import torch

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
    import numpy as np

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


def classical(data: Any) -> dict[str, tuple[Callable[[Any], Any], str]]:
    """Classical filters with what they were tuned to: each image is filtered alone, (B, C, H, W) -> the same.

    Tuned as Noise2Noise trains: the parameter is the one whose output is closest to the other noisy image, over up to
    100 pairs of the training data, 10 for BM3D, which is slow. No clean image and no scored image is looked at.
    """
    import numpy as np
    import torch
    from scipy import ndimage
    from skimage import restoration

    from n2n_lightning.data import Key

    some = torch.linspace(0, len(data.train) - 1, min(100, len(data.train))).round().long()
    noisy, other = data.noisy_pair(data.train[Key(0, 0, some)])
    difference = noisy - other
    sigma = float(difference[~difference.isnan()].std() / 2**0.5)

    def each(run: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def denoise(images: Any) -> Any:
            pixels = [np.ascontiguousarray(i.permute(1, 2, 0).cpu().numpy()) for i in images]
            planes = [np.asarray(run(p)).reshape(p.shape) for p in pixels]
            return torch.stack([torch.from_numpy(np.ascontiguousarray(p)).permute(2, 0, 1) for p in planes]).float()

        return denoise

    filters: dict[str, tuple[str, list[float], Callable[[Any, float], Any]]] = {
        "Gaussian blur": (
            "sigma",
            [0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 1.0, 1.3, 1.7, 2.2],
            lambda x, v: ndimage.gaussian_filter(x, (v, v, 0)),
        ),
        "median": ("size", [1, 2, 3, 5], lambda x, v: ndimage.median_filter(x, (int(v), int(v), 1))),
        "total variation": (
            "weight",
            [0.01, 0.02, 0.04, 0.06, 0.09, 0.13, 0.2],
            lambda x, v: restoration.denoise_tv_chambolle(x, weight=v, channel_axis=-1),
        ),
        "non-local means": (
            "h",
            [0.3, 0.5, 0.7, 0.9, 1.2, 1.7, 2.4],
            lambda x, v: restoration.denoise_nl_means(
                x, h=v * sigma, sigma=sigma, patch_size=3, patch_distance=5, channel_axis=-1
            ),
        ),
        "wavelet": (
            "sigma",
            [0.3, 0.5, 0.7, 1.0, 1.4],
            lambda x, v: restoration.denoise_wavelet(x, sigma=v * sigma, channel_axis=-1, rescale_sigma=True),
        ),
    }
    try:
        import bm3d

        filters["BM3D"] = ("sigma", [0.5, 0.7, 1.0, 1.3], lambda x, v: bm3d.bm3d(x, v * sigma).reshape(x.shape))
    except ImportError:
        pass
    tuned = {}
    for name, (parameter, values, run) in filters.items():
        losses = {}
        few = slice(None, None, 10 if name == "BM3D" else 1)
        for value in values:
            output = each(lambda x, run=run, value=value: run(x, value))(noisy[few])  # type: ignore[misc]
            losses[value] = float(torch.nan_to_num(output - other[few]).square().mean())  # NaN: a missing pixel
        best = min(losses, key=lambda v: losses[v])
        tuned[name] = (each(lambda x, run=run, best=best: run(x, best)), f"{parameter}={best:g}")  # type: ignore[misc]
    return tuned


def show(rows: dict[str, dict[str, Any]]) -> None:
    """The table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    heads = (
        "",
        "PSNR, mean [95%]",
        "PSNR, total",
        "SSIM",
        "8 bit: mean",
        "total",
        "against the first [95%]",
        "parameters",
        "images/s",
    )
    for head in heads:
        table.add_column(head, justify="right" if head else "left")
    for name, row in rows.items():
        low, high = row["psnr_interval"]
        difference = ""
        if "difference" in row:
            difference = "{:+.2f} [{:+.2f}, {:+.2f}]".format(row["difference"], *row["difference_interval"])
        table.add_row(
            name,
            f"{row['psnr']:.2f} [{low:.2f}, {high:.2f}]",
            f"{row['psnr_total']:.2f}",
            f"{row['ssim']:.4f}",
            f"{row['psnr_uint8']:.2f}",
            f"{row['psnr_total_uint8']:.2f}",
            difference,
            f"{row['parameters']:,}" if row.get("parameters") else "",
            f"{row['images_per_second']:.0f}" if name != "noisy input" else "",
        )
    console = Console(highlight=False)
    Console(highlight=False, width=None if console.is_terminal else 150).print(table)


def extremes(found: dict[str, Any], data: Any, path: Path, count: int = 4) -> None:
    """A picture of the images with the lowest and the highest PSNR."""
    import torch

    from n2n_lightning.callbacks import draw

    order = sorted(range(len(found["mse"])), key=lambda i: -found["mse"][i])
    chosen = list(dict.fromkeys([*order[:count], *order[-count:]]))
    everything = [(n, c) for noisy, clean in pairs(data) for n, c in zip(noisy, clean, strict=True)]
    side = min(min(everything[i][1].shape[-2:]) for i in chosen)
    noisy, clean = (torch.stack([everything[i][k][..., :side, :side] for i in chosen]) for k in (0, 1))
    denoised = torch.stack([found["images"][i][..., :side, :side] for i in chosen])
    with replacing(path) as temporary:
        draw(noisy, denoised, clean).savefig(temporary)


def main() -> int:
    args = parser().parse_args()
    from n2n_lightning.restore import averaged, checkpoint_of, load

    failed = 0
    networks, scales = {}, set[float]()
    for candidate in dict.fromkeys(args.candidates):
        try:
            checkpoint_of(candidate)
            networks[candidate] = load(candidate, args.allow).to(args.device)
            if scale := networks[candidate].scale:
                scales.add(scale)
        except InputError as error:
            print("error:", error)
            failed = 1
    if args.candidates and not networks:
        return 2
    if args.data == "pairs" and len(scales) > 1:
        raise InputError(f"the checkpoints were trained with different data.scale: {sorted(scales)}; score them apart")
    data = make_data(args, next(iter(scales), None))
    if data.reference != "clean":
        raise InputError(f"--data {args.data}: needs --clean, the images to compare with")

    found = {"noisy input": _noisy_scores(data)}
    notes: dict[str, dict[str, Any]] = {"noisy input": {}}
    if args.classical:
        for name, (run, tuned) in classical(data).items():
            label = f"{name} ({tuned})"
            found[label], notes[label] = score(run, data), {"tuned": tuned}
    for name, network in networks.items():
        run = averaged(network, network.multiple) if args.tta else network
        found[name] = score(run, data, args.device)
        notes[name] = {"parameters": sum(p.numel() for p in network.parameters()), "tta": args.tta}
    first = next(iter(networks), None)
    rows = {
        name: {**summarise(f, found[first] if first and name != first else None), **notes[name]}
        for name, f in found.items()
    }
    show(rows)
    if args.json:
        content = {"data": data.fingerprint, "noise": args.noise, "tta": args.tta, "scores": rows}
        with replacing(args.json) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")
    if args.csv:
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["image", *(f"{name} {what}" for name in found for what in ("mse", "ssim"))])
        for i in range(len(found["noisy input"]["mse"])):
            writer.writerow([i, *(f[what][i] for f in found.values() for what in ("mse", "ssim"))])
        with replacing(args.csv) as temporary:
            temporary.write_text(lines.getvalue())
    if args.picture:
        extremes(found[first or "noisy input"], data, args.picture)
    return failed


def _noisy_scores(data: Any) -> dict[str, Any]:
    """The noisy input's scores; its values outside [0, 1] count as they are, for its noise must not be clipped."""
    found = score(lambda image: image, data)
    found["mse"] = [
        m for noisy, clean in pairs(data) for m in (noisy - clean).double().square().mean((1, 2, 3)).tolist()
    ]
    return found


if __name__ == "__main__":
    command(main)
