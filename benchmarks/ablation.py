"""What each choice of the recipe of `experiment=fast` is worth: a sweep over seeds for each, with that one changed.

    python benchmarks/ablation.py --root data/course [--seeds 1,2,3] [--pairs 5000] [--epochs 4] [--out FOLDER]

Sweeps that are there already go on, so that it can be stopped at any time; differences are taken seed by seed.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

CHOICES = {
    "recipe": [],
    "noswap": ["data.swap=false"],
    "noaugment": ["data.augment=false"],
    "colour": ["data.colour=[0.5,2]"],
    "rates": ["optim.lr=0.001,0.002,0.008"],
    "batch": ["data.batch_size=16,64"],
    "warmup": ["scheduler.warmup=0"],
    "constant": ["scheduler=constant"],
    "ema": ["callbacks=ema", "callbacks.ema.decay=0.99", "scheduler=constant,cosine"],
    "adamw": ["optim=adamw", "optim.weight_decay=0.01"],
    "clip": ["trainer.gradient_clip_val=0.02"],
    "betas": ["optim.betas=[0.9,0.99]"],
    "l1": ["loss=l1"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="the folder of the report's files or the stand-in")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--choices", nargs="+", choices=list(CHOICES), default=list(CHOICES))
    parser.add_argument("--out", type=Path, default=Path("outputs/sweeps/ablation"))
    args = parser.parse_args()
    base = ["experiment=fast", f"data.root={args.root}", f"seed={args.seeds}"]
    base += [f"data.train_pairs={args.pairs}", f"trainer.max_epochs={args.epochs}"]
    scores: dict[str, dict[str, tuple[float, float]]] = {}
    for name in dict.fromkeys(["recipe", *args.choices]):
        folder = args.out / name
        new = [*base, *CHOICES[name], f"hydra.sweep.dir={folder}"]
        asked = [f"sweep.resume={folder}"] if (folder / "sweep.json").exists() else new
        command = [sys.executable, "-m", "n2n_lightning.train", "-m", *asked]
        subprocess.run(command, stdout=subprocess.DEVNULL)  # unchecked: a diverged job is a row, and ends with 1
        for job in json.loads((folder / "sweep.json").read_text())["jobs"]:
            point = {n: v for n, v in job["parameters"].items() if n != "seed"}
            key = " ".join(f"{n}={v}" for n, v in point.items()) or " ".join(CHOICES[name]) or "the recipe"
            if job["val_psnr"] is not None:
                row = scores.setdefault(key, {})
                row[str(job["parameters"]["seed"])] = job["val_psnr"], job["val_psnr_total"]
    recipe = scores["the recipe"]
    print("| changed | seeds | Mn / T | difference, Mn, mean and deviation over seeds |\n|---|---|---|---|")
    for key, row in scores.items():
        values = [mean(v[i] for v in row.values()) for i in (0, 1)]
        steps = [row[s][0] - recipe[s][0] for s in row if s in recipe]
        spread = f" ± {stdev(steps):.2f}" if len(steps) > 1 else ""
        change = "" if row is recipe else f"{mean(steps):+.2f}{spread} dB"
        print(f"| {key} | {len(row)} | {values[0]:.2f} / {values[1]:.2f} | {change} |")


if __name__ == "__main__":
    main()
