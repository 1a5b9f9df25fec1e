"""Networks: sizes, layers, what they see, and networks from other packages."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from n2n_lightning import load
from n2n_lightning.networks import (
    DnCNN,
    DRUNet,
    EncoderDecoder,
    NAFNet,
    Noise2NoiseUNet,
    ResidualUNet,
    UNet,
    apply,
    multiple_of,
    multiply_accumulates,
    pad_to_multiple,
)
from n2n_lightning.training.module import Denoiser
from tests.captures import QUICK
from tests.conftest import photographs, run

# The report's Table 1: layer, output channels, function. `up` is counted after nearest upsampling
# and concatenation.
ENCODER = [("c0", 48), ("c1", 48), ("c2", 48), ("c3", 48), ("c4", 48), ("c5", 48), ("c6", 48)]
TABLE_1 = [
    *[(name, n, "conv 3x3") for name, n in ENCODER],
    *[
        ("up", 96, "up"),
        ("ct5", 144, "transposed"),
        ("dec5a", 96, "conv 3x3"),
        ("dec5b", 96, "conv 3x3"),
    ],
    *[
        ("up", 144, "up"),
        ("ct4", 144, "transposed"),
        ("dec4a", 96, "conv 3x3"),
        ("dec4b", 96, "conv 3x3"),
    ],
    *[
        ("up", 144, "up"),
        ("ct3", 144, "transposed"),
        ("dec3a", 96, "conv 3x3"),
        ("dec3b", 96, "conv 3x3"),
    ],
    *[
        ("up", 144, "up"),
        ("ct2", 144, "transposed"),
        ("dec2a", 64, "conv 3x3"),
        ("dec2b", 64, "conv 3x3"),
    ],
    *[
        ("up", 64, "up"),
        ("ct1", 64, "transposed"),
        ("dec1a", 32, "conv 3x3"),
        ("dec1b", 32, "conv 3x3"),
    ],
    ("output", 3, "conv 1x1"),
]


def walk(network: nn.Module, size: int = 32) -> list[tuple[str, int, str, int]]:
    """Layer, channels, function and map size of a network, in the order of execution.

    The channels of `up` are those of the layer that follows it, which takes its output after the
    concatenation.
    """
    rows: list[tuple[str, int, str, int]] = []

    def note(name, module):
        def hook(_, inputs, output):
            if rows and rows[-1][0] == "up":
                rows[-1] = ("up", inputs[0].shape[1], "up", rows[-1][3])
            layers = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
            if isinstance(module, nn.Upsample):
                kind = "up"
            elif isinstance(layers[0], nn.ConvTranspose2d):
                kind = (
                    "transposed"
                    if layers[0].stride == (1, 1) and layers[0].kernel_size == (3, 3)
                    else "other"
                )
            else:
                kind = f"conv {layers[0].kernel_size[0]}x{layers[0].kernel_size[1]}"
            assert len(layers) <= 1
            rows.append((name, output.shape[1], kind, output.shape[-1]))

        return hook

    for name, module in network.named_children():
        if not isinstance(module, nn.MaxPool2d):
            module.register_forward_hook(note(name, module))
    network.eval()(torch.rand(1, 3, size, size))
    return rows


def test_unet_is_table_1():
    rows = walk(UNet())
    assert [row[:3] for row in rows] == TABLE_1
    assert [row[3] for row in rows] == [
        32,
        32,
        16,
        8,
        4,
        2,
        1,
        *[2] * 4,
        *[4] * 4,
        *[8] * 4,
        *[16] * 4,
        *[32] * 5,
    ]


def test_transposed_convolutions_are_torchs():
    layer = UNet().ct5[0].double()
    image = torch.rand(2, layer.in_channels, 5, 6, dtype=torch.float64)
    assert torch.allclose(layer(image), nn.ConvTranspose2d.forward(layer, image), atol=1e-12)


def test_baseline_has_7_encoder_and_11_decoder_layers_and_no_skips():
    rows = [row for row in walk(EncoderDecoder()) if row[0] != "up"]
    expected = [row for row in TABLE_1 if row[0] != "up" and row[2] != "transposed"]
    assert [row[:3] for row in rows] == expected
    assert (len(rows[:7]), len(rows[7:])) == (7, 11)


@pytest.mark.parametrize("network", [UNet(), EncoderDecoder()], ids=["unet", "baseline"])
def test_every_layer_has_its_own_weights_and_is_trained(network):
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert (
        len({id(m) for m in norms})
        == len(norms)
        == len(walk(network))
        - sum(row[2] in ("up", "transposed") or row[0] == "output" for row in walk(network))
    )
    network.train()(torch.rand(4, 3, 32, 32)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_networks_have_leaky_relu_and_report_output():
    network = UNet()
    assert {m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)} == {0.1}
    assert isinstance(network.output[-1], nn.ReLU)


@pytest.mark.parametrize(
    "network",
    [
        *(
            UNet(),
            EncoderDecoder(),
            UNet(channels=1),
            ResidualUNet(levels=4),
            Noise2NoiseUNet(channels=2),
        ),
        *(
            DnCNN(channels=1),
            NAFNet(),
            DRUNet(channels=5, widths=(8, 16, 24, 32), blocks=(1, 1, 1, 1)),
        ),
    ],
    ids=["unet", "baseline", "grey", "residual_unet", "noise2noise", "dncnn", "nafnet", "drunet"],
)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 3), (31, 33), (32, 32), (65, 7)])
def test_any_size(network, size):
    image = torch.rand(2, next(network.parameters()).shape[1], *size)
    output = network.eval()(image)
    assert output.shape == image.shape
    assert output.isfinite().all()


def test_padding_reflects_again_and_again():
    row = torch.tensor([0.0, 1.0, 2.0]).view(1, 1, 1, 3)
    assert pad_to_multiple(row, 8)[0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert pad_to_multiple(torch.full((1, 1, 1, 1), 5.0), 4).flatten().tolist() == [5.0] * 16
    image = torch.rand(2, 3, 20, 30)
    padded = nn.functional.pad(image, (0, 2, 0, 12), mode="reflect")
    assert torch.equal(pad_to_multiple(image, 32), padded)
    assert pad_to_multiple(image, 10) is image


def test_noise2noise_is_the_papers_network():
    network = Noise2NoiseUNet()
    assert sum(p.numel() for p in network.parameters()) == 991_203
    assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len([m for m in network.modules() if isinstance(m, nn.Conv2d)]) == 18


@pytest.mark.parametrize(("channels", "out_channels"), [(3, None), (1, None), (4, 1)])
@pytest.mark.parametrize(("a", "b"), [(0.01, 0), (300, 1000), (1, -5), (1e-6, 0)])
def test_an_equivariant_network_does_not_mind_units_and_black_levels(channels, out_channels, a, b):
    torch.manual_seed(0)
    network = DRUNet(channels, [8, 16], [1, 1], out_channels, equivariant=True).eval()
    nn.init.normal_(network.output.weight, std=0.1)
    assert not any(name.endswith("bias") for name, _ in network.named_parameters())
    image = torch.rand(1, channels, 37, 45)
    with torch.no_grad():
        result = network(image)
        assert (result - image[:, :1]).std() > 0.01
        assert (network(a * image + b) - (a * result + b)).abs().max() < 1e-3 * a
        assert (network(image[..., :1, :]) - network(image[..., :1, :] - 3) - 3).abs().max() < 1e-3


@pytest.mark.parametrize(
    "network",
    [
        DRUNet(3, [8, 8, 8], [2, 1, 1]),
        DRUNet(3, [8, 8], [1, 2], equivariant=True),
        NAFNet(3, [8, 8, 8], [1, 2, 1]),
        ResidualUNet(3, 8),
        DnCNN(3, 8, batch_norm=False),
    ],
)
def test_the_reach_of_a_network_is_how_far_it_sees(network):
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    image, found = torch.rand(1, 3, 16, 160), []
    for column in range(76, 84):  # at each place within what becomes one pixel of the smallest size
        changed = image.clone()
        changed[..., column] += 1e4
        with torch.no_grad():
            seen = (network(changed) != network(image)).any(2).any(1).flatten().nonzero()
        found.append(int((seen - column).abs().max()))
    assert network.receptive_radius - 1 <= max(found) <= network.receptive_radius


@pytest.mark.parametrize("network", [NAFNet(), DRUNet(), DnCNN(), DnCNN(batch_norm=False)])
def test_every_part_of_a_network_is_trained(network):
    if hasattr(network, "output"):
        # it starts at zero, which hides the rest in the first step
        nn.init.normal_(network.output.weight)
    for module in network.modules():
        for name in ("beta", "gamma"):
            if hasattr(module, name):
                nn.init.ones_(getattr(module, name))
    network.train()(torch.rand(4, 3, 16, 16)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_dncnn_is_the_papers_at_its_depth():
    network = DnCNN(layers=17)
    kinds = [type(m).__name__ for m in network.layers]
    assert kinds == ["Conv2d", "ReLU", *["Conv2d", "BatchNorm2d", "ReLU"] * 15, "Conv2d"]
    with pytest.raises(ValueError, match=r"model.layers=2: must be 3 or more"):
        DnCNN(layers=2)
    with pytest.raises(
        ValueError, match=r"model.widths=\[8\] and model.blocks=\[1, 1\]: must be equally many"
    ):
        NAFNet(widths=[8], blocks=[1, 1])


def test_multiply_accumulates_are_counted():
    assert (
        multiply_accumulates(DnCNN(width=64, layers=7)) == 3 * 64 * 9 + 5 * 64 * 64 * 9 + 64 * 3 * 9
    )
    # Half the size has a quarter of the pixels.
    assert (
        multiply_accumulates(DRUNet(widths=(8, 16), blocks=(0, 1)))
        == 2 * 3 * 8 * 9 + 2 * (8 * 16) + 16 * 16 * 9 // 2
    )


@pytest.mark.parametrize("network", [ResidualUNet(), NAFNet(), DRUNet()])
def test_residual_networks_start_from_their_input(network):
    image = torch.rand(2, 3, 20, 30)
    assert torch.equal(network(image), image)


def test_the_default_networks_size():
    assert sum(p.numel() for p in ResidualUNet().parameters()) == 472_387


class Narrow(torch.nn.Module):
    """A network without padding: sizes must be divisible by 4."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.down, self.up = (
            torch.nn.Conv2d(3, width, 4, 4),
            torch.nn.ConvTranspose2d(width, 3, 4, 4),
        )

    def forward(self, image):
        if image.shape[2] % 4 or image.shape[3] % 4:
            raise RuntimeError("sizes do not match")
        return self.up(self.down(image))


