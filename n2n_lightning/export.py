"""Write a trained network for other programs: `python -m n2n_lightning.export CHECKPOINT OUT`.

The name of OUT says how: .onnx (ONNX, for onnxruntime and others), .pt2 (torch.export, for PyTorch
without this package), .ckpt (a checkpoint of the network alone, without the state of its training),
.zip (a model of the BioImage Model Zoo, for napari, Fiji and deepImageJ). All take images of any
size, any number at a time; the result is compared with the network here before the file is there.
"""

import contextlib
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2n_lightning.files import InputError, Parser, command, replacing
from n2n_lightning.inference.plan import refuse_inputs

if TYPE_CHECKING:
    from torch import Tensor

    from n2n_lightning.inference.denoiser import TrainedDenoiser

TOLERANCE = 1e-3  # of values in [0, 1]: a quarter of a grey level of 8 bits
# Numbers and sizes of images, or of volumes, that an export is compared on, by the number of
# spatial axes.
SIZES = {
    2: ((2, 64, 64), (1, 70, 90), (1, 33, 131)),
    3: ((2, 16, 32, 32), (1, 18, 30, 34), (1, 9, 33, 21)),
}
EXAMPLE = {2: (2, 70, 90), 3: (2, 18, 26, 30)}
NAMES = ("depth", "height", "width")


def parser() -> Parser:
    p = Parser(prog="python -m n2n_lightning.export", description=__doc__)
    p.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="a run folder or a checkpoint file"
    )
    p.add_argument(
        "out", type=Path, metavar="OUT", help="a name that ends in .onnx, .pt2, .ckpt or .zip"
    )
    p.add_argument("--name", default="Noise2Noise denoiser", help="of a .zip: what it is called")
    p.add_argument(
        "--author", help="of a .zip: who made it (default: the user's name on this machine)"
    )
    p.add_argument(
        "--license",
        default="CC-BY-4.0",
        help="of a .zip: its licence, by its SPDX name (CC-BY-4.0)",
    )
    p.add_argument("--overwrite", action="store_true", help="replace a file that is there already")
    p.add_argument(
        "--allow",
        action="append",
        default=[],
        help="a module whose networks the checkpoint may name",
    )
    return p


