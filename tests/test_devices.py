"""Which GPUs are found, chosen and trusted, with tools and properties that are pretended."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from n2n_lightning.devices import cards, choice
from n2n_lightning.devices.memory import out_of_memory
from n2n_lightning.inference.tiling import tile_of
from n2n_lightning.sweep.cluster import gpus_per_job
from n2n_lightning.training.precision import on_cards, precision, without_fused

TWO = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb)
"""
DIVIDED = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa)
  MIG 3g.20gb     Device  0: (UUID: MIG-1111)
  MIG 3g.20gb     Device  1: (UUID: MIG-2222)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb)
"""
AMD = """
============================ ROCm System Management Interface ============================
GPU[0]\t\t: Device Name: \t\tAMD Instinct MI210
GPU[0]\t\t: Device ID: \t\t0x740f
GPU[1]\t\t: Device Name: \t\tAMD Instinct MI210
"""


@pytest.fixture
def tools(monkeypatch):
    """Pretend the output of tools, by their names; others are not installed."""
    outputs: dict[str, str] = {}

    def run(command: list[str], **options: Any) -> Any:
        if command[0] not in outputs:
            raise FileNotFoundError(command[0])
        return subprocess.CompletedProcess(command, 0, outputs[command[0]], "")

    monkeypatch.setattr(subprocess, "run", run)
    for variable in cards.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    return outputs


class TestGpusOfThisMachine:
    @pytest.mark.parametrize(
        ("tool", "output", "expected"),
        [
            ("nvidia-smi", TWO, ["GPU-aaaa", "GPU-bbbb"]),
            ("nvidia-smi", DIVIDED, ["MIG-1111", "MIG-2222", "GPU-bbbb"]),
            ("rocm-smi", AMD, ["0", "1"]),
            ("none", "", []),
        ],
    )
    def test_found(self, tools, tool, output, expected):
        tools[tool] = output
        assert cards.gpus() == expected

    def test_a_variable_comes_first(self, tools, monkeypatch):
        tools["nvidia-smi"] = TWO
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, MIG-2222")
        assert cards.gpus() == ["1", "MIG-2222"]
        monkeypatch.setenv("HIP_VISIBLE_DEVICES", "-1")
        assert cards.gpus() == []

    def test_a_number_and_a_uuid_take_the_same_lock(self, tools):
        tools["nvidia-smi"] = TWO
        assert cards.lock_name("1") == cards.lock_name("GPU-bbbb") == cards.lock_name("GPU-bb")
        tools["nvidia-smi"] = DIVIDED
        assert cards.lock_name("MIG-2222") == "MIG-2222"
        assert cards.lock_name("0") == "0"  # of several slices

    def test_the_variable_that_was_given_is_narrowed(self):
        environment = {"ROCR_VISIBLE_DEVICES": "0,1"}
        cards.show_only("1", environment)
        assert environment == {"ROCR_VISIBLE_DEVICES": "1"}
        environment = {}
        cards.show_only("GPU-aaaa", environment)
        assert environment == {"CUDA_VISIBLE_DEVICES": "GPU-aaaa"}


@pytest.mark.parametrize(("resources", "expected"), [({"CPU": 8.0, "GPU": 4.0}, 1), ({}, 0)])
def test_ray_asks_for_what_the_cluster_has(monkeypatch, tools, resources, expected):
    ended: list[bool] = []
    ray = SimpleNamespace(
        init=lambda **options: None,
        cluster_resources=lambda: resources,
        shutdown=lambda: ended.append(True),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert gpus_per_job("ray://host:10001") == expected
    assert ended
    assert gpus_per_job(None) == 0  # of this machine


@pytest.fixture
def pretend(monkeypatch):
    """Pretend cards: the capability of each, or the name of AMD's; and what torch is built for."""

    def cards_of(each: list[Any], built_for: tuple[str, ...] = ("sm_75", "sm_90", "compute_90")):
        amd = isinstance(each[0], str)
        monkeypatch.setattr(torch.version, "hip", "6.4" if amd else None)
        pretended = {
            "is_available": lambda: True,
            "device_count": lambda: len(each),
            "get_device_name": lambda number: f"card {number}",
            "get_arch_list": lambda: list(built_for),
            "get_device_capability": lambda number: (9, 0) if amd else each[number],
            "get_device_properties": lambda number: SimpleNamespace(gcnArchName=each[number]),
        }
        for name, value in pretended.items():
            monkeypatch.setattr(torch.cuda, name, value)

    choice.computes_bfloat16.cache_clear()
    choice._say_too_old.cache_clear()
    yield cards_of
    choice.computes_bfloat16.cache_clear()


