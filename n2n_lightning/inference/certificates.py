"""Certificates of denoised arrays: which pages are compared with which, and the files."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from n2n_lightning.arrays.axes import as_pages, evenly, stacked_letters
from n2n_lightning.files import InputError, replacing, room
from n2n_lightning.inference.error_maps import has_captures
from n2n_lightning.inference.options import DenoiseOptions, NoisyArray
from n2n_lightning.inference.page import Page, page_axes
from n2n_lightning.inference.plan import Job, refuse_inputs
from n2n_lightning.metrics.certificate import (
    ALLOWED_DIFFERENCE,
    FAILS,
    HOLDS,
    UNKNOWN,
    UNMEASURABLE,
    Certificate,
    certify,
)
from n2n_lightning.metrics.noise_law import NoiseLaw
from n2n_lightning.metrics.noise_model import noise_model
from n2n_lightning.metrics.residual_structure import (
    ADDED,
    REMOVED,
    SEARCHED,
    ResidualStructure,
    residual_structure,
)
from n2n_lightning.metrics.single_noise import SingleNoise, single_noise

CERTIFICATE_ENDING = (
    ".certificate.json"  # of files that are never inputs of a folder (paths.OWN_FILES)
)
PAGE = "certificate.html"  # in the folder of the results
MOST_PAGES = 8  # of an array, evenly
MOST_SCENES = 24  # that denoisers are certified on
PAIR_ERROR = 0.02  # standard error of a variance from two captures, relative


@dataclass
class PageCertificate:
    """The certificate of a page, and the structure in its residual.

    Attributes:
        name: of the page.
        certificate: of its values.
        structure: None where the noise is not known.
        reason: why it is not.
        result: the page itself, (C, H, W), mean of the results.
        planes: its indices among the stacked axes of its array (axes.as_pages), one for each
            capture; of a volume those of the plane in the middle.
        array: number of the array in its file.
    """

    name: str
    certificate: Certificate
    structure: ResidualStructure | None
    reason: str
    result: np.ndarray
    planes: list[tuple[int, ...]] = field(default_factory=list)
    array: int = 0

    def lines(self) -> list[str]:
        """Describe it, for the terminal."""
        structure = self.reason
        if self.structure is not None:
            structure = self.structure.line()
        prefix = f"{self.name}: " if self.name else ""
        return [f"{prefix}{self.certificate.line()}", f"{prefix}{structure}"]

    def as_dict(self) -> dict[str, Any]:
        """Return it for a JSON file."""
        structure = None if self.structure is None else self.structure.as_dict()
        place = {"page": self.name, "array": self.array, "planes": self.planes}
        written = {**place, **self.certificate.as_dict(), "structure": structure}
        if self.reason:
            written["structure_reason"] = self.reason
        return written


@dataclass
class CertifyOptions:
    """Options of certificates.

    Attributes:
        tolerance: relative difference that is allowed.
        labels: regions of every page, (H, W); None: chosen.
    """

    tolerance: float = ALLOWED_DIFFERENCE
    labels: np.ndarray | None = None


@dataclass
class FileCertificate:
    """The certificates of the pages of a file.

    Attributes:
        source: name of the file.
        pages: those that were certified.
        left_out: number of pages that were not.
    """

    source: str = ""
    pages: list[PageCertificate] = field(default_factory=list)
    left_out: int = 0

    def add(self, certified: tuple[list[PageCertificate], int], array: int = 0) -> None:
        """Add the certificates of an array, see `certificates_of`.

        Args:
            certified: pages, and the number of those without one.
            array: its number in the file.
        """
        pages, left_out = certified
        for page in pages:
            page.array = array
        self.pages += pages
        self.left_out += left_out

    def lines(self) -> list[str]:
        """Describe it, for the terminal."""
        lines = []
        for page in self.pages:
            lines += [f"  {line}" for line in page.lines()]
        if self.left_out:
            lines.append(f"  {self.left_out} more pages have no certificate")
        return lines

    def summary(self) -> str:
        """Describe the quantities of all pages together."""
        verdicts = [line.verdict for page in self.pages for line in page.certificate.lines]
        counts = []
        for said in (HOLDS, FAILS, UNKNOWN, UNMEASURABLE):
            counts.append(f"{said}: {verdicts.count(said)}")
        return f"{len(verdicts)} quantities, {', '.join(counts)}"

    def as_dict(self) -> dict[str, Any]:
        """Return it for a JSON file."""
        pages = [page.as_dict() for page in self.pages]
        return {"pages": pages, "pages_left_out": self.left_out}

    def write(self, target: Path) -> None:
        """Write `NAME.certificate.json` next to a result.

        Args:
            target: the result.
        """
        content = {"source": self.source, "result": target.name, **self.as_dict()}
        text = json.dumps(content, indent=2, allow_nan=False, default=_python_number)
        with replacing(certificate_file_of(target)) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def _python_number(value: Any) -> Any:
    """Return a number of NumPy's as one that JSON has."""
    return value.item()


