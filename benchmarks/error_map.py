"""Calibration of error maps against known scenes.

    python benchmarks/error_map.py kodak --root KODAK [--side 256] [--pictures 24] [--known]
    python benchmarks/error_map.py volumes [--pictures 4]
    python benchmarks/error_map.py captures --root FMD
    python benchmarks/error_map.py cost --root KODAK

`kodak`: middles of photographs with five kinds of noise, the bundled checkpoint; maps of f(y1) from
two captures, of the mean of both results, and of f(y1) from one picture, whose noise is measured
(or known). Pixels of all pictures in ten bins of the map: RMS of the true error over RMS of the
map; rank correlation of blocks of 32 x 32, mean over the pictures. `volumes`: two halves of
generated volumes of 16 x 128 x 128 voxels, white noise as strong as the signal. `captures`:
folders of captures 0.png ... 3.png; maps from captures 0 and 1, the truth from 2 and 3. `cost`:
time and memory.
"""

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from n2n_lightning import load
from n2n_lightning.arrays.blocks import cut_blocks
from n2n_lightning.inference.error_maps import errors_of_pair, errors_of_picture
from n2n_lightning.inference.options import DenoiseOptions, NoisyArray
from n2n_lightning.metrics.autocorrelation import LAGS, correlated_noise, white_autocorrelation
from n2n_lightning.metrics.noise_law import NoiseLaw

LINES = {  # a and b of the variance, of 255
    "Gaussian 10": (100.0, 0.0),
    "Gaussian 25": (625.0, 0.0),
    "Poisson": (0.0, 4.0),
    "Poisson, read": (25.0, 2.0),
    "rows": (225.0, 0.0),
}
ALONG_ROWS = np.array([1.0, 2.0, 3.0, 2.0, 1.0])  # the filter of correlated noise
OPTIONS = DenoiseOptions(scale=255.0)
BLOCK = 32


def autocorrelation(kind: str) -> np.ndarray:
    """Return the autocorrelation of a kind of noise."""
    result = white_autocorrelation()
    if kind == "rows":
        products = np.convolve(ALONG_ROWS, ALONG_ROWS)
        result[LAGS, LAGS - 4 : LAGS + 5] = products / products[4]
    return result


