"""Peak memory of training against the size of the data.

    python benchmarks/memory.py [--gigabytes 4] [--out memory.json]

The report's file of 50,000 pairs (307 MB of uint8, generated) beside a hand-written loop that
converts it to floats, as most programs do, and 1,000 pairs for what the network and the libraries
need alone; then noisy pairs in a .npy file of GIGABYTES. `resident` is the peak of all memory in
use; `own` that of memory without a file behind it, sampled: the kernel can free the pages of a
mapped file at any time. Linux only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

BY_HAND = """
import sys, torch
from torch.utils.data import DataLoader, TensorDataset
from hydra.utils import instantiate
first, second = (t.float() / 255 for t in torch.load(sys.argv[1] + "/train_data.pkl"))
network = instantiate({"_target_": "n2n_lightning.networks.UNet"})
optimiser = torch.optim.Adam(network.parameters())
loader = DataLoader(TensorDataset(first, second), batch_size=100, shuffle=True)
for step, (noisy, target) in enumerate(loader):
    loss = (network(noisy) - target).square().mean()
    optimiser.zero_grad(); loss.backward(); optimiser.step()
    if step == 9: break
"""
SHORT = [
    "model=unet",
    "data.batch_size=100",
    "trainer.max_epochs=1",
    "+trainer.limit_train_batches=10",
]


def course(folder: Path, count: int) -> str:
    draws = torch.Generator().manual_seed(0)
    pairs = tuple(
        torch.randint(256, (count, 3, 32, 32), generator=draws).to(torch.uint8) for _ in range(2)
    )
    folder.mkdir()
    torch.save(pairs, folder / "train_data.pkl")
    torch.save(tuple(images[:100].clone() for images in pairs), folder / "val_data.pkl")
    return str(folder)


def stack(path: Path, gigabytes: float) -> str:
    """Write a .npy file of noisy pairs, (N, 2, 1, 512, 512) uint8."""
    count = round(gigabytes * 1e9 / (2 * 512 * 512))
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 2, 1, 512, 512))
    some = np.random.default_rng(0).integers(0, 256, (2, 1, 512, 512), np.uint8)
    for i in range(count):
        array[i] = np.roll(some, i, -1)
    array.flush()
    return str(path)


def peak(command: list[str], folder: Path) -> dict[str, float]:
    """Return the peak memory of a command in MB: resident, and own."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    found = {"resident": 0.0, "own": 0.0}
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        values = dict(line.split(":", 1) for line in status.splitlines())
        for name, field in (("resident", "VmHWM"), ("own", "RssAnon")):
            if field in values:
                found[name] = max(found[name], int(values[field].split()[0]) / 1e3)
        time.sleep(0.02)
    if process.returncode:
        sys.exit(f"error: {' '.join(command)}: status {process.returncode}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=Path("memory.json"))
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    train = [sys.executable, "-m", "n2n_lightning.train", *SHORT]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        many, few = course(folder / "many", 50_000), course(folder / "few", 1_000)
        large = stack(folder / "large.npy", args.gigabytes)
        cases = {
            "1,000 pairs": [*train, "data=course", f"data.root={few}"],
            "50,000 pairs": [*train, "data=course", f"data.root={many}"],
            "50,000 pairs, loop by hand, float32": [sys.executable, "-c", BY_HAND, many],
            f"{args.gigabytes:g} GB of pairs, mapped": [
                *train,
                "data=pairs",
                f"data.noisy={large}",
                "data.crop=32",
            ],
        }
        found = {}
        for name, command in cases.items():
            found[name] = peak(command, folder)
            print(
                f"{name}: {found[name]['resident']:.0f} MB resident,"
                f" {found[name]['own']:.0f} MB own",
                flush=True,
            )
    args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