def certificate_file_of(target: Path) -> Path:
    """Return the file of the certificate of a result.

    >>> certificate_file_of(Path("clean/a.tif")).name
    'a.tif.certificate.json'
    """
    return target.with_name(target.name + CERTIFICATE_ENDING)


def read_marks(target: Path, array: int, shape: tuple[int, ...], axes: str) -> np.ndarray | None:
    """Return the places where structure was removed from an array of a result, or added to it.

    Args:
        target: the result.
        array: its number in the file.
        shape: of the array.
        axes: its letters.

    Returns:
        residual_structure.REMOVED and ADDED, SEARCHED where neither was found, 0 on pages that
        were not searched, uint8, in the shape of the array; None where none was searched.
    """
    path = certificate_file_of(target)
    if not path.exists():
        return None
    written = json.loads(path.read_text(encoding="utf-8"))
    marks = np.zeros(shape, np.uint8)
    pages = as_pages(marks, axes)
    searched = False
    for page in written["pages"]:
        structure = page["structure"]
        if structure is None or page.get("array") != array:
            continue
        searched = True
        for plane in page["planes"]:
            of_plane = pages[tuple(plane)]
            of_plane[...] = SEARCHED
            _draw_places(of_plane, structure["places"])
    return marks if searched else None


def _draw_places(page: np.ndarray, places: Sequence[dict[str, Any]]) -> None:
    """Fill the boxes of places in a page (H, W, C), those that were added last."""
    values = {"removed": REMOVED, "added": ADDED}
    for place in sorted(places, key=lambda place: values[place["kind"]]):
        top, left, bottom, right = place["box"]
        page[top:bottom, left:right, place["channel"]] = values[place["kind"]]


def refuse_certificates(jobs: Sequence[Job], folder: Path) -> None:
    """Raise InputError where a certificate would be written over one of the pictures.

    Args:
        jobs: the pictures.
        folder: of the page.
    """
    sources = [job.source for job in jobs]
    refuse_inputs(folder / PAGE, sources, "certify")
    for job in jobs:
        refuse_inputs(certificate_file_of(job.target), [job.source], "certify")


def certify_captures(
    captures: Sequence[np.ndarray],
    results: Sequence[np.ndarray],
    options: CertifyOptions,
    name: str = "",
    noise: NoiseLaw | None = None,
) -> PageCertificate:
    """Certify the results of one scene, and search the residual for structure.

    Args:
        captures: one or more, (C, H, W), stored units; NaN where a pixel is missing.
        results: of each.
        options: tolerance and regions.
        name: of the page.
        noise: of the captures; None: measured.

    Returns:
        The certificate.

    Raises:
        InputError: the regions are of another size.
    """
    size = captures[0].shape[1:]
    if options.labels is not None and options.labels.shape != size:
        given = " x ".join(map(str, options.labels.shape))
        raise InputError("regions", given, f"the pictures are {size[0]} x {size[1]} pixels")
    noise = noise or noise_of_captures(captures)
    labels = options.labels
    certificate = certify(captures, results, noise, labels, options.tolerance)
    structure = None
    if noise.measurable:
        structure = residual_structure(
            captures,
            results,
            noise.variance,
            noise.autocorrelation,
            noise.standard_error,
            noise.b,
        )
    reason = ""
    if structure is None:
        reason = f"structure in the residual is not measurable: {noise.reason}"
    return PageCertificate(name, certificate, structure, reason, np.mean(results, 0))


