"""`denoise --best`: the choice against the best of its candidates, by the truth.

    python benchmarks/best.py choices --data N2N_DATA [--minutes 10] [--only rows]
    python benchmarks/best.py noise --data N2N_DATA

`choices` adds noise to 256 x 256 middles of eight Kodak photographs (floats), or takes FMD's fields
and CC15's shots, searches within a budget of one thread, and scores every candidate, as it was
trained in this search, on all pixels. A row says how far the choice is behind the best candidate
and ahead of the bundled checkpoint. `noise` says how far off the measured variance of correlated
noise is: the mean of the logarithms over pictures, which all of them share, and their spread.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.signal import lfilter

from n2n_lightning import load
from n2n_lightning.formats.picture import AskedAxes
from n2n_lightning.inference.plan import planned
from n2n_lightning.metrics.psnr import psnr
from n2n_lightning.metrics.single_noise import single_noise
from n2n_lightning.selection import search as searching
from n2n_lightning.selection.blend import combined
from n2n_lightning.selection.data_set import (
    DataSet,
    kind_of_file,
    read_data_set,
    with_captures_of,
)

SIDE = 256
Corrupt = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def gaussian(sigma: float) -> Corrupt:
    return lambda clean, draws: clean + sigma * draws.standard_normal(clean.shape)


def poisson(white: float) -> Corrupt:
    return lambda clean, draws: draws.poisson(clean / 255 * white) * (255 / white)


def rows(sigma: float, share: float = 0.8) -> Corrupt:
    """Return autoregressive noise along rows."""

    def corrupt(clean: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        white = draws.standard_normal((clean.shape[0], clean.shape[1] + 64))
        noise = lfilter([np.sqrt(1 - share**2)], [1, -share], white, axis=1)
        return clean + sigma * noise[:, 64:]

    return corrupt


def blurred(sigma: float, width: float) -> Corrupt:
    def corrupt(clean: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        noise = gaussian_filter(draws.standard_normal(clean.shape), width)
        return clean + sigma * noise / noise.std()

    return corrupt


NOISES = {
    "gaussian 10": gaussian(10),
    "gaussian 40": gaussian(40),
    "poisson 5": poisson(5),
    "rows": rows(25),
    "blurred": blurred(15, 0.7),
}


def middles(folder: Path, count: int) -> list[np.ndarray]:
    """Return grey middles of photographs."""
    pictures = []
    for path in sorted(folder.glob("*.png"))[:: 24 // count][:count]:
        with Image.open(path) as image:
            grey = np.asarray(image.convert("L"), np.float64)
        top, left = ((length - SIDE) // 2 for length in grey.shape)
        pictures.append(grey[top : top + SIDE, left : left + SIDE])
    return pictures


def read(folder: Path, captures: bool = False) -> DataSet:
    jobs, _ = planned([str(folder)], folder.parent / "out")
    asked = AskedAxes()
    data = read_data_set(jobs, {}, kind_of_file(jobs[0], asked), asked)
    return with_captures_of(str(folder), data) if captures else data


def decibels(outputs: list[np.ndarray], cleans: list[np.ndarray]) -> float:
    """Return the mean PSNR of images, 255 being white."""
    scores = []
    for output, clean in zip(outputs, cleans, strict=True):
        scores.append(psnr(float(((output - clean) ** 2).mean()) / 255**2))
    return float(np.mean(scores))


def scored(name: str, data: DataSet, cleans: list[np.ndarray], minutes: float) -> str:
    """Search, score all candidates by the truth, and return a row."""
    tried: list = []
    choose = searching.choose

    def remembered(candidates, comparison):
        tried[:] = candidates
        return choose(candidates, comparison)

    searching.choose = remembered
    with tempfile.TemporaryDirectory() as work:
        choice = searching.search(data, minutes, Path(work), print)
    searching.choose = choose
    noisy = [data.capture(i, 0).astype(np.float32) for i in range(len(data.scenes))]
    denoisers = {"bundled": load(), "choice": choice.denoiser()}
    for candidate in tried:
        parts = [part.denoiser for part in candidate.parts]
        denoisers[candidate.name] = combined(parts, candidate.weights)
    scores = {}
    for label, denoiser in denoisers.items():
        outputs = [denoiser.denoise(image, axes="CHW") for image in noisy]
        scores[label] = decibels(outputs, cleans)
    best = max(scores, key=scores.__getitem__)
    print({label: round(score, 2) for label, score in scores.items()})
    return (
        f"| {name} | {decibels(noisy, cleans):.2f} | {scores['bundled']:.2f} |"
        f" {scores['choice']:.2f} ({choice.name}) | {scores[best]:.2f} ({best}) |"
    )


def photographs(name: str, data: Path, minutes: float) -> str:
    cleans = middles(data / "kodak24", 8)
    draws = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "noisy")
        folder.mkdir()
        for number, clean in enumerate(cleans):
            noisy = NOISES[name](clean, draws).astype(np.float32)
            np.save(folder / f"{number}.npy", noisy)
        return scored(name, read(folder), [clean[None] for clean in cleans], minutes)


def cc15(data: Path, minutes: float) -> str:
    cleans = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "noisy")
        folder.mkdir()
        for path in sorted((data / "cc15_real").glob("*_real.png")):
            with Image.open(path) as image:
                image.convert("RGB").crop((0, 0, SIDE, SIDE)).save(folder / path.name)
            clean = path.with_name(path.name.replace("_real", "_mean"))
            with Image.open(clean) as image:
                middle = image.convert("RGB").crop((0, 0, SIDE, SIDE))
                cleans.append(np.asarray(middle, np.float64).transpose(2, 0, 1))
        return scored("CC15", read(folder), cleans, minutes)


def microscope(captures: int, data: Path, minutes: float) -> str:
    """Score FMD's fields against the mean of three other captures, as nothing is clean."""
    fields = sorted((data / "fmd").iterdir(), key=lambda path: int(path.name))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "noisy")
        references = []
        for field in fields:
            inside = folder / f"{int(field.name):02}"
            inside.mkdir(parents=True)
            images = []
            for k in range(4):
                with Image.open(field / f"{k}.png") as image:
                    pixels = np.asarray(image.convert("L").crop((0, 0, SIDE, SIDE)))
                images.append(pixels)
                if k < captures:
                    Image.fromarray(pixels).save(inside / f"{k}.png")
            references.append(images[1:])
        found = read(folder, captures > 1)
        others = [np.mean(rest, 0)[None] for rest in references]
        return scored(f"FMD, {captures} (against the mean of 3 others)", found, others, minutes)


