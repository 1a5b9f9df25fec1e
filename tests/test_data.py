import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch

from n2n_lightning.data import Course, Images, Photos
from n2n_lightning.data.augmentation import recolour, to_float, turn
from n2n_lightning.data.datasets import Captures, Crops
from n2n_lightning.data.generated.dead_leaves import dead_leaves
from n2n_lightning.data.generated.fabrics import fabrics
from n2n_lightning.data.generated.specimens import specimens
from n2n_lightning.data.movie import BlindFrames
from n2n_lightning.data.samplers import BatchIndex, BatchSampler, Loader
from n2n_lightning.data.scene_set import EqualSizeScenes
from n2n_lightning.data.single_image import SingleImageCrops
from n2n_lightning.files import InputError
from n2n_lightning.noise import Bernoulli, Gaussian, Pixelate
from n2n_lightning.randomness import generator
from tests.conftest import course_files, photographs


def test_course_reads_what_the_course_wrote(course):
    data = Course(str(course), batch_size=5, seed=3)
    data.setup()
    first, second = torch.load(course / "train_data.pkl")
    keys = list(data.train_dataloader().batches)
    batch = data.train[keys[0]]
    assert batch["input"].dtype == torch.uint8
    assert torch.equal(batch["input"], first[keys[0].images])
    assert torch.equal(batch["target"], second[keys[0].images])
    ready = data.on_after_batch_transfer(batch, 0)
    assert torch.equal(ready["target"], second[keys[0].images].float() / 255)
    assert sorted(torch.cat([key.images for key in keys]).tolist()) == list(range(24))
    noisy, clean = torch.load(course / "val_data.pkl")
    (val,) = data.val_dataloader()
    assert torch.equal(val["input"], noisy)
    assert torch.equal(val["target"], clean)


def test_course_subset(course):
    data = Course(str(course), train_pairs=10, val_pairs=2, batch_size=5)
    data.setup()
    assert (len(data.train), len(data.val)) == (10, 2)
    assert data.fingerprint["train"] == 10


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil-was-here",)


def write(value, legacy=False):
    def to(path: Path) -> None:
        torch.save(value, path, _use_new_zipfile_serialization=not legacy)

    return to


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def images(*shape, dtype=torch.uint8):
    return torch.zeros(shape, dtype=dtype)


DAMAGED = "{path}: damaged, incomplete, or not written by torch.save"
CODE = "{path}: holds more than tensors, which could run code; it is not read"
BAD_FILES = {
    "missing": (Path.unlink, "{path}: no such file"),
    "folder": (lambda p: (p.unlink(), p.mkdir()), "{path}: Is a directory"),
    "empty": (lambda p: p.write_bytes(b""), DAMAGED),
    "truncated": (truncated, DAMAGED),
    "text": (lambda p: p.write_text("hello"), DAMAGED),
    "plain pickle": (lambda p: p.write_bytes(pickle.dumps(Evil())), DAMAGED),
    "code": (write((Evil(), images(4, 3, 8, 8))), CODE),
    "code, old format": (write((Evil(), 1), legacy=True), CODE),
    "one tensor": (
        write(images(4, 3, 8, 8)),
        "{path}: should hold a tuple of two tensors, found Tensor",
    ),
    "three": (write((1, 2, 3)), "{path}: should hold a tuple of two tensors, found 3 items"),
    "list inside": (
        write(([1], [2])),
        "{path}: should hold a tuple of two tensors, found a list in it",
    ),
    "float": (
        write((images(4, 3, 8, 8, dtype=torch.float32),) * 2),
        "{path}: should hold uint8 values 0..255, found float32",
    ),
    "grey": (
        write((images(4, 8, 8),) * 2),
        "{path}: should hold RGB images (N, 3, H, W), found shape (4, 8, 8)",
    ),
    "channels last": (
        write((images(4, 8, 8, 3),) * 2),
        "{path}: should hold RGB images (N, 3, H, W), found shape ",
    ),
    "no images": (
        write((images(0, 3, 8, 8),) * 2),
        "{path}: should hold RGB images (N, 3, H, W), found shape (0, ",
    ),
    "unequal": (
        write((images(4, 3, 8, 8), images(5, 3, 8, 8))),
        "{path}: the two tensors differ in shape: (4, 3, 8, ",
    ),
}