def noise_of_captures(captures: Sequence[np.ndarray]) -> NoiseLaw:
    """Measure the noise of the captures of a scene.

    Args:
        captures: (C, H, W) each; of two, their differences say it.

    Returns:
        Variance and correlation.
    """
    single: SingleNoise = single_noise(captures[0])
    if len(captures) == 1:
        return single
    first, second = captures[:2]
    a = []
    b = []
    brightness = []
    for plane, other in zip(first, second, strict=True):
        line = noise_model([(plane[None], other[None])])
        if line is None or not line.variance > 0:
            reason = "two captures differ nowhere, or too few pixels are known"
            return replace(single, reason=reason)
        a.append(line.a)
        b.append(line.b or 0.0)
        brightness.append(np.nanmean(plane))
    autocorrelation = _noise_correlation(first - second)
    return NoiseLaw(
        np.array(a),
        np.array(b),
        PAIR_ERROR,
        np.array(brightness),
        autocorrelation,
    )


def _noise_correlation(difference: np.ndarray) -> np.ndarray:
    """Return the autocorrelation of the noise, from the difference of two captures (C, H, W)."""
    from n2n_lightning.metrics.autocorrelation import LAGS, lagged_products, white_autocorrelation
    from n2n_lightning.metrics.noise_law import CORRELATED

    products = np.zeros((2 * LAGS + 1, 2 * LAGS + 1))
    counts = np.zeros_like(products)
    for plane in difference:
        known = np.isfinite(plane)
        of_plane, count = lagged_products(np.where(known, plane, 0), known)
        products += of_plane
        counts += count
    covariance = products / np.maximum(counts, 1)
    correlation: np.ndarray = covariance / max(covariance[LAGS, LAGS], 1e-30)
    if np.count_nonzero(abs(correlation) > CORRELATED) <= 1:
        return white_autocorrelation()
    return correlation


def certificates_of(
    model: Any,
    noisy: NoisyArray,
    result: np.ndarray,
    options: DenoiseOptions,
    certify_options: CertifyOptions,
) -> tuple[list[PageCertificate], int]:
    """Certify the pages of a denoised array.

    Args:
        model: the denoiser.TrainedDenoiser.
        noisy: the array, with its second capture if there is one.
        result: of it.
        options: those that it was denoised with.
        certify_options: those of the certificates.

    Returns:
        The certificates, and the number of pages without one.
    """
    pair = [(noisy, result)]
    several = has_captures(noisy.axes, noisy.array.shape)
    if noisy.second is not None and not several and not model.context:
        pair.append(denoised_second(model, noisy, options))
    return certificates_of_pair(model, pair, options, certify_options)


def denoised_second(
    model: Any, noisy: NoisyArray, options: DenoiseOptions
) -> tuple[NoisyArray, np.ndarray]:
    """Denoise the second capture of an array.

    Args:
        model: the denoiser.TrainedDenoiser.
        noisy: the array, which has one.
        options: those that it was denoised with.

    Returns:
        The second capture, and its result, float32.
    """
    assert noisy.second is not None
    other = replace(noisy, array=noisy.second, second=noisy.array)
    denoised = room(noisy.array.shape, np.float32)
    model.denoise_into(denoised, other, options)
    return other, denoised


