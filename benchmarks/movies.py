"""Movies whose events are known: PSNR, worst frame, onset of events, and the score without truth.

    python benchmarks/movies.py noise [--scenes still moving] [--noises rows]
    python benchmarks/movies.py estimate [--seeds 1 2 3]
    python benchmarks/movies.py methods [--seeds 1 2 3] [--scenes flashing voltage moving]
    python benchmarks/movies.py checkpoint --side 96 --frames 10 [--scenes still moving panning]

`noise` compares the variance that is measured with that of the movie, `estimate` the score of
simple filters and of the bundled checkpoint with the truth, `methods` trains, `checkpoint` compares
the bundled checkpoint for movies with frame by frame.

Every movie is generated: cells of a few pixels on a textured ground, seen through a blur of one
pixel. On one thread, of movies of 60 frames of 128 x 128, `noise` takes 3 s for each, `estimate`
30 s; `methods` takes most of an hour for each movie of 256 x 256.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import blind_spot_network
import numpy as np
import tifffile
from scipy.ndimage import gaussian_filter, maximum_filter, median_filter, shift

from n2n_lightning.metrics.movie_noise import MovieNoise, movie_noise
from n2n_lightning.metrics.psnr import psnr
from n2n_lightning.metrics.stein import STEP, SteinEstimate

FRAMES = 60
SIDE = 256
FLASHING = ("flashing", "drifting", "bleaching", "events", "voltage", "dithering")
SCENES = ("still", "moving", *FLASHING)
NOISES = ("gaussian", "poisson", "both")
OFFSET = 100.0  # counts of black
GAIN = 4.0  # counts of a photon
WHITE = 511.0  # for PSNR


@dataclass
class Event:
    """A cell that lights up.

    Attributes:
        frame: the first that is brighter.
        pixels: True in the cell, (H, W).
    """

    frame: int
    pixels: np.ndarray


@dataclass
class Scene:
    """A movie without noise.

    Attributes:
        photons: expected in each pixel, (T, H, W).
        events: those that begin within one frame.
    """

    photons: np.ndarray
    events: list[Event] = field(default_factory=list)


def discs(side: int, centers: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Draw discs with periodic borders: (discs, side, side), 0 to 1, before the blur."""
    grid = np.arange(side)
    masks = []
    for (row, column), radius in zip(centers, radii, strict=True):
        dy = (grid - row + side / 2) % side - side / 2
        dx = (grid - column + side / 2) % side - side / 2
        distance = np.hypot(dy[:, None], dx[None])
        masks.append(np.clip(radius + 0.5 - distance, 0, 1))
    return np.array(masks)


def _drift(kind: str, t: int) -> tuple[int, int]:
    """Return how far a scene has drifted until frame t, in whole pixels down and to the right."""
    if kind == "events":
        return t // 6, t // 4
    if kind == "drifting":
        return round(0.1 * t), round(0.28 * t)
    if kind == "dithering":
        steps = np.random.default_rng(3).integers(-3, 4, (t, 2))
        rows, columns = steps.sum(0).tolist()
        return rows, columns
    return 0, 0


def ground(side: int, draws: np.random.Generator, blur: float = 1.5) -> np.ndarray:
    """Draw a texture of mean 8 photons and deviation 2."""
    texture = gaussian_filter(draws.normal(size=(side, side)), blur, mode="wrap")
    return 8 + 2 * texture / texture.std()


