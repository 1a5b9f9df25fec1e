"""Training on one noisy image per scene against pairs, adaptation, and warm starts.

    python benchmarks/single.py photos --photos PHOTOS --kodak KODAK [--seeds 1 2 3] [--steps 2000]
    python benchmarks/single.py captures --root FMD
    python benchmarks/single.py adapt --root FMD --kodak KODAK [--minutes 5]
    python benchmarks/single.py rows --photos PHOTOS --kodak KODAK
    python benchmarks/single.py counts --photos PHOTOS --kodak KODAK
    python benchmarks/single.py movie [--seeds 1 2 3]
    python benchmarks/single.py init --root FMD

Every table trains the same network (DRUNet 16, 32, 64) for the same number of windows on one
thread. FMD is a folder with a folder of captures 0.png ... 3.png for each of ten fields; seven are
trained on, three scored. Noise is written once, as floats, and never redrawn.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import tifffile

NETWORK = ["model=drunet", "model.widths=[16,32,64]", "model.blocks=[2,1,1]", "optim.lr=0.002"]


def python(*arguments: object) -> None:
    subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL
    )


def train(folder: Path, *overrides: object, network: list[str] = NETWORK) -> dict:
    """Train in a folder and return the result."""
    python("n2n_lightning.train", *network, *overrides, f"hydra.run.dir={folder}")
    return json.loads((folder / "result.json").read_text())


def evaluate(folder: Path, *arguments: object) -> dict[str, dict]:
    python("n2n_lightning.evaluate", *arguments, "--json", folder / "scores.json")
    return json.loads((folder / "scores.json").read_text())["scores"]


def read(path: Path, colour: bool = True) -> np.ndarray:
    """Read a photograph, (H, W, 3) or (H, W), in [0, 1]."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB" if colour else "L"), np.float32) / 255


