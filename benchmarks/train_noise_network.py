"""Train the network of metrics/noise_network.py, which judges the noise of one picture.

    python benchmarks/train_noise_network.py --photos FOLDER ... [--minutes 25] [--out FILE]

The weights in the package learnt from photographs that docs/checkpoints/ credits, and from
generated pictures. Four crops of one photograph have one noise: white, or correlated along
rows, along columns, or in all directions; its variance a + b brightness is Gaussian or Poisson
noise or both. The losses are those of single blocks (Laplace, with the expected deviation), and of
the weighted mean over the four crops, which is what the estimate uses.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from n2n_lightning.arrays.blocks import cut_blocks
from n2n_lightning.data.generated.specimens import specimens
from n2n_lightning.metrics.noise_network import (
    JUDGED_LAGS,
    NOISE_BLOCK,
    WEIGHTS,
    BlockJudgement,
    NoiseNetwork,
)

SIDE = 96  # pixels of a crop
CROPS = 4  # of a photograph
SCENES = 4  # photographs of a batch
RATE = 2e-3
LINES = (1.5, 60)  # standard deviation of the noise, of 255
LEAST_CORRELATION = 0.12  # of noise that is called correlated


def read(path: Path, draws: np.random.Generator) -> np.ndarray | None:
    """Read a channel or the luminance of a photograph, reduced 1 to 2 times, (H, W) of 255."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    factor = draws.uniform(1, 2)
    width = round(image.width / factor)
    height = round(image.height / factor)
    if min(width, height) < SIDE + 8:
        return None
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, np.float32)
    channel = draws.integers(4)
    if channel == 3:
        return (pixels @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.float16)
    return pixels[..., channel].astype(np.float16)


def pictures(folders: list[Path], draws: np.random.Generator) -> list[np.ndarray]:
    """Read the photographs, and generate pictures as of microscopes."""
    planes = []
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
                planes.append(read(path, draws))
    for specimen in specimens(60, 256, 0):
        planes.append(np.asarray(specimen)[0].astype(np.float16))
    return [plane for plane in planes if plane is not None]


def kernel(draws: np.random.Generator) -> np.ndarray:
    """Draw a kernel (n,) whose square sum is 1."""
    kind = draws.integers(3)
    if kind == 0:
        sigma = draws.uniform(0.4, 2.0)
        values = np.exp(-((np.arange(-6, 7) / sigma) ** 2) / 2)
    elif kind == 1:
        share = draws.uniform(0.12, 0.5)
        values = np.array([1 - share, share])
    else:
        values = np.ones(draws.integers(2, 5))
    return values / np.sqrt((values**2).sum())


def autocorrelation(values: np.ndarray, lag: int) -> float:
    lagged = values[: len(values) - lag] * values[lag:]
    return float(lagged.sum())


@dataclass
class UnitNoise:
    """Noise of variance 1: kernels along columns and rows, or a share of stripes."""

    kind: int
    column: np.ndarray
    row: np.ndarray
    stripes: float = 0.0

    def draw(self, shape: tuple[int, ...], draws: np.random.Generator) -> np.ndarray:
        height, width = shape
        white = draws.standard_normal((height + 12, width + 12)).astype(np.float32)
        for axis, values in enumerate((self.column, self.row)):
            if len(values) > 1:
                rolled = [v * np.roll(white, i, axis) for i, v in enumerate(values)]
                white = sum(rolled[1:], rolled[0])
        white = white[12:, 12:]
        if not self.stripes:
            return white
        lines = (height, 1) if self.kind == 1 else (1, width)
        shared = draws.standard_normal(lines).astype(np.float32)
        return np.sqrt(1 - self.stripes) * white + np.sqrt(self.stripes) * shared

    def correlations(self) -> list[float]:
        values = []
        for dy, dx in JUDGED_LAGS:
            value = autocorrelation(self.column, abs(dy)) * autocorrelation(self.row, abs(dx))
            value *= 1 - self.stripes
            if (self.kind == 1 and dy == 0) or (self.kind == 2 and dx == 0):
                value += self.stripes
            values.append(value)
        return values


