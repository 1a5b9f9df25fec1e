"""Additions of mkdocs.yml to the pages of docs/: notebook, log of measurements, doctests."""

import json
import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = "tutorials/tour.ipynb"
MEASUREMENTS = "benchmarks/measurements.md"


def notebook_page(path: Path) -> str:
    """Return a notebook as Markdown: text, code, and what the code printed and drew."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        printed = ""
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                pixels = "".join(data["image/png"]).replace("\n", "")
                parts.append(f"![output](data:image/png;base64,{pixels})")
            else:
                printed += "".join(output.get("text", data.get("text/plain", "")))
        if printed:
            lines = [line for line in printed.splitlines() if line.strip()]
            parts.append("```text\n" + "\n".join(lines) + "\n```")
    return "\n\n".join(parts)


def on_files(files, config):
    """Add both pages."""
    tour = notebook_page(Path(config.docs_dir) / NOTEBOOK)
    files.append(File.generated(config, "tutorials/tour.md", content=tour))
    log = (ROOT / MEASUREMENTS).read_text(encoding="utf-8")
    files.append(File.generated(config, "measurements.md", content=log))
    return files


def on_page_markdown(markdown, page, config, files):
    """Lead links to these two pages to their place in the site; others leave docs/."""
    up = "../" * page.file.src_uri.count("/")
    markdown = re.sub(
        rf"\]\((?:\.\./)*{re.escape(MEASUREMENTS)}", f"]({up}measurements.md", markdown
    )
    markdown = markdown.replace("tour.ipynb)", "tour.md)")
    if page.file.src_uri == "measurements.md":
        markdown = markdown.replace("](../docs/", "](")
    return re.sub(r"\[([^]]+)\]\((?:\.\./)+(?:README|CONTRIBUTING)\.md\)", r"\1", markdown)


class Doctests(griffe.Extension):
    """Shows the examples of docstrings as code."""

    def on_object(self, *, obj, **_):
        """Put fences around the lines from >>> to the next empty line."""
        if obj.docstring and ">>>" in obj.docstring.value:
            examples = re.compile(r"^>>> .*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
            obj.docstring.value = examples.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
