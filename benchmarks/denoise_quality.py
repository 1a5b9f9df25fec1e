"""The built-in checkpoint beside non-local means and BM3D, on photographs with Gaussian noise and on real noise.

    python benchmarks/denoise_quality.py --photos KODAK [--real PAIRS] [--checkpoint RUN] [--count 24] [--out FILE.json]

KODAK is a folder of clean photographs; PAIRS one of NAME_real.png, a noisy shot, and NAME_mean.png, the mean of many.
The filters are told the standard deviation of Gaussian noise; the network is not. On real noise all are blind:
the filters take scikit-image's estimate. All methods meet the same noisy pictures in one run. Needs `pip install bm3d`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from skimage.restoration import denoise_nl_means, estimate_sigma

from n2n_lightning import load
from n2n_lightning.formats import opened

SIGMAS = (15, 25, 50)


def nl_means(noisy: np.ndarray, sigma: float) -> np.ndarray:
    """scikit-image's, as in its own example: fast mode, h = 0.8 sigma, 5 x 5 patches, 13 x 13 window."""
    options = {"patch_size": 5, "patch_distance": 6, "fast_mode": True, "channel_axis": -1}
    return denoise_nl_means(noisy, h=0.8 * sigma, sigma=sigma, **options)


def bm3d(noisy: np.ndarray, sigma: float) -> np.ndarray:
    import bm3d

    return bm3d.bm3d_rgb(noisy, sigma)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--count", type=int, default=24, help="photographs, at most")
    parser.add_argument("--crop", type=int, help="score only the middle of each, so many pixels high and wide")
    parser.add_argument("--out", type=Path, default=Path("denoise_quality.json"))
    args = parser.parse_args()
    model = load(args.checkpoint) if args.checkpoint else load()
    methods = {
        "noisy input": lambda x, sigma: x,
        "non-local means": nl_means,
        "BM3D": bm3d,
        "n2n_lightning": lambda x, sigma: model.denoise(x, tile=None),
        "n2n_lightning --tta": lambda x, sigma: model.denoise(x, tile=None, tta=True),
    }
    found: dict[str, dict[str, list[float]]] = {}
    seconds = dict.fromkeys(methods, 0.0)
    pixels = 0

    def picture(path: Path) -> np.ndarray:
        """Float (H, W, 3), values in [0, 1], or its middle."""
        image = (opened(path).values[0].array / 255).astype(np.float32)
        top, left = (max(0, (n - args.crop) // 2) if args.crop else 0 for n in image.shape[:2])
        return image[top : top + args.crop, left : left + args.crop] if args.crop else image

    def meet(case: str, noisy: np.ndarray, clean: np.ndarray, sigma: float) -> None:
        nonlocal pixels
        pixels += noisy.shape[0] * noisy.shape[1]
        for name, method in methods.items():
            started = time.perf_counter()
            result = method(noisy, sigma)
            seconds[name] += time.perf_counter() - started
            error = ((result if name == "noisy input" else result.clip(0, 1)) - clean) ** 2
            found.setdefault(case, {}).setdefault(name, []).append(float(error.mean()))

    photos = sorted(p for p in args.photos.iterdir() if p.suffix.lower() in (".png", ".jpg", ".tif"))[: args.count]
    for number, path in enumerate(photos):
        clean = picture(path)
        for sigma in SIGMAS:
            noise = np.random.default_rng([number, sigma]).normal(0, sigma / 255, clean.shape)
            meet(f"Gaussian, sigma {sigma}", (clean + noise).astype(np.float32), clean, sigma / 255)
        print(f"{path.name} done", flush=True)
    for path in sorted(args.real.glob("*_real.png")) if args.real else []:
        noisy, clean = picture(path), picture(path.with_name(path.name.replace("_real.png", "_mean.png")))
        meet("real camera noise", noisy, clean, float(np.mean(estimate_sigma(noisy, channel_axis=-1))))
        print(f"{path.name} done", flush=True)

    rows = {}
    for case, scores in found.items():
        print(f"\n{case}: PSNR, mean of images / total; worst gain over the input, of {len(scores['BM3D'])}")
        before = np.array(scores["noisy input"])
        for name, errors in scores.items():
            mse = np.array(errors)
            row = {
                "psnr": float(-10 * np.log10(mse).mean()),
                "psnr_total": float(-10 * np.log10(mse.mean())),
                "worst_gain": float((10 * np.log10(before / mse)).min()),
            }
            rows.setdefault(case, {})[name] = row
            print(f"  {name:22}{row['psnr']:6.2f} / {row['psnr_total']:5.2f} dB  {row['worst_gain']:+.2f} dB")
    speeds = {name: pixels / 1e6 / s for name, s in seconds.items() if name != "noisy input"}
    print("\nmegapixels per second, with", torch.get_num_threads(), "threads:")
    for name, speed in speeds.items():
        print(f"  {name:22}{speed:8.3f}")
    args.out.write_text(json.dumps({"scores": rows, "megapixels_per_second": speeds}, indent=2) + "\n")


if __name__ == "__main__":
    main()
