"""`denoise --best`: the choice against the best of its candidates, by the truth.

    python benchmarks/best.py choices --data N2N_DATA [--minutes 10] [--only rows]
    python benchmarks/best.py noise --data N2N_DATA [--photos FOLDER]
    python benchmarks/best.py flash

`choices` adds noise to 256 x 256 middles of eight Kodak photographs (floats), takes FMD's fields
and CC15's shots, or generates two movies or a volume, searches within a budget of one thread, and
scores every candidate, as it was trained in this search, on all pixels. A row says how far the
choice is behind the best candidate and ahead of the bundled checkpoint. `noise` says how far off
the measured variance of correlated noise is: the mean of the logarithms over pictures, which all of
them share, and their spread. `flash` says what denoisers keep of a flash of one frame, and their
PSNR.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import movies
import numpy as np
import torch
import volumes
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.signal import lfilter

from n2n_lightning import load
from n2n_lightning.formats.picture import AskedAxes
from n2n_lightning.inference.plan import planned
from n2n_lightning.metrics.psnr import psnr
from n2n_lightning.metrics.single_noise import single_noise
from n2n_lightning.noise.camera import camera_noise
from n2n_lightning.selection import search as searching
from n2n_lightning.selection.comparison import Comparison, ScoredPart
from n2n_lightning.selection.data_set import DataSet
from n2n_lightning.selection.sources import data_of_kind, kinds_of
from n2n_lightning.selection.stack_noise import noise_of_movie

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


def middles(folder: Path, count: int, mode: str = "L") -> list[np.ndarray]:
    """Return middles of photographs, grey (H, W), or in colour (H, W, 3)."""
    pictures = []
    paths = sorted([*folder.glob("*.png"), *folder.glob("*.jpg")])
    for path in paths[:: max(1, len(paths) // count)][:count]:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert(mode), np.float64)
        top, left = ((length - SIDE) // 2 for length in pixels.shape[:2])
        pictures.append(pixels[top : top + SIDE, left : left + SIDE])
    return pictures


def read(folder: Path, axes: str | None = None) -> DataSet:
    jobs, _ = planned([str(folder)], folder.parent / "out")
    asked = AskedAxes(axes)
    kinds, _ = kinds_of(jobs, asked)
    (kind,) = kinds
    return data_of_kind(kind, kinds, {}, asked, [str(folder)])


def decibels(outputs: list[np.ndarray], cleans: list[np.ndarray]) -> float:
    """Return the mean PSNR of images, 255 being white."""
    scores = []
    for output, clean in zip(outputs, cleans, strict=True):
        scores.append(psnr(float(((output - clean) ** 2).mean()) / 255**2))
    return float(np.mean(scores))


def scored(
    name: str,
    data: DataSet,
    cleans: list[np.ndarray],
    minutes: float,
    noisy: list[np.ndarray] | None = None,
) -> str:
    """Search, score all candidates by the truth, and return a row.

    Args:
        name: of the row.
        data: what is compared.
        cleans: without noise, (C, H, W), frames or planes in place of C.
        minutes: of the budget.
        noisy: in the shape of `cleans`; None: the pictures of the data.
    """
    tried: list = []
    choose = searching.choose

    def remembered(candidates, comparison):
        tried[:] = candidates
        return choose(candidates, comparison)

    searching.choose = remembered
    with tempfile.TemporaryDirectory() as work:
        choice = searching.search(data, minutes, Path(work), print)
    searching.choose = choose
    if noisy is None:
        noisy = [data.capture(i, 0) for i in range(len(data.scenes))]
    noisy = [image.astype(np.float32) for image in noisy]
    outputs: dict[int, list[np.ndarray]] = {}

    def mixed(parts, weights) -> float:
        total = [(1 - sum(weights)) * image for image in noisy]
        for part, weight in zip(parts, weights, strict=True):
            model = part.denoiser
            if id(model) not in outputs:
                outputs[id(model)] = [model.denoise(image, axes=data.axes) for image in noisy]
            for image, output in zip(total, outputs[id(model)], strict=True):
                image += weight * output
        return decibels(total, cleans)

    scores = {"choice": mixed(choice.parts, choice.weights)}
    for candidate in tried:
        scores[candidate.name] = mixed(candidate.parts, candidate.weights)
    print({label: round(score, 2) for label, score in scores.items()})
    bundled = scores[tried[0].name] if tried else scores["choice"]
    refused = {candidate.name for candidate in tried if candidate.refused}
    best = max(scores.keys() - refused, key=scores.__getitem__)
    return (
        f"| {name} | {decibels(noisy, cleans):.2f} | {bundled:.2f} |"
        f" {scores['choice']:.2f} ({choice.name}) | {scores[best]:.2f} ({best}) |"
    )


def camera(data: Path, minutes: float) -> str:
    """Score colour photographs with the noise of cameras, blurred and shared by the channels."""
    draws = torch.Generator().manual_seed(0)
    cleans = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "noisy")
        folder.mkdir()
        for number, clean in enumerate(middles(data / "kodak24", 8, "RGB")):
            planes = clean.transpose(2, 0, 1)
            image = torch.from_numpy(planes / 255)[None].float()
            half = torch.full((1, 1, 1, 1), 0.5)
            width = torch.tensor([0.6])
            noisy = camera_noise(image, half * 40 / 255, half, half, width, draws)
            np.save(folder / f"{number}.npy", 255 * noisy[0].numpy())
            cleans.append(planes)
        return scored("camera", read(folder, "CHW"), cleans, minutes)


def stacks(name: str, axes: str, cleans: list[np.ndarray], sigma: float, minutes: float) -> str:
    """Score movies or volumes with white noise."""
    draws = np.random.default_rng(1)
    noisy = [clean + sigma * draws.standard_normal(clean.shape) for clean in cleans]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "noisy")
        folder.mkdir()
        for number, stack in enumerate(noisy):
            np.save(folder / f"{number}.npy", stack.astype(np.float32))
        return scored(name, read(folder, axes), cleans, minutes, noisy)


def movie(minutes: float) -> str:
    """Score two movies: discs that move, and cells that light up."""
    cleans = []
    for kind in ("moving", "flashing"):
        photons = movies.scene(kind, seed=0, frames=24, side=128).photons
        cleans.append(255 * photons / photons.max())
    return stacks("movies", "THW", cleans, 15.0, minutes)


def volume(minutes: float) -> str:
    """Score a volume of membranes, filaments and blobs, as noisy as they are bright."""
    clean = volumes.specimen(96, np.random.default_rng(0)).astype(np.float64)
    scaled = 80 + 25 * clean
    return stacks("volume", "DHW", [scaled], 25.0, minutes)


def flash() -> None:
    """Print what denoisers keep of planted flashes, and their PSNR."""
    clean = movies.GAIN * movies.scene("still", seed=0, frames=12, side=128).photons
    noisy = clean + 14 * np.random.default_rng(0).standard_normal(clean.shape)
    part = ScoredPart(noisy[None], noise_of_movie(noisy))
    comparison = Comparison([part], 255, "THW")
    ways = {
        "bundled checkpoint for movies": lambda y: load("movie").denoise(y, axes="THW"),
        "bundled checkpoint": lambda y: load().denoise(y, axes="THW"),
        "blur of 1 pixel": lambda y: gaussian_filter(y, (0, 1, 1)),
        "blur of 1 pixel and 0.5 frames": lambda y: gaussian_filter(y, (0.5, 1, 1)),
        "blur of 1 pixel and 1 frame": lambda y: gaussian_filter(y, (1, 1, 1)),
    }
    for name, way in ways.items():
        evaluation = comparison.evaluate(way)
        score = decibels([evaluation.outputs[0][0]], [clean])
        said = comparison.psnr(comparison.error(evaluation))
        print(f"{name}: {score:.2f} dB (estimate {said:.2f}), flash {evaluation.kept:.3f}")


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
        found = read(folder)
        others = [np.mean(rest, 0)[None] for rest in references]
        return scored(f"FMD, {captures} (against the mean of 3 others)", found, others, minutes)


def variances(photos: Path) -> None:
    """Print the errors of the measured variance of correlated noise."""
    draws = np.random.default_rng(3)
    means = []
    spreads = []
    for sigma in (10, 25):
        kinds = {
            "rows 0.8": rows(sigma),
            "rows 0.5": rows(sigma, 0.5),
            "blurred by 0.6": blurred(sigma, 0.6),
            "blurred by 1": blurred(sigma, 1),
        }
        for name, corrupt in kinds.items():
            logs = []
            for clean in middles(photos, 24):
                noise = single_noise(corrupt(clean, draws)[None])
                if noise.measurable and noise.white is False:
                    logs.append(np.log(noise.sigma**2 / sigma**2))
            mean, spread = np.mean(logs), np.std(logs)
            means.append(mean)
            spreads.append(spread)
            print(f"sigma {sigma}, {name}: {len(logs)} of 24, {mean:+.2f} +- {spread:.2f}")
    shared = np.sqrt(np.mean(np.square(means)))
    own = np.sqrt(np.mean(np.square(spreads)))
    share = shared / np.hypot(shared, own)
    print(f"shared {shared:.2f}, of each picture {own:.2f}: share {share:.2f}")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("what", choices=("choices", "noise", "flash"))
    p.add_argument("--data", type=Path, default=Path("data"))
    p.add_argument("--photos", type=Path)
    p.add_argument("--minutes", type=float, default=10)
    p.add_argument("--only", action="append")
    args = p.parse_args()
    if args.what == "noise":
        variances(args.photos or args.data / "kodak24")
        return
    if args.what == "flash":
        flash()
        return
    ways = {name: lambda n=name: photographs(n, args.data, args.minutes) for name in NOISES}
    for captures in (1, 2, 4):
        ways[f"fmd {captures}"] = lambda k=captures: microscope(k, args.data, args.minutes)
    ways["camera"] = lambda: camera(args.data, args.minutes)
    ways["movie"] = lambda: movie(args.minutes)
    ways["volume"] = lambda: volume(args.minutes)
    ways["cc15"] = lambda: cc15(args.data, args.minutes)
    for name in args.only or ways:
        print(ways[name](), flush=True)


if __name__ == "__main__":
    main()
