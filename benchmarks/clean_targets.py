"""Noisy targets against clean ones, and masked against unmasked missing pixels.

    python benchmarks/clean_targets.py [--epochs 4] [--seeds 1 2 3] [--out clean_targets.json]
                                       [model=residual_unet ...]

Same network, steps and seeds on the embedded photographs; validation is always against clean images
of others. Prints mean and standard deviation over the seeds of PSNR, mean of per-image values and
total.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CASES = {
    "gaussian 25": ["noise=gaussian", "data.zoom=null", "data.size=32"],
    "pixelate 7": ["noise=pixelate"],
    "bernoulli 0.5": ["noise=bernoulli", "data.zoom=null", "data.size=32"],
}
SIDES = {
    "noisy targets": ["target=noisy"],
    "clean targets": ["target=clean"],
    "noisy targets, not masked": ["target=noisy", "noise.masked=false"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "overrides", nargs="*", help="further overrides of every run, e.g. model=residual_unet"
    )
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--out", type=Path, default=Path("clean_targets.json"))
    args = parser.parse_args()
    found: dict[str, dict[str, list[dict]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in args.seeds:  # the sides alternate, so that load of the machine affects both
            for case in args.cases:
                for side, target in SIDES.items():
                    if "masked" in side and "bernoulli" not in case:
                        continue
                    folder = Path(temporary) / f"{case}-{side}-{seed}".replace(" ", "_").replace(
                        ",", ""
                    )
                    overrides = [
                        *CASES[case],
                        *target,
                        f"seed={seed}",
                        f"trainer.max_epochs={args.epochs}",
                        *args.overrides,
                    ]
                    command = [
                        sys.executable,
                        "-m",
                        "n2n_lightning.train",
                        *overrides,
                        f"hydra.run.dir={folder}",
                    ]
                    subprocess.run(command, check=True, capture_output=True)
                    result = json.loads((folder / "result.json").read_text())
                    found.setdefault(case, {}).setdefault(side, []).append(result)
                    print(
                        f"{case:14} {side:26} seed {seed}: {result['val_psnr']:.3f} dB", flush=True
                    )
    print(
        "\n| noise | targets | Mn | T | noisy input, Mn |\n"
        f"|---|---|---|---|---|   ({len(args.seeds)} seeds)"
    )
    for case, sides in found.items():
        for side, results in sides.items():
            spread = [[r[name] for r in results] for name in ("val_psnr", "val_psnr_total")]
            text = " | ".join(
                f"{statistics.mean(v):.3f} ± {statistics.stdev(v):.3f} dB" for v in spread
            )
            print(f"| {case} | {side} | {text} | {results[0]['noisy_psnr']:.2f} dB |")
    args.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
