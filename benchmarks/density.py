"""Density of a package's code: `python benchmarks/density.py n2n_lightning [torchmetrics ...]`.

Counts with the standard library alone what a reader meets: syntax nodes per line and per function,
comprehensions, branches, documented parameters, names that stand for two things. `--json` prints
the numbers with all their digits.
"""

import argparse
import ast
import io
import json
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# first words that name a thing in place of the field's term for it
QUESTIONS = ("What", "Which", "Whether", "How")
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


@dataclass
class Counts:
    """Sums over the files of a package.

    Attributes:
        root_files: Python files in the package's own folder.
        lines: lines with code: no blank lines, comments or docstrings.
        nodes: nodes of the syntax trees without expression contexts (Load, Store, Del).
        functions: functions and methods, nested ones among them.
        nodes_in_functions: nodes of functions, with expression contexts; those of a nested function
            count in both.
        comprehensions: of lists, sets and dictionaries, and generator expressions.
        conditionals: conditional expressions, `a if b else c`.
        tuple_assignments: assignments of a tuple to a tuple, `a, b = 1, 2`.
        complex_10: functions of complexity over 10, counting each branch of an expression, too (as
            radon does).
        complex_12: functions of complexity over 12, counted likewise.
        branches_10: functions of complexity over 10, counting branches of statements alone (ruff's
            C901).
        branches_12: functions of complexity over 12, counted likewise.
        several_parameters: public functions and methods with two parameters or more beside self and
            cls.
        with_args: those of them whose docstring has a section Args.
        returning: public functions and methods that return or yield a value.
        with_returns: those of them whose docstring has a section Returns or Yields.
        docstrings: docstrings of modules, classes and functions.
        questions: docstrings that begin with one of QUESTIONS.
        long_lines: lines of more than 100 characters.
        names: in how many files each top-level name is defined.
    """

    root_files: int = 0
    lines: int = 0
    nodes: int = 0
    functions: int = 0
    nodes_in_functions: int = 0
    comprehensions: int = 0
    conditionals: int = 0
    tuple_assignments: int = 0
    complex_10: int = 0
    complex_12: int = 0
    branches_10: int = 0
    branches_12: int = 0
    several_parameters: int = 0
    with_args: int = 0
    returning: int = 0
    with_returns: int = 0
    docstrings: int = 0
    questions: int = 0
    long_lines: int = 0
    names: Counter[str] = field(default_factory=Counter)


def files_of(package: str) -> list[Path]:
    """Return the Python files of a package, given its folder or its importable name.

    Raises:
        SystemExit: there is no such package.
    """
    folder = Path(package)
    if not folder.is_dir():
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            sys.exit(f"error: {package}: neither a folder nor an installed package")
        folder = Path(spec.submodule_search_locations[0])
    return sorted(
        path for path in folder.rglob("*.py") if "tests" not in path.relative_to(folder).parts[:-1]
    )


def count(files: list[Path]) -> Counts:
    """Count everything in the files of one package; its root is the folder nearest to the top."""
    counts = Counts()
    root = min((path.parent for path in files), key=lambda folder: len(folder.parts))
    for path in files:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        counts.root_files += path.parent == root
        counts.long_lines += sum(len(line) > 100 for line in text.splitlines())
        counts.lines += len(code_lines(text, tree))
        counts.names.update(set(top_level_names(tree)))
        for node in ast.walk(tree):
            _count_node(counts, node)
        for function in public_functions(tree):
            _count_documentation(counts, function)
    return counts


