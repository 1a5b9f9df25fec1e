import numpy as np
import pytest
import torch

from n2n_lightning.files import InputError
from n2n_lightning.losses import HDR, L0, L1, L2, LogL2
from n2n_lightning.noise import (
    Bernoulli,
    Brown,
    Camera,
    Gaussian,
    Impulse,
    KSpace,
    Pixelate,
    Poisson,
    Text,
    Varied,
)
from n2n_lightning.randomness import generator

ZERO_MEAN = {
    "pixelate": Pixelate(7),
    "pixelate with Gaussian noise": Pixelate(7, sigma=[10, 50]),
    "gaussian": Gaussian(25),
    "gaussian, blind": Gaussian([0, 50]),
    "brown": Brown(25),
    "camera": Camera(),
    "varied": Varied(),
    "poisson": Poisson(30),
    "poisson, blind": Poisson([5, 50]),
    "bernoulli": Bernoulli(0.5),
    "kspace": KSpace(0.03),
}
ALL = {**ZERO_MEAN, "impulse": Impulse(0.5), "text": Text(0.25)}


def photo(side: int = 28) -> torch.Tensor:
    return 0.1 + 0.9 * torch.rand(1, 3, side, side, generator=generator("photo"))


def draws_of(name: str, count: int = 6000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two sides of many pairs of one image, and the clean image."""
    noise, keys, image = ZERO_MEAN[name], generator("draws", name), photo()
    images = image.expand(count, -1, -1, -1)
    return noise.target(images, keys), noise.target(images, keys), noise.clean(image)


@pytest.mark.walk
@pytest.mark.parametrize("name", ZERO_MEAN)
def test_the_mean_of_many_targets_is_the_clean_image(name):
    first, _, clean = draws_of(name)
    count = (~first.isnan()).sum(0)
    mean = first.nanmean(0)
    deviation = ((first - mean) ** 2).nanmean(0).sqrt()
    error = (mean - clean[0]) / (deviation / count.sqrt()).clamp(min=1e-7)
    assert error.abs().max() < 5  # up to 2,352 means, each in its own standard errors
    assert error.pow(2).mean().sqrt() < 1.15


@pytest.mark.walk
@pytest.mark.parametrize("name", ZERO_MEAN)
def test_the_two_sides_of_a_pair_are_independent(name):
    first, second, clean = draws_of(name)
    a, b = (torch.nan_to_num(x - clean) for x in (first, second))
    if name == "bernoulli":
        a, b = first.isnan().float() - 0.5, second.isnan().float() - 0.5
    correlation = (a * b).mean() / (a.std() * b.std())
    assert correlation.abs() < 0.005
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", ALL)
def test_a_seed_repeats_bit_for_bit_and_draws_from_nothing_else(name):
    image = photo(56).expand(3, -1, -1, -1)
    torch.manual_seed(1)
    first = ALL[name](image, generator(0, name))
    torch.manual_seed(2)
    assert torch.equal(first, ALL[name](image, generator(0, name)))
    assert not torch.equal(first, ALL[name](image, generator(1, name)))
    assert first.dtype == torch.float32


def test_noise_is_neither_clipped_nor_rounded():
    dark, bright = torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    for noise in (Gaussian(25), Brown(25), KSpace(0.03)):
        assert noise(dark + 0.01 * photo(64), generator(0)).min() < 0
    assert Gaussian(25)(bright, generator(0)).max() > 1.1
    assert Poisson(30)(bright, generator(0)).max() > 1.1
    noisy = Gaussian(25)(photo(), generator(0)) * 255
    assert (noisy - noisy.round()).abs().mean() > 0.2


def test_moments():
    count = 4000
    grey = torch.full((count, 1, 8, 8), 0.4)
    assert Gaussian(25)(grey, generator(0)).std() == pytest.approx(25 / 255, rel=0.01)
    each = Gaussian([0, 50])(grey, generator(0)).std((1, 2, 3)) * 255
    assert each.mean() == pytest.approx(25, rel=0.05)
    assert each.max() > 45
    assert each.min() < 3
    # Photon counts: the variance is the mean over the peak, and the counts are whole numbers.
    photons = Poisson(30)(grey, generator(0))
    assert photons.var() == pytest.approx(0.4 / 30, rel=0.02)
    assert torch.allclose(photons * 30, (photons * 30).round(), atol=1e-4)
    missing = Bernoulli(0.3).target(grey.expand(-1, 3, -1, -1), generator(0)).isnan()
    assert missing.float().mean() == pytest.approx(0.3, abs=0.01)
    assert torch.equal(missing.all(1), missing.any(1))
    hit = Impulse(0.6)(grey.expand(-1, 3, -1, -1), generator(0)) != 0.4
    assert hit.float().mean() == pytest.approx(0.6, abs=0.01)
    assert torch.equal(hit.all(1), hit.any(1))


def test_brown_noise_is_correlated_as_stated():
    noise = Brown(25, width=2.0)(torch.zeros(400, 1, 32, 32), generator(0)) * 255
    assert noise.std() == pytest.approx(25, rel=0.02)
    for distance in (1, 2, 4):
        found = (noise[..., distance:] * noise[..., :-distance]).mean() / noise.var()
        assert found == pytest.approx(np.exp(-(distance**2) / 16), abs=0.02)


def test_camera_noise_has_the_stated_moments():
    levels = (
        torch.tensor([0.1, 0.5, 0.9])
        .view(1, 1, 1, 3)
        .repeat_interleave(40, -1)
        .expand(200, 3, 40, 120)
    )
    noise = (Camera(sigma=20, shot=0.5, width=0, shared=0.4)(levels, generator(0)) - levels) * 255
    for i, level in enumerate((0.1, 0.5, 0.9)):
        part = noise[..., 40 * i : 40 * i + 40]
        assert part.std() == pytest.approx(20 * (0.5 + level) ** 0.5, rel=0.02)
        assert (part[:, 0] * part[:, 1]).mean() / part.var() == pytest.approx(0.4, abs=0.02)
        assert (part[..., 1:] * part[..., :-1]).mean() / part.var() == pytest.approx(0, abs=0.01)
    blurred = Camera(sigma=20, shot=0, width=[1, 1], shared=0)(levels, generator(0)) - levels
    assert blurred.std() * 255 == pytest.approx(20, rel=0.02)
    assert (blurred[..., 1:] * blurred[..., :-1]).mean() / blurred.var() == pytest.approx(
        np.exp(-1 / 4), abs=0.02
    )
    each = Camera(sigma=[0, 50], shot=0)(levels[..., :40], generator(0)).std((1, 2, 3)) * 255
    assert each.median() == pytest.approx(12.5, rel=0.25)  # of u^2, u uniform, the median is 1/4


def test_noise_of_developed_pictures_is_coarse_in_its_colours_and_weaker_towards_white():
    levels = (
        torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).repeat_interleave(64, -1).expand(100, 3, 64, 128)
    )
    options = {"sigma": 20, "shot": 0, "width": 0, "shared": 0}
    plain, developed, half = (
        (Camera(**options, developed=share)(levels, generator(0)) - levels) * 255
        for share in (0, 1, 0.5)
    )
    dark, bright = developed.split(64, -1)
    assert 0.5 < (bright.std() / dark.std()) < 0.75  # 1 - U(0, 0.8)
    each = dark.std((2, 3))
    assert each.min() > 20 / 1.8
    assert each.max() < 20 * 1.8
    assert (each.amax(1) / each.amin(1)).median() > 1.2  # channels of one picture differ
    assert abs(developed.mean()) < 0.2
    colour = dark / each[..., None, None]
    assert colour.mean(1).std() < 0.6 * (plain / 20).mean(1).std()  # of three independent channels
    assert 0.2 < ((colour[..., 3:] * colour[..., :-3]).mean((2, 3))).median() < 0.6
    bright_alone = Camera(**options | {"shared": 1}, developed=1)(levels, generator(0)) - levels
    next_to = (bright_alone[..., 1:60] * bright_alone[..., :59]).mean((2, 3)) / bright_alone[
        ..., :60
    ].var((2, 3))
    assert next_to.abs().max() < 0.1  # brightness stays as fine as it was
    changed = (half != plain).flatten(1).any(1)
    assert 30 < changed.sum() < 70
    assert torch.isfinite(Camera(developed=1)(levels[:, :1], generator(0))).all()
    of_cameras = {"sigma": 40, "shares": [0, 0, 1], "width": 0}
    varied = [
        Varied(**of_cameras, developed=share).target(levels, generator(0)) - levels
        for share in (0, 1)
    ]
    assert varied[1][..., 64:].std() < 0.9 * varied[0][..., 64:].std()
    for wrong in (2, [0, 0.5], True, "much"):
        with pytest.raises(
            ValueError, match=r"^noise.developed=.*: must be a share, a number within 0..1"
        ):
            Camera(developed=wrong)


def test_bernoulli_input_has_zeros_where_the_target_has_nan():
    image = photo()
    noisy, target = Bernoulli(0.5)(image, generator(0)), Bernoulli(0.5).target(image, generator(0))
    assert torch.equal(noisy == 0, target.isnan())
    assert torch.equal(noisy[noisy != 0], target[~target.isnan()])
    plain = Bernoulli(0.5, masked=False).target(image, generator(0))
    assert torch.equal(plain, noisy)


def test_text_covers_what_it_should_with_each_image_its_own():
    clean = torch.full((12, 3, 96, 96), 0.5)
    covered = (Text(0.25)(clean, generator(0)) != clean).any(1).float().mean((1, 2))
    assert covered.min() >= 0.25
    assert covered.max() < 0.45
    blind = (Text([0, 0.5])(clean, generator(0)) != clean).any(1).float().mean((1, 2))
    assert blind.min() < 0.15
    assert blind.max() > 0.4
    assert torch.equal(Text(0)(clean, generator(0)), clean)


def test_kspace_keeps_low_frequencies_and_about_a_tenth_of_all():
    images = torch.rand(4, 1, 256, 256, generator=generator(0))
    noisy = KSpace(0.03)(images, generator(1))
    spectrum = torch.fft.rfft2(noisy)[:, 0]
    kept = spectrum.abs() > 1e-2
    assert kept.float().mean() == pytest.approx(0.106, abs=0.01)
    assert kept[:, 0, 0].all()
    assert torch.allclose(spectrum[:, 0, 0], torch.fft.rfft2(images)[:, 0, 0, 0])
    assert kept[:, 1:10, 1:10].float().mean() > 0.7


def test_pixelate_takes_pixels_of_its_own_block_with_all_channels_together():
    rows, columns = torch.meshgrid(torch.arange(21.0), torch.arange(14.0), indexing="ij")
    picture = torch.stack((rows, columns, 100 * rows + columns))[None]
    noisy = Pixelate(7)(picture, generator(1))[0]
    assert torch.equal(noisy[0] // 7, torch.arange(3.0)[:, None].expand(3, 2))
    assert torch.equal(noisy[1] // 7, torch.arange(2.0).expand(3, 2))
    assert torch.equal(noisy[2], 100 * noisy[0] + noisy[1])


def test_generator_depends_on_its_key_alone():
    torch.manual_seed(1)
    first = torch.rand(4, generator=generator(0, "noise", 3))
    torch.manual_seed(2)
    assert torch.equal(first, torch.rand(4, generator=generator(0, "noise", 3)))
    assert not torch.equal(first, torch.rand(4, generator=generator(0, "noise", 4)))
    assert not torch.equal(first, torch.rand(4, generator=generator(0, "order", 3)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pixelate(0), "noise.block=0: must be a whole number, 1 or more"),
        (lambda: Gaussian(-1), "noise.sigma=-1: must be a number or a range [a, b] within 0..255"),
        (lambda: Gaussian([50, 0]), "noise.sigma=[50, 0]: must be a number or a range"),
        (lambda: Gaussian("much"), "noise.sigma=much: must be a number or a range"),
        (lambda: Gaussian([1, 2, 3]), "noise.sigma=[1, 2, 3]: must be a number or a range"),
        (lambda: Brown(25, width=0), "noise.width=0: must be larger than 0 and at most 50 pixels"),
        (
            lambda: Camera(shared=1.5),
            "noise.shared=1.5: must be a number or a range [a, b] within 0..1",
        ),
        (
            lambda: Poisson(0),
            "noise.peak=0: must be a number or a range [a, b] within 0.001..1e+06",
        ),
        (lambda: Bernoulli(1.5), "noise.p=1.5: must be a number or a range [a, b] within 0..1"),
        (lambda: Text(0.99), "noise.p=0.99: must be a number or a range [a, b] within 0..0.95"),
        (lambda: Text(heights=[1, 2]), "noise.heights=[1, 2]: must be two font sizes"),
    ],
)
def test_strengths_out_of_range(make, message):
    with pytest.raises(ValueError, match="noise") as caught:
        make()
    assert str(caught.value).startswith(message)


# Losses


def test_varied_noise_of_grey_pictures_is_grey_and_inputs_alone_are_stored_in_steps():
    image = torch.cat([photo(64), photo(64)[:, :1].expand(1, 3, 64, 64)]).repeat(40, 1, 1, 1)
    noise = Varied(sigma=[20, 60], steps=1, clipped=0)
    target, noisy = noise.target(image, generator(0)), noise(image, generator(0))
    assert torch.equal(target[1::2, 0], target[1::2, 2])
    assert not (target[::2, 0] == target[::2, 2]).flatten(1).all(1).any()
    values = torch.tensor([len(one.unique()) for one in noisy])
    assert values.max() < 1500
    assert torch.tensor([len(one.unique()) for one in target]).float().median() > 3000
    assert (noisy - target).abs().max() <= 0.5 * 24 / 255 + 1e-6
    photons = Varied(shares=[0, 1, 0], sigma=0, peak=50).target(image, generator(0)) * 50
    assert torch.allclose(photons, photons.round(), atol=1e-3)
    with pytest.raises(InputError, match=r"noise.shares=\[0.5, 0.5, 0.5\]: must be three numbers"):
        Varied(shares=[0.5, 0.5, 0.5])
    clipped = Varied(steps=0, clipped=1)(image, generator(0))
    assert clipped.min() >= 0
    assert clipped.max() <= 1


def test_log_l2_is_the_mean_psnr_and_each_image_counts_alike():
    target = torch.rand(3, 1, 8, 8, generator=generator(0))
    errors = torch.tensor([0.3, 0.03, 0.01]).view(3, 1, 1, 1)
    output = (target + errors).requires_grad_()
    loss = LogL2()(output, target)
    assert loss.item() == pytest.approx(
        (errors.square() + (0.5 / 255) ** 2).log().mean().item(), abs=1e-5
    )
    loss.backward()
    # what a relative change of each error would change
    shares = (output.grad * errors).flatten(1).sum(1)
    assert shares.max() / shares.min() < 1.05
    half = torch.cat([target[..., :4], torch.full_like(target[..., :4], torch.nan)], -1)
    assert LogL2()(output, half).item() == pytest.approx(
        LogL2()(output[..., :4], target[..., :4]).item()
    )


@pytest.mark.parametrize("loss", [L2(), L1(), L0(), HDR()], ids=["l2", "l1", "l0", "hdr"])
def test_losses_ignore_missing_pixels_in_value_and_gradient(loss):
    output = torch.rand(2, 3, 4, 4, generator=generator(0), requires_grad=True)
    target = torch.rand(2, 3, 4, 4, generator=generator(1))
    present = torch.ones_like(target, dtype=torch.bool)
    present[0, :, 1] = False
    value = loss(output, torch.where(present, target, torch.nan))
    value.backward()
    gradient, output.grad = output.grad, None
    plain = loss(output[present], target[present])
    plain.backward()
    assert value.item() == pytest.approx(plain.item())
    assert torch.allclose(gradient, output.grad)
    assert (gradient[~present] == 0).all()
    assert loss(output, torch.full_like(target, torch.nan)).item() == 0


def minimiser(loss, targets: torch.Tensor) -> float:
    """The constant that has the least loss against all the targets."""
    candidates = torch.linspace(0, 1, 201)
    values = [loss(candidate.expand(len(targets)), targets).item() for candidate in candidates]
    return candidates[int(np.argmin(values))].item()


def test_losses_learn_mean_median_and_mode():
    targets = torch.tensor([0.1] * 4 + [0.3, 0.5, 0.8, 0.9, 1.0])
    assert minimiser(L2(), targets) == pytest.approx(targets.mean().item(), abs=0.006)
    assert minimiser(L1(), targets) == pytest.approx(0.3, abs=0.006)
    annealed = L0()
    annealed.progress = 0.99
    assert minimiser(annealed, targets) == pytest.approx(0.1, abs=0.006)
    annealed.progress = 0.0
    assert minimiser(annealed, targets) == pytest.approx(targets.mean().item(), abs=0.006)


def test_hdr_has_no_gradient_through_its_denominator():
    output, target = torch.tensor([0.5], requires_grad=True), torch.tensor([0.2])
    HDR()(output, target).backward()
    assert output.grad.item() == pytest.approx(2 * 0.3 / 0.51**2)
