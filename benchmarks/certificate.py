"""Certificates and marks against known truth: `python benchmarks/certificate.py FMD [--count 200]`.

FMD is a folder with a folder of noisy captures 0.png, 1.png ... for each field. Three tables:

1. False alarms: images whose residual is noise. White, photon and correlated noise on a flat and on
   a structured scene; the share with any mark.
2. Planted structures of a matched-filter signal to noise of 8 (stars, lines, gratings, flashes), of
   which a denoiser removed a half to all; the share that is marked.
3. Certificates of the bundled checkpoint on captures 0 and 1 of each field, and of the Gaussian
   blur whose error comes closest to its.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from n2n_lightning import load
from n2n_lightning.formats import opened
from n2n_lightning.metrics.autocorrelation import LAGS, correlated_noise
from n2n_lightning.metrics.certificate import FAILS, HOLDS, certify
from n2n_lightning.metrics.residual_structure import residual_structure

SIDE = 128
SIGNAL = 8.0
REMOVED = (0.5, 0.6, 0.75, 0.9, 1.0)
GROUPS = ("brightness", "regions", "points", "contrast", "spectrum", "resolution")


def unit(brightness: np.ndarray) -> np.ndarray:
    return np.ones_like(brightness)


def scenes(draws: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Yield a flat scene and one with squares of all brightnesses."""
    yield "flat", np.full((1, SIDE, SIDE), 100.0)
    squares = draws.uniform(20, 200, (1, SIDE // 8, SIDE // 8))
    yield "squares", np.kron(squares, np.ones((8, 8)))


def false_alarms(count: int, draws: np.random.Generator) -> None:
    """Print the share of images of noise that have a mark."""
    rows, columns = np.mgrid[-LAGS : LAGS + 1, -LAGS : LAGS + 1]
    blurred = np.exp(-(rows**2 + columns**2) / 4)
    marked: dict[str, int] = {}
    for _ in range(count):
        for name, scene in scenes(draws):
            white = scene + draws.normal(size=scene.shape)
            photons = draws.poisson(scene / 50).astype(float)
            correlated = scene + correlated_noise(scene.shape, blurred, draws)
            kept = scene + 0.3 * (white - scene)
            cases = {
                "white": residual_structure([white], [scene], unit),
                "white, 30% of it kept": residual_structure([white], [kept], unit),
                "photons, 0.4 to 4": residual_structure([photons], [scene / 50], abs, slope=1.0),
                "correlated": residual_structure([correlated], [scene], unit, blurred),
            }
            for case, found in cases.items():
                key = f"{case}; {name}"
                marked[key] = marked.get(key, 0) + bool(found.places)
    print(f"\n| noise; scene | marked of {count} |\n|---|---|")
    for key, number in marked.items():
        print(f"| {key} | {number} |", flush=True)


def star(grid: tuple[np.ndarray, np.ndarray], draws: np.random.Generator) -> np.ndarray:
    rows, columns = grid
    return np.exp(-(rows**2 + columns**2) / 2 / (draws.uniform(1.5, 3.5) / 2.355) ** 2)


def segment(grid: tuple[np.ndarray, np.ndarray], draws: np.random.Generator) -> np.ndarray:
    rows, columns = grid
    angle = draws.uniform(0, np.pi)
    along = columns * np.cos(angle) + rows * np.sin(angle)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    inside = abs(along) < draws.uniform(6, 20)
    return inside * np.exp(-(across**2) / 2 / draws.uniform(0.5, 1.2) ** 2)


def texture(grid: tuple[np.ndarray, np.ndarray], draws: np.random.Generator) -> np.ndarray:
    rows, columns = grid
    angle = draws.uniform(0, np.pi)
    along = columns * np.cos(angle) + rows * np.sin(angle)
    wave = np.cos(2 * np.pi * along / draws.uniform(3, 8) + draws.uniform(0, 6.28))
    return wave * np.exp(-(rows**2 + columns**2) / 2 / draws.uniform(5, 10) ** 2)


def flash(grid: tuple[np.ndarray, np.ndarray], draws: np.random.Generator) -> np.ndarray:
    rows, columns = grid
    return np.exp(-(rows**2 + columns**2) / 2 / draws.uniform(2, 6) ** 2)


Shape = Callable[[tuple[np.ndarray, np.ndarray], np.random.Generator], np.ndarray]
SHAPES: dict[str, Shape] = {"star": star, "line": segment, "texture": texture, "flash": flash}


def planted(count: int, draws: np.random.Generator) -> None:
    """Print the share of planted structures that are marked."""
    print(f"\n| of {count} marked; removed | " + " | ".join(map(str, REMOVED)) + " | mean |")
    print("|---|" + "---|" * (len(REMOVED) + 1))
    for name, make in SHAPES.items():
        shares = []
        for removed in REMOVED:
            hits = 0
            for _ in range(count):
                row, column = draws.uniform(24, SIDE - 24, 2)
                rows, columns = np.mgrid[:SIDE, :SIDE]
                structure = make((rows - row, columns - column), draws)[None]
                structure *= SIGNAL / np.sqrt((structure**2).sum())
                scene = np.full(structure.shape, 100.0)
                noisy = scene + structure + draws.normal(size=scene.shape)
                result = scene + (1 - removed) * structure
                found = residual_structure([noisy], [result], unit)
                strong = abs(structure) > 0.3 * abs(structure).max()
                hits += bool(found.mask[strong].any())
            shares.append(hits / count)
        cells = " | ".join(f"{share:.2f}" for share in shares)
        print(f"| {name} | {cells} | {np.mean(shares):.2f} |", flush=True)


def squared_error(results: list[np.ndarray], captures: list[np.ndarray]) -> float:
    """Return the estimate of the error from two captures, see metrics/noisy_reference.py."""
    first = (results[0] - captures[1]) ** 2 + (results[1] - captures[0]) ** 2
    return float((first - (captures[0] - captures[1]) ** 2).mean() / 2)


def compare(folder: Path, draws: np.random.Generator) -> None:
    """Print the certificates of the bundled checkpoint and of a blur with its error."""
    model = load()
    widths = np.linspace(0.3, 3, 28)
    head = " | ".join(GROUPS)
    print("\nholds / does not hold, of the quantities of each group")
    print(f"| field | method | MSE | {head} |")
    print("|---|---|---|" + "---|" * len(GROUPS))
    spent = {"denoise": 0.0, "certify": 0.0, "structure": 0.0}
    for field in sorted(folder.iterdir(), key=lambda path: path.name.zfill(9)):
        if not field.is_dir():
            continue
        stored = [np.asarray(opened(field / f"{n}.png").values[0].array) for n in (0, 1)]
        captures = [image.astype(np.float64).reshape(image.shape[:2]) for image in stored]
        started = time.process_time()
        bundled = []
        for image in stored:
            bundled.append(np.float64(model.denoise(image, dtype="float32")).reshape(512, 512))
        spent["denoise"] += time.process_time() - started
        error = squared_error(bundled, captures)
        blurs = [[gaussian_filter(image, width) for image in captures] for width in widths]
        errors = [squared_error(results, captures) for results in blurs]
        nearest = int(np.argmin(np.abs(np.array(errors) - error)))
        methods = {"bundled": bundled, f"blur {widths[nearest]:.1f}": blurs[nearest]}
        for name, results in methods.items():
            started = time.process_time()
            made = certify([image[None] for image in captures], [image[None] for image in results])
            spent["certify"] += (time.process_time() - started) / 2
            cells = [f"{made.count(HOLDS, group)} / {made.count(FAILS, group)}" for group in GROUPS]
            mse = squared_error(results, captures)
            print(f"| {field.name} | {name} | {mse:.2f} | {' | '.join(cells)} |", flush=True)
    print("\nseconds of processor time, all fields: ", {k: round(v, 1) for k, v in spent.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captures", type=Path, nargs="?", help="FMD; without it no third table")
    parser.add_argument("--count", type=int, default=200, help="images of noise of each kind")
    parser.add_argument("--planted", type=int, default=50, help="structures of each kind")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draws = np.random.default_rng(args.seed)
    if args.count:
        false_alarms(args.count, draws)
    if args.planted:
        planted(args.planted, draws)
    if args.captures:
        compare(args.captures, draws)


if __name__ == "__main__":
    main()