def code_lines(text: str, tree: ast.Module) -> set[int]:
    """Return the numbers of the lines of code, without blank lines, comments and docstrings."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if (docstring := docstring_node(node)) is not None:
            lines.difference_update(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    return lines


def docstring_node(node: ast.AST) -> ast.Expr | None:
    """Return the statement that is the docstring of a module, class or function, or None."""
    if not isinstance(node, Function | ast.ClassDef | ast.Module) or not node.body:
        return None
    first = node.body[0]
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        return first
    return None


def top_level_names(tree: ast.Module) -> Iterator[str]:
    """Yield the public names that a module defines at its top level."""
    for node in tree.body:
        names: list[str] = []
        if isinstance(node, Function | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            parts = [part for target in node.targets for part in ast.walk(target)]
            names = [
                part.id
                for part in parts
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
            ]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        yield from (name for name in names if not name.startswith("_"))


def _count_node(counts: Counts, node: ast.AST) -> None:
    if isinstance(node, ast.expr_context):
        return
    counts.nodes += 1
    counts.comprehensions += isinstance(node, COMPREHENSIONS)
    counts.conditionals += isinstance(node, ast.IfExp)
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
        counts.tuple_assignments += any(isinstance(target, ast.Tuple) for target in node.targets)
    if docstring_node(node) is not None:
        first = (ast.get_docstring(node) or "").split(maxsplit=1)  # type: ignore[arg-type]
        counts.docstrings += 1
        counts.questions += bool(first) and first[0].rstrip(",:") in QUESTIONS
    if isinstance(node, Function):
        _count_function(counts, node)


def _count_function(counts: Counts, node: Function) -> None:
    complexity, branches = 1 + _branches_of_all(node), 1 + _branches(node.body)
    counts.functions += 1
    counts.nodes_in_functions += sum(1 for _ in ast.walk(node))
    counts.complex_10 += complexity > 10
    counts.complex_12 += complexity > 12
    counts.branches_10 += branches > 10
    counts.branches_12 += branches > 12


def _count_documentation(counts: Counts, node: Function) -> None:
    docstring = ast.get_docstring(node)
    if len(parameters_of(node)) >= 2:
        counts.several_parameters += 1
        counts.with_args += has_section(docstring, "Args")
    if returns_value(node):
        counts.returning += 1
        counts.with_returns += has_section(docstring, "Returns", "Yields")


def public_functions(tree: ast.Module) -> Iterator[Function]:
    """Yield public functions and methods, without those nested in functions."""
    for node in own_parts(tree, Function):
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node


def parameters_of(node: Function) -> list[str]:
    """Return the names of a function's parameters without self and cls."""
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    return [argument.arg for argument in every if argument.arg not in ("self", "cls")]


def has_section(docstring: str | None, *titles: str) -> bool:
    """Return True if a docstring has a section of these titles (Google, NumPy or Sphinx style)."""
    for line in (docstring or "").splitlines():
        words = line.strip()
        for title in titles:
            if words in (title, f"{title}:") or words.startswith(f":{title.lower().rstrip('s')}"):
                return True
        if "Args" in titles and (
            words in ("Parameters", "Arguments:") or words.startswith(":param")
        ):
            return True
    return False


def returns_value(node: Function) -> bool:
    """Return True if the function itself, not one nested in it, returns or yields something."""
    return any(
        isinstance(part, ast.Return | ast.Yield | ast.YieldFrom) and part.value is not None
        for part in own_parts(node, (*FUNCTIONS, ast.ClassDef, ast.Lambda))
    )


def own_parts(node: ast.AST, closed: Any) -> Iterator[ast.AST]:
    """Yield the nodes below a node; nothing below those that are of a type in `closed`."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, closed):
            yield from own_parts(child, closed)


def _branches_of_all(node: Function) -> int:
    """Count branches of statements and expressions: McCabe's complexity by radon, less 1."""
    total = 0
    for part in ast.walk(node):
        if isinstance(
            part,
            ast.If
            | ast.IfExp
            | ast.For
            | ast.AsyncFor
            | ast.While
            | ast.ExceptHandler
            | ast.Assert,
        ):
            total += 1
        elif isinstance(part, ast.BoolOp):
            total += len(part.values) - 1
        elif isinstance(part, ast.comprehension):
            total += 1 + len(part.ifs)
    return total


