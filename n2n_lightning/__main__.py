"""The list of commands: `python -m n2n_lightning`."""

import ast
from pathlib import Path

COMMANDS = ("train", "check", "denoise", "evaluate", "report", "prepare", "export")


def main() -> None:
    for name in COMMANDS:
        source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
        first = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
        what, _, how = first.partition(": ")
        print(f"{what}:\n    {how.strip('`. ').replace('`', '')}")
    print("--help after a command says more")


if __name__ == "__main__":
    main()
