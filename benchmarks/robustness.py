"""Scores on noise inside and outside of the training data, beside classical filters.

    python benchmarks/robustness.py RUN [RUN ...] --root PHOTOS --val PHOTOS [--out robustness.json]

All methods get the same noisy photographs. The filters are tuned on noisy pairs of the photographs
in --root, so they know the kind and the strength of the noise; the networks do not.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

NOISES = [
    *(f"pixelate:block={n}" for n in (3, 5, 7, 10)),
    *(f"gaussian:sigma={n}" for n in (15, 25, 50)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="run folders or checkpoint files")
    parser.add_argument("--root", required=True, help="photographs that the filters are tuned on")
    parser.add_argument("--val", required=True, help="photographs to score on")
    parser.add_argument("--noises", nargs="+", default=NOISES)
    parser.add_argument("--out", type=Path, default=Path("robustness.json"))
    args = parser.parse_args()
    found: dict[str, dict[str, dict]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        scores = Path(temporary) / "scores.json"
        for noise in args.noises:
            command = [
                sys.executable,
                "-m",
                "n2n_lightning.evaluate",
                *args.runs,
                "--data",
                "images",
                "--classical",
            ]
            command += [
                "--root",
                args.root,
                "--val",
                args.val,
                "--noise",
                noise,
                "--json",
                str(scores),
            ]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            rows = json.loads(scores.read_text())["scores"]
            filters = [
                name for name, row in rows.items() if name not in (*args.runs, "noisy input")
            ]
            best = max(filters, key=lambda name: rows[name]["psnr"])
            found[noise] = {
                "noisy input": rows["noisy input"],
                "best filter": {"name": best, **rows[best]},
            }
            found[noise] |= {run: rows[run] for run in args.runs}
            text = ", ".join(
                f"{n} {r['psnr']:.2f} / {r['psnr_total']:.2f}" for n, r in found[noise].items()
            )
            print(f"{noise} ({best}): {text}", flush=True)
    names = list(found[args.noises[0]])
    print("\nMn / T, dB\n\n| noise | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for noise, rows in found.items():
        print(
            f"| {noise} | "
            + " | ".join(f"{r['psnr']:.2f} / {r['psnr_total']:.2f}" for r in rows.values())
            + " |"
        )
    args.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
