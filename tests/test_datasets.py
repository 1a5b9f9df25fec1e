"""Which pixels a training example holds: captures, windows, crops (data/datasets.py)."""

import pytest
import torch

from n2n_lightning.data.augmentation import to_float
from n2n_lightning.data.datasets import Captures, Crops
from n2n_lightning.data.movie import MovieCrops
from n2n_lightning.data.samplers import BatchIndex
from n2n_lightning.data.scene_set import EqualSizeScenes
from n2n_lightning.data.single_image import SingleImageCrops
from n2n_lightning.noise import Gaussian, Pixelate
from n2n_lightning.randomness import generator

STORES = {
    "one tensor per capture": EqualSizeScenes(
        [torch.arange(50).view(50, 1, 1, 1) + 100 * k for k in range(4)], [""] * 50
    ),
    "numbers of captures that differ": EqualSizeScenes(
        [
            torch.tensor([i + 100 * k for i in range(50) for k in range(2 + i % 3)]).view(
                -1, 1, 1, 1
            )
        ],
        [""] * 50,
        torch.tensor([2 + i % 3 for i in range(50)]),
    ),
}


@pytest.mark.parametrize("name", STORES)
def test_captures_draw_pairs_of_different_captures_of_the_same_scene(name):
    scenes = STORES[name]
    data = Captures(scenes, seed=0, swap=True)
    everything = torch.arange(50)
    batches = [data[BatchIndex(0, number, everything)] for number in range(60)]
    drawn = {i: set() for i in range(50)}
    for batch in batches:
        for i, a, b in zip(
            range(50), batch["input"].flatten(), batch["target"].flatten(), strict=True
        ):
            assert a % 100 == b % 100 == i  # value = scene + 100 * capture
            drawn[i].add((int(a) // 100, int(b) // 100))
    for i, count in enumerate(scenes.captures(everything).tolist()):
        assert drawn[i] == {(a, b) for a in range(count) for b in range(count) if a != b}
    assert torch.equal(data[BatchIndex(0, 0, everything)]["input"], batches[0]["input"])
    plain = Captures(scenes, seed=0, swap=False)[BatchIndex(0, 0, everything)]
    assert torch.equal(plain["input"].flatten(), everything)
    assert torch.equal(plain["target"].flatten(), everything + 100)


@pytest.mark.parametrize("name", STORES)
def test_windows_are_the_same_for_both_captures_and_the_clean_image(name):
    position = torch.arange(50 * 40).view(1, 1, 50, 40)
    scenes = STORES[name]
    spread = EqualSizeScenes(
        [(f * 10000 + position).to(torch.int32) for f in scenes.frames], scenes.names, scenes.counts
    )
    for clean in (None, EqualSizeScenes([position.expand(50, 1, 50, 40)], spread.names)):
        data = Captures(spread, seed=0, swap=True, clean=clean, crop=(8, 8), count=120)
        batch = data[BatchIndex(0, 0, torch.arange(70, 120))]
        assert batch["input"].shape == batch["target"].shape == (50, 1, 8, 8)
        assert torch.equal(batch["input"] % 10000, batch["target"] % 10000)
    batches = [data[BatchIndex(0, number, torch.arange(50))]["input"] for number in range(100)]
    corners = (torch.cat(batches)[:, 0, 0, 0] % 10000).tolist()

    assert {c // 40 for c in corners} == set(range(43))
    assert {c % 40 for c in corners} == set(range(33))


def test_crops_without_blocks_or_zoom_are_the_photo():
    photo = torch.randint(256, (3, 12, 12), dtype=torch.uint8)
    crops = Crops([photo], 8, size=12, noise=Pixelate(1), seed=0, zoom=(1.0, 1.0))
    batch = crops[BatchIndex(0, 0, torch.arange(8))]
    for image in batch["input"]:
        assert torch.equal(image, photo) or torch.equal(image, photo.flip(-1))
    assert torch.equal(batch["input"], batch["target"])


def test_everything_is_visited_by_epochs_that_are_shorter_than_its_number():
    frames = [
        torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 1, 8, 8) for _ in range(3)
    ]
    scenes = EqualSizeScenes(frames, [""] * 10)
    sources = [
        Crops(list(frames[0]), 4, size=4, noise=Gaussian(25), seed=0, zoom=None),
        Captures(scenes, seed=0, swap=True, crop=(4, 4), count=4),
        SingleImageCrops(scenes, seed=0, swap=False, crop=(4, 4), count=4),
        MovieCrops(scenes, seed=0, context=1, crop=(4, 4), count=4),
    ]
    for source in sources:
        batches = [source[BatchIndex(epoch, 0, torch.arange(4))] for epoch in range(3)]
        seen = [
            batch["image" if isinstance(source, Crops) else "input"][:, 0, 0, 0].tolist()
            for batch in batches
        ]
        assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]
    frozen = Crops(list(frames[0]), 4, size=4, noise=Gaussian(25, frozen=True), seed=0, zoom=None)
    assert torch.equal(
        *(frozen[BatchIndex(epoch, 0, torch.arange(4))]["image"] for epoch in (0, 1))
    )


def test_crops_through_pixelate_are_pixels_of_whole_crops():
    draws = generator("photos")
    photos = [
        torch.randint(256, (3, h, w), generator=draws).to(torch.uint8)
        for h, w in ((30, 40), (50, 25))
    ]
    crops = Crops(photos, 6, size=4, noise=Pixelate(5), seed=0, zoom=(0.5, 1.0))
    key = BatchIndex(0, 0, torch.arange(6))
    where = crops._place(key.images, generator(0, "crops", 0, 0))
    whole = crops._take(where, *crops._grid(6))
    blocks = whole.unfold(2, 5, 5).unfold(3, 5, 5).flatten(4)
    batch = crops[key]
    for image in (batch["input"], batch["target"]):
        # some pixel of the block, all channels together
        assert (blocks == image[..., None]).all(1).any(-1).all()
    assert not torch.equal(batch["input"], batch["target"])
    assert not torch.equal(batch["input"], crops[BatchIndex(1, 0, key.images)]["input"])
    noisy, clean = crops.reference()
    assert noisy.shape == clean.shape == (6, 3, 4, 4)
    with_gaussian = Crops(photos, 6, size=4, noise=Pixelate(5, sigma=25), seed=0, zoom=(0.5, 1.0))[
        key
    ]
    first, second = (with_gaussian[name] - to_float(batch[name]) for name in ("input", "target"))
    assert first.std().item() == pytest.approx(25 / 255, rel=0.15)
    assert not torch.allclose(first, second, atol=0.01)