def _branches(body: list[ast.stmt]) -> int:
    """Count branches of statements alone: McCabe's complexity by ruff's C901, less 1."""
    total = 0
    for node in body:
        if isinstance(node, ast.If | ast.For | ast.AsyncFor | ast.While):
            total += 1 + _branches(node.body) + _branches(node.orelse)
        elif isinstance(node, ast.Try | ast.TryStar):
            handlers = sum(1 + _branches(handler.body) for handler in node.handlers)
            total += handlers + _branches(node.body) + bool(node.orelse)
            total += _branches(node.orelse) + _branches(node.finalbody)
        elif isinstance(node, ast.Match):
            total += sum(1 + _branches(case.body) for case in node.cases)
            last = node.cases[-1]
            total -= (
                isinstance(last.pattern, ast.MatchAs)
                and last.pattern.pattern is None
                and last.guard is None
            )
        elif isinstance(node, ast.With | ast.AsyncWith):
            total += _branches(node.body)
        elif isinstance(node, Function):
            total += 1 + _branches(node.body)
        elif isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, Function)]
            total += sum(1 + _branches(method.body) for method in methods)
    return total


def figures(counts: Counts) -> dict[str, float]:
    """Return the figures of the table, shares as fractions of 1."""

    def share(part: int, whole: int, unit: int = 1) -> float:
        return unit * part / whole if whole else 0.0

    repeated = sum(number > 1 for number in counts.names.values())
    return {
        "code lines": counts.lines,
        "functions": counts.functions,
        "nodes per line": share(counts.nodes, counts.lines),
        "nodes per function": share(counts.nodes_in_functions, counts.functions),
        "comprehensions per 1,000 lines": share(counts.comprehensions, counts.lines, 1000),
        "conditional expressions per 1,000 lines": share(counts.conditionals, counts.lines, 1000),
        "tuple assignments per 1,000 lines": share(counts.tuple_assignments, counts.lines, 1000),
        "complexity over 10": share(counts.complex_10, counts.functions),
        "complexity over 12": share(counts.complex_12, counts.functions),
        "of statements alone (C901) over 10": share(counts.branches_10, counts.functions),
        "of statements alone (C901) over 12": share(counts.branches_12, counts.functions),
        "2 parameters or more, with Args": share(counts.with_args, counts.several_parameters),
        "returning a value, with Returns": share(counts.with_returns, counts.returning),
        "What, Which, Whether, How": share(counts.questions, counts.docstrings),
        "names in two files or more": share(repeated, len(counts.names)),
        "files in the root": counts.root_files,
        "lines over 100": counts.long_lines,
    }


def main() -> None:
    """Print a table with a column for each package, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "packages", nargs="*", default=["n2n_lightning"], help="folders or importable names"
    )
    parser.add_argument("--json", action="store_true", help="print every count and figure as JSON")
    parser.add_argument(
        "--names", action="store_true", help="list the names that stand in two files or more"
    )
    arguments = parser.parse_args()
    counted = {package: count(files_of(package)) for package in arguments.packages}
    if arguments.names:
        for counts in counted.values():
            print(
                *(f"{number} {name}" for name, number in counts.names.most_common() if number > 1),
                sep="\n",
            )
        return
    if arguments.json:
        rows = {
            package: {**figures(counts), "counts": vars(counts)}
            for package, counts in counted.items()
        }
        print(json.dumps(rows, indent=1))
        return
    columns = {package: figures(counts) for package, counts in counted.items()}
    print(f"{'':40}", *(f"{Path(package).name:>14}" for package in columns))
    for name in next(iter(columns.values())):
        values = [column[name] for column in columns.values()]
        print(f"{name:40}", *(f"{shown(name, value):>14}" for value in values))


def shown(name: str, value: float) -> str:
    """Format a figure: whole numbers, one digit of averages, shares in percent."""
    if isinstance(value, int):
        return f"{value}"
    if "per" in name.split():
        return f"{value:.1f}"
    return f"{100 * value:.1f}%"


if __name__ == "__main__":
    main()