class TestChoice:
    @pytest.mark.parametrize(
        ("each", "device"),
        [
            ([(7, 5)], "cuda"),
            ([(12, 0)], "cuda"),  # by the intermediate code
            ([(6, 1)], "cpu"),
            ([(6, 1), (9, 0)], "cuda:1"),
        ],
    )
    def test_cards_without_kernels_are_not_taken(self, pretend, each, device, capsys):
        pretend(each)
        assert choice.device_of("auto") == device
        said = capsys.readouterr().err
        assert ("no kernels" in said) == (device == "cpu")
        assert choice.device_of("cuda") == "cuda"  # typed: taken

    def test_later_kernels_of_the_same_generation_do_not_fit(self, pretend):
        pretend([(8, 0)], ("sm_86",))
        assert not choice.has_kernels(0)
        pretend([(8, 9)], ("sm_86",))
        assert choice.has_kernels(0)

    def test_amd(self, pretend):
        pretend(["gfx90a:sramecc+:xnack-", "gfx803"], ("gfx90a", "gfx1100"))
        assert choice.has_kernels(0)
        assert not choice.has_kernels(1)

    @pytest.mark.parametrize(
        ("each", "number", "expected"),
        [
            ([(8, 0), (7, 5)], 0, torch.bfloat16),
            ([(8, 0), (7, 5)], 1, torch.float16),
            (["gfx906", "gfx942"], 0, torch.float16),
            (["gfx906", "gfx942"], 1, torch.bfloat16),
        ],
    )
    def test_fast_type(self, pretend, each, number, expected):
        pretend(each)
        assert choice.fast_type(torch.device("cuda", number)) == expected
        assert choice.fast_type(torch.device("cpu")) == torch.bfloat16


class TestPrecisionOfTraining:
    @pytest.mark.parametrize(
        ("devices", "expected"),
        [(1, "bf16-mixed"), ([1], "32-true"), ("1,", "32-true"), (2, "32-true"), (-1, "32-true")],
    )
    def test_of_the_cards_that_are_taken(self, pretend, devices, expected):
        pretend([(9, 0), (7, 5)])
        options = {"precision": "auto", "accelerator": "auto", "devices": devices}
        assert precision(options) == expected

    def test_a_card_without_kernels_is_left_to_the_cpu(self, pretend):
        pretend([(3, 5)])
        options = {"precision": "auto", "accelerator": "auto", "devices": 1}
        (line,) = on_cards(options)
        assert options["accelerator"] == "cpu"
        assert "no kernels" in line

    def test_deterministic_warns_on_cards(self, pretend):
        options = {"accelerator": "auto", "deterministic": True}
        assert on_cards(dict(options)) == []  # on a CPU
        pretend([(9, 0)])
        assert "warn" in on_cards(options)[0]
        assert options["deterministic"] == "warn"

    def test_float16_with_clipping_is_not_fused(self):
        config = {"trainer": {"gradient_clip_val": 1.0}, "optim": {"fused": True, "lr": 0.1}}
        changed, lines = without_fused(config, "16-mixed")
        assert changed["optim"] == {"fused": False, "lr": 0.1}
        assert lines
        assert without_fused(config, "bf16-mixed") == (config, [])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (OSError("out of memory"), False),
    ],
)
def test_errors_of_memory(error, expected):
    assert out_of_memory(error) == expected


@pytest.mark.parametrize(
    ("free", "side"), [(4, 1024), (9, 2048), (20, 2048), (33, 4096), (140, 4096)]
)
def test_tiles_by_free_memory(monkeypatch, free, side):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * 2**30, 0))
    assert tile_of(2, 192, 8, "cuda:1") == side
    assert tile_of(2, 192, 8, "cpu") == 1024
    assert tile_of(3, 32, 8, "cuda") == tile_of(3, 32, 8)
