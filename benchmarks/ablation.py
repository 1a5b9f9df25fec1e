"""Ablation of the recipe of `experiment=fast`: a sweep over seeds for each choice.

    python benchmarks/ablation.py --root data/course [--seeds 1,2,3] [--pairs 5000] [--epochs 4]
                                  [--out FOLDER]

Each sweep changes one choice. With --photos FOLDER, it is the recipe of `experiment=best` with the
network of `experiment=fast`: fresh draws from the photographs of the folder, every ninth held out,
validated on the file in --root. Existing sweeps are resumed, so that the program can be stopped at
any time; differences are taken seed by seed.
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

FRESH = {
    "recipe": [],
    "frozen": [
        *(
            "experiment=fast",
            "data.root={root}",
            "data.swap=false,true",
            "data.batch_size=16",
            "optim.lr=0.001",
        ),
        *("optim.betas=[0.9,0.99]", "trainer.gradient_clip_val=0.02"),
    ],
    "batch": ["data.batch_size=4,32"],
    "rates": ["optim.lr=0.0005,0.002"],
    "steps": [
        *("scheduler=own", "scheduler._target_=torch.optim.lr_scheduler.StepLR"),
        *("+scheduler.step_size=2", "+scheduler.gamma=0.3"),
    ],
    "noaugment": ["data.augment=false"],
    "betas": ["optim.betas=[0.9,0.999]"],
    "clip": ["trainer.gradient_clip_val=null"],
    "clean": ["target=clean"],
    "photographs": ["data.root={some}"],
}
SOME = (200, 800)  # photographs


def sweeps(args: argparse.Namespace) -> dict[str, list[str]]:
    """Return the overrides of each choice's sweep, with the folders filled in."""
    budget = [
        f"seed={args.seeds}",
        f"data.train_pairs={args.pairs}",
        f"trainer.max_epochs={args.epochs}",
    ]
    if not args.photos:
        return {
            n: ["experiment=fast", f"data.root={args.root}", *budget, *c]
            for n, c in CHOICES.items()
        }
    photos = sorted(p for p in args.photos.iterdir() if p.is_file())
    learnt = [p for i, p in enumerate(photos) if not args.held or i % args.held]
    some = []
    for count in SOME:  # evenly, so that sorted names are not one kind of picture
        folder = args.out / f"photographs_{count}"
        folder.mkdir(parents=True, exist_ok=True)
        for photo in learnt[:: max(1, len(learnt) // count)][:count]:
            if not (folder / photo.name).is_symlink():
                (folder / photo.name).symlink_to(photo.resolve())
        some.append(str(folder))
    recipe = [
        "experiment=best",
        "model.widths=[16,32,64]",
        "model.blocks=[2,1,1]",
        f"data.root={args.photos}",
    ]
    recipe += [f"data.val={args.root}/val_data.pkl", f"data.held={args.held or 'null'}"]
    found = {}
    for name, changes in FRESH.items():
        changes = [c.format(root=args.root, some=",".join(some)) for c in changes]
        found[name] = [*([] if name == "frozen" else recipe), *changes, *budget]
    found["photographs"].append("data.held=null")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--root", required=True, help="the folder of the report's files or the stand-in"
    )
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument(
        "--photos", type=Path, help="a folder of photographs: the choices of experiment=best"
    )
    parser.add_argument(
        "--held",
        type=int,
        default=9,
        help="validate on every HELD-th photograph (0: on none)",
    )
    parser.add_argument("--choices", nargs="+", choices=sorted({*CHOICES, *FRESH}))
    parser.add_argument("--out", type=Path, default=Path("outputs/sweeps/ablation"))
    args = parser.parse_args()
    choices = sweeps(args)
    scores: dict[str, dict[str, tuple[float, float]]] = {}
    for name in dict.fromkeys(["recipe", *(args.choices or choices)]):
        folder = args.out / name
        new = [*choices[name], f"hydra.sweep.dir={folder}"]
        asked = [f"sweep.resume={folder}"] if (folder / "sweep.json").exists() else new
        command = [sys.executable, "-m", "n2n_lightning.train", "-m", *asked]
        # unchecked: a diverged job is a row, and ends with 1
        subprocess.run(command, stdout=subprocess.DEVNULL)
        for job in json.loads((folder / "sweep.json").read_text())["jobs"]:
            point = {n: v for n, v in job["parameters"].items() if n != "seed"}
            key = " ".join(f"{n}={v}" for n, v in point.items()) or (
                name if name != "recipe" else "the recipe"
            )
            if job["val_psnr"] is not None:
                row = scores.setdefault(key, {})
                row[str(job["parameters"].get("seed", args.seeds))] = (
                    job["val_psnr"],
                    job["val_psnr_total"],
                )
    recipe = scores["the recipe"]
    print(
        "| changed | seeds | Mn / T | difference, Mn, mean and deviation over seeds |\n"
        "|---|---|---|---|"
    )
    for key, row in scores.items():
        values = [mean(v[i] for v in row.values()) for i in (0, 1)]
        steps = [row[s][0] - recipe[s][0] for s in row if s in recipe]
        spread = f" ± {stdev(steps):.2f}" if len(steps) > 1 else ""
        change = "" if row is recipe else f"{mean(steps):+.2f}{spread} dB"
        print(f"| {key} | {len(row)} | {values[0]:.2f} / {values[1]:.2f} | {change} |")


if __name__ == "__main__":
    main()
