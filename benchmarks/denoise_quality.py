"""Built-in checkpoint against classical filters on all kinds of pictures, in one run.

    python benchmarks/denoise_quality.py --photos KODAK [--real PAIRS] [--captures FMD]
                                         [--checkpoint RUN ...] [--crop 256] [--count 24]
                                         [--network-only] [--only Poisson] [--out FILE.json]

KODAK is a folder of clean photographs; PAIRS one of NAME_real.png, a noisy shot, and NAME_mean.png,
the mean of many; FMD one with a folder of noisy captures 0.png, 1.png ... for each field. The
filters know the standard deviation of Gaussian noise and the photons of Poisson noise; the network
is blind. On real noise all are blind: the filters use scikit-image's estimate. On captures the
error is estimated from two of them. All methods get the same noisy pictures. Needs
`pip install bm3d`, unless --network-only.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, estimate_sigma

from n2n_lightning import load
from n2n_lightning.data.generated.specimens import specimens
from n2n_lightning.formats import opened
from n2n_lightning.inference.tiling import least_tile
from n2n_lightning.noise import Camera, Gaussian
from n2n_lightning.randomness import generator

SIGMAS = (2, 5, 15, 25, 50)
PEAKS = (4, 30)
UNITS = ((0.01, 0.0), (300.0, 1000.0), (1.0, -5.0))


def nl_means(noisy: np.ndarray, sigma: float) -> np.ndarray:
    """Denoise as scikit-image's example: h = 0.8 sigma, patch 5 x 5, window 13 x 13."""
    colour = {"channel_axis": -1} if noisy.ndim == 3 else {}
    return denoise_nl_means(
        noisy, h=0.8 * sigma, sigma=sigma, patch_size=5, patch_distance=6, fast_mode=True, **colour
    )


def bm3d(noisy: np.ndarray, sigma: float) -> np.ndarray:
    import bm3d

    return bm3d.bm3d_rgb(noisy, sigma) if noisy.ndim == 3 else bm3d.bm3d(noisy, sigma)


def stabilised(noisy: np.ndarray, gain: float, read: float = 0.0) -> np.ndarray:
    """Denoise with BM3D after variance stabilisation, and invert without bias.

    Generalised Anscombe transform for the variance gain x + read^2. The inverse is the closed form
    of Makitalo and Foi, IEEE TIP 2011 and 2013. BM3D's thresholds are for values from 0 to 1.
    """
    there = 2 / gain * np.sqrt(np.maximum(gain * noisy + 3 / 8 * gain**2 + read**2, 0))
    top = float(there.max())
    back = np.maximum(bm3d((there / top).astype(np.float32), 1 / top) * top, 2 * math.sqrt(3 / 8))
    root = math.sqrt(3 / 2)
    photons = (
        back**2 / 4
        + root / 4 / back
        - 11 / 8 / back**2
        + 5 / 8 * root / back**3
        - 1 / 8
        - (read / gain) ** 2
    )
    return np.maximum(photons, 0) * gain


