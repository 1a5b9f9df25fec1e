"""What the networks have in common: padding, the count of their operations, the check of their sizes."""

import functools
import inspect
import math
import weakref
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from n2n_lightning.arrays import axes
from n2n_lightning.files import InputError

# Layers by the number of spatial axes: images have 2, volumes 3.
CONVOLUTION: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_POOL: dict[int, Any] = {2: F.max_pool2d, 3: F.max_pool3d}


class Network(nn.Module):
    """The base of the networks here: pads any image to what `body` can take, and crops the result.

    `multiple` is the number that height and width must be divisible by inside `body`. `reach` is
    how many pixels away from a pixel of the input the output can change, where that is known: tiles
    that overlap by more than twice as much have the result of the whole image.
    """

    multiple = 1
    dims = 2  # spatial axes: 2 for images, 3 for volumes
    receptive_radius: int | None = None
    # with which the network was made: what a checkpoint needs to make it again
    arguments: dict[str, Any]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        make: Any = cls.__init__

        @functools.wraps(make)
        def remember(self: "Network", *args: Any, **named: Any) -> None:
            if "arguments" not in self.__dict__:  # not of the classes below
                signature = inspect.signature(make)
                given = signature.bind(self, *args, **named)
                given.apply_defaults()
                plain = dict(list(given.arguments.items())[1:])
                # **options, and *args, which have no names
                for parameter in signature.parameters.values():
                    if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                        several = plain.pop(parameter.name, {})
                        plain |= several if isinstance(several, dict) else {}
                object.__setattr__(self, "arguments", plain)
            make(self, *args, **named)
            self.dims = self.arguments.get("dims", 2)

        setattr(cls, "__init__", remember)  # noqa: B010  mypy takes the name for what it was

    @staticmethod
    def start(image: Tensor, channels: int) -> Tensor:
        """What a network that estimates the noise takes it from: the image, or the mean of the frames that it is shown.

        Args:
            image: (B, n x channels, ...): n frames, one after the other.
            channels: of the result.
        """
        count = image.shape[1] // channels
        return image if count == 1 else image.unflatten(1, (count, channels)).mean(1)

    def body(self, image: Tensor) -> Tensor:
        """The network itself, for heights and widths divisible by `multiple`."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = axes.cropped(
            self.body(pad_to_multiple(image, self.multiple)), axes.size(image)
        )
        return output


def to_channels_last(network: nn.Module) -> nn.Module:
    """A network in the order of memory that convolutions of images on a CPU are fastest with; of volumes as it is."""
    flat = all(len(parameter.shape) != 5 for parameter in network.parameters())
    return network.to(memory_format=torch.channels_last) if flat else network  # type: ignore[call-overload]


def apply(network: nn.Module, image: Tensor) -> Tensor:
    """Any network on an image (B, C, H, W) of any size: padded, where it needs that, and cropped again.

    A network that is none of those here is padded to its attribute `multiple`, or to what is found
    by trying.
    """
    if not isinstance(network, Network) and not torch.compiler.is_exporting():
        multiple = multiple_of(network, image)
        if any(length % multiple for length in axes.size(image)):
            output: Tensor = axes.cropped(
                network(pad_to_multiple(image, multiple)), axes.size(image)
            )
            return output
    whole: Tensor = network(image)
    return whole


_MULTIPLES: "weakref.WeakKeyDictionary[nn.Module, int]" = weakref.WeakKeyDictionary()


def multiple_of(network: nn.Module, image: Tensor) -> int:
    """What heights and widths must be divisible by for a network: its `multiple`, or the least power of 2 that works.

    Args:
        network: takes images as `image`, and returns them in the same shape.
        image: says the number of channels, the type and the device.

    Raises:
        ValueError: it works with none of 1 to 64.

    >>> multiple_of(nn.Sequential(nn.MaxPool2d(4), nn.Upsample(scale_factor=4)), torch.zeros(1, 3, 9, 9))
    4
    """
    if isinstance(named := getattr(network, "multiple", None), int):
        return named
    if network not in _MULTIPLES:
        modes = [(module, module.training) for module in network.modules()]
        network.eval()
        try:
            _MULTIPLES[network] = _tried(network, image)
        finally:
            for module, mode in modes:
                module.training = mode
    return _MULTIPLES[network]


def _tried(network: nn.Module, image: Tensor) -> int:
    for multiple in (1, 2, 4, 8, 16, 32, 64):
        side = multiple * (64 // multiple + 1)
        example = image.new_zeros(1, image.shape[1], *[side] * len(axes.size(image)))
        try:
            with torch.no_grad():
                if network(example).shape == example.shape:
                    return multiple
        except RuntimeError:
            continue
    raise ValueError(
        f"{type(network).__name__}: returns no image of the size that it is given, whatever that is"
    )


def multiply_accumulates(network: nn.Module, channels: int = 3) -> int:
    """How many multiplications, each with an addition, a network makes per pixel or voxel.

    Counted on an image of 64 x 64, or a volume of 32 x 32 x 32.

    >>> multiply_accumulates(nn.Conv2d(3, 16, 3, padding=1))
    432
    """
    from torch.utils.flop_counter import FlopCounterMode

    size = {2: (64, 64), 3: (32, 32, 32)}[getattr(network, "dims", 2)]
    training, image = network.training, torch.zeros(1, channels, *size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(image)
    network.train(training)
    return round(counter.get_total_flops() / 2 / math.prod(size))


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Extends an image (B, C, H, W) at the bottom and right, by reflection, until `multiple` divides H and W.

    The same for (B, C, D, H, W), D included.

    Where the padding is wider than the image (torch's own reflection refuses that) it is reflected
    again and again; a side of one pixel is repeated.

    >>> pad_to_multiple(torch.tensor([[[[1.0, 2.0, 3.0]]]]), 4)[0, 0, 0].tolist()
    [1.0, 2.0, 3.0, 2.0]
    """
    for dim in axes.spatial(image):
        size = image.shape[dim]
        missing = -size % multiple
        if torch.compiler.is_exporting() or missing:  # an exported network has to take any size
            position = torch.arange(size + missing, device=image.device)
            period = torch.full_like(position, torch.sym_max(2 * (size - 1), 1))
            image = image.index_select(dim, (position % period - (size - 1)).abs().neg() + size - 1)
    return image


