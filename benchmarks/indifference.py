"""Cost of equivariance to units and black levels: by the network, or by normalising each picture.

    python benchmarks/indifference.py --photos FOLDER [FOLDER ...] [--crops 12000] [--seeds 0]
                                      [--out FILE.json]

The same small DRUNet learns from the same crops with `noise=varied` in four ways: with biases, for
pictures between 0 and 1 only; without biases and blind to black levels (`model.equivariant=true`);
and with biases on pictures that are normalised by their median and the range of their middle 98%,
or by their median and an estimate of their noise, in training and in use. Scored on photographs
that were held out.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from n2n_lightning.networks import DRUNet

OWN = ["model=own", "model._target_=indifference.Measured"]
WAYS = {
    "biases, pictures between 0 and 1": [],
    "no biases, differences of pixels": ["model.equivariant=true"],
    "offset and scale of each picture": [*OWN, "+model.by=range"],
    "offset of each picture, scale of its noise": [*OWN, "+model.by=noise"],
}


class Measured(nn.Module):
    """DRUNet on (x - offset) / scale, both measured on each picture; its output is denormalised.

    Args:
        by: `range`, of the middle 98% of the values, or `noise`: the median of differences of
            differences, along rows and columns, which smooth surfaces do not have, in standard
            deviations of white noise (after Immerkaer, CVIU 1996).
        widths, blocks, equivariant: see DRUNet.
    """

    def __init__(
        self, by: str, widths: Sequence[int], blocks: Sequence[int], equivariant: bool = False
    ) -> None:
        super().__init__()
        self.by, self.network = by, DRUNet(3, widths, blocks, equivariant=equivariant)
        self.multiple = self.network.multiple

    def forward(self, image: Tensor) -> Tensor:
        values = image.flatten(1)
        offset = values.median(1).values
        if self.by == "range":
            low, high = values.quantile(torch.tensor([0.01, 0.99]).to(values), 1)
            scale = high - low
        else:
            second = (
                image[..., :-1, :-1]
                - image[..., 1:, :-1]
                - image[..., :-1, 1:]
                + image[..., 1:, 1:]
            )
            scale = second.flatten(1).abs().median(1).values / 0.6745 / 2
        offset, scale = (part.view(-1, 1, 1, 1) for part in (offset, scale.clamp(min=1e-3)))
        result: Tensor = self.network((image - offset) / scale) * scale + offset
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", nargs="+", required=True)
    parser.add_argument("--crops", type=int, default=12000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("indifference.json"))
    parser.add_argument("overrides", nargs="*", help="further overrides of every run")
    args = parser.parse_args()
    common = [
        "experiment=pretrained",
        f"data.root=[{','.join(str(Path(folder).resolve()) for folder in args.photos)}]",
        f"data.train_pairs={args.crops}",
        "trainer.max_epochs=1",
        "callbacks=none",  # a moving average remembers longer than so short a run lasts
        "model.widths=[16,32,64]",
        "model.blocks=[1,1,1]",
        "model.equivariant=false",
        "data.specimens=20",
        "data.leaves=20",
        "data.fabrics=20",
        *args.overrides,
    ]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        )
    }
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in args.seeds:
            for number, (way, chosen) in enumerate(WAYS.items()):
                folder = Path(temporary) / f"{number}-{seed}"
                command = [*common, *chosen, f"seed={seed}", f"hydra.run.dir={folder}"]
                subprocess.run(
                    [sys.executable, "-m", "n2n_lightning.train", *command],
                    check=True,
                    env=environment,
                )
                result = json.loads((folder / "result.json").read_text())
                found.setdefault(way, []).append(
                    {name: result[name] for name in ("val_psnr", "val_psnr_total")}
                )
                print(
                    f"{way:44} seed {seed}:"
                    f" {result['val_psnr']:.2f} / {result['val_psnr_total']:.2f} dB",
                    flush=True,
                )
    args.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