def variances(data: Path) -> None:
    """Print the errors of the measured variance of correlated noise."""
    draws = np.random.default_rng(3)
    for sigma in (10, 25):
        kinds = {
            "rows 0.8": rows(sigma),
            "rows 0.5": rows(sigma, 0.5),
            "blurred by 0.6": blurred(sigma, 0.6),
            "blurred by 1": blurred(sigma, 1),
        }
        for name, corrupt in kinds.items():
            logs = []
            for clean in middles(data / "kodak24", 24):
                noise = single_noise(corrupt(clean, draws)[None])
                if noise.measurable and noise.white is False:
                    logs.append(np.log(noise.sigma**2 / sigma**2))
            mean, spread = np.mean(logs), np.std(logs)
            print(f"sigma {sigma}, {name}: {len(logs)} of 24, {mean:+.2f} +- {spread:.2f}")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("what", choices=("choices", "noise"))
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--minutes", type=float, default=10)
    p.add_argument("--only", action="append")
    args = p.parse_args()
    if args.what == "noise":
        variances(args.data)
        return
    ways = {name: lambda n=name: photographs(n, args.data, args.minutes) for name in NOISES}
    for captures in (1, 2, 4):
        ways[f"fmd {captures}"] = lambda k=captures: microscope(k, args.data, args.minutes)
    ways["cc15"] = lambda: cc15(args.data, args.minutes)
    for name in args.only or ways:
        print(ways[name](), flush=True)


if __name__ == "__main__":
    main()
