"""Console script `n2n` and `python -m n2n_lightning`: run a command, or list all of them."""

import ast
import runpy
import sys
from pathlib import Path

COMMANDS = ("train", "check", "denoise", "evaluate", "report", "prepare", "export")


def main() -> None:
    """Run `n2n COMMAND ...` as `python -m n2n_lightning.COMMAND ...`; without a command, list them.

    The command's module runs as `__main__`, so that the processes that it starts find it again.
    """
    words = sys.argv[1:]
    if words and words[0] in COMMANDS:
        sys.argv[1:] = words[1:]
        runpy.run_module(f"n2n_lightning.{words[0]}", run_name="__main__", alter_sys=True)
        return
    if words and words[0] not in ("-h", "--help"):
        choices = ", ".join(COMMANDS)
        print(f"error: {words[0]}: no such command; there are {choices}", file=sys.stderr)
        sys.exit(2)
    for name in COMMANDS:
        source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
        docstring = ast.get_docstring(ast.parse(source)) or ""
        summary = docstring.partition("\n")[0]
        purpose, _, usage = summary.partition(": ")
        usage = usage.strip("`. ").replace("`", "")
        print(f"{purpose}:\n    {usage}")
    print("n2n train, n2n denoise, ... are the same in short; --help after a command says more")


if __name__ == "__main__":
    main()
