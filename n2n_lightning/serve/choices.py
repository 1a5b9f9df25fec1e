"""What is chosen on the page, as the words of a command `n2n denoise`."""

import shlex
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError, Parser, spelled
from n2n_lightning.inference.arguments import add_denoise_options, checked_arguments

# Fields of the page with a value, and those that are on or off.
VALUES = ("strength", "outliers", "axes", "dtype", "device")
SWITCHES = ("fast", "tta", "uneven")
OF_FILES = ("errors", "outlier_map", "page")  # write more files, and change no pixel
UNCHANGED = {"strength": 1.0, "outliers": "auto", "dtype": "auto", "axes": "", "device": "auto"}


class _OptionParser(Parser):
    """A parser whose errors are InputErrors."""

    def error(self, message: str) -> Any:
        raise InputError(message)


@dataclass(frozen=True)
class Choices:
    """Options of `denoise`, as its command takes them.

    Attributes:
        words: the options alone, without pictures and folder.
    """

    words: tuple[str, ...]

    @classmethod
    def of(
        cls, chosen: Mapping[str, Any], checkpoint: Path | str | None, device: str = "auto"
    ) -> "Choices":
        """Return the choices of the page.

        Args:
            chosen: values by the names of options; others are not looked at.
            checkpoint: the one that is chosen; None: the built-in one that suits the files.
            device: that the server was started with.

        Returns:
            The words of all that differ from the defaults.
        """
        words: list[str] = []
        if checkpoint is not None:
            words += ["--checkpoint", str(checkpoint)]
        values = {**chosen, "device": device}
        for name in VALUES:
            value = values.get(name)
            if value in (None, "") or value == UNCHANGED.get(name):
                continue
            words.append(f"--{name}={value}")
        for name in (*SWITCHES, *OF_FILES):
            if chosen.get(name) is True:
                words.append(f"--{name.replace('_', '-')}")
        return cls(tuple(words))

    def command(self, pictures: Sequence[str], out: Path | str) -> list[str]:
        """Return the words behind `n2n denoise`.

        Args:
            pictures: files and folders.
            out: the folder of the results.
        """
        named = []
        for name in pictures:
            named.append(f"./{name}" if name.startswith("-") else name)
        return [*named, "-o", str(out), *self.words]

    def line(self, pictures: Sequence[str], out: Path | str) -> str:
        """Return the command as it is typed in a shell."""
        return shlex.join(["n2n", "denoise", *self.command(pictures, out)])

    def arguments(self, pictures: Sequence[str], out: Path | str) -> Any:
        """Return the arguments that the command itself would parse and check.

        Args:
            pictures: files and folders.
            out: the folder of the results.

        Raises:
            InputError: an option cannot be so; it is spelled as the command takes it.
        """
        parser = _OptionParser(prog="n2n denoise", exit_on_error=False)
        add_denoise_options(parser)
        with spelled(parser.spell):
            try:
                arguments = parser.parse_args(self.command(pictures, out))
            except ArgumentError as error:
                raise InputError(str(error)) from None
            checked_arguments(arguments)
        return arguments