@pytest.mark.walk
def test_networks_without_padding_work_at_every_size(tmp_path):
    network = Narrow().train()
    network.down.eval()
    assert multiple_of(network, torch.zeros(1, 3, 8, 8)) == 4
    assert network.training
    assert not network.down.training
    assert apply(network, torch.rand(2, 3, 13, 18)).shape == (2, 3, 13, 18)
    with pytest.raises(ValueError, match="returns no image of the size that it is given"):
        apply(torch.nn.Conv2d(3, 3, 3), torch.rand(1, 3, 9, 9))
    photographs(tmp_path / "photos", 12, 61)  # validated whole
    asked = ["data=images", "data.root=photos", "noise=gaussian", "data.size=18", *QUICK[:-1]]
    own_network = ["model=own", "model._target_=tests.test_networks.Narrow"]
    done = run("train", *asked, *own_network, "hydra.run.dir=out", cwd=tmp_path, env=REPOSITORY)
    assert done.returncode == 0, done.stderr
    image = np.random.default_rng(0).integers(0, 255, (37, 41, 3), np.uint8)
    assert load(tmp_path / "out", ["tests.test_networks"]).denoise(image).shape == image.shape


REPOSITORY = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}


class Wider(ResidualUNet.__mro__[1]):
    """A network of one's own, made like those of the package, with options that it hands on."""

    def __init__(self, **options: int):
        super().__init__()
        self.layer = torch.nn.Conv2d(options["channels"], options["channels"], 3, padding=1)

    def body(self, image):
        return self.layer(image)


def test_networks_with_options_handed_on_are_built_again(tmp_path):
    module = Denoiser(Wider(channels=2))
    assert module.spec["model"] == {"_target_": "tests.test_networks.Wider", "channels": 2}


@pytest.mark.parametrize(
    "kind", [UNet, EncoderDecoder, Noise2NoiseUNet, ResidualUNet, DnCNN, DRUNet, NAFNet]
)
def test_every_network_may_have_other_channels_in_than_out(kind):
    network = kind(channels=6, out_channels=3).eval()
    image = torch.rand(2, 6, 40, 33)
    with torch.inference_mode():
        assert network(image).shape == (2, 3, 40, 33)
    assert network.arguments["out_channels"] == 3
