"""Large pictures go through the network in tiles."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from n2n_lightning import networks
from n2n_lightning.files import InputError
from n2n_lightning.inference.denoiser import TrainedDenoiser
from n2n_lightning.inference.tiling import OVERLAPS, in_tiles, overlap_of, spans, tile_of, tiled
from n2n_lightning.noise import Camera
from n2n_lightning.randomness import generator
from tests.conftest import linux
from tests.pictures import RNG, model  # noqa: F401


@pytest.mark.parametrize("multiple", [1, 8, 32])
def test_the_weights_of_the_tiles_add_up_to_one_everywhere(multiple):
    for length in (1, 191, 192, 193, 289, 384, 385, 1000, 4001):
        tiles = spans(length, 192, multiple)
        total = torch.zeros(length)
        for span in tiles:
            total[span.start : span.stop] += span.weights()
            assert span.start % multiple == 0
            assert span.stop - span.start <= 192 + multiple
        assert torch.allclose(total, torch.ones(length), atol=1e-6)
        assert (tiles[0].start, tiles[-1].stop) == (0, length)
    with pytest.raises(InputError, match=f"tile=100: must be {2 * OVERLAPS[2]} or more"):
        spans(1000, 100, multiple)


SIZES = [
    (1, 1),
    (700, 300),
    (300, 700),
    (500, 500),
    (5, 1200),
    (1201, 3),
    (1, 1, 1),
    (9, 200, 150),
    (300, 193, 20),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 3])
def test_every_pixel_is_written_once(size, batch):
    image = torch.rand(2, *size)
    result, times = torch.zeros_like(image), torch.zeros(size)

    def write(place: tuple[slice, ...], values: torch.Tensor) -> None:
        result[(slice(None), *place)] = values
        times[place] += 1

    done = []
    tiled(
        lambda x: x,
        lambda place: image[(slice(None), *place)],
        write,
        size,
        192,
        4,
        batch,
        done.append,
    )
    assert torch.allclose(result, image, atol=1e-6)
    assert (times == 1).all()
    assert sum(done) == math.prod(
        len(spans(length, 192, 4, OVERLAPS[len(size)])) for length in size
    )


@pytest.mark.slow
def test_tiles_cannot_be_seen(model):
    """On a 1024 x 768 photograph with noise: under 1e-4 anywhere, at edges and corners too."""
    from skimage import data

    photo = data.retina()[300:1068, 200:1224].astype(np.float32) / 255
    white = photo + RNG.normal(0, 0.1, photo.shape).astype(np.float32)
    assert np.abs(model.denoise(white, tile=512) - model.denoise(white, tile=None)).max() < 1e-4
    photo = Camera(sigma=40, width=1.6, shared=0.9)(
        torch.from_numpy(photo).permute(2, 0, 1)[None], generator(0)
    )
    # what is alike over many pixels, the network asks many for
    photo = photo[0].permute(1, 2, 0).numpy()
    assert np.abs(model.denoise(photo, tile=384) - model.denoise(photo, tile=None)).max() < 1e-4
    part = white[:401, :300]
    difference = model.denoise(part, tile=384, tta=True) - model.denoise(part, tile=None, tta=True)
    assert np.abs(difference).max() < 1e-4


@pytest.mark.slow
def test_tiles_are_as_large_as_the_network_needs_them():
    torch.manual_seed(0)
    network = networks.DRUNet(1, [2] * 4, [5] * 4).eval()
    torch.nn.init.normal_(network.output.weight, std=0.3)
    overlap = overlap_of(network, 2)
    assert 2 * overlap > 1024
    assert tile_of(2, overlap, network.multiple) == 2 * -(-overlap // 8) * 8
    image = torch.rand(1, 1, 1400, 1300)
    with torch.inference_mode():
        assert (in_tiles(network, image, overlap) - network(image)).abs().max() < 1e-5
    assert TrainedDenoiser(network, 1).denoise(np.zeros((40, 40), np.float32)).shape == (40, 40)
    assert overlap_of(networks.UNet(), 2) == OVERLAPS[2]
    assert overlap_of(networks.DnCNN(), 2) == 16
    assert overlap_of(networks.DRUNet(1, [2, 2], [1, 1], dims=3), 3) == 26
    assert overlap_of(networks.DRUNet(1, [2] * 4, [5] * 4, dims=3), 3) == OVERLAPS[3]
    assert (tile_of(2, 96, 32), tile_of(3, 32, 4)) == (1024, 112)


@linux
def test_memory_does_not_grow_with_the_image(model, tmp_path):
    """Peak memory grows by far less than a float copy for a mapped file 16 times as large."""
    peaks = []
    code = (
        "import resource, sys, numpy as np; from n2n_lightning import load; model = load()\n"
        "from n2n_lightning.formats import opened; from pathlib import Path\n"
        "from n2n_lightning.inference.options import DenoiseOptions, NoisyArray\n"
        "p = opened(Path(sys.argv[1])); v = p.values[0]; axes, _ = p.meaning(v)\n"
        "with p.written(Path(sys.argv[1] + '.npy')) as (out,):\n"
        "    model.network = __import__('torch').nn.Conv2d(3, 3, 1)\n"
        "    model.denoise_into(out, NoisyArray(v.array, axes), DenoiseOptions(tile=384))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    for side in (1000, 4000):
        path = tmp_path / f"{side}.npy"
        np.lib.format.open_memmap(path, "w+", np.uint8, (side, side, 3)).flush()
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout))
    # the pages of both files that the kernel has mapped, at most
    stored = 2 * 4000 * 4000 * 3 / 2**20
    assert peaks[1] - peaks[0] < stored + 40


def test_a_very_wide_picture(tmp_path, model):
    image = RNG.integers(0, 255, (2, 50_000), np.uint8)
    assert model.denoise(image).shape == image.shape