def sizes(least: int = 1, **values: int | Sequence[int]) -> None:
    """Raises ValueError unless these options of the model group hold whole numbers of at least `least`."""
    for name, value in values.items():
        several = name in ("widths", "blocks")
        found = [value] if not several else list(value) if isinstance(value, Sequence) else []
        if not found or not all(
            isinstance(n, int) and not isinstance(n, bool) and n >= least for n in found
        ):
            wanted = "a list of whole numbers" if several else "a whole number"
            raise InputError(f"model.{name}", value, f"must be {wanted}, {least} or more")


def checked_dims(dims: int) -> int:
    """The number of spatial axes; raises InputError unless it is 2 or 3."""
    if dims not in (2, 3) or isinstance(dims, bool):
        raise InputError("model.dims", dims, "must be 2 (images) or 3 (volumes)")
    return dims


def receptive_radius_of(levels: Sequence[int]) -> int:
    """How many pixels away from a change of its input a U-Net can change its output.

    Args:
        levels: how far the layers of each size reach, on the way down and again on the way up.

    >>> receptive_radius_of([4, 2, 2])
    27
    """
    *upper, reach = levels
    for way in reversed(upper):  # between two sizes two pixels become one, and one becomes two
        reach = 2 * reach + 1 + 2 * way
    return reach


def two_convolutions(inputs: int, outputs: int, dims: int = 2) -> nn.Sequential:
    """Two 3x3 (3x3x3) convolutions, each with LeakyReLU 0.1."""
    convolution = CONVOLUTION[dims]
    first, second = (
        convolution(inputs, outputs, 3, padding=1),
        convolution(outputs, outputs, 3, padding=1),
    )
    return nn.Sequential(
        first, nn.LeakyReLU(0.1, inplace=True), second, nn.LeakyReLU(0.1, inplace=True)
    )


def network_spec(network: nn.Module) -> dict[str, Any]:
    """What builds a network of this package, or one made like them, again."""
    if not isinstance(network, Network):
        return {}
    kind = type(network)
    home = (
        "n2n_lightning.networks"
        if kind.__module__.startswith("n2n_lightning.networks.")
        else kind.__module__
    )
    arguments = {n: list(v) if isinstance(v, tuple) else v for n, v in network.arguments.items()}
    return {"model": {"_target_": f"{home}.{kind.__qualname__}", **arguments}}
