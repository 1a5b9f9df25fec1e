"""Wall time of a sweep of 8 jobs: `python benchmarks/sweep_workers.py [--rounds 3]`.

One worker and two, in alternation (hydra/launcher=basic and joblib), so that load of the machine
affects both; prints medians and their ratio.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

JOB = [
    "data.train_pairs=600",
    "data.val_pairs=100",
    "trainer.max_epochs=1",
    "model=residual_unet",
    "model.width=16",
]
LAUNCHERS = {
    "one after another": ["hydra/launcher=basic"],
    "joblib, 2 workers": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("sweep_workers.json"))
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in LAUNCHERS}
    for _ in range(args.rounds):
        for name, launcher in LAUNCHERS.items():
            with tempfile.TemporaryDirectory() as folder:
                command = [
                    sys.executable,
                    "-m",
                    "n2n_lightning.train",
                    "-m",
                    "seed=1,2,3,4,5,6,7,8",
                    *JOB,
                    *launcher,
                ]
                started = time.perf_counter()
                subprocess.run(
                    [*command, f"hydra.sweep.dir={folder}/s"], check=True, capture_output=True
                )
                seconds[name].append(time.perf_counter() - started)
                print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
    one, two = (statistics.median(s) for s in seconds.values())
    print(f"median {one:.1f} s and {two:.1f} s, ratio {one / two:.2f}")
    args.out.write_text(json.dumps(seconds, indent=1) + "\n")


if __name__ == "__main__":
    main()
