"""Seconds of training until the validation PSNR passes the report's and a linear filter's.

    python benchmarks/time_to_quality.py --root DIR [--recipes experiment=fast model=unet]
                                         [--seconds 60] [--seed 0]

DIR holds the report's files (or those that prepare writes). Each recipe trains on them for one
pass, or until its seconds are over; the validation set is scored at intervals while the clock is
stopped. 22.96 dB is the report's U-Net, 25.26 dB the best 7 x 7 linear filter on files made as
prepare makes them.
"""

import argparse
import contextlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from n2n_lightning.config.hydra_versions import VERSION_BASE
from n2n_lightning.data.augmentation import to_float
from n2n_lightning.train import CONF
from n2n_lightning.training.run import start

MARKS = (22.96, 25.26)


class Watch(Callback):
    """Callback that scores the validation images every few seconds; `curve` has (seconds, dB)."""

    curve: list[tuple[float, float]] = []  # noqa: RUF012, the benchmark reads it after the run

    def __init__(self, every: float, limit: float) -> None:
        self.every, self.limit = every, limit
        self.seconds = self.scored = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Watch.curve = []
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.seconds += time.perf_counter() - self.started
        if self.seconds - self.scored > self.every or trainer.is_last_batch:
            self.scored = self.seconds
            Watch.curve.append((self.seconds, self._score(trainer, pl_module)))
            trainer.should_stop = self.seconds > self.limit
        self.started = time.perf_counter()

    def _score(self, trainer: Trainer, pl_module: LightningModule) -> float:
        pairs = trainer.datamodule.val  # type: ignore[attr-defined]
        each = []
        pl_module.eval()
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            for noisy, clean in zip(
                pairs.noisy.split(250), pairs.reference.split(250), strict=True
            ):
                output = pl_module(to_float(noisy).to(pl_module.device)).clamp(0, 1).cpu()
                each.append((output - to_float(clean)).square().mean((1, 2, 3)))
        pl_module.train()
        return float(-10 * torch.cat(each).log10().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True)
    parser.add_argument("--recipes", nargs="+", default=["experiment=fast", "model=unet"])
    parser.add_argument("--every", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("time_to_quality.json"))
    args = parser.parse_args()
    found = {}
    for recipe in args.recipes:
        asked = [
            "data=course",
            *recipe.split(),
            f"data.root={args.root}",
            "trainer.max_epochs=1",
            f"seed={args.seed}",
        ]
        with initialize_config_dir(str(CONF), **VERSION_BASE):
            config: Any = OmegaConf.to_container(compose("config", asked), resolve=True)
        config["callbacks"] = {
            "watch": {"_target_": "__main__.Watch", "every": args.every, "limit": args.seconds},
        }
        with (
            tempfile.TemporaryDirectory() as folder,
            open(os.devnull, "w") as quiet,
            contextlib.redirect_stdout(quiet),
        ):
            result = start(config, Path(folder) / "run")
        curve = Watch.curve
        passed = {mark: next((s for s, value in curve if value > mark), None) for mark in MARKS}
        text = ", ".join(
            f"{mark} dB {f'after {s:.0f} s' if s else 'never'}" for mark, s in passed.items()
        )
        print(
            f"{recipe}: {text}; {curve[-1][1]:.2f} dB after {curve[-1][0]:.1f} s"
            f" ({result['val_psnr']:.2f} / {result['val_psnr_total']:.2f} dB at the end)",
            flush=True,
        )
        found[recipe] = {"curve": curve, "result": result}
    args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