def scene(kind: str, seed: int, frames: int = FRAMES, side: int = SIDE) -> Scene:
    """Generate a movie without noise.

    Args:
        kind: pulses (see there); still; flashing (cells rise by 80% within a frame and fade over
            four); voltage (events of one frame, 10%); moving (discs, 2 pixels a frame); drifting
            (flashing, 0.3 pixels a frame); bleaching (flashing, down to a half); events (one pixel
            down every 6 frames, one to the right every 4, flashing); dithering (up to 3 pixels a
            frame in either direction, at random, flashing); panning (sharp edges, 2 pixels a
            frame); flickering (the lamp, 5%).
        seed: of the scene.
        frames, side: of the movie.

    Returns:
        The movie and its events.
    """
    if kind == "pulses":
        return pulses(seed, frames, side)
    draws = np.random.default_rng((seed, 1))
    count = side * side // 1300
    centers = draws.uniform(0, side, (count, 2))
    radii = draws.uniform(3, 7, count)
    masks = discs(side, centers, radii)
    light = draws.uniform(8, 30, count)
    base = ground(side, draws)
    events: list[Event] = []
    activity = np.ones((frames, count))
    if kind in FLASHING:
        amount, fade = (0.1, 0.0) if kind == "voltage" else (0.8, 4.0)
        for cell in range(count):
            firsts = draws.choice(np.arange(3, frames - 3), 2, replace=False)
            if abs(firsts[1] - firsts[0]) < 4:  # the second would not be a rise from rest
                firsts = firsts[:1]
            for first in firsts:
                ages = np.arange(frames - first)
                course = np.exp(-ages / fade) if fade else np.float64(ages == 0)
                activity[first:, cell] += amount * course
                place = _drift(kind, int(first))
                pixels = np.roll(masks[cell] > 0.5, place, (0, 1))
                events.append(Event(int(first), pixels))
    movie = np.empty((frames, side, side))
    moving = draws.uniform(0, 2 * np.pi, count)
    for t in range(frames):
        if kind == "moving":
            step = 2 * t * np.stack([np.sin(moving), np.cos(moving)], 1)
            few = slice(0, max(8, count // 4))
            there = discs(side, (centers + step)[few], radii[few])
            sharp = base + np.tensordot(light[few], there, 1)
            sharp = sharp + np.tensordot(light[few.stop :], masks[few.stop :], 1)
        else:
            sharp = base + np.tensordot(light * activity[t], masks, 1)
        if kind == "drifting":
            sharp = shift(sharp, (0.1 * t, 0.28 * t), order=3, mode="grid-wrap")
        if kind in ("events", "dithering"):
            sharp = np.roll(sharp, _drift(kind, t), (0, 1))
        if kind == "panning":
            edges = ground(side, np.random.default_rng(seed), 3) > 8
            sharp = np.roll(sharp + 10 * edges, 2 * t, 1)
        movie[t] = sharp if kind == "panning" else gaussian_filter(sharp, 1, mode="wrap")
        if kind == "bleaching":
            movie[t] *= 0.5 ** (t / frames)
        if kind == "flickering":
            movie[t] *= 1 + 0.05 * draws.normal()
    return Scene(np.maximum(movie, 0.1), events)


def pulses(seed: int, frames: int = FRAMES, side: int = SIDE) -> Scene:
    """Generate cells that brighten together by 80%, every 20 frames, and fade over four.

    They drift by one pixel down every 6 frames and one to the right every 4. Each cell that is at
    least a quarter as bright as the brightest one is an event at each onset.
    """
    draws = np.random.default_rng(seed)
    cells = gaussian_filter(draws.random((side, side)) ** 8, 3)
    cells /= cells.max()
    movie = np.empty((frames, side, side))
    for t in range(frames):
        activity = 1 + 0.8 * np.exp(-(t % 20) / 4)
        movie[t] = 20 * np.roll(cells, _drift("events", t), (0, 1)) * activity + 2
    peaks = (cells == maximum_filter(cells, 9, mode="wrap")) & (cells > 0.25)
    events = []
    for row, column in np.argwhere(peaks):
        (disc,) = discs(side, np.array([[row, column]]), np.array([2.5]))
        for first in range(20, frames, 20):
            pixels = np.roll(disc > 0.5, _drift("events", first), (0, 1))
            events.append(Event(first, pixels))
    return Scene(movie, events)


def noisy(photons: np.ndarray, noise: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Add noise to a movie.

    Args:
        photons: (T, H, W).
        noise: gaussian, poisson, both, or rows (gaussian, 0.7 correlated along rows).
        seed: of the noise.

    Returns:
        The noisy movie, uint16, and the clean one, in the same counts.
    """
    draws = np.random.default_rng((seed, 2))
    clean = GAIN * photons + OFFSET
    stored = clean
    if noise in ("poisson", "both"):
        stored = GAIN * draws.poisson(photons) + OFFSET
    if noise in ("gaussian", "both", "rows"):
        sigma = {"gaussian": 14.0, "both": 8.0, "rows": 14.0}[noise]
        white = draws.normal(size=clean.shape)
        if noise == "rows":
            for x in range(1, clean.shape[2]):
                white[..., x] = 0.7 * white[..., x - 1] + 0.51**0.5 * white[..., x]
        stored = stored + sigma * white
    return np.uint16(np.clip(np.rint(stored), 0, 65535)), clean.astype(np.float32)


def stored_movies(args: argparse.Namespace) -> Iterator[tuple[str, Scene, np.ndarray, np.ndarray]]:
    """Yield a label, the scene, the noisy and the clean movie (T, 1, H, W) of each combination."""
    for kind in args.scenes:
        for noise in args.noises:
            for seed in args.seeds:
                made = scene(kind, seed, args.frames, args.side)
                stored, clean = noisy(made.photons, noise, seed)
                yield f"{kind}, {noise}, seed {seed}", made, stored[:, None], clean[:, None]


def noise(args: argparse.Namespace) -> None:
    """Compare the variance of the noise with that of the movie, in per cent."""
    print("| movie | off by, % | 95% interval, % | still, % |\n|---|---|---|---|")
    for label, _, stored, clean in stored_movies(args):
        measured = movie_noise(stored)
        true = np.mean((stored - np.float64(clean)) ** 2)
        off = 100 * (measured.variance(stored.mean()) / true - 1)
        interval = 196 * measured.standard_error
        still = 100 * measured.still_share
        print(f"| {label} | {off:+.2f} | {interval:.2f} | {still:.0f} | {measured.reason}")


Denoise = Callable[[np.ndarray], np.ndarray]


def filters() -> dict[str, Denoise]:
    """Return filters of five frames (5, C, H, W); the one in the middle is denoised."""
    return {
        "blur of 0.6 pixels": lambda frames: gaussian_filter(frames[2], (0, 0.6, 0.6)),
        "blur of 1 pixel": lambda frames: gaussian_filter(frames[2], (0, 1, 1)),
        "blur of 2 pixels": lambda frames: gaussian_filter(frames[2], (0, 2, 2)),
        "mean of five frames": lambda frames: frames.mean(0),
        "mean of the four around": lambda frames: (frames.sum(0) - frames[2]) / 4,
        "blur in space and time": lambda frames: gaussian_filter(
            np.average(frames, 0, (1, 2, 3, 2, 1)), (0, 0.7, 0.7)
        ),
        "shrunk differences of frames": lambda frames: (
            (frames[1] + frames[3]) / 2
            + 6 * np.tanh((frames[2] - (frames[1] + frames[3]) / 2) / 20)
        ),
        "median of 3 x 3": lambda frames: median_filter(frames[2], (1, 3, 3)),
    }


def bundled() -> Denoise:
    """Return the bundled checkpoint, frame by frame."""
    from n2n_lightning import load

    network = load()
    return lambda frames: network.denoise(frames[2].astype(np.float32), axes="CHW", scale=WHITE)


def scored(
    denoise: Denoise, stored: np.ndarray, clean: np.ndarray, measured: MovieNoise
) -> tuple[float, SteinEstimate]:
    """Denoise a movie; return the true mean squared error and the estimate."""
    draws = np.random.default_rng(0)
    estimate = SteinEstimate()
    errors = []
    movie = stored.astype(np.float64)
    last = len(movie) - 1
    for t in range(len(movie)):
        numbers = np.arange(t - 2, t + 3).clip(0, last)
        frames = movie[numbers]
        output = denoise(frames)
        direction = measured.direction(output, draws)
        moved = frames.copy()
        moved[numbers == t] += STEP * direction
        variance = measured.variance(movie[t])
        estimate.update(output, movie[t], variance, direction, denoise(moved))
        errors.append(np.mean((output - clean[t]) ** 2))
    return float(np.mean(errors)), estimate


def estimate(args: argparse.Namespace) -> None:
    """Compare the score with the truth, in dB; white is 511."""
    denoisers = filters() | ({"bundled checkpoint": bundled()} if args.bundled else {})
    print("| movie | denoiser | gain | true | estimate | 95% interval | off by |")
    print("|---|---|---|---|---|---|---|")
    offs = []
    failed = 0
    for label, _, stored, clean in stored_movies(args):
        measured = movie_noise(stored)
        before = psnr(np.mean((stored - np.float64(clean)) ** 2) / WHITE**2)
        for name, denoise in denoisers.items():
            mse, score = scored(denoise, stored, clean, measured)
            true = psnr(mse / WHITE**2)
            low, high = score.psnr_interval(WHITE, measured.standard_error)
            value = score.psnr(WHITE)
            if value is None or low is None or high is None:
                print(
                    f"| {label} | {name} | {true - before:.1f} | {true:.2f} | not measurable | | |"
                )
                continue
            offs.append(value - true)
            failed += abs(value - true) > 0.3 and not low <= true <= high
            print(
                f"| {label} | {name} | {true - before:.1f} | {true:.2f} | {value:.2f} |"
                f" {low:.2f} to {high:.2f} | {value - true:+.2f} |",
                flush=True,
            )
    print(
        f"{len(offs)} scores: off by {np.sqrt(np.mean(np.square(offs))):.3f} dB (root mean square)"
    )
    print(f"at most {np.abs(offs).max():.2f} dB; off by more than 0.3 and outside: {failed}")


NETWORK = ["model=drunet", "model.widths=[16,32,64]", "model.blocks=[1,1,1]", "optim.lr=0.002"]
SUPPORT = "SUPPORT's way"
METHODS = {
    "frame by frame, bundled": None,
    "--checkpoint movie": None,
    SUPPORT: None,
    "data=movie": ["data=movie"],
    "data=movie data.align=true": ["data=movie", "data.align=true"],
    "data=movie data.changes=1": ["data=movie", "data.changes=1"],
    "data=movie data.blind=frame": ["data=movie", "data.blind=frame"],
    "data=movie data.context=0": ["data=movie", "data.context=0"],
    "data=single": ["data=single"],
}


def python(*arguments: object) -> None:
    subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL
    )


def onset(events: list[Event], clean: np.ndarray, denoised: np.ndarray) -> tuple[float, float]:
    """Return what is missing of the rise of the events, and its standard error, in per cent.

    Args:
        events: those of the movie.
        clean, denoised: (T, H, W).

    Returns:
        The mean of (denoised rise - true rise) / true rise, in the pixels of the cells.
    """
    shares = []
    for event in events:
        before, after = event.frame - 1, event.frame
        true = (clean[after] - clean[before])[event.pixels].mean()
        rise = (denoised[after] - denoised[before])[event.pixels].mean()
        shares.append(100 * (rise / true - 1))
    return float(np.mean(shares)), float(np.std(shares, ddof=1) / np.sqrt(len(shares)))


def methods(args: argparse.Namespace) -> None:
    """Train each method on each movie, and denoise it."""
    print("| movie | method | PSNR of frames | worst | T | estimate [95%] | onset, % |")
    print("|---|---|---|---|---|---|---|")
    for label, made, stored, clean in stored_movies(args):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            source = folder / "movie.tif"
            tifffile.imwrite(source, stored[:, 0], imagej=True, metadata={"axes": "TYX"})
            for name in args.methods or METHODS:
                row = one_method(name, args, folder, made, clean[:, 0])
                print(f"| {label} | {name} | {row}", flush=True)


def one_method(
    name: str, args: argparse.Namespace, folder: Path, made: Scene, clean: np.ndarray
) -> str:
    """Train a method on the movie of a folder; return a row of the table."""
    if name == SUPPORT:
        stored = tifffile.imread(folder / "movie.tif")
        denoised = blind_spot_network.denoise(stored, args.steps * args.epochs)
        return row_of(denoised, made, clean, {})
    options = METHODS[name]
    run = folder / name.replace(" ", "_").replace("=", "_")
    out = folder / "out"
    result: dict[str, Any] = {}
    source = folder / "movie.tif"
    checkpoint: list[object] = ["--checkpoint", "movie"] if "movie" in name else ["--no-movie"]
    if options is not None:
        budget = [f"data.train_pairs={args.steps}", f"trainer.max_epochs={args.epochs}"]
        where = [f"data.noisy={source}", f"hydra.run.dir={run}"]
        python("n2n_lightning.train", *options, *NETWORK, *budget, *where)
        result = json.loads((run / "result.json").read_text())
        checkpoint = ["--checkpoint", run]
    python("n2n_lightning.denoise", source, "-o", out, *checkpoint, "--overwrite")
    denoised = tifffile.imread(out / "movie.tif").astype(np.float64)
    return row_of(denoised, made, clean, result)


def row_of(denoised: np.ndarray, made: Scene, clean: np.ndarray, result: dict[str, Any]) -> str:
    """Return the row of a denoised movie (T, H, W), given the result of its training."""
    errors = ((denoised - clean) ** 2).mean((1, 2)) / WHITE**2
    each = [psnr(float(error)) for error in errors]
    cells = f"{np.mean(each):.2f} | {min(each):.2f} | {psnr(float(errors.mean())):.2f} |"
    low, high = result.get("movie_psnr_estimate_interval") or (None, None)
    value = result.get("movie_psnr_estimate")
    if value is not None and low is not None and high is not None:
        shift_of_white = 20 * np.log10(WHITE / result["data"]["scale"])
        ends = [end + shift_of_white for end in (low, high)]
        cells += f" {value + shift_of_white:.2f} [{ends[0]:.2f}, {ends[1]:.2f}] |"
    else:
        cells += " |"
    if made.events:
        mean, error = onset(made.events, clean, denoised)
        cells += f" {mean:+.1f} ± {error:.1f} |"
    return cells


def frame_psnrs(denoised: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Return the PSNR of each frame, (T,); 511 is white."""
    errors = ((denoised - clean) ** 2).mean((1, 2))
    return np.array([psnr(float(error) / WHITE**2) for error in errors])


def checkpoint(args: argparse.Namespace) -> None:
    """Compare `--checkpoint movie` with the checkpoint for pictures, frame by frame."""
    from n2n_lightning import load

    single, movie = load(), load("movie")
    print(
        "| movie | frame by frame, worst | movie, worst | gain | least | onset: frame, movie, % |"
    )
    print("|---|---|---|---|---|---|")
    for label, made, stored, clean in stored_movies(args):
        truth = clean[:, 0]
        noisy_frames = stored[:, 0].astype(np.float32)
        alone = [single.denoise(frame, axes="HW", scale=WHITE) for frame in noisy_frames]
        results = [np.stack(alone), movie.denoise(noisy_frames, axes="THW", scale=WHITE)]
        before, after = (frame_psnrs(result, truth) for result in results)
        cells = [f"{each.mean():.2f}, {each.min():.2f}" for each in (before, after)]
        gain = after - before
        cells += [f"{gain.mean():+.2f}", f"{gain.min():+.2f}"]
        if made.events:
            rises = [onset(made.events, truth, result) for result in results]
            cells.append(", ".join(f"{mean:+.1f} ± {error:.1f}" for mean, error in rises))
        print("|", " | ".join([label, *cells]), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {part.__name__: part for part in (noise, estimate, methods, checkpoint)}
    parser.add_argument("what", choices=parts)
    parser.add_argument("--scenes", nargs="+", default=SCENES)
    parser.add_argument("--noises", nargs="+", default=NOISES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--side", type=int, default=128, help="pixels; 256 for 30 events and more")
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--bundled", action="store_true", help="`estimate` of the checkpoint, too")
    parser.add_argument("--methods", nargs="+", choices=METHODS)
    parser.add_argument("--steps", type=int, default=4800, help="crops of an epoch")
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    parts[args.what](args)


if __name__ == "__main__":
    main()