def unit_noise(draws: np.random.Generator) -> UnitNoise:
    """Draw a kind of noise."""
    one = np.ones(1)
    kind = int(draws.choice(4, p=[0.55, 0.15, 0.15, 0.15]))
    if kind == 0:
        return UnitNoise(0, one, one)
    if kind in (1, 2) and draws.random() < 0.5:
        return UnitNoise(kind, one, one, draws.uniform(0.15, 0.9))
    while True:
        noise = UnitNoise(kind, kernel(draws), kernel(draws))
        if kind == 3 and draws.random() < 0.6:
            noise.row = noise.column
        if kind == 1:
            noise.column = one
        if kind == 2:
            noise.row = one
        lags = noise.correlations()
        if kind == 3 and min(lags[:2]) > LEAST_CORRELATION:
            return noise
        if kind != 3 and max(lags[:2]) > LEAST_CORRELATION:
            return noise


@dataclass
class Batch:
    """Crops, (scenes * crops, 1, SIDE, SIDE), and what is true of each block of them.

    Attributes:
        noisy: the crops.
        log_variance: (scenes * crops, rows, columns).
        light: mean brightness, in that shape.
        known: False where values are clipped.
        kinds: (scenes,).
        correlations: (scenes, lags).
    """

    noisy: Tensor
    log_variance: Tensor
    light: Tensor
    known: Tensor
    kinds: Tensor
    correlations: Tensor


