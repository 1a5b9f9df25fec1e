"""Console script `n2n` and `python -m n2n_lightning`: run a command, or list all of them."""

import ast
import os
import runpy
import sys
from pathlib import Path

from n2n_lightning import __version__

# The module of each command, in the package.
COMMANDS = {
    "train": "train",
    "check": "check",
    "denoise": "denoise",
    "watch": "watch.command",
    "evaluate": "evaluate",
    "report": "report",
    "prepare": "prepare",
    "export": "export",
    "serve": "serve.command",
    "models": "inference.models",
    "doctor": "install.doctor",
    "completion": "install.completion",
}


def main() -> None:
    """Run `n2n COMMAND ...` as `python -m n2n_lightning.COMMAND ...`; without a command, list them.

    The command's module runs as `__main__`, so that the processes that it starts find it again.
    """
    if "_ARGCOMPLETE" in os.environ:
        from n2n_lightning.install.completion import complete

        complete(COMMANDS)
    words = sys.argv[1:]
    if words[:1] == ["best"]:
        words = ["denoise", "--best", *words[1:]]
    if words and words[0] in COMMANDS:
        sys.argv[1:] = words[1:]
        module = f"n2n_lightning.{COMMANDS[words[0]]}"
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    if words == ["--version"]:
        print(f"n2n_lightning {__version__}")
        return
    if words and words[0] not in ("-h", "--help"):
        choices = ", ".join([*COMMANDS, "best"])
        print(f"error: {words[0]}: no such command; there are {choices}", file=sys.stderr)
        sys.exit(2)
    for module in COMMANDS.values():
        path = Path(__file__).parent / f"{module.replace('.', '/')}.py"
        source = path.read_text(encoding="utf-8")
        docstring = ast.get_docstring(ast.parse(source)) or ""
        summary = docstring.partition("\n")[0]
        purpose, _, usage = summary.partition(": ")
        usage = usage.strip("`. ").replace("`", "")
        print(f"{purpose}:\n    {usage}")
    print("Denoise pictures by the method that suits them best, the same as denoise --best:")
    print("    n2n best PICTURES... -o OUT --minutes 30")
    print("--help after a command says more; python -m n2n_lightning COMMAND is the same")


if __name__ == "__main__":
    main()
