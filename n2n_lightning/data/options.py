"""Checks of the options of the data group."""

from typing import Any

from torch import Tensor

from n2n_lightning.files import InputError


def whole_numbers(least: int, **values: Any) -> None:
    """Check that options are whole numbers.

    Args:
        least: the smallest that is allowed.
        **values: options of the data group.

    Raises:
        InputError: one is not, or is smaller.
    """
    for name, value in values.items():
        if not isinstance(value, int) or value < least:
            raise InputError(f"data.{name}", value, f"must be a whole number, {least} or more")


def ordered(
    name: str,
    value: Any,
    most: float,
) -> tuple[float, float] | None:
    """Check that an option is a pair of numbers, 0 < first <= second <= most, or None.

    Args:
        name: of the option, in the data group.
        value: its value.
        most: the largest number that is allowed.

    Returns:
        The numbers.

    Raises:
        InputError: it is neither.

    >>> ordered("zoom", [0.5, 1], 1), ordered("zoom", None, 1)
    ((0.5, 1.0), None)
    """
    if value is None:
        return None
    try:
        first, second = (float(number) for number in value)
    except (TypeError, ValueError):
        first = second = 0
    if not 0 < first <= second <= most:
        raise InputError(
            f"data.{name}",
            value,
            f"must be two numbers, 0 < smallest <= largest <= {most:g}, or null",
        )
    return first, second


def size_of(images: Tensor) -> str:
    """Describe the size of images.

    Args:
        images: (N, C, H, W).

    Returns:
        The shape of each, in words.

    >>> import torch
    >>> size_of(torch.zeros(5, 3, 32, 48))
    '3x32x48'
    """
    return "x".join(str(length) for length in images.shape[1:])
