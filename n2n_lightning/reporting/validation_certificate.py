"""Error maps and certificates of the validation scenes of a run, for its report.

The middle of each scene is denoised with the run's best weights. Two captures of a scene say what
error each pixel has, and which values hold. Single images and frames of movies need the noise that
is measured in them. A clean image says the true error, and all values are compared with it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.arrays.axes import deep
from n2n_lightning.data.movie import Movie
from n2n_lightning.data.scene_set import middle
from n2n_lightning.inference.certificates import (
    CertifyOptions,
    FileCertificate,
    PageCertificate,
    certify_captures,
    write_certificate_file,
)
from n2n_lightning.inference.error_maps import STEP, perturbed_moments
from n2n_lightning.metrics.certificate import certify
from n2n_lightning.metrics.error_map import errors_of_captures, errors_of_one
from n2n_lightning.metrics.movie_traces import active_regions
from n2n_lightning.metrics.noise_law import NoiseLaw
from n2n_lightning.metrics.residual_structure import SEARCHED
from n2n_lightning.metrics.single_noise import single_noise
from n2n_lightning.reporting import slider
from n2n_lightning.reporting.certificate_page import CERTIFICATE, MAPS
from n2n_lightning.reporting.movie_scores import MovieScores
from n2n_lightning.reporting.sample_images import Samples

# Pixels of a scene's middle, so that the report costs seconds and not the time of the training.
CROP_SIDE = 256
VOLUME = (16, 128, 128)  # voxels: about as long
REGION_FRAMES = 16  # of a movie whose regions are followed, evenly
TRUE_ERROR = "true error"
EXPECTED_ERROR = "expected error"
DenoiseBatch = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ValidationScene:
    """A scene that is scored, in units of the network.

    Attributes:
        captures: noisy images, (C, ...), NaN where a pixel is missing: two, or one.
        inputs: what the network sees for each: the same without gaps, or frames along the channels.
        clean: the scene without noise; None: not known.
        noise: of a frame of a movie; None: to be measured.
        own: of the frames that the network sees, the places of the one that is denoised.
    """

    captures: list[Tensor]
    inputs: list[Tensor]
    clean: Tensor | None = None
    noise: NoiseLaw | None = None
    own: Tensor = field(default_factory=lambda: torch.ones(1, dtype=torch.bool))


@dataclass(frozen=True)
class CertifiedScene:
    """The certificate of a scene, with what is shown of it.

    Attributes:
        page: the certificate.
        noisy, result: (C, H, W), stored units.
        errors: expected or true error of each pixel; NaN where it is not known.
    """

    page: PageCertificate
    noisy: np.ndarray
    result: np.ndarray
    errors: np.ndarray


def write_validation_certificate(folder: Path, data: Any, denoise: DenoiseBatch, most: int) -> None:
    """Certify the first validation scenes of a run; write `certificate.json` and `.npz`.

    Args:
        folder: of the run.
        data: its NoisyPairs, set up.
        denoise: the network with its best weights, a function of batches.
        most: number of scenes.
    """
    if data.thinned:  # its network sees halves of the photons
        return
    file = FileCertificate("validation")
    certified = []
    for number, scene in enumerate(_scenes(data, most), 1):
        one = _certified(scene, f"scene {number}", denoise, data.limits or (0.0, 1.0))
        file.pages.append(one.page)
        certified.append(one)
    if isinstance(data, Movie) and data.scored:
        file.pages.append(_regions_over_time(data, denoise))
    if not certified:
        return
    layer = TRUE_ERROR if data.reference == "clean" else EXPECTED_ERROR
    _samples(certified, layer).save(folder / MAPS)
    write_certificate_file(folder / CERTIFICATE, [file])


def _scenes(data: Any, most: int) -> Iterator[ValidationScene]:
    """Yield the first validation scenes."""
    count = 0
    for batch in data.val_dataloader():
        ready = data.on_after_batch_transfer(batch, 0)
        for number in range(len(ready["input"])):
            if count == most:
                return
            count += 1
            yield _scene(data, batch, ready, number)


def _scene(data: Any, batch: dict[str, Any], ready: dict[str, Any], number: int) -> ValidationScene:
    """Return a scene of a batch.

    Args:
        data: where it is from.
        batch: as it was stored.
        ready: what the network is validated on.
        number: of the scene in the batch.
    """

    def cut(images: Tensor) -> Tensor:
        return middle(images[number].detach().cpu(), VOLUME if deep(images) else CROP_SIDE)

    if "frame" in ready:
        noise = ready["noise"] or data.noise_of(int(batch["scene"][number]))
        own = ready["distances"][number].cpu() == 0
        return ValidationScene([cut(ready["frame"])], [cut(ready["shown"])], None, noise, own)
    if "shown" in ready:
        _, known = data.normalized_pair(batch["input"], batch["input"], noisy=True)
        return ValidationScene([cut(known)], [cut(ready["shown"])])
    if "other_input" in ready:
        captures = [cut(ready["other_target"]), cut(ready["target"])]
        return ValidationScene(captures, [cut(ready["input"]), cut(ready["other_input"])])
    noisy = cut(ready["input"])
    return ValidationScene([noisy], [noisy], cut(ready["target"]))


def _certified(
    scene: ValidationScene, name: str, denoise: DenoiseBatch, limits: tuple[float, float]
) -> CertifiedScene:
    """Certify a scene.

    Args:
        scene: the scene.
        name: of it.
        denoise: the network.
        limits: black level and range of the network's unit, in stored units.
    """
    black, span = limits

    def stored(image: Tensor) -> np.ndarray:
        values: np.ndarray = image.double().numpy()
        return values * span + black

    captures = [stored(image) for image in scene.captures]
    results = [stored(denoise(image[None])[0].cpu()) for image in scene.inputs]
    planes = [_shown_plane(image) for image in captures]
    shown = [_shown_plane(image) for image in results]
    if scene.clean is not None:
        clean = stored(scene.clean)
        errors = abs(results[0] - clean)
        certificate = certify([_shown_plane(clean)] * 2, shown * 2)
        reason = "the clean image says what was lost: no structure is searched for in the residual"
        page = PageCertificate(name, certificate, None, reason, shown[0])
        return CertifiedScene(page, planes[0], shown[0], _shown_plane(errors))
    if len(captures) == 2:
        page = certify_captures(planes, shown, CertifyOptions(), name)
        errors = errors_of_captures(captures, results).each
        return CertifiedScene(page, planes[0], shown[0], _shown_plane(errors))
    if scene.noise is None:
        noise: NoiseLaw = single_noise(planes[0])
    else:
        noise = _in_stored_units(scene.noise, limits)
    page = certify_captures(planes, shown, CertifyOptions(), name, noise)
    errors = np.full(captures[0].shape, np.nan)
    if noise.measurable and not deep(scene.captures[0][None]):
        errors = _errors_of_one(scene, captures[0], results[0], noise, denoise, span)
    return CertifiedScene(page, planes[0], shown[0], _shown_plane(errors))


def _shown_plane(image: np.ndarray) -> np.ndarray:
    """Return an image (C, H, W); of a volume (C, D, H, W) the plane in the middle."""
    return image[:, image.shape[1] // 2] if len(image.shape) == 4 else image


def _in_stored_units(noise: NoiseLaw, limits: tuple[float, float]) -> NoiseLaw:
    """Return the law of noise that was measured in units of the network, in stored units."""
    black, span = limits
    return replace(
        noise,
        a=span**2 * noise.a - span * black * noise.b,
        b=span * noise.b,
        brightness=span * noise.brightness + black,
    )


def _errors_of_one(
    scene: ValidationScene,
    captured: np.ndarray,
    result: np.ndarray,
    noise: NoiseLaw,
    denoise: DenoiseBatch,
    span: float,
) -> np.ndarray:
    """Return the expected errors of a single image or frame, see error_map.errors_of_one.

    Frames have independent noise: all that the network sees are changed, and what follows the
    change of the denoised frame is its covariance.
    """
    draws = np.random.default_rng(0)
    (image,) = scene.inputs
    frames = len(scene.own)

    def change(direction: np.ndarray) -> np.ndarray:
        directions = []
        for own in scene.own.tolist():
            other = direction if own else noise.direction(filled, draws)
            directions.append(torch.from_numpy(other / span))
        moved = torch.cat(directions).to(image)
        outputs = []
        for step in (STEP, -STEP):
            output = denoise((image + step * moved)[None])[0]
            outputs.append(output.cpu().double().numpy())
        above, below = outputs
        changed: np.ndarray = span * (above - below) / (2 * STEP)
        return changed

    assert len(image) == frames * len(result)
    filled = np.nan_to_num(result, nan=float(np.nanmean(result)))
    moments = perturbed_moments(noise, filled, change)
    covariance = moments.covariance if scene.own.any() else np.zeros_like(result)
    return errors_of_one(
        captured,
        result,
        moments.variance,
        covariance,
        moments.spread,
        noise.standard_error,
    )


def _regions_over_time(data: Movie, denoise: DenoiseBatch) -> PageCertificate:
    """Certify the most active squares of the first movie that is scored."""
    scene = data.scored[0]

    def frames() -> Iterator[Any]:
        return data.scored_frames(scene, data.context, data.sees_middle, REGION_FRAMES)

    targets = (frame.target.double().flatten(0, -3).mean(0).numpy() for frame in frames())
    labels = active_regions(targets)
    scores = MovieScores(data, scene, labels=labels)
    for frame in frames():
        images = frame.shown.flatten(0, 1)[None]
        scores.trace("denoised", frame, denoise(images)[0].float().cpu())
    (file,) = scores.certificates(CertifyOptions().tolerance)
    (page,) = file.pages
    page.name = "regions over time"
    return page


def _samples(certified: list[CertifiedScene], layer: str) -> Samples:
    """Return noisy and denoised scenes, their error maps, and the marks of structure."""
    images = []
    remarks = []
    for one in certified:
        marks = None
        if layer == EXPECTED_ERROR:
            structure = one.page.structure
            marks = np.zeros(one.result.shape, np.uint8)
            if structure is not None:
                marks = np.where(structure.mask > 0, structure.mask, SEARCHED)
        maps = {layer: one.errors}
        picture = slider.pair("", one.noisy, one.result, "CHW", maps, marks)
        layers, label = picture.pages[0]
        images.append(layers)
        if not np.isfinite(one.errors).any():
            label += " No error is known, as the noise is not measurable."
        remarks.append(label.strip())
    names = ["noisy", "denoised", *picture.layers[2:]]
    by_layer = [list(row) for row in zip(*images, strict=True)]
    titles = [[""] * len(certified) for _ in names]
    return Samples(names, titles, by_layer, remarks)