def files(folder: Path, most: int) -> list[Path]:
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    return found[:: max(1, len(found) // most)][:most]


def written(images: list[np.ndarray], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        tifffile.imwrite(
            folder / f"{i:04}.tif",
            image,
            photometric="rgb" if len(image.shape) == 3 else "minisblack",
        )
    return folder


def middle(image: np.ndarray, side: int) -> np.ndarray:
    y, x = ((n - min(side, n)) // 2 for n in image.shape[:2])
    return image[y : y + side, x : x + side]


def table(rows: dict[str, list[dict]], names: tuple[str, ...]) -> None:
    """Print mean and deviation over seeds of scores."""
    print(f"| | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for label, results in rows.items():
        cells = []
        for name in names:
            values = [r[name] for r in results]
            cells.append(
                f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")
            )
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


def photos(args: argparse.Namespace, place: Path) -> None:
    """Compare pairs, neighbours and masks on Kodak with Gaussian noise of 25."""
    clean = [middle(read(p), 384) for p in files(args.photos, 300)]
    kodak = [read(p) for p in files(args.kodak, 24)]
    rows: dict[str, list[dict]] = {}
    for seed in args.seeds:
        draws = np.random.default_rng(seed)

        def noisy(images: list[np.ndarray], draws: np.random.Generator = draws) -> list[np.ndarray]:
            return [i + draws.normal(0, 25 / 255, i.shape).astype(np.float32) for i in images]

        first, second = (
            written(noisy(clean), place / f"{seed}" / name) for name in ("first", "second")
        )
        scored = ["--val-noisy", written(noisy(kodak), place / f"{seed}" / "kodak")]
        scored += ["--clean", written(kodak, place / "clean")]
        budget = [
            f"data.train_pairs={args.steps * 4}",
            "trainer.max_epochs=4",
            f"seed={seed}",
            "data.scale=1",
        ]
        budget += ["data.val_share=0", "data.limits=[0,1]"]
        sources = {
            "Noise2Noise": ["data=pairs", f"data.noisy={first}", f"data.target={second}"],
            "neighbours": ["data=single", f"data.noisy={first}"],
            "masked": ["data=single", f"data.noisy={first}", "data.method=masked"],
        }
        for label, source in sources.items():
            run = place / f"{seed}-{label}"
            train(run, *source, *budget)
            scores = evaluate(place, run, "--data", "pairs", *scored)
            rows.setdefault("noisy input", [])[seed - args.seeds[0] :] = [scores["noisy input"]]
            rows.setdefault(label, []).append(scores[str(run)])
            print(f"{label:12} seed {seed}: {scores[str(run)]['psnr']:.2f} dB", flush=True)
    table(rows, ("psnr", "psnr_total", "psnr_uint8"))


def fields(root: Path, place: Path) -> dict[str, Path]:
    """Link captures of seven fields (train), two of each of three (held), and single ones (one)."""
    from n2n_lightning.files import natural

    those = sorted((p for p in root.iterdir() if p.is_dir()), key=natural)
    parts = {
        "train": (those[:7], range(4)),
        "held": (those[7:10], (0, 1)),
        "one": (those[:7], (0,)),
    }
    parts |= {"two": (those[:2], range(4)), "heldone": (those[7:10], (0,))}
    for name, (some, captures) in parts.items():
        for field in some:
            (place / name / field.name).mkdir(parents=True)
            for k in captures:
                (place / name / field.name / f"{k}.png").symlink_to((field / f"{k}.png").resolve())
    return {name: place / name for name in parts}


def captures(args: argparse.Namespace, place: Path) -> None:
    """Compare methods on real captures, 300 s of one thread each, by the estimated PSNR."""
    at = fields(args.root, place)
    held = f"data.val_noisy={at['held']}"
    runs = {
        "Noise2Noise": [
            "data=pairs",
            f"data.noisy={at['train']}",
            "data.train_pairs=6000",
            "trainer.max_epochs=12",
        ],
        "neighbours": [
            "data=single",
            f"data.noisy={at['one']}",
            "data.train_pairs=2400",
            "trainer.max_epochs=10",
        ],
        "masked": [
            "data=single",
            f"data.noisy={at['one']}",
            "data.method=masked",
            "data.train_pairs=4800",
        ],
    }
    runs["masked"].append("trainer.max_epochs=10")
    for label, options in runs.items():
        result = train(place / label, *options, held)
        print(
            f"{label:12} {result['seconds']:.0f} s, {result['val_psnr_estimate']:.2f} dB",
            flush=True,
        )
    scored = ["--data", "pairs", "--noisy", at["train"], "--val-noisy", at["held"], "--classical"]
    scores = evaluate(place, *(place / label for label in runs), *scored)
    for label, row in scores.items():
        low, high = row["psnr_estimate_interval"]
        print(f"| {Path(label).name} | {row['psnr_estimate']:.2f} [{low:.2f}, {high:.2f}] |")


def adapt(args: argparse.Namespace, place: Path) -> None:
    """Compare the built-in checkpoint before and after adaptation to the pictures."""
    import skimage.io

    at = fields(args.root, place)
    for label, more in (("as it is", []), ("adapted", ["--adapt", "--minutes", args.minutes])):
        python("n2n_lightning.denoise", at["heldone"], "-o", place / label, *more)
        errors = []
        for field in sorted(at["heldone"].iterdir()):
            f, y, other = (
                skimage.io.imread(p).astype(np.float64) / 255
                for p in (
                    place / label / field.name / "0.png",
                    field / "0.png",
                    at["held"] / field.name / "1.png",
                )
            )
            # Capture 1 was not learnt from: its distance is the error and its noise, half of the
            # captures' difference.
            errors.append(np.mean((f - other) ** 2) - np.mean((y - other) ** 2) / 2)
        print(f"| captures, {label} | {-10 * np.log10(mean(errors)):.2f} |", flush=True)
    draws = np.random.default_rng(0)
    kodak = [middle(read(p), 256) for p in files(args.kodak, 24)]
    noisy = written(
        [i + draws.normal(0, 25 / 255, i.shape).astype(np.float32) for i in kodak], place / "kodak"
    )
    for label, more in (("as it is", []), ("adapted", ["--adapt", "--minutes", args.minutes])):
        python("n2n_lightning.denoise", noisy, "-o", place / f"kodak {label}", *more)
        found = [
            tifffile.imread(place / f"kodak {label}" / f"{i:04}.tif").clip(0, 1)
            for i in range(len(kodak))
        ]
        each = [np.mean((a - b) ** 2) for a, b in zip(found, kodak, strict=True)]
        values = mean(-10 * np.log10(e) for e in each), -10 * np.log10(mean(each))
        print(f"| Kodak, Gaussian 25, {label} | {values[0]:.2f} / {values[1]:.2f} |", flush=True)


def rows(args: argparse.Namespace, place: Path) -> None:
    """Compare methods on noise along rows, AR(1) of 0.8 and a deviation of 25."""
    draws = np.random.default_rng(0)

    def noisy(image: np.ndarray) -> np.ndarray:
        noise = draws.normal(0, 25 / 255, image.shape)
        for x in range(1, image.shape[1]):
            noise[:, x] = 0.8 * noise[:, x - 1] + 0.6 * noise[:, x]
        return (image + noise).astype(np.float32)

    clean = [middle(read(p, colour=False), 256) for p in files(args.photos, 150)]
    kodak = [middle(read(p, colour=False), 256) for p in files(args.kodak, 24)]
    source = written([noisy(i) for i in clean], place / "noisy")
    scored = ["--data", "pairs", "--val-noisy", written([noisy(i) for i in kodak], place / "kodak")]
    scored += ["--clean", written(kodak, place / "clean")]
    masks = {"mask [1,1]": "[1,1]", "mask [1,9]": "[1,9]"}
    common = [
        f"data.noisy={source}",
        "data.method=masked",
        "data.train_pairs=6400",
        "trainer.max_epochs=4",
    ]
    common += ["data.scale=1", "data.val_share=0"]
    for label, mask in masks.items():
        train(place / label, "data=single", *common, f"data.mask={mask}")
    for label, row in evaluate(place, *(place / label for label in masks), *scored).items():
        print(f"| {Path(label).name} | {row['psnr']:.2f} / {row['psnr_total']:.2f} |", flush=True)


def counts(args: argparse.Namespace, place: Path) -> None:
    """Compare thinned photon counts (10 at white) with pairs; f(k) with f(k1) + f(k - k1)."""
    from n2n_lightning import load

    draws = np.random.default_rng(0)

    def shot(image: np.ndarray) -> np.ndarray:
        return draws.poisson(10 * image).astype(np.uint16)

    clean = [middle(read(p, colour=False), 256) for p in files(args.photos, 150)]
    kodak = [middle(read(p, colour=False), 256) for p in files(args.kodak, 24)]
    first, second = (
        written([shot(i) for i in clean], place / name) for name in ("first", "second")
    )
    test = [shot(i) for i in kodak]
    common = ["data.train_pairs=6400", "trainer.max_epochs=4", "data.val_share=0"]
    train(place / "thinned", "data=single", f"data.noisy={first}", "data.method=thinned", *common)
    train(place / "pairs", "data=pairs", f"data.noisy={first}", f"data.target={second}", *common)

    def score(results: list[np.ndarray]) -> str:
        each = [
            np.mean((r / 10 - c).astype(np.float64) ** 2)
            for r, c in zip(results, kodak, strict=True)
        ]
        return f"{mean(-10 * np.log10(e) for e in each):.2f} / {-10 * np.log10(mean(each)):.2f}"

    def run(model: Any, images: list[np.ndarray]) -> list[np.ndarray]:
        return [model.denoise(i.astype(np.float32), axes="HW") for i in images]

    thinned = load(place / "thinned")
    print(f"| noisy input | {score(test)} |")
    print(f"| thinned, f(k1) + f(k - k1), as denoise does | {score(run(thinned, test))} |")
    thinned.thinned = False
    whole = run(thinned, test)
    print(f"| thinned, f(k) | {score(whole)} |")
    kept = [f * k.mean() / max(f.mean(), 1e-9) for f, k in zip(whole, test, strict=True)]
    print(f"| thinned, f(k) with the image's mean | {score(kept)} |")
    print(f"| true pairs, f(k) | {score(run(load(place / 'pairs'), test))} |")


def movie(args: argparse.Namespace, place: Path) -> None:
    """Compare pairs of frames with hidden frames at three speeds and two noise levels."""
    from scipy.ndimage import gaussian_filter, shift

    for speed in (0.0, 0.5, 3.0):
        for sigma in (25, 5):
            found: dict[str, list[dict]] = {}
            for seed in args.seeds:
                draws = np.random.default_rng(seed)
                wide = gaussian_filter(draws.normal(size=(128, 400)), 2.5)
                wide = 0.45 + 0.15 * wide / wide.std()
                for _ in range(60):
                    y, x, r = draws.uniform(0, 128), draws.uniform(0, 400), draws.uniform(2, 7)
                    yy, xx = np.mgrid[:128, :400]
                    wide[(yy - y) ** 2 + (xx - x) ** 2 < r * r] = draws.uniform(0.1, 0.9)
                clean = np.stack(
                    [shift(wide, (0, -speed * t), order=1)[:, :128] for t in range(60)]
                ).astype(np.float32)
                noisy = clean + draws.normal(0, sigma / 255, clean.shape).astype(np.float32)
                tifffile.imwrite(place / "movie.tif", noisy, photometric="minisblack")
                for context in (0, 1, 2):
                    run = place / f"{speed}-{sigma}-{seed}-{context}"
                    common = [
                        "data.train_pairs=1200",
                        "trainer.max_epochs=4",
                        f"seed={seed}",
                        "data.val_share=0",
                    ]
                    train(
                        run,
                        "data=movie",
                        f"data.noisy={place / 'movie.tif'}",
                        f"data.context={context}",
                        *common,
                    )
                    python(
                        "n2n_lightning.denoise",
                        place / "movie.tif",
                        "-o",
                        run / "out",
                        "--checkpoint",
                        run,
                    )
                    result = tifffile.imread(run / "out" / "movie.tif")
                    each = ((result - clean) ** 2).mean((1, 2))
                    ends = np.concatenate([each[:2], each[-2:]]).mean()
                    score = {
                        "psnr": float(np.mean(-10 * np.log10(each))),
                        "total": -10 * np.log10(each.mean()),
                    }
                    found.setdefault(
                        f"{speed} pixels a frame, sigma {sigma}, context {context}", []
                    ).append({**score, "first and last two": -10 * np.log10(ends)})
            table(found, ("psnr", "total", "first and last two"))


def init(args: argparse.Namespace, place: Path) -> None:
    """Compare a warm start with random weights: two fields, about 100 s of one thread."""
    at = fields(args.root, place)
    common = [
        "data=pairs",
        f"data.noisy={at['two']}",
        f"data.val_noisy={at['held']}",
        "trainer.max_epochs=4",
    ]
    for label, options in {
        "DRUNet from nothing": [*NETWORK, "data.train_pairs=8000"],
        "the built-in's network, from nothing": [
            *(
                "model=drunet",
                "model.widths=[24,48,96,128]",
                "model.blocks=[2,2,2,1]",
                "model.equivariant=true",
            ),
            *("optim.lr=0.001", "data.train_pairs=1600"),
        ],
        "init=pretrained": ["init=pretrained", "optim.lr=0.0005", "data.train_pairs=1600"],
    }.items():
        result = train(place / label.replace(" ", "_"), *options, *common, network=[])
        print(
            f"| {label} | {result['seconds']:.0f} s | {result['val_psnr_estimate']:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {f.__name__: f for f in (photos, captures, adapt, rows, counts, movie, init)}
    parser.add_argument("what", choices=parts)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--kodak", type=Path)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        parts[args.what](args, Path(temporary))


if __name__ == "__main__":
    main()
