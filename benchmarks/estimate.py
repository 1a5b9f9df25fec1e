"""Accuracy of PSNR estimated without clean images: the epoch it picks, and real captures.

    python benchmarks/estimate.py epochs [--root PHOTOS] [--seeds 1 2 3]
    python benchmarks/estimate.py real --root FMD [--seconds 300] [key=value ...]

`epochs` trains on noisy pairs of photographs (Gaussian 25, or Poisson 30; scikit-image's without
--root) and scores every epoch against noisy captures and against the clean images of other
photographs: how much lower the PSNR of the picked epoch is than that of the best one. `real` trains
on 7 of 10 fields of a folder with a folder of captures for each, and scores on the other 3: the
estimate from captures 0 and 1, with its interval, beside an independent one, the error against the
mean of captures 2 and 3 less the noise of that mean.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

import numpy as np
import torch

NOISES = {
    "Gaussian 25": lambda clean, draws: (
        clean + torch.randn(clean.shape, generator=draws) * 25 / 255
    ),
    "Poisson 30": lambda clean, draws: torch.poisson(clean * 30, generator=draws) / 30,
}


def python(*arguments: object) -> None:
    subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL
    )


def crops(root: Path | None, side: int = 128) -> torch.Tensor:
    """Return clean grey crops (N, H, W) of photographs, in [0, 1]."""
    from n2n_lightning.data.photos import Photos
    from n2n_lightning.data.reading_files import read_picture
    from n2n_lightning.noise import Gaussian

    if root is None:
        train, val = Photos(Gaussian(25)).photos()
        images = [*train.values(), *val.values()]
    else:
        images = [
            read_picture(path)
            for path in sorted(root.iterdir())
            if path.suffix.lower() in (".png", ".jpg")
        ]
    found = []
    for image in images:
        grey = image.float().mean(0) / torch.iinfo(image.dtype).max
        for y in range(0, grey.shape[0] - side + 1, side):
            found += [
                grey[y : y + side, x : x + side] for x in range(0, grey.shape[1] - side + 1, side)
            ]
    return torch.stack(found)


def epochs(args: argparse.Namespace) -> None:
    """Compare the epoch that the estimate picks with the one that the clean images pick."""
    clean = crops(args.root)
    clean = clean[:: max(1, len(clean) // 120)]
    held = clean[::4]
    rest = clean[[i for i in range(len(clean)) if i % 4]]
    print(
        "| noise | seed | picked by the estimate | true PSNR there | best true PSNR | less |"
        " estimate - true, mean |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, corrupt in NOISES.items():
        for seed in args.seeds:
            draws = torch.Generator().manual_seed(seed)
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                for part, images in (("train", rest), ("held", held)):
                    for k in (1, 2):
                        np.save(folder / f"{part}{k}.npy", corrupt(images, draws).numpy())
                run = folder / "run"
                keep = "+callbacks.all"
                python(
                    "n2n_lightning.train",
                    *(
                        "data=pairs",
                        f"data.noisy={folder}/train1.npy",
                        f"data.target={folder}/train2.npy",
                    ),
                    *(
                        f"data.val_noisy={folder}/held1.npy",
                        f"data.val_target={folder}/held2.npy",
                        "data.scale=1",
                    ),
                    *(
                        "model=drunet",
                        "model.widths=[16,32,64]",
                        "model.blocks=[1,1,1]",
                        f"seed={seed}",
                    ),
                    *(
                        "scheduler=constant",
                        "optim.lr=0.002",
                        "data.train_pairs=480",
                        f"trainer.max_epochs={args.epochs}",
                    ),
                    *(
                        f"{keep}._target_=pytorch_lightning.callbacks.ModelCheckpoint",
                        f"{keep}.save_top_k=-1",
                    ),
                    *(f"{keep}.dirpath={folder}/all", f"hydra.run.dir={run}", *args.overrides),
                )
                files = sorted(
                    (folder / "all").glob("*.ckpt"),
                    key=lambda p: int(p.stem.split("=")[1].split("-")[0]),
                )
                pairs = [
                    "--data",
                    "pairs",
                    "--val-noisy",
                    folder / "held1.npy",
                    "--json",
                    folder / "s.json",
                ]
                true = [_true(path, folder, held.numpy()) for path in files]
                python(
                    "n2n_lightning.evaluate", *files, *pairs, "--val-target", folder / "held2.npy"
                )
                estimate = [row["psnr_estimate"] for row in _scores(folder / "s.json").values()][1:]
            picked = int(np.argmax(estimate))
            error = mean(e - t for e, t in zip(estimate, true, strict=True))
            less = max(true) - true[picked]
            cells = (
                f"epoch {picked + 1} of {len(true)}",
                f"{true[picked]:.3f}",
                f"{max(true):.3f}",
                f"{less:.3f} dB",
            )
            print(f"| {name} | {seed} | {' | '.join(cells)} | {error:+.3f} dB |", flush=True)


def _true(checkpoint: Path, folder: Path, clean: np.ndarray) -> float:
    """Return the PSNR of both captures of the scenes over all pixels, of unclamped output."""
    from n2n_lightning import load

    network = load(checkpoint)
    outputs = [network.denoise(np.load(folder / f"held{k}.npy"), axes="NHW") for k in (1, 2)]
    return -10 * float(np.log10(np.mean([(f.astype(np.float64) - clean) ** 2 for f in outputs])))


def _scores(path: Path) -> dict[str, dict]:
    return json.loads(path.read_text())["scores"]


def real(args: argparse.Namespace) -> None:
    """Compare the estimate on real captures with one from other captures of the same fields."""
    from n2n_lightning.data.reading_files import read_picture
    from n2n_lightning.files import natural
    from n2n_lightning.inference.denoiser import load

    fields = sorted((p for p in args.root.iterdir() if p.is_dir()), key=natural)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for part, those in (("train", fields[:7]), ("held", fields[7:10])):
            for field in those:
                (folder / part).mkdir(exist_ok=True)
                (folder / part / field.name).symlink_to(field.resolve())
        for field in fields[7:10]:
            (folder / "scored" / field.name).mkdir(parents=True)
            for k in (0, 1):
                (folder / "scored" / field.name / f"{k}.png").symlink_to(
                    (field / f"{k}.png").resolve()
                )
        run = args.out or folder / "run"
        python(
            "n2n_lightning.train",
            *(
                "data=pairs",
                f"data.noisy={folder}/train",
                f"data.val_noisy={folder}/scored",
                "model=drunet",
            ),
            *("model.widths=[16,32,64]", "model.blocks=[2,1,1]", "optim.lr=0.002"),
            *(
                f"trainer.max_epochs={args.epochs}",
                f"data.train_pairs={args.pairs}",
                f"hydra.run.dir={run}",
            ),
            *args.overrides,
        )
        result = json.loads((run / "result.json").read_text())
        captures = ["--val-noisy", folder / "scored", "--noisy", folder / "train", "--classical"]
        python(
            "n2n_lightning.evaluate", run, "--data", "pairs", *captures, "--json", folder / "s.json"
        )
        scores = _scores(folder / "s.json")
    network = load(run)
    independent = []
    for field in fields[7:10]:
        y = [read_picture(field / f"{k}.png").numpy().astype(np.float64)[0] / 255 for k in range(4)]
        for k in (0, 1):
            stored = read_picture(field / f"{k}.png").numpy()[0]
            output = network.denoise(stored.astype(np.float32), axes="HW") / 255
            noise = np.mean((y[2] - y[3]) ** 2) / 4
            independent.append(np.mean((output - (y[2] + y[3]) / 2) ** 2) - noise)
    print("| | estimate [95%] |\n|---|---|")
    for name, row in scores.items():
        low, high = row["psnr_estimate_interval"]
        print(f"| {name} | {row['psnr_estimate']:.2f} [{low:.2f}, {high:.2f}] |")
    print(f"| the network, against captures 2 and 3 | {-10 * np.log10(mean(independent)):.2f} |")
    print(f"{result['seconds']:.0f} s of training, {result['parameters']:,} parameters")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("epochs", "real"))
    parser.add_argument("overrides", nargs="*", help="further overrides of the training")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=1200)
    parser.add_argument("--out", type=Path, help="keep the run of `real` here")
    args = parser.parse_args()
    (epochs if args.what == "epochs" else real)(args)


if __name__ == "__main__":
    main()