def onnx(model: "TrainedDenoiser", path: Path) -> Callable[["Tensor"], "Tensor"]:
    """Writes an ONNX file; returns what runs it."""
    import torch

    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise InputError(
            f".onnx needs {error.name}: pip install 'n2n_lightning[export]'"
        ) from error
    count, *size = EXAMPLE[model.dims]
    axes = {"image": {0: "batch", **{2 + k: name for k, name in enumerate(NAMES[-len(size) :])}}}
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    program: Any = torch.onnx.export(
        model.network,
        (torch.rand(count, model.inputs, *size),),
        dynamo=True,
        dynamic_shapes=axes,
        input_names=["image"],
        output_names=["denoised"],
        verbose=False,
    )
    program.save(str(path), external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def pt2(model: "TrainedDenoiser", path: Path) -> Callable[["Tensor"], "Tensor"]:
    """Writes a torch.export archive; returns what runs it."""
    import torch
    from torch.export import Dim
    from torch.fx.experimental import _config

    count, *size = EXAMPLE[model.dims]
    example = torch.rand(count if model.dims == 2 else 1, model.inputs, *size)
    # A program for two volumes would refuse one: torch's convolutions of volumes look at the
    # number.
    dynamic = {
        axis: Dim.DYNAMIC
        for axis in ((0,) if model.dims == 2 else ()) + tuple(range(2, 2 + len(size)))
    }
    # Otherwise the example's own size leaves conditions behind (its width is no multiple of 8, it
    # is not one image).
    with _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program = torch.export.export(model.network, (example,), dynamic_shapes=(dynamic,))
    torch.export.save(program, path)
    loaded: Callable[[Tensor], Tensor] = torch.export.load(path).module()
    return loaded


def ckpt(model: "TrainedDenoiser", path: Path, source: Path) -> Callable[["Tensor"], "Tensor"]:
    """Writes a checkpoint with the network alone; returns what runs it."""
    import torch

    from n2n_lightning.inference.checkpoint import network_checkpoint, read_info
    from n2n_lightning.inference.denoiser import load

    info = read_info(source)
    torch.save(network_checkpoint(model.network, info), path)
    return load(path, [str(info.model["_target_"]).rpartition(".")[0]])


def bioimage(model: "TrainedDenoiser", path: Path, args: Any) -> Callable[["Tensor"], "Tensor"]:
    """Writes a model of the BioImage Model Zoo; returns what runs it."""
    import getpass
    import tempfile

    from n2n_lightning.inference import bioimage_zoo

    about = {
        "name": args.name,
        "description": "Removes noise; trained on noisy images alone (Noise2Noise)",
        "author": args.author or getpass.getuser(),
        "license": args.license,
        "command": f"python -m n2n_lightning.export {args.checkpoint.name} {args.out.name}",
    }
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "denoiser.onnx"
        runs = onnx(model, weights)
        bioimage_zoo.write_package(model, weights, path, about)
    return runs


def main() -> int:
    args = parser().parse_args()
    writers = {
        ".onnx": onnx,
        ".pt2": pt2,
        ".ckpt": lambda model, path: ckpt(model, path, args.checkpoint),
    }
    writers[".zip"] = lambda model, path: bioimage(model, path, args)
    writer = writers.get(args.out.suffix.lower())
    if writer is None:
        raise InputError(f"{args.out}: its name should end in {', '.join(writers)}")
    from n2n_lightning.inference.checkpoint import checkpoint_of
    from n2n_lightning.inference.denoiser import load

    refuse_inputs(args.out, [checkpoint_of(args.checkpoint)])
    if args.out.exists() and not args.overwrite:
        raise InputError(f"{args.out}: exists; --overwrite replaces it")
    zipped = args.out.suffix.lower() == ".zip"
    if zipped:
        from n2n_lightning.inference import bioimage_zoo

        bioimage_zoo.check_license(args.license)
    import torch

    model = load(args.checkpoint, args.allow)
    # Kept channels last, the exporters would take for granted how the images lie in memory.
    if model.dims == 2:
        model.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    alone = model.dims == 3 and args.out.suffix.lower() == ".pt2"
    largest = 0.0
    try:
        with replacing(args.out) as temporary, warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporters, about their own insides
            with contextlib.redirect_stdout(None):
                exported = writer(model, temporary)
            for count, *size in SIZES[model.dims]:
                image = torch.rand(1 if alone else count, model.inputs, *size)
                largest = max(largest, float((exported(image) - model(image)).abs().max()))
            if not largest < TOLERANCE:
                raise InputError(
                    f"{args.out}: differs from the network by {largest:.2g}; it is not written"
                )
    except OSError as error:
        raise InputError(f"{args.out}: cannot be written: {error.strerror or error}") from error
    sizes = ", ".join(" x ".join(map(str, size)) for size in SIZES[model.dims])
    named = ", ".join(NAMES[-model.dims :])
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")
    output = "the same" if not model.context else f"(batch, {model.channels}, {named})"
    shape = f"({1 if alone else 'batch'}, {model.inputs}, {named})"
    values = "stored values, as they are" if zipped and model.range else "values in [0, 1]"
    print(f"input `image`: float32 {shape}, {values}; output: {output}")
    if model.context:
        print(
            f"the input is the {model.context} frames before one and the {model.context} after"
            " it, in their order"
        )
    if model.range and not zipped and args.out.suffix != ".ckpt":  # denoise does it by itself
        black, span = model.range
        off, on = (
            f" {'-' if black > 0 else '+'} {abs(black):g}",
            f" {'+' if black > 0 else '-'} {abs(black):g}",
        )
        before = f"(stored value{off}) / {span:g}" if black else f"stored value / {span:g}"
        print(
            f"before it: {before}; after it: result * {span:g}{on if black else ''}, as in its"
            " training"
        )
    print(f"largest difference from PyTorch, on images of {sizes}: {largest:.1e}")
    return 0


if __name__ == "__main__":
    command(main, parser)