class Scores:
    """Squared errors by case and method."""

    def __init__(self, methods: dict[str, Any], only: str = "") -> None:
        self.methods, self.errors, self.only = methods, {}, only
        self.seconds = dict.fromkeys(methods, 0.0)
        self.pixels = 0

    def run(self, name: str, noisy: np.ndarray, method: Any) -> np.ndarray:
        started = time.perf_counter()
        result = method(noisy)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        return result

    def meet(
        self, case: str, noisy: np.ndarray, clean: np.ndarray, filters: dict[str, Any]
    ) -> None:
        if self.only not in case:
            return
        self.pixels += noisy.shape[0] * noisy.shape[1]
        everything = {"noisy input": lambda x: x, **filters, **self.methods}
        for name, method in everything.items():
            result = self.run(name, noisy, method)
            error = ((result if name == "noisy input" else result.clip(0, 1)) - clean) ** 2
            self.errors.setdefault(case, {}).setdefault(name, []).append(float(error.mean()))

    def captured(
        self, case: str, one: np.ndarray, other: np.ndarray, filters: dict[str, Any]
    ) -> None:
        """Add the mean error of both captures, each estimated from the other one.

        See metrics/noisy_reference.py, squared_errors.
        """
        if self.only not in case:
            return
        self.pixels += 2 * one.size
        for name, method in {"noisy input": lambda x: x, **filters, **self.methods}.items():
            first, second = (self.run(name, y, method) for y in (one, other))
            error = ((first - other) ** 2 + (second - one) ** 2 - (one - other) ** 2) / 2
            self.errors.setdefault(case, {}).setdefault(name, []).append(float(error.mean()))

    def rows(self) -> dict[str, dict[str, dict[str, float]]]:
        rows: dict[str, dict[str, dict[str, float]]] = {}
        for case, scores in self.errors.items():
            before = np.array(scores["noisy input"])
            print(
                f"\n{case}: PSNR, mean of images / total;"
                f" mean and worst gain over the input, of {len(before)}"
            )
            for name, errors in scores.items():
                mse = np.maximum(np.array(errors), 1e-12)
                gain = 10 * np.log10(np.maximum(before, 1e-12) / mse)
                row = {
                    "psnr": float(-10 * np.log10(mse).mean()),
                    "psnr_total": float(-10 * np.log10(mse.mean())),
                    "mean_gain": float(gain.mean()),
                    "worst_gain": float(gain.min()),
                }
                rows.setdefault(case, {})[name] = row
                shown = f"{row['psnr']:6.2f} / {row['psnr_total']:5.2f} dB"
                print(
                    f"  {name:34}{shown}  {row['mean_gain']:+.2f}, {row['worst_gain']:+.2f} dB",
                    flush=True,
                )
        return rows


