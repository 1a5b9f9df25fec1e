"""Base of the networks: padding, the count of their operations, the check of their options."""

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
    """Base class of the networks: pads images to a size that `body` takes, and crops the result.

    Attributes:
        multiple: heights and widths must be divisible by this inside `body`.
        dims: spatial axes, 2 for images and 3 for volumes.
        receptive_radius: pixels over which an input pixel affects the output, where that is known:
            tiles that overlap by more than twice as much have the result of the whole image.
        arguments: of the constructor, for checkpoints.
    """

    multiple = 1
    dims = 2
    receptive_radius: int | None = None
    arguments: dict[str, Any]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        make: Any = cls.__init__

        @functools.wraps(make)
        def remember(self: "Network", *args: Any, **named: Any) -> None:
            if "arguments" not in self.__dict__:  # not of the classes below
                plain = _named_arguments(make, self, *args, **named)
                object.__setattr__(self, "arguments", plain)
            make(self, *args, **named)
            self.dims = self.arguments.get("dims", 2)

        setattr(cls, "__init__", remember)  # noqa: B010  mypy takes the name for what it was

    @staticmethod
    def start(image: Tensor, channels: int) -> Tensor:
        """Return the image to subtract estimated noise from: the input, or the mean of its frames.

        Args:
            image: (B, n x channels, ...): n frames, one after the other.
            channels: of the result.

        Returns:
            (B, channels, ...).
        """
        count = image.shape[1] // channels
        if count == 1:
            return image
        return image.unflatten(1, (count, channels)).mean(1)

    def body(self, image: Tensor) -> Tensor:
        """Denoise images whose height and width are divisible by `multiple`.

        Args:
            image: (B, C, H, W) or (B, C, D, H, W).

        Returns:
            As `forward`.
        """
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        """Denoise images of any size.

        Args:
            image: (B, C, H, W) or (B, C, D, H, W), values in [0, 1] up to noise.

        Returns:
            In that shape, but for the channels where the input has several frames.
        """
        padded = pad_to_multiple(image, self.multiple)
        output: Tensor = axes.cropped(self.body(padded), axes.size(image))
        return output


