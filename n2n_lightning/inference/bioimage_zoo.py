"""A trained network as a model of the BioImage Model Zoo: a .zip for napari, Fiji, deepImageJ.

Ouyang et al., BioImage Model Zoo: a community-driven resource, bioRxiv 2022; its specification is
    0.5.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from n2n_lightning.arrays.frame_offsets import described_frames, names_of_frames
from n2n_lightning.files import InputError

if TYPE_CHECKING:
    from n2n_lightning.inference.denoiser import TrainedDenoiser


SPATIAL_LETTERS = "zyx"

README = """# {name}

{description}

Input: float32, {shape}{range}{frames}. Output: the same{outputs}. Made by n2n_lightning: {command}
"""


def write_package(
    model: "TrainedDenoiser", weights: Path, out: Path, about: dict[str, str]
) -> None:
    """Writes the .zip, and lets the zoo's own library try it.

    Args:
        model: the network.
        weights: its ONNX file.
        out: where to.
        about: `name`, `description`, `author`, `license` (as SPDX has it), `command`.

    Raises:
        InputError: the library is missing, or does not accept the model.
    """
    check_license(about["license"])
    import bioimageio.core
    import bioimageio.spec
    from bioimageio.spec.common import FileDescr
    from loguru import logger

    logger.disable("bioimageio")  # it would tell all that it does
    offline = bioimageio.spec.ValidationContext(disable_cache=True, perform_io_checks=True)
    with tempfile.TemporaryDirectory() as folder, offline:
        place = Path(folder)
        example, result = _tried(model, weights)
        np.save(place / "input.npy", example)
        np.save(place / "output.npy", result)
        span = (
            f", of stored values (x - {model.range[0]:g}) / {model.range[1]:g}"
            if model.range
            else ""
        )
        shape = " x ".join(("batch", f"{model.inputs} channels", *SPATIAL_LETTERS[-model.dims :]))
        outputs = f", of {model.channels} channels" if model.context else ""
        frames = ""
        if model.context:
            frames = f"; {described_frames(model.context, model.sees_middle)}"
        (place / "README.md").write_text(
            README.format(shape=shape, range=span, frames=frames, outputs=outputs, **about)
        )
        try:
            described = _described(model, weights, place, about, FileDescr)
            bioimageio.spec.save_bioimageio_package(described, output_path=out)
        except ValueError as error:  # pydantic's, of what was typed
            raise InputError(
                f"the zoo's library says: {' '.join(str(error).split())[:300]}"
            ) from error
        tested = bioimageio.core.test_model(out, weight_format="onnx")
    if tested.status == "failed":
        reasons = [e.msg for detail in tested.details for e in detail.errors]
        raise InputError(f"the zoo's own test fails: {' '.join('; '.join(reasons).split())[:300]}")


def check_license(name: str) -> None:
    """Raises InputError for what is no licence of SPDX's list."""
    try:
        from bioimageio.spec.model.v0_5 import LicenseId
    except ImportError as error:
        raise InputError(
            f"a model for the zoo needs {error.name}: pip install 'n2n_lightning[zoo]'"
        ) from error
    try:
        LicenseId(name)
    except ValueError:
        raise InputError(
            "license", name, "must be a name of https://spdx.org/licenses, as CC-BY-4.0 or MIT"
        ) from None


def _tried(model: "TrainedDenoiser", weights: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of stored values, and its result by the ONNX file in another program."""
    import onnxruntime

    black, span = model.range or (0.0, 1.0)
    draws = np.random.default_rng(0)
    sides = [_least(model) + k * model.multiple for k in range(model.dims)]
    image = draws.normal(0.5, 0.1, (1, model.inputs, *sides)).astype(np.float32)
    stored = (image * span + black).astype(np.float32)
    normalized = (stored - black) / span
    session = onnxruntime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"image": normalized.astype(np.float32)})
    result = output * span + black
    return stored, result.astype(np.float32)


def _least(model: "TrainedDenoiser") -> int:
    """Pixels of a side: more than what programs that go by tiles cut off on both sides."""
    return (model.overlap // model.multiple + 1) * model.multiple


def _described(
    model: "TrainedDenoiser", weights: Path, place: Path, about: dict[str, str], file: Any
) -> Any:
    from bioimageio.spec.model import v0_5 as zoo

    black, span = model.range or (0.0, 1.0)
    space = [SPATIAL_LETTERS[3 - model.dims + k] for k in range(model.dims)]
    size = zoo.ParameterizedSize(min=_least(model), step=model.multiple)

    frames = names_of_frames(model.context, model.sees_middle)

    def channels(prefixes: Sequence[str] = ()) -> Any:
        names = [f"channel{i}" for i in range(model.channels)]
        if prefixes:
            names = [f"{prefix}_{name}" for prefix in prefixes for name in names]
        return zoo.ChannelAxis(channel_names=[zoo.Identifier(name) for name in names])

    def line(gain: float, offset: float) -> list[Any]:
        if (gain, offset) == (1.0, 0.0):
            return []
        return [zoo.ScaleLinearDescr(kwargs=zoo.ScaleLinearKwargs(gain=gain, offset=offset))]

    noisy = "noisy"
    if model.context:
        shown = described_frames(model.context, model.sees_middle)
        noisy = f"noisy: {shown.partition(';')[0]}"  # the zoo takes 128 letters
    image = zoo.InputTensorDescr(
        id=zoo.TensorId("image"),
        description=noisy,
        axes=[
            zoo.BatchAxis(),
            channels(frames),
            *(zoo.SpaceInputAxis(id=zoo.AxisId(a), size=size) for a in space),
        ],
        test_tensor=file(source=place / "input.npy"),
        data=zoo.IntervalOrRatioDataDescr(type="float32"),
        preprocessing=line(1 / span, -black / span),
    )
    same = {
        a: zoo.SizeReference(tensor_id=zoo.TensorId("image"), axis_id=zoo.AxisId(a)) for a in space
    }
    denoised = zoo.OutputTensorDescr(
        id=zoo.TensorId("denoised"),
        description="denoised",
        axes=[
            zoo.BatchAxis(),
            channels(),
            *(
                zoo.SpaceOutputAxisWithHalo(id=zoo.AxisId(a), size=same[a], halo=model.overlap // 2)
                for a in space
            ),
        ],
        test_tensor=file(source=place / "output.npy"),
        data=zoo.IntervalOrRatioDataDescr(type="float32"),
        postprocessing=line(span, black),
    )
    return zoo.ModelDescr(
        name=about["name"],
        description=about["description"],
        authors=[zoo.Author(name=about["author"])],
        cite=[
            zoo.CiteEntry(
                text="Lehtinen et al., Noise2Noise, ICML 2018",
                doi=zoo.Doi("10.48550/arXiv.1803.04189"),
            )
        ],
        license=zoo.LicenseId(about["license"]),
        documentation=file(source=place / "README.md"),
        tags=["denoising", "noise2noise", "restoration"],
        inputs=[image],
        outputs=[denoised],
        weights=zoo.WeightsDescr(
            onnx=zoo.OnnxWeightsDescr(source=weights, opset_version=_opset(weights))
        ),
    )


def _opset(weights: Path) -> int:
    import onnx

    return max(
        entry.version
        for entry in onnx.load(str(weights)).opset_import
        if entry.domain in ("", "ai.onnx")
    )
