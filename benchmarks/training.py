"""Training throughput against two hand-written loops on the same network, batch and data.

    python benchmarks/training.py [--networks unet noise2noise best] [--batch 100] [--rounds 3]
                                  [--out training.json]

`plain`: a first implementation: float32, DataLoader over TensorDataset, Adam. `bare`: the fastest
loop we know without any framework: tensors indexed on the device, channels_last, bfloat16 on
devices that are fast at it, fused Adam, no logging. `project`: a run of this project, by its own
clock, without validation. The three take turns; printed are medians of images per second, their
ratios and spread, and the share of the fastest measured 3x3 convolution of the same precision.
"""

import argparse
import contextlib
import csv
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from n2n_lightning.config.hydra_versions import VERSION_BASE
from n2n_lightning.networks import multiply_accumulates
from n2n_lightning.train import CONF
from n2n_lightning.training.precision import precision
from n2n_lightning.training.run import start

NETWORKS = {
    "unet": ["model=unet"],
    "noise2noise": ["model=noise2noise"],
    "best": ["model=drunet", "model.widths=[32,64,128]", "model.blocks=[2,1,2]"],
}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def configuration(network: str, root: Path, batch: int) -> dict[str, Any]:
    """Return the configuration of a run of two epochs, of which the second is measured."""
    asked = [
        "data=course",
        *NETWORKS[network],
        f"data.root={root}",
        f"data.batch_size={batch}",
        "trainer.max_epochs=2",
    ]
    asked += ["data.augment=false", "data.colour=null"]  # the loops by hand have none either
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        config: Any = OmegaConf.to_container(compose("config", asked), resolve=True)
    config["model"]["channels"] = 3
    return config


def wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def plain(config: dict[str, Any], pairs: tuple[Tensor, Tensor], batch: int) -> float:
    network = instantiate(config["model"]).to(DEVICE)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    first, second = (images.float() / 255 for images in pairs)
    loader = DataLoader(TensorDataset(first, second), batch_size=batch, shuffle=True)
    loss_of = nn.MSELoss()

    def epoch() -> None:
        for noisy, target in loader:
            loss = loss_of(network(noisy.to(DEVICE)), target.to(DEVICE))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        wait()

    return measured(epoch, len(first))


def bare(config: dict[str, Any], pairs: tuple[Tensor, Tensor], batch: int) -> float:
    network = instantiate(config["model"]).to(DEVICE, memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    first, second = (images.to(DEVICE) for images in pairs)
    half = precision(config["trainer"]) == "bf16-mixed"

    def epoch() -> None:
        for index in torch.randperm(len(first), device=DEVICE).split(batch):
            noisy = (first[index].float() / 255).contiguous(memory_format=torch.channels_last)
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=half):
                output = network(noisy)
            loss = (output.float() - second[index].float() / 255).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        wait()

    return measured(epoch, len(first))


def measured(epoch: Any, images: int) -> float:
    """Return images per second of the second epoch."""
    epoch()
    started = time.perf_counter()
    epoch()
    return images / (time.perf_counter() - started)


def project(config: dict[str, Any], pairs: tuple[Tensor, Tensor], batch: int) -> float:
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w") as quiet,
        contextlib.redirect_stdout(quiet),
    ):
        start(config, Path(folder) / "run")
        with (Path(folder) / "run" / "metrics.csv").open() as file:
            return float(list(csv.DictReader(file))[1]["images_per_second"])


def fastest_convolution(half: bool) -> float:
    """Return forward FLOP/s of the fastest 3x3 convolution: 32 x 32 images, 32 to 128 channels."""
    best = 0.0
    for width in (32, 64, 96, 128):
        layer = nn.Conv2d(width, width, 3, padding=1).to(DEVICE, memory_format=torch.channels_last)
        images = torch.rand(64, width, 32, 32, device=DEVICE).contiguous(
            memory_format=torch.channels_last
        )
        with torch.no_grad(), torch.autocast(DEVICE.type, torch.bfloat16, enabled=half):
            if half:
                layer, images = layer.bfloat16(), images.bfloat16()
            layer(images)
            for _ in range(5):
                wait()
                started = time.perf_counter()
                for _ in range(4):
                    layer(images)
                wait()
                best = max(
                    best,
                    4 * 2 * 9 * width**2 * images[:, 0].numel() / (time.perf_counter() - started),
                )
    return best


WAYS = {"plain": plain, "bare": bare, "project": project}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--images", type=int, default=1000, help="pairs per epoch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("training.json"))
    args = parser.parse_args()
    draws = torch.Generator().manual_seed(0)
    pairs = tuple(
        torch.randint(256, (args.images, 3, 32, 32), generator=draws).to(torch.uint8)
        for _ in range(2)
    )
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as root:
        torch.save(pairs, Path(root) / "train_data.pkl")
        torch.save(tuple(images[:4] for images in pairs), Path(root) / "val_data.pkl")
        for name in args.networks:
            config = configuration(name, Path(root), args.batch)
            rates: dict[str, list[float]] = {way: [] for way in args.ways}
            for _ in range(args.rounds):
                for way in args.ways:
                    rates[way].append(WAYS[way](config, pairs, args.batch))
            half = precision(config["trainer"]) == "bf16-mixed"
            limit = fastest_convolution(half)
            operations = 3 * 2 * multiply_accumulates(instantiate(config["model"]), 3) * 32 * 32
            found[name] = {
                "images_per_second": rates,
                "batch": args.batch,
                "limit_flops": limit,
                "flops": operations,
            }
            text = ", ".join(
                f"{w} {statistics.median(r):.0f} ({min(r):.0f}-{max(r):.0f})"
                for w, r in rates.items()
            )
            middle = {way: statistics.median(values) for way, values in rates.items()}
            if set(middle) == set(WAYS):
                text += f"; project / plain {middle['project'] / middle['plain']:.2f}"
                text += f", project / bare {middle['project'] / middle['bare']:.2f}"
            if "project" in middle:
                text += (
                    f", {middle['project'] * operations / limit:.0%} of {limit / 1e9:.0f} GFLOP/s"
                )
            print(f"{name}, batch {args.batch}, images/s: {text}", flush=True)
    args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