def crops_of(plane: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Draw crops of one picture, turned, sometimes blurred or darkened, (CROPS, SIDE, SIDE)."""
    crops = []
    gain = draws.uniform(0.15, 1) if draws.random() < 0.3 else 1.0
    sigma = draws.uniform(0.3, 1.2) if draws.random() < 0.25 else 0.0
    turns = draws.integers(4)
    for _ in range(CROPS):
        top = draws.integers(plane.shape[0] - SIDE + 1)
        left = draws.integers(plane.shape[1] - SIDE + 1)
        crop = gain * plane[top : top + SIDE, left : left + SIDE].astype(np.float32)
        if sigma:
            crop = gaussian_filter(crop, sigma)
        crops.append(np.rot90(crop, turns))
    stacked = np.stack(crops)
    return stacked[:, :, ::-1] if draws.random() < 0.5 else stacked


def noisy_of(
    clean: np.ndarray, noise: UnitNoise, draws: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Add noise to crops; return them and its variance."""
    low, high = LINES
    sigma = low * (high / low) ** draws.random()
    share = float(draws.choice([0.0, 1.0, draws.random()], p=[0.5, 0.25, 0.25]))
    mean = max(float(clean.mean()), 1.0)
    a = (1 - share) * sigma**2
    b = share * sigma**2 / mean
    variance = a + b * np.maximum(clean, 0)
    if noise.kind == 0 and b and draws.random() < 0.5:
        counts = draws.poisson(np.maximum(clean, 0) / b) * b
        noisy = counts + np.sqrt(a) * draws.standard_normal(clean.shape)
    else:
        unit = np.stack([noise.draw(crop.shape, draws) for crop in clean])
        noisy = clean + np.sqrt(variance) * unit
    return noisy.astype(np.float32), variance


def batch(planes: list[np.ndarray], draws: np.random.Generator) -> Batch:
    """Draw a batch."""
    rows: list[list[np.ndarray]] = [[], [], [], []]
    kinds = []
    correlations = []
    for _ in range(SCENES):
        clean = crops_of(planes[draws.integers(len(planes))], draws)
        noise = unit_noise(draws)
        noisy, variance = noisy_of(clean, noise, draws)
        clipped = np.zeros(noisy.shape, bool)
        if draws.random() < 0.4:
            noisy = noisy.round()
            variance = variance + (1 / 12 if noise.kind == 0 else 0)
        if draws.random() < 0.3:
            clipped = (noisy <= 0) | (noisy >= 255)
            noisy = noisy.clip(0, 255)
        for row, values in zip(rows, (noisy, variance, clean, clipped), strict=True):
            row.append(np.ascontiguousarray(values))
        kinds.append(noise.kind)
        correlations.append(noise.correlations())
    noisy, variance, clean, clipped = (torch.from_numpy(np.concatenate(row)) for row in rows)
    means = [cut_blocks(x.float(), NOISE_BLOCK).mean((2, 4)) for x in (variance, clean, clipped)]
    return Batch(
        noisy[:, None].float(),
        means[0].clamp(min=1e-6).log(),
        means[1],
        means[2] < 0.02,
        torch.tensor(kinds),
        torch.tensor(correlations, dtype=torch.float32),
    )


def grouped(values: Tensor) -> Tensor:
    """(scenes * crops, rows, columns) -> (scenes, blocks of all crops)."""
    return values.reshape(SCENES, -1)


def weighted(values: Tensor, weight: Tensor, counted: Tensor) -> Tensor:
    """Return means (scenes,) with weights exp(weight) where `counted`."""
    share = torch.where(counted, weight, -30).softmax(1)
    return (share * values).sum(1)


def loss_of(judged: BlockJudgement, truth: Batch) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of a batch, and its parts."""
    known = grouped(truth.known)
    target = grouped(truth.log_variance)
    light = grouped(truth.light)
    white = truth.kinds == 0
    bright = light > light.median(1, keepdim=True).values
    numbers = {}
    total = torch.zeros(())
    parts = (
        ("white", judged.white_variance, judged.white_weight, white),
        ("any", judged.variance, judged.weight, torch.ones_like(white)),
    )
    for name, variance, weight, scenes in parts:
        if not scenes.any():
            continue
        error = (grouped(variance) - target).clamp(-6, 6)
        deviation = grouped(judged.white_error)
        of_blocks = error.abs() * (-deviation).exp() + deviation
        if name == "any":
            of_blocks = error.abs() * (-deviation.detach()).exp().clamp(max=10)
        of_blocks = (of_blocks * known).sum(1) / known.sum(1).clamp(min=1)
        total = total + 0.3 * of_blocks[scenes].mean()
        for counted, share in ((known, 2.0), (known & bright, 0.5), (known & ~bright, 0.5)):
            enough = scenes & (counted.sum(1) > 4)
            if not enough.any():
                continue
            mean_error = weighted(error, grouped(weight), counted)[enough].abs().mean()
            total = total + share * mean_error
            if share == 2.0:
                numbers[name] = float(mean_error.detach())
    weight = grouped(judged.weight)
    kinds = [weighted(grouped(kind), weight, known) for kind in judged.kinds.unbind(1)]
    of_kind = torch.nn.functional.cross_entropy(torch.stack(kinds, 1), truth.kinds)
    lags = [weighted(grouped(lag), weight, known) for lag in judged.correlations.unbind(1)]
    of_lags = (torch.stack(lags, 1) - truth.correlations).abs().mean()
    numbers |= {"kinds": float(of_kind.detach()), "lags": float(of_lags.detach())}
    return total + 0.3 * of_kind + 2 * of_lags, numbers


def save(network: NoiseNetwork, path: Path) -> None:
    """Write the weights as half floats."""
    weights = {
        name: value.numpy().astype(np.float16) for name, value in network.state_dict().items()
    }
    np.savez(path, **weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    parser.add_argument("--minutes", type=float, default=25, help="of processor time")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    draws = np.random.default_rng(args.seed)
    planes = pictures(args.photos, draws)
    print(len(planes), "pictures", flush=True)
    network = NoiseNetwork()
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    begin = time.process_time()
    smooth: dict[str, float] = {}
    step = 0
    while (share := (time.process_time() - begin) / (60 * args.minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, step / 100) * 0.5 * (1 + np.cos(np.pi * share))
        truth = batch(planes, draws)
        loss, numbers = loss_of(network(truth.noisy), truth)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        for name, value in numbers.items():
            smooth[name] = 0.99 * smooth.get(name, value) + 0.01 * value
        step += 1
        if step % 250 == 0:
            shown = ", ".join(f"{name} {value:.3f}" for name, value in smooth.items())
            print(f"step {step}, {100 * share:.0f}%: {shown}", flush=True)
            save(network, args.out)
    save(network, args.out)


if __name__ == "__main__":
    main()