def drawn(kind: str, clean: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Return a noisy capture of a scene (C, H, W), not clipped and not rounded."""
    a, b = LINES[kind]
    photons = b * draws.poisson(clean / b) if b else clean
    white = draws.normal(size=clean.shape)
    if kind == "rows":
        white = correlated_noise(clean.shape, autocorrelation(kind), draws)
    return (photons + np.sqrt(a) * white).astype(np.float32)


def middle(path: Path, side: int) -> np.ndarray:
    """Return the middle of a photograph, (C, H, W), 0 to 255."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), np.float64)
    top, left = [max(0, (length - side) // 2) for length in pixels.shape[:2]]
    return pixels[top : top + side, left : left + side].transpose(2, 0, 1)


def denoised(model: Any, noisy: NoisyArray) -> np.ndarray:
    result = np.empty(noisy.array.shape, np.float32)
    model.denoise_into(result, noisy, OPTIONS)
    return result


class Calibration:
    """Maps and true errors, squared, gathered picture by picture."""

    def __init__(self) -> None:
        self.maps: list[np.ndarray] = []
        self.truths: list[np.ndarray] = []
        self.ranks: list[float] = []
        self.unknown: list[float] = []

    def add(self, errors: np.ndarray, truth: np.ndarray) -> None:
        """Add a map (C, H, W), and the squared errors."""
        known = np.isfinite(errors)
        self.unknown.append(1 - float(known.mean()))
        if known.mean() < 0.5:
            return
        self.maps.append(errors[known].astype(np.float64) ** 2)
        self.truths.append(truth[known])
        squares = [
            blocks(np.where(known, plane, 0)) for plane in (errors.astype(float) ** 2, truth)
        ]
        self.ranks.append(float(spearmanr(*squares)[0]))

    def line(self) -> str:
        """Return the ratios of the ten bins, the rank correlation, and the share without a map."""
        unknown = f"{np.mean(self.unknown):.1%}"
        if not self.maps:
            return f"no map | {unknown}"
        squares = np.concatenate(self.maps)
        truths = np.concatenate(self.truths)
        ratios = []
        for members in np.array_split(np.argsort(squares), 10):
            ratios.append(np.sqrt(truths[members].mean() / squares[members].mean()))
        bins = " ".join(f"{ratio:.2f}" for ratio in ratios)
        return f"{bins} | {np.mean(self.ranks):.3f} (from {min(self.ranks):.2f}) | {unknown}"


def blocks(squares: np.ndarray) -> np.ndarray:
    """Return the means of blocks over all channels."""
    return cut_blocks(squares, BLOCK).mean((0, 2, 4)).ravel()


def add_pair(
    rows: dict[str, Calibration],
    model: Any,
    pair: list[NoisyArray],
    results: list[np.ndarray],
    clean: np.ndarray,
) -> None:
    """Add the maps of two captures, of one result and of the mean, and their true errors."""
    truth = (results[0] - clean) ** 2
    truth_of_mean = ((results[0] + results[1]) / 2 - clean) ** 2
    of_one = errors_of_pair(model, pair, results, OPTIONS)
    rows["two, of one"].add(of_one.values, truth)
    of_mean = errors_of_pair(model, pair, results, OPTIONS, of_mean=True)
    rows["two, of the mean"].add(of_mean.values, truth_of_mean)


def kodak(args: argparse.Namespace) -> None:
    model = load()
    paths = sorted(args.root.glob("*.png"))[: args.pictures]
    for kind in args.kinds or LINES:
        a, b = LINES[kind]
        rows = {"two, of one": Calibration(), "two, of the mean": Calibration()}
        rows["one picture"] = Calibration()
        for number, path in enumerate(paths):
            clean = middle(path, args.side)
            draws = np.random.default_rng(number)
            pair = [NoisyArray(drawn(kind, clean, draws), "CHW") for _ in range(2)]
            results = [denoised(model, noisy) for noisy in pair]
            add_pair(rows, model, pair, results, clean)
            law = None
            if args.known:
                level = np.full(3, a), np.full(3, b)
                law = NoiseLaw(*level, 0.0, clean.mean((1, 2)), autocorrelation(kind))
            single = errors_of_picture(model, pair[0], results[0], OPTIONS, law)
            rows["one picture"].add(single.values, (results[0] - clean) ** 2)
        for name, row in rows.items():
            print(f"| {kind} | {name} | {row.line()} |", flush=True)


def generated_volume(seed: int) -> np.ndarray:
    """Return blobs, filaments and a membrane, (D, H, W), 0 to 255."""
    draws = np.random.default_rng(seed)
    shape = (16, 128, 128)
    blobs = gaussian_filter(draws.normal(size=shape), (3, 6, 6))
    threads = gaussian_filter(draws.normal(size=shape), (1, 2, 2))
    filaments = np.exp(-((threads / (0.15 * threads.std())) ** 2))
    depth, rows, columns = np.indices(shape)
    distance = np.hypot(np.hypot(depth - 8, (rows - 64) / 3), (columns - 64) / 3)
    membrane = np.exp(-((distance - 12) ** 2))
    mixed = blobs / blobs.std() + 2 * filaments + 3 * membrane
    return (mixed - mixed.min()) / np.ptp(mixed) * 255


def volumes(args: argparse.Namespace) -> None:
    model = load()
    rows = {"two, of one": Calibration(), "two, of the mean": Calibration()}
    for number in range(args.pictures):
        clean = generated_volume(number)
        draws = np.random.default_rng(number)
        pair = []
        for _ in range(2):
            noisy = draws.normal(clean, clean.std()).astype(np.float32)
            pair.append(NoisyArray(noisy, "DHW"))
        results = [denoised(model, noisy) for noisy in pair]
        add_pair(rows, model, pair, results, clean)
    for name, row in rows.items():
        print(f"| volumes | {name} | {row.line()} |", flush=True)


def captures(args: argparse.Namespace) -> None:
    model = load()
    table = []
    for folder in sorted(path for path in args.root.iterdir() if path.is_dir()):
        stack = []
        for number in range(4):
            stack.append(middle(folder / f"{number}.png", args.side)[:1].astype(np.float32))
        noisy = [NoisyArray(capture, "CHW") for capture in stack]
        options = DenoiseOptions(scale=32.0)
        results = []
        for one in noisy[:2]:
            result = np.empty(one.array.shape, np.float32)
            model.denoise_into(result, one, options)
            results.append(result)
        pair = errors_of_pair(model, noisy[:2], results, options)
        single = errors_of_picture(model, noisy[0], results[0], options)
        known = np.isfinite(pair.values)
        second, third = [(results[0] - capture) ** 2 for capture in stack[2:]]
        noise = (stack[2] - stack[3]) ** 2 / 2
        both = ((results[0] - stack[2]) * (results[0] - stack[3])).astype(float)
        ranks = []
        for squares in (pair.values**2, single.values**2):
            ranks.append(spearmanr(blocks(np.where(known, squares, 0)), blocks(both * known))[0])
        of_second, of_third = [blocks((plane - noise) * known) for plane in (second, third)]
        agreement = spearmanr(of_second, of_third)[0]
        table.append((*ranks, agreement))
        ratio = np.sqrt(both[known].mean() / (pair.values[known] ** 2).mean())
        single_known = np.isfinite(single.values)
        row = f"{folder.name}: pair {ranks[0]:.2f}, one {ranks[1]:.2f}, captures {agreement:.2f}"
        print(
            f"{row}, true over map {ratio:.2f}, without {1 - single_known.mean():.0%}", flush=True
        )
    print("mean", np.round(np.nanmean(table, 0), 3))


def cost(args: argparse.Namespace) -> None:
    model = load()
    clean = middle(sorted(args.root.glob("*.png"))[0], 512)
    draws = np.random.default_rng(0)
    pair = [NoisyArray(drawn("Gaussian 10", clean, draws), "CHW") for _ in range(2)]
    results: list[np.ndarray] = []

    def measured(name: str, work: Any) -> None:
        started = time.process_time()
        work()
        seconds = time.process_time() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{name}: {seconds:.1f} s, peak {peak:.0f} MB", flush=True)

    measured("denoise", lambda: results.append(denoised(model, pair[0])))
    results.append(denoised(model, pair[1]))
    measured("map from two results", lambda: errors_of_pair(model, pair, results, OPTIONS))
    measured("map from one", lambda: errors_of_picture(model, pair[0], results[0], OPTIONS))


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("what", choices=("kodak", "volumes", "captures", "cost"))
    p.add_argument("--root", type=Path, help="photographs, or captures; not for volumes")
    p.add_argument("--side", type=int, default=256)
    p.add_argument("--pictures", type=int, default=24)
    p.add_argument("--kinds", nargs="*", choices=list(LINES))
    p.add_argument("--known", action="store_true")
    arguments = p.parse_args()
    torch.set_num_threads(1)
    {"kodak": kodak, "volumes": volumes, "captures": captures, "cost": cost}[arguments.what](
        arguments
    )