def certificates_of_pair(
    model: Any,
    pair: Sequence[tuple[NoisyArray, np.ndarray]],
    options: DenoiseOptions,
    certify_options: CertifyOptions,
) -> tuple[list[PageCertificate], int]:
    """Certify the pages of captures of the same scenes with their results.

    Args:
        model: the denoiser.TrainedDenoiser.
        pair: arrays and results, one or two; one may have an axis of captures.
        options: those that they were denoised with.
        certify_options: those of the certificates.

    Returns:
        The certificates, and the number of pages without one.
    """
    first, _ = pair[0]
    if first.mosaic:
        raise InputError("certify", True, "does not go with the raw frames of colour cameras")
    stacks = [model.pages_of(noisy, result, options) for noisy, result in pair]
    places = stacks[0].places
    scenes = [[place] for place in places]
    letters = page_axes(first.axes, model.dims)
    if has_captures(first.axes, first.array.shape):
        axis = stacked_letters(letters, model.dims).index("K")
        by_scene: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for place in places:
            by_scene.setdefault((*place[:axis], *place[axis + 1 :]), []).append(place)
        scenes = list(by_scene.values())
    chosen = evenly(len(scenes), MOST_PAGES)
    certificates = []
    for number in chosen:
        pages = [stack.at(place) for stack in stacks for place in scenes[number]]
        stored = [_plane_of(page) for page in pages]
        name = f"page {number + 1}" if len(scenes) > 1 else ""
        captures = [noisy for noisy, _ in stored]
        results = [denoised for _, denoised in stored]
        certified = certify_captures(captures, results, certify_options, name)
        depth = pages[0].size[0] // 2 if model.dims == 3 else 0
        certified.planes = [_plane_index(letters, place, depth) for place in scenes[number]]
        certificates.append(certified)
    return certificates, len(scenes) - len(chosen)


def _plane_index(letters: str, place: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Return the place of a plane among the images of an array.

    Args:
        letters: of the array; with a depth, if its pages are volumes.
        place: of the page that holds the plane.
        depth: number of the plane in a volume.

    >>> _plane_index("TDHW", (3,), 5), _plane_index("NHW", (2,), 0), _plane_index("DTHW", (3,), 5)
    ((3, 5), (2,), (5, 3))
    """
    stacked = stacked_letters(letters)
    if len(place) == len(stacked):
        return tuple(place)
    volumes = dict(zip(stacked_letters(letters, 3), place, strict=True))
    return tuple(volumes.get(letter, depth) for letter in stacked)


def certificates_of_runs(
    runs: dict[str, Callable[[Any], Any]], data: Any, device: str, options: CertifyOptions
) -> list[FileCertificate]:
    """Certify denoisers on the pairs of captures that they are scored on.

    Args:
        runs: denoisers of batches, by name.
        data: a NoisyPairs with pairs of captures, set up for validation.
        device: where the denoisers run.
        options: of the certificates.

    Returns:
        For each denoiser its certificates, of the first MOST_SCENES scenes.
    """
    import torch

    files = {name: FileCertificate(name) for name in runs}
    scene = 0
    for batch in data.val_dataloader():
        ready = data.on_after_batch_transfer(batch, 0)
        pair = [ready["input"], ready["other_input"]]
        for name, run in runs.items():
            if scene >= MOST_SCENES:
                files[name].left_out += len(pair[0])
                continue
            with torch.inference_mode():
                results = [run(images.to(device)) for images in pair]
            for number in range(len(pair[0])):
                captures = [_plane_of_tensor(images[number]) for images in pair]
                denoised = [_plane_of_tensor(images[number]) for images in results]
                title = f"scene {scene + number + 1}"
                page = certify_captures(captures, denoised, options, title)
                files[name].pages.append(page)
        scene += len(pair[0])
    return list(files.values())


def _plane_of_tensor(image: Any) -> np.ndarray:
    """Return an image (C, H, W); of a volume (C, D, H, W) the plane in the middle."""
    values: np.ndarray = image.double().cpu().numpy()
    if len(values.shape) == 4:
        return values[:, values.shape[1] // 2]
    return values


def write_certificate_file(path: Path, files: Sequence[FileCertificate]) -> None:
    """Write the certificates of several denoisers or files.

    Args:
        path: of the file.
        files: the certificates.
    """
    content = {file.source: file.as_dict() for file in files}
    text = json.dumps(content, indent=2, allow_nan=False, default=_python_number)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _plane_of(page: Page) -> tuple[np.ndarray, np.ndarray]:
    """Return a page and its result, (C, H, W); of a volume the plane in the middle."""
    whole = slice(None)
    if len(page.size) == 2:
        return page.stored((whole, whole))
    middle = page.size[0] // 2
    plane = slice(middle, middle + 1)
    noisy, denoised = page.stored((plane, whole, whole))
    return noisy[:, 0], denoised[:, 0]
