"""Write a trained network for other programs: `n2n export CHECKPOINT OUT`.

The ending of OUT is the format: .onnx (ONNX, for onnxruntime and others), .pt2 (torch.export, for
PyTorch without this package), .ckpt (a checkpoint of the network alone, without the state of its
training), .zip (a model of the BioImage Model Zoo, for napari, Fiji and deepImageJ). All take
images of any size, any number at a time. Before the file is written, its results are compared with
those of the network.
"""

import contextlib
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2n_lightning.arrays.frame_offsets import described_frames
from n2n_lightning.files import InputError, Parser, command, replacing
from n2n_lightning.inference.plan import refuse_inputs

if TYPE_CHECKING:
    from torch import Tensor

    from n2n_lightning.inference.denoiser import TrainedDenoiser

Export = Callable[["Tensor"], "Tensor"]

TOLERANCE = 1e-3  # of values in [0, 1]: a quarter of a grey level of 8 bits
# Batch and size of the images, or volumes, that an export is compared on, by the number of spatial
# axes: divisible by a power of 2, and not.
COMPARED_SIZES = {
    2: ((2, 64, 64), (1, 70, 90), (1, 33, 131)),
    3: ((2, 16, 32, 32), (1, 18, 30, 34), (1, 9, 33, 21)),
}
TRACED_SIZE = {2: (2, 70, 90), 3: (2, 18, 26, 30)}
SPATIAL_AXES = ("depth", "height", "width")


def parser() -> Parser:
    p = Parser(prog="n2n export", description=__doc__)
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
    p.add_argument(
        "--device",
        default="cpu",
        help="of a .pt2, which is for one device: cpu, cuda, ... (others: torch.export.passes)",
    )
    p.add_argument("--overwrite", action="store_true", help="replace a file that is there already")
    p.add_argument(
        "--allow",
        action="append",
        default=[],
        help="a module whose networks the checkpoint may name",
    )
    return p