def read(path: Path, crop: int | None = None) -> np.ndarray:
    """Read a picture, or its middle: float (H, W, 3) or (H, W), values in [0, 1]."""
    image = (opened(path).values[0].array / 255).astype(np.float32)
    top, left = (max(0, (n - crop) // 2) if crop else 0 for n in image.shape[:2])
    return image[top : top + crop, left : left + crop] if crop else image


def photographs(scores: Scores, args: argparse.Namespace) -> None:
    paths = sorted(
        p for p in args.photos.iterdir() if p.suffix.lower() in (".png", ".jpg", ".tif")
    )[: args.count]
    for number, path in enumerate(paths):
        clean = read(path, args.crop)
        for sigma in SIGMAS:
            noise = np.random.default_rng([number, sigma]).normal(0, sigma / 255, clean.shape)
            known = {
                "non-local means": lambda x, s=sigma / 255: nl_means(x, s),
                "BM3D": lambda x, s=sigma / 255: bm3d(x, s),
            }
            scores.meet(
                f"Gaussian, sigma {sigma}",
                (clean + noise).astype(np.float32),
                clean,
                known if args.filters else {},
            )
        grey = clean.mean(2)
        noise = np.random.default_rng([number, 125]).normal(0, 25 / 255, grey.shape)
        known = {"BM3D": lambda x: bm3d(x, 25 / 255)} if args.filters else {}
        scores.meet("grey, Gaussian, sigma 25", (grey + noise).astype(np.float32), grey, known)
        for peak in PEAKS:
            noisy = np.random.default_rng([number, 1000 + peak]).poisson(peak * clean) / peak
            known = {
                "BM3D, variance stabilised": lambda x, g=1 / peak: stabilised(x, g),
            }
            scores.meet(
                f"Poisson, peak {peak}",
                noisy.astype(np.float32),
                clean,
                known if args.filters else {},
            )
        scores.meet("nothing to remove, photographs", clean, clean, {})
        print(f"{path.name} done", flush=True)
    for image in specimens(8, 256, seed=99):
        clean = (image[0] / 255).numpy().astype(np.float32)
        scores.meet("nothing to remove, generated", clean, clean, {})


def real(scores: Scores, args: argparse.Namespace) -> None:
    for path in sorted(args.real.glob("*_real.png")) if args.real else []:
        noisy, clean = read(path), read(path.with_name(path.name.replace("_real.png", "_mean.png")))
        sigma = float(np.mean(estimate_sigma(noisy, channel_axis=-1)))
        known = {
            "non-local means": lambda x, s=sigma: nl_means(x, s),
            "BM3D": lambda x, s=sigma: bm3d(x, s),
        }
        scores.meet("real camera noise", noisy, clean, known if args.filters else {})


def captures(scores: Scores, args: argparse.Namespace) -> None:
    fields = sorted(p for p in args.captures.iterdir() if p.is_dir()) if args.captures else []
    for field in fields:
        one, other = (read(field / f"{k}.png") for k in (0, 1))
        # The variance of the noise is a line in the brightness; from differences, in blocks of 16 x
        # 16.
        blocks = [
            x[: x.shape[0] // 16 * 16, : x.shape[1] // 16 * 16].reshape(
                -1, 16, x.shape[1] // 16, 16
            )
            for x in (one, other)
        ]
        bright = ((blocks[0] + blocks[1]) / 2).mean((1, 3)).ravel()
        gain, base = np.polyfit(bright, ((blocks[0] - blocks[1]) ** 2 / 2).mean((1, 3)).ravel(), 1)
        read_noise = float(np.sqrt(max(base, 0)))
        filters = {
            "total variation": lambda x: denoise_tv_chambolle(x, weight=0.05),
            "BM3D, variance stabilised": lambda x, g=gain, r=read_noise: stabilised(
                x, max(float(g), 1e-6), r
            ),
        }
        scores.captured("fluorescence captures", one, other, filters if args.filters else {})


def units(args: argparse.Namespace, model: Any) -> dict[str, float]:
    """Return the largest deviations from equivariance, and from tiling.

    Differences of f(a x + b) from a f(x) + b, in standard deviations of the noise; differences of a
    tiled result, in units of white.
    """
    path = sorted(p for p in args.photos.iterdir() if p.suffix.lower() in (".png", ".jpg", ".tif"))[
        0
    ]
    clean = read(path, args.crop)
    noisy = (clean + np.random.default_rng(0).normal(0, 25 / 255, clean.shape)).astype(np.float32)
    plain = model.denoise(noisy).astype(np.float64)
    found = {}
    for a, b in UNITS:
        there = (a * noisy.astype(np.float64) + b).astype(np.float32)
        found[f"{a:g} x {b:+g}"] = float(
            np.abs((model.denoise(there) - b) / a - plain).max() / (25 / 255)
        )
    image = torch.from_numpy(read(path)).permute(2, 0, 1)[None]
    for name, noise in {
        "white": Gaussian(25),
        "camera": Camera(sigma=30, width=1.6, shared=0.9),
    }.items():
        noisy = noise(image, generator(0))[0].permute(1, 2, 0).numpy()
        difference = model.denoise(
            noisy, tile=least_tile(model.overlap, model.multiple)
        ) - model.denoise(noisy, tile=None)
        found[f"tiles, {name}"] = float(np.abs(difference).max())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--captures", type=Path)
    parser.add_argument("--checkpoint", type=Path, nargs="*", default=[])
    parser.add_argument("--count", type=int, default=24, help="photographs, at most")
    parser.add_argument("--crop", type=int, help="score only the middle CROP x CROP pixels of each")
    parser.add_argument(
        "--network-only", dest="filters", action="store_false", help="leave out the filters"
    )
    parser.add_argument("--only", default="", help="the cases with this in their name")
    parser.add_argument("--out", type=Path, default=Path("denoise_quality.json"))
    args = parser.parse_args()
    models = {str(path): load(path) for path in args.checkpoint} or {"n2n_lightning": load()}
    scores = Scores(
        {name: lambda x, m=m: m.denoise(x, tile=None) for name, m in models.items()}, args.only
    )
    with torch.inference_mode():
        photographs(scores, args)
        real(scores, args)
        captures(scores, args)
    rows = scores.rows()
    for name, model in models.items():
        print(
            f"\n{name}: f(a x + b) against a f(x) + b, in deviations of the noise;"
            " tiles, in units of white"
        )
        for unit, value in units(args, model).items():
            print(f"  {unit:16}{value:.2g}")
    speeds = {
        name: scores.pixels / 1e6 / s
        for name, s in scores.seconds.items()
        if name in scores.methods
    }
    print(
        "\nmegapixels per second, with",
        torch.get_num_threads(),
        "threads:",
        {n: round(s, 3) for n, s in speeds.items()},
    )
    args.out.write_text(
        json.dumps({"scores": rows, "megapixels_per_second": speeds}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
