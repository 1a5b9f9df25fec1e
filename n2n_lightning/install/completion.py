"""Print what makes a shell complete commands and options: `n2n completion bash`.

Bash and zsh: `eval "$(n2n completion bash)"` in ~/.bashrc or ~/.zshrc; fish:
`n2n completion fish | source` in ~/.config/fish/config.fish.
"""

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import argcomplete

from n2n_lightning.files import Parser, command

SHELLS = ("bash", "zsh", "fish")


def parser() -> Parser:
    """Return the parser of the command line."""
    p = Parser(prog="n2n completion", description=__doc__)
    p.add_argument("shell", choices=SHELLS, help="the shell that reads it")
    return p


def main() -> None:
    """Print the script of a shell."""
    args = parser().parse_args()
    print(argcomplete.shellcode(["n2n"], shell=args.shell))


def complete(modules: Mapping[str, str]) -> None:
    """Answer the shell that asks for the words that may follow, and exit.

    Args:
        modules: the module of each command.
    """
    line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    words = line.split()
    whole = len(words)
    if not line.endswith(" "):
        whole -= 1  # the last word is being typed
    if whole < 2:
        argcomplete.autocomplete(_parser_of_commands([*modules]))
    if words[1] not in modules:
        sys.exit(1)
    os.environ["_ARGCOMPLETE"] = "2"  # argcomplete then begins with the second word
    argcomplete.autocomplete(_parser_of(words[1], modules[words[1]]))


def _parser_of_commands(names: list[str]) -> Parser:
    """Return a parser that takes the name of a command."""
    p = Parser(prog="n2n", add_help=False)
    p.add_argument("command", choices=names)
    return p


def _parser_of(name: str, module: str) -> Parser:
    """Return the parser of a command; `train`, which Hydra parses, gets one of its groups."""
    if name == "train":
        p = Parser(prog=name, add_help=False)
        overrides = p.add_argument("overrides", nargs="*")
        overrides.completer = _choices_of_groups  # type: ignore[attr-defined]
        return p
    made: Parser = importlib.import_module(f"n2n_lightning.{module}").parser()
    return made


def _choices_of_groups(prefix: str, **_: object) -> list[str]:
    """Return `GROUP=` for the folders of conf/, behind one `GROUP=CHOICE` for its files."""
    from n2n_lightning.config.overrides import CONF

    group, equals, _choice = prefix.partition("=")
    if equals:
        files = sorted(Path(CONF, group).glob("*.yaml"))
        return [f"{group}={path.stem}" for path in files]
    folders = sorted(path.name for path in Path(CONF).iterdir() if path.is_dir())
    return [f"{folder}=" for folder in folders if folder != "hydra"]


if __name__ == "__main__":
    command(main, parser)