@pytest.mark.parametrize("name", ["train_data.pkl", "val_data.pkl"])
@pytest.mark.parametrize("fault", BAD_FILES)
def test_bad_course_file(course, name, fault, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    spoil, message = BAD_FILES[fault]
    spoil(course / name)
    with pytest.raises(InputError) as caught:
        Course(str(course), batch_size=4).setup()
    assert str(caught.value).startswith(message.format(path=course / name))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evil-was-here").exists()


def test_bad_course_options(course, tmp_path):
    for options, message in (
        ({"root": str(tmp_path / "nowhere")}, "no such folder"),
        ({"train_pairs": 25}, r"holds 24 pairs, so 1 to 24 would work"),
        ({"train_pairs": 0}, r"data.train_pairs=0"),
        ({"batch_size": 0}, r"data.batch_size=0: must be a whole number, 1 or more"),
        ({"batch_size": 25}, r"there are only 24 training pairs"),
        ({"workers": -1}, r"data.workers=-1: must be a whole number, 0 or more"),
    ):
        with pytest.raises(InputError, match=message):
            Course(**{"root": str(course), "batch_size": 4, **options}).setup()
    course_files(tmp_path / "other", side=16)
    (tmp_path / "other" / "val_data.pkl").rename(course / "val_data.pkl")
    with pytest.raises(InputError, match="training images are 3x32x32, validation images 3x16x16"):
        Course(str(course), batch_size=4).setup()


def test_batches_are_even_and_cover_everything():
    sizes = [len(key.images) for key in BatchSampler(1001, 100, seed=0, shuffle=True)]
    assert len(sizes) == 11
    assert set(sizes) == {91}
    batches = BatchSampler(10, 3, seed=0, shuffle=True)
    first = torch.cat([key.images for key in batches])
    assert torch.equal(first, torch.cat([key.images for key in batches]))
    batches.set_epoch(1)
    second = torch.cat([key.images for key in batches])
    assert not torch.equal(first, second)
    assert sorted(second.tolist()) == list(range(10))


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_continues_inside_an_epoch(workers):
    frames = [torch.arange(40).view(20, 1, 1, 2), torch.zeros(20, 1, 1, 2)]
    dataset = Captures(EqualSizeScenes(frames, [""] * 20), seed=0, swap=False)

    def loader():
        return Loader(dataset, BatchSampler(20, 4, seed=0, shuffle=True), workers)

    def epoch(source, number):
        source.batches.set_epoch(number)
        return [batch["input"] for batch in source]

    whole = loader()
    expected = [epoch(whole, number) for number in range(3)]
    for stop in range(1, 6):
        interrupted = loader()
        epoch(interrupted, 0)
        interrupted.batches.set_epoch(1)
        running = iter(interrupted)
        for _ in range(stop):
            next(running)
        resumed = loader()
        resumed.load_state_dict(interrupted.state_dict())
        found = [] if stop == 5 else epoch(resumed, 1)
        assert [x.tolist() for x in found] == [x.tolist() for x in expected[1][stop:]]
        assert [x.tolist() for x in epoch(resumed, 2)] == [x.tolist() for x in expected[2]]


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


def test_turns_are_the_eight_symmetries_and_the_same_for_both():
    image = torch.arange(9.0).view(1, 1, 3, 3).expand(400, -1, -1, -1)
    a, b = turn([image, image + 100], generator(0))
    assert torch.equal(a + 100, b)
    found = {tuple(x.flatten().tolist()) for x in a}
    base = image[0, 0]
    expected = {
        tuple(x.flatten().tolist()) for k in range(4) for x in (base.rot90(k), base.rot90(k).T)
    }
    assert found == expected
    (wide,) = turn([torch.rand(5, 3, 4, 6)], generator(0))
    assert wide.shape == (5, 3, 4, 6)


def test_colours_come_before_noise_that_is_generated():
    data = Photos(
        Bernoulli(0.5),
        train_pairs=40,
        val_pairs=4,
        size=16,
        zoom=None,
        colour=(0.5, 2),
        batch_size=20,
    )
    data.setup()
    data.trainer = SimpleNamespace(training=True, world_size=1, global_rank=0)
    batch = data.on_after_batch_transfer(data.train[BatchIndex(0, 0, torch.arange(20))], 0)
    assert 0.4 < (batch["input"] == 0).all(1).float().mean() < 0.6  # missing pixels are still 0
    assert 0 <= batch["input"].min() <= batch["input"].max() <= 1


def test_recolouring_is_the_same_for_both_and_keeps_means():
    draws = generator(1)
    clean = torch.rand(400, 3, 4, 4, generator=draws)
    noise = torch.randn(400, 3, 4, 4, generator=draws)
    a, b, mean = recolour([clean + noise, clean - noise, clean], (0.5, 2), generator(0))
    assert torch.allclose((a + b) / 2, mean, atol=1e-5)  # affine: noise of zero mean stays so
    grey = clean.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    (contrast,) = recolour([grey], (0.5, 2), generator(0))
    gains = contrast.std((1, 2, 3)) / grey.std((1, 2, 3))  # no colour, so contrast alone is seen
    assert 1 / 1.4 - 1e-3 <= gains.min() < 0.8
    assert 1.2 < gains.max() <= 1.4 + 1e-3
    colours = (
        (mean - mean.mean(1, keepdim=True)).std((1, 2, 3)) / (clean - grey).std((1, 2, 3)) / gains
    )
    assert 0.5 - 1e-3 <= colours.min() < 0.6
    assert 1.7 < colours.max() <= 2 + 1e-3
    assert torch.equal(clean[:, :, 0, 0].argmax(1), mean[:, :, 0, 0].argmax(1))


def test_integers_become_float_by_their_range():
    assert to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [0, 1]
    assert to_float(torch.tensor([0, 65535], dtype=torch.uint16)).tolist() == [0, 1]
    assert to_float(torch.tensor([-0.5, 1.5])).tolist() == [-0.5, 1.5]


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
        BlindFrames(scenes, seed=0, context=1, crop=(4, 4), count=4),
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


def test_photos_are_disjoint_and_as_noisy_as_the_report():
    assert not set(Photos.TRAIN) & set(Photos.VAL)
    data = Photos(Pixelate(7), train_pairs=40, val_pairs=40, batch_size=20)
    data.setup()
    batch = data.on_after_batch_transfer(data.train[BatchIndex(0, 0, torch.arange(20))], 0)
    assert batch["input"].shape == (20, 3, 32, 32)
    assert batch["input"].min() >= 0
    assert batch["input"].max() <= 1
    assert 0.02 < (batch["input"] - batch["target"]).std() < 0.3
    again = Photos(Pixelate(7), train_pairs=40, val_pairs=40, batch_size=20)
    again.setup()
    assert torch.equal(again.val.noisy, data.val.noisy)
    data = Photos(Pixelate(7), train_pairs=40, val_pairs=200, batch_size=20)
    data.setup()
    (val,) = (data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader())
    mse = (val["input"] - val["target"]).square().mean((1, 2, 3))
    assert (-10 * mse.log10()).mean() == pytest.approx(20.8, abs=0.3)  # the report's data: 20.7


def test_real_samples_are_scored_as_published():
    """27 real samples of the report's validation set: noisy input 21.11 dB, 19.99 dB in total."""
    folder = os.environ.get("N2N_DATA")
    if not folder:
        pytest.skip("N2N_DATA is not set")
    import numpy as np

    from n2n_lightning.metrics.psnr_over_batches import psnr_metrics

    with np.load(Path(folder) / "course_val_samples.npz") as samples:
        noisy, clean = (to_float(torch.from_numpy(samples[name])) for name in ("noisy", "clean"))
    scores = psnr_metrics("noisy")(noisy, clean)
    assert scores["noisy_psnr"] == pytest.approx(21.11, abs=0.005)
    assert scores["noisy_psnr_total"] == pytest.approx(19.99, abs=0.005)


def test_generated_images_and_grey_photographs_can_be_trained_on():
    data = Photos(
        Pixelate(7),
        names=["coffee.png", "camera.png"],
        leaves=2,
        train_pairs=8,
        val_pairs=4,
        batch_size=4,
    )
    data.setup()
    assert list(data.photos()[0]) == ["coffee.png", "camera.png", "dead leaves 0", "dead leaves 1"]
    assert {photo.shape[0] for photo in data.photos()[0].values()} == {3}
    first, second = dead_leaves(2, 96, [data.photos()[0]["coffee.png"]], seed=0)
    assert first.shape == (3, 96, 96)
    assert torch.equal(first, dead_leaves(1, 96, [data.photos()[0]["coffee.png"]], seed=0)[0])
    assert not torch.equal(first, second)
    # The density r^-3 makes the spectrum fall about as 1/f^2, as that of natural images does; white
    # noise is flat.
    power = torch.stack(
        [
            torch.fft.rfft(i.float().mean(0) - i.float().mean()).abs().square().mean(0)
            for i in (first, second)
        ]
    )
    low, high = power.mean(0)[1:4].mean(), power.mean(0)[16:32].mean()
    assert 20 < low / high < 2000
    with pytest.raises(
        InputError, match=r"^data.names: chelsea.png is none of the photographs: .*coffee.png"
    ):
        Photos(Pixelate(7), names=["chelsea.png"]).setup()


def test_generated_specimens_are_dark_and_repeat():
    first, second = specimens(2, 128, seed=0)
    assert first.shape == (3, 128, 128)
    assert torch.equal(first, specimens(1, 128, seed=0)[0])
    assert not torch.equal(first, second)
    for image in specimens(6, 128, seed=1):
        assert torch.equal(image[0], image[2])
        assert image.float().median() < 0.4 * image.max()
        assert image.max() > 60


def test_generated_fabrics_are_fine_beside_smooth_surfaces_and_repeat():
    red = torch.tensor([200, 30, 20], dtype=torch.uint8).view(3, 1, 1).expand(3, 8, 8)
    images = fabrics(8, 128, [red], seed=0)
    assert torch.equal(images[0], fabrics(1, 128, [red], seed=0)[0])
    assert not torch.equal(images[0], images[1])
    blocks = torch.stack(images).float().unfold(2, 8, 8).unfold(3, 8, 8)  # (8, 3, 16, 16, 8, 8)
    rough = blocks.diff(dim=-1).std((-1, -2)).flatten(2)  # what differs between neighbours
    assert rough[:, 0].quantile(0.1) < 2
    assert rough[:, 0].quantile(0.75) > 10
    # the texture is of the colour of its surface
    assert rough[:, 0].mean() > 3 * rough[:, 1].mean()


def test_several_folders_and_generated_images_are_one_source_and_lose_their_colour(tmp_path):
    roots = [str(photographs(tmp_path / name, 3, 64)) for name in ("a", "b, c")]
    options = {"train_pairs": 8, "size": 16, "batch_size": 8}
    data = Images(
        Gaussian(25),
        roots,
        names=["coffee.png"],
        leaves=1,
        specimens=2,
        fabrics=3,
        held=3,
        grey=0.5,
        **options,
    )
    data.trainer = SimpleNamespace(training=True, world_size=1, global_rank=0)
    data.setup()
    train, val = data.photos()
    assert [len(train), len(val)] == [4 + 1 + 1 + 2 + 3, 2]
    batch = next(iter(data.train_dataloader()))
    data.supervised = True
    clean = data.on_after_batch_transfer(batch, 0)["target"]
    without = (clean - clean.mean(1, keepdim=True)).flatten(1).abs().amax(1) < 1e-6
    assert 0 < without.sum() < 8
    with pytest.raises(InputError, match=r"data.root=.*nothing: no such folder"):
        Images(Gaussian(25), [roots[0], str(tmp_path / "nothing")], **options).setup()
    with pytest.raises(InputError, match=r"data.grey=2: must be a share"):
        Images(Gaussian(25), roots, grey=2, **options)


def test_generated_images_are_as_deep_as_the_photographs(tmp_path):
    for number in range(3):
        image = np.full((64, 64, 3), 40000 + number, np.uint16)
        tifffile.imwrite(tmp_path / f"{number}.tif", image, photometric="rgb")
    train, _ = Images(Gaussian(25), str(tmp_path), leaves=1, fabrics=2, specimens=1).photos()
    assert {image.dtype for image in train.values()} == {torch.uint16}
    # as bright as what it has its colours from
    assert 0.2 < (train["fabric 0"].int().float() / 40000).median() < 1.5


def test_no_colours_may_be_said_in_two_ways():
    assert Photos(Bernoulli(0.5), colour=False).colour is None
    assert Photos(Bernoulli(0.5), colour=None).colour is None


@pytest.mark.parametrize("option", ["colour", "zoom"])
@pytest.mark.parametrize(
    "value", [True, 2, [0.5], [1, 0.5], [0, 1], [1, 101], ["a", "b"], "ab", [0.5, float("nan")]]
)
def test_a_range_that_cannot_be_is_refused(option, value):
    with pytest.raises(
        InputError, match=rf"data\.{option}=.*: must be two numbers, 0 < smallest .* or null"
    ):
        Photos(Bernoulli(0.5), **{option: value})
