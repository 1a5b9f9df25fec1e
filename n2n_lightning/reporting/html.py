"""A page put together piece by piece: HTML that needs no other file, and the same as Markdown with files beside it."""

import base64
import csv
import io
from pathlib import Path
from typing import Any

from n2n_lightning.files import replacing

WIDE = ("budget", "differs from the report", "reason")  # columns of sentences


def rendered(template: str, **values: Any) -> str:
    """A template of n2n_lightning/reporting/templates, filled in; in HTML what is filled in cannot become markup."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    loader = PackageLoader("n2n_lightning.reporting")
    pages = Environment(
        loader=loader, autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True
    )
    return pages.get_template(template).render(**values)


def text(value: Any) -> str:
    """A cell of a table.

    >>> text(25.861), text(50000), text(None)
    ('25.86', '50,000', '')
    """
    if value is None:
        return ""
    return (
        f"{value:.2f}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )


class HtmlReport:
    """The page, put together piece by piece: HTML, Markdown, and the files beside them.

    Args:
        out: the folder of all of them.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.parts: list[dict[str, Any]] = []

    def heading(self, words: str, level: int = 2) -> None:
        self.parts.append({"kind": "heading", "text": words, "level": level})

    def paragraph(self, words: str, state: str = "") -> None:
        self.parts.append({"kind": "paragraph", "text": words, "state": state})

    def code(self, words: str) -> None:
        self.parts.append({"kind": "code", "text": words})

    def picture(self, name: str, content: bytes, caption: str) -> None:
        """A PNG file, of a name of its own in Markdown."""
        with replacing(self.out / name) as temporary:
            temporary.write_bytes(content)
        data = base64.b64encode(content).decode()
        self.parts.append({"kind": "picture", "name": name, "data": data, "caption": caption})

    def figure(self, name: str, figure: Any, caption: str) -> None:
        """A matplotlib figure."""
        content = io.BytesIO()
        figure.savefig(content, format="png")
        self.picture(name, content.getvalue(), caption)

    def compared(self, pictures: list[dict[str, Any]], caption: str) -> None:
        """Pictures with a slider, as `slider.content` has them; Markdown has none."""
        self.parts.append({"kind": "compared", "pictures": pictures, "caption": caption})

    def table(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Rows of equal keys, and a CSV file of them; columns without a value are left out of the page."""
        names = [n for n in rows[0] if any(row[n] not in (None, "") for row in rows)]
        cells = [
            {"cells": [text(row[n]) for n in names], "state": str(row.get("state", ""))}
            for row in rows
        ]
        self.parts.append({"kind": "table", "names": names, "rows": cells, "wide": WIDE})
        with (
            replacing(self.out / f"{name}.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def write(self, name: str = "report", title: str = "Noise2Noise report") -> None:
        for ending in ("html", "md"):
            content = rendered(f"page.{ending}", parts=self.parts, title=title)
            with replacing(self.out / f"{name}.{ending}") as temporary:
                temporary.write_text(content, encoding="utf-8")
