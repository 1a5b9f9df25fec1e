"""Checks of the options of the data group."""

from typing import Any

from n2n_lightning.files import InputError


def whole_numbers(least: int, **values: Any) -> None:
    """Raises InputError unless each of the options `values` of the data group is an integer of at least `least`."""
    for name, value in values.items():
        if not isinstance(value, int) or value < least:
            raise InputError(f"data.{name}={value}: must be a whole number, {least} or more")


def ordered(name: str, value: Any, most: float) -> tuple[float, float] | None:
    """The option `name` of the data group as a pair of numbers, 0 < first <= second <= `most`, or None.

    Raises:
        InputError: `value` is neither.
    """
    if value is None:
        return None
    try:
        first, second = (float(number) for number in value)
    except (TypeError, ValueError):
        first = second = 0
    if not 0 < first <= second <= most:
        raise InputError(f"data.{name}={value}: must be two numbers, 0 < smallest <= largest <= {most:g}, or null")
    return first, second
