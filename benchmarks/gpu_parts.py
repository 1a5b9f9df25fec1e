"""Milliseconds of what should not keep a GPU waiting: noise, loss, tiles, texture, CUDA graphs.

    python benchmarks/gpu_parts.py [--small]

Each line is the mean over some calls after a first one, with the device done at its end; on a
machine without a GPU it is the processor's time.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from n2n_lightning import load, losses, networks, noise
from n2n_lightning.devices.choice import device_of
from n2n_lightning.devices.copies import wait_for
from n2n_lightning.randomness import generator


def milliseconds(call: Callable[[], Any], device: torch.device, count: int) -> float:
    """Return the mean time of a call, with the device done."""
    call()
    wait_for(device)
    begun = time.perf_counter()
    for _ in range(count):
        call()
    wait_for(device)
    return 1000 * (time.perf_counter() - begun) / count


def noises(device: torch.device, count: int, side: int) -> None:
    """Time the draws of every corruption for 16 crops."""
    for name in sorted(set(noise.__all__) - {"Noise", "Strength"}):
        corruption = getattr(noise, name)()
        images = torch.rand(16, 3, side, side, device=device)
        draws = generator(0, name, device=device)
        taken = milliseconds(lambda c=corruption, i=images, d=draws: c(i, d), device, count)
        print(f"noise={name.lower()}, 16 x {side} x {side}: {taken:.2f} ms", flush=True)


def loss(device: torch.device, count: int, side: int) -> None:
    """Time the loss of the bundled checkpoint, forwards and backwards."""
    output = torch.rand(16, 3, side, side, device=device, requires_grad=True)
    target = torch.rand(16, 3, side, side, device=device)
    measured = losses.LogL2()
    taken = milliseconds(lambda: measured(output, target).backward(), device, count)
    print(f"loss=log_l2, 16 x {side} x {side}: {taken:.2f} ms", flush=True)


def steps(device: torch.device, count: int, batch: int) -> None:
    """Time a step of the report's U-Net, launched kernel by kernel and as a CUDA graph."""
    images = torch.rand(batch, 3, 32, 32, device=device)
    for mode in (None, "reduce-overhead"):
        if mode and device.type != "cuda":
            print("CUDA graph: needs a GPU")
            continue
        network = networks.UNet().to(device)
        if mode:
            network.compile(mode=mode)
        optimizer = torch.optim.Adam(network.parameters(), fused=True)

        def step(network: Any = network, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            losses.L2()(network(images), images).backward()
            optimizer.step()

        taken = milliseconds(step, device, count)
        print(f"unet, {batch} x 32 x 32, {mode or 'as it is'}: {taken:.2f} ms", flush=True)


def denoising(device: torch.device, side: int, tiles: list[int]) -> None:
    """Time a picture with tiles of several sizes, with and without texture put back."""
    model = load(device=str(device))
    noisy = np.random.default_rng(0).normal(0.5, 0.1, (side, side)).astype(np.float32)
    for tile in tiles:
        for uneven in (False, True):
            model.denoise(noisy[:512, :512], axes="HW")
            begun = time.perf_counter()
            model.denoise(noisy, axes="HW", tile=tile, uneven=uneven)
            seconds = time.perf_counter() - begun
            texture = "without" if uneven else "with"
            what = f"{side} x {side}, tiles of {tile}, {texture} texture put back"
            print(f"{what}: {seconds:.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="seconds on a processor")
    args = parser.parse_args()
    device = torch.device(device_of("auto"))
    count = 2 if args.small else 50
    print(f"{device}, torch {torch.__version__}")
    noises(device, count, 28 if args.small else 63)
    loss(device, count, 64)
    steps(device, count, 4 if args.small else 100)
    denoising(device, *((400, [384]) if args.small else (10000, [1024, 2048, 4096])))


if __name__ == "__main__":
    main()