def middle_frame(image: Tensor, channels: int) -> Tensor:
    """Return the frame in the middle of several, one after the other along the channels.

    Args:
        image: (B, n x channels, ...), n odd.
        channels: of a frame.

    Returns:
        A view, (B, channels, ...).
    """
    first = (image.shape[1] // channels) // 2 * channels
    return image[:, first : first + channels]


def _named_arguments(make: Any, /, *args: Any, **named: Any) -> dict[str, Any]:
    """Return the arguments of a constructor by their names, defaults included.

    Args:
        make: the constructor.
        args: positional arguments, the object first; those of a parameter `*args` have no names and
            are left out.
        named: the others; those of a parameter `**options` are returned like all others.
    """
    signature = inspect.signature(make)
    given = signature.bind(*args, **named)
    given.apply_defaults()
    plain = dict(list(given.arguments.items())[1:])
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            several = plain.pop(parameter.name, {})
            if isinstance(several, dict):
                plain |= several
    return plain


def to_channels_last(network: nn.Module) -> nn.Module:
    """Move a network of images to the memory format that CPUs convolve fastest; volumes stay.

    Returns:
        The network itself.
    """
    if any(len(parameter.shape) == 5 for parameter in network.parameters()):
        return network
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def apply(network: nn.Module, image: Tensor) -> Tensor:
    """Run any network on images of any size, with padding and cropping where it needs that.

    Args:
        network: one of this package, or any other; it is padded to its attribute `multiple`, or to
            the least that works, see `multiple_of`.
        image: (B, C, H, W) or (B, C, D, H, W).

    Returns:
        The denoised images, of the same size.
    """
    output: Tensor
    if not isinstance(network, Network) and not torch.compiler.is_exporting():
        multiple = multiple_of(network, image)
        size = axes.size(image)
        if any(length % multiple for length in size):
            padded = pad_to_multiple(image, multiple)
            output = axes.cropped(network(padded), size)
            return output
    output = network(image)
    return output


_MULTIPLES: "weakref.WeakKeyDictionary[nn.Module, int]" = weakref.WeakKeyDictionary()


def multiple_of(network: nn.Module, image: Tensor) -> int:
    """Return the number that heights and widths must be divisible by for a network.

    Args:
        network: takes images as `image`, and returns them in the same shape.
        image: an example, for the number of channels, the type and the device.

    Returns:
        The attribute `multiple`, or the least power of 2 that works.

    Raises:
        ValueError: it works with none of 1 to 64.

    >>> network = nn.Sequential(nn.MaxPool2d(4), nn.Upsample(scale_factor=4))
    >>> multiple_of(network, torch.zeros(1, 3, 9, 9))
    4
    """
    stated = getattr(network, "multiple", None)
    if isinstance(stated, int):
        return stated
    if network not in _MULTIPLES:
        modes = [(module, module.training) for module in network.modules()]
        network.eval()
        try:
            _MULTIPLES[network] = _probed_multiple(network, image)
        finally:
            for module, mode in modes:
                module.training = mode
    return _MULTIPLES[network]


def _probed_multiple(network: nn.Module, image: Tensor) -> int:
    """Return the least power of 2 for which a network keeps the size of images."""
    dims = len(axes.size(image))
    for multiple in (1, 2, 4, 8, 16, 32, 64):
        side = multiple * (64 // multiple + 1)
        example = image.new_zeros(1, image.shape[1], *[side] * dims)
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
    """Count the multiplications, each with an addition, of a network per pixel or voxel.

    Args:
        network: is run on an image of 64 x 64, or a volume of 32 x 32 x 32.
        channels: of its input.

    Returns:
        A whole number, rounded.

    >>> multiply_accumulates(nn.Conv2d(3, 16, 3, padding=1))
    432
    """
    from torch.utils.flop_counter import FlopCounterMode

    size = {2: (64, 64), 3: (32, 32, 32)}[getattr(network, "dims", 2)]
    training = network.training
    image = torch.zeros(1, channels, *size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(image)
    network.train(training)
    operations = counter.get_total_flops() / 2
    return round(operations / math.prod(size))


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Extend images by reflection until `multiple` divides their size.

    Padding wider than the image, which torch's own reflection refuses, is reflected repeatedly; a
    side of one pixel is repeated.

    Args:
        image: (B, C, H, W) or (B, C, D, H, W).
        multiple: of the result's height and width, and depth.

    Returns:
        The images, with pixels added at the bottom and on the right, and behind the last plane.

    >>> pad_to_multiple(torch.tensor([[[[1.0, 2.0, 3.0]]]]), 4)[0, 0, 0].tolist()
    [1.0, 2.0, 3.0, 2.0]
    """
    for dim in axes.spatial(image):
        size = image.shape[dim]
        missing = -size % multiple
        if torch.compiler.is_exporting() or missing:  # an exported network has to take any size
            last = size - 1
            position = torch.arange(size + missing, device=image.device)
            period = torch.full_like(position, torch.sym_max(2 * last, 1))
            from_turn = (position % period - last).abs()
            image = image.index_select(dim, from_turn.neg() + last)
    return image


def sizes(least: int = 1, **values: int | Sequence[int]) -> None:
    """Check that options of the model group are whole numbers.

    Args:
        least: the lowest number that is allowed.
        values: by the names of the options; `widths` and `blocks` are lists.

    Raises:
        InputError: an option is something else.
    """
    for name, value in values.items():
        numbers: list[Any] = [value]
        wanted = "a whole number"
        if name in ("widths", "blocks"):
            numbers = list(value) if isinstance(value, Sequence) else []
            wanted = "a list of whole numbers"
        allowed = [_is_whole(number, least) for number in numbers]
        if not numbers or not all(allowed):
            raise InputError(f"model.{name}", value, f"must be {wanted}, {least} or more")


def _is_whole(number: Any, least: int) -> bool:
    """Return True for a whole number from `least` on; True and False are none."""
    if isinstance(number, bool) or not isinstance(number, int):
        return False
    return number >= least


def checked_dims(dims: int) -> int:
    """Check the number of spatial axes.

    Returns:
        The number itself.

    Raises:
        InputError: it is not 2 or 3.
    """
    if dims not in (2, 3) or isinstance(dims, bool):
        raise InputError("model.dims", dims, "must be 2 (images) or 3 (volumes)")
    return dims


def receptive_radius_of(levels: Sequence[int]) -> int:
    """Return over how many pixels an input pixel affects the output of a U-Net.

    Args:
        levels: receptive radius of the layers at each size, on the way down and again on the way
            up.

    Returns:
        In pixels of the image.

    >>> receptive_radius_of([4, 2, 2])
    27
    """
    *upper, radius = levels
    for layers in reversed(upper):  # between two sizes two pixels become one, and one becomes two
        radius = 2 * radius + 1 + 2 * layers
    return radius


def two_convolutions(inputs: int, outputs: int, dims: int = 2) -> nn.Sequential:
    """Return two 3x3 (3x3x3) convolutions, each with LeakyReLU 0.1.

    Args:
        inputs: channels of the input.
        outputs: channels of the result.
        dims: 2 for images, 3 for volumes.

    Returns:
        A module that keeps height and width.
    """
    convolution = CONVOLUTION[dims]
    return nn.Sequential(
        convolution(inputs, outputs, 3, padding=1),
        nn.LeakyReLU(0.1, inplace=True),
        convolution(outputs, outputs, 3, padding=1),
        nn.LeakyReLU(0.1, inplace=True),
    )


def upsample_and_join(x: Tensor, skip: Tensor) -> Tensor:
    """Double the size of feature maps by nearest upsampling and append a skip connection.

    Args:
        x: (B, C, H, W) or (B, C, D, H, W).
        skip: of the double size.

    Returns:
        (B, C + skip channels, ...), of the double size.
    """
    upsampled = F.interpolate(x, scale_factor=2, mode="nearest")
    return torch.cat((upsampled, skip), 1)


def network_spec(network: nn.Module) -> dict[str, Any]:
    """Return the configuration that builds a network again; empty if it is no `Network`.

    Returns:
        `model`, with the class (`_target_`) and its arguments, as in conf/model.
    """
    if not isinstance(network, Network):
        return {}
    kind = type(network)
    home = kind.__module__
    if home.startswith("n2n_lightning.networks."):
        home = "n2n_lightning.networks"
    spec: dict[str, Any] = {"_target_": f"{home}.{kind.__qualname__}"}
    for name, value in network.arguments.items():
        spec[name] = list(value) if isinstance(value, tuple) else value
    return {"model": spec}