def onnx(model: "TrainedDenoiser", path: Path) -> Export:
    """Write an ONNX file.

    Args:
        model: the network.
        path: of the file.

    Returns:
        The file's network, in onnxruntime.

    Raises:
        InputError: a package is missing.
    """
    import torch

    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise InputError(
            f".onnx needs {error.name}: pip install 'n2n_lightning[export]'"
        ) from error
    count, *size = TRACED_SIZE[model.dims]
    dynamic = {0: "batch"}
    for axis, name in enumerate(SPATIAL_AXES[-len(size) :], 2):
        dynamic[axis] = name
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    example = torch.rand(count, model.inputs, *size)
    program: Any = torch.onnx.export(
        model.network,
        (example,),
        dynamo=True,
        dynamic_shapes={"image": dynamic},
        input_names=["image"],
        output_names=["denoised"],
        verbose=False,
    )
    program.save(str(path), external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(image: "Tensor") -> "Tensor":
        (denoised,) = session.run(None, {"image": image.numpy()})
        return torch.from_numpy(denoised)

    return run


def pt2(model: "TrainedDenoiser", path: Path, device: str) -> Export:
    """Write a torch.export archive, whose positions of pixels lie on one device.

    Args:
        model: the network.
        path: of the file.
        device: that it is for.

    Returns:
        The file's network.
    """
    import torch
    from torch.export import Dim
    from torch.fx.experimental import _config

    count, *size = TRACED_SIZE[model.dims]
    axes = list(range(2, 2 + len(size)))
    if model.dims == 2:
        axes.insert(0, 0)
    else:  # torch specialises on the batch size of 3D convolutions: a program for two refuses one
        count = 1
    dynamic = {axis: Dim.DYNAMIC for axis in axes}
    example = torch.rand(count, model.inputs, *size, device=device)
    # Otherwise conditions on the size of the example remain (width no multiple of 8, more than one
    # image).
    with _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program = torch.export.export(
            model.network.to(device), (example,), dynamic_shapes=(dynamic,)
        )
    torch.export.save(program, path)
    model.network.cpu()
    loaded: Callable[[Tensor], Tensor] = torch.export.load(path).module()

    def run(image: "Tensor") -> "Tensor":
        return loaded(image.to(device)).cpu()

    return run


def ckpt(model: "TrainedDenoiser", path: Path, source: Path) -> Export:
    """Write a checkpoint of the network alone.

    Args:
        model: the network.
        path: of the file.
        source: the whole checkpoint, or its run folder.

    Returns:
        The file's network.
    """
    import torch

    from n2n_lightning.inference.checkpoint import network_checkpoint, read_info
    from n2n_lightning.inference.denoiser import load

    info = read_info(source)
    torch.save(network_checkpoint(model.network, info), path)
    module, _, _ = str(info.model["_target_"]).rpartition(".")
    return load(path, [module], device="cpu")


def bioimage(model: "TrainedDenoiser", path: Path, args: Any) -> Export:
    """Write a model of the BioImage Model Zoo.

    Args:
        model: the network.
        path: of the file.
        args: the options; name, author and license go into the description.

    Returns:
        The file's network, in onnxruntime.
    """
    import getpass
    import tempfile

    from n2n_lightning.inference import bioimage_zoo

    about = {
        "name": args.name,
        "description": "Removes noise; trained on noisy images alone (Noise2Noise)",
        "author": args.author or getpass.getuser(),
        "license": args.license,
        "command": f"n2n export {args.checkpoint.name} {args.out.name}",
    }
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "denoiser.onnx"
        exported = onnx(model, weights)
        bioimage_zoo.write_package(model, weights, path, about)
    return exported


def write_export(model: "TrainedDenoiser", args: Any, writer: Callable[..., Export]) -> float:
    """Write the file if its results are those of the network.

    Args:
        model: the network.
        args: the options.
        writer: writes a model to a path and returns the file's network.

    Returns:
        The largest difference from the network.

    Raises:
        InputError: the difference is too large, or the file cannot be written.
    """
    import torch

    single = _takes_one(model, args.out)
    largest = 0.0
    try:
        with replacing(args.out) as temporary, warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporters, about their own insides
            with contextlib.redirect_stdout(None):
                exported = writer(model, temporary)
            for count, *size in COMPARED_SIZES[model.dims]:
                image = torch.rand(1 if single else count, model.inputs, *size)
                difference = (exported(image) - model(image)).abs().max()
                largest = max(largest, float(difference))
            if not largest < TOLERANCE:
                raise InputError(
                    f"{args.out}: differs from the network by {largest:.2g}; it is not written"
                )
    except OSError as error:
        raise InputError(f"{args.out}: cannot be written: {error.strerror or error}") from error
    return largest


def _takes_one(model: "TrainedDenoiser", path: Path) -> bool:
    """Return True if the file takes one volume at a time, see `pt2`."""
    return model.dims == 3 and path.suffix.lower() == ".pt2"


def describe(model: "TrainedDenoiser", path: Path) -> list[str]:
    """Return lines on the input and output of an exported file.

    Args:
        model: the network.
        path: the file.

    Returns:
        Shapes, value ranges, frames, and the scaling around the network.
    """
    axes = ", ".join(SPATIAL_AXES[-model.dims :])
    zipped = path.suffix.lower() == ".zip"
    batch = "1" if _takes_one(model, path) else "batch"
    shape = f"({batch}, {model.inputs}, {axes})"
    values = "stored values, as they are" if zipped and model.range else "values in [0, 1]"
    output = "the same"
    if model.context:
        output = f"(batch, {model.channels}, {axes})"
    lines = [f"input `image`: float32 {shape}, {values}; output: {output}"]
    if model.context:
        lines.append(f"the input is {described_frames(model.context, model.sees_middle)}")
    if model.range and not zipped and path.suffix != ".ckpt":  # denoise scales by itself
        lines.append(_scaling(*model.range))
    return lines


def _scaling(black: float, span: float) -> str:
    """Return the scaling of stored values before and after the network, as formulas."""
    before = f"stored value / {span:g}"
    after = f"result * {span:g}"
    if black:
        minus, plus = ("-", "+") if black > 0 else ("+", "-")
        before = f"(stored value {minus} {abs(black):g}) / {span:g}"
        after += f" {plus} {abs(black):g}"
    return f"before it: {before}; after it: {after}, as in its training"


def main() -> int:
    from n2n_lightning.devices.choice import device_of

    args = parser().parse_args()
    device = device_of(args.device)
    writers: dict[str, Callable[..., Export]] = {
        ".onnx": onnx,
        ".pt2": lambda model, path: pt2(model, path, device),
        ".ckpt": lambda model, path: ckpt(model, path, args.checkpoint),
        ".zip": lambda model, path: bioimage(model, path, args),
    }
    ending = args.out.suffix.lower()
    if ending not in writers:
        raise InputError(f"{args.out}: its name should end in {', '.join(writers)}")
    from n2n_lightning.inference.checkpoint import checkpoint_of
    from n2n_lightning.inference.denoiser import load

    refuse_inputs(args.out, [checkpoint_of(args.checkpoint)])
    if args.out.exists() and not args.overwrite:
        raise InputError(f"{args.out}: exists; --overwrite replaces it")
    if ending == ".zip":
        from n2n_lightning.inference import bioimage_zoo

        bioimage_zoo.check_license(args.license)
    import torch

    model = load(args.checkpoint, args.allow, device="cpu")
    # The exporters would fix the memory layout of a network in channels last.
    if model.dims == 2:
        model.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    largest = write_export(model, args, writers[ending])
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")
    for line in describe(model, args.out):
        print(line)
    if ending == ".pt2":
        mover = "torch.export.passes.move_to_device_pass"
        print(f"for {device}; {mover}(torch.export.load(FILE), DEVICE) moves it")
    sizes = ", ".join(" x ".join(map(str, size)) for size in COMPARED_SIZES[model.dims])
    print(f"largest difference from PyTorch, on images of {sizes}: {largest:.1e}")
    return 0


if __name__ == "__main__":
    command(main, parser)
