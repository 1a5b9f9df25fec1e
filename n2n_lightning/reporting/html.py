"""HTML pages that need no other file, with the same as Markdown, PNG and CSV."""

import base64
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n2n_lightning.files import replacing

WIDE = ("budget", "differs from the report", "reason")  # columns of sentences


def rendered(template: str, **values: Any) -> str:
    """Fill in a template of n2n_lightning/reporting/templates.

    Args:
        template: name of the file.
        **values: its variables; in HTML they are escaped.

    Returns:
        The page.
    """
    from jinja2 import Environment, PackageLoader, select_autoescape

    pages = Environment(
        loader=PackageLoader("n2n_lightning.reporting"),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template(template).render(**values)


def text(value: Any) -> str:
    """Format a cell of a table.

    Returns:
        Two decimals of a float, thousands of a whole number separated by commas.

    >>> text(25.861), text(50000), text(None)
    ('25.86', '50,000', '')
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


class HtmlReport:
    """Page that is put together part by part, and the files that its Markdown refers to.

    Args:
        out: folder of all files.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.parts: list[dict[str, Any]] = []

    def _append(self, kind: str, **values: Any) -> None:
        """Append a part: its kind and what the templates need for it."""
        self.parts.append({"kind": kind, **values})

    def heading(self, words: str, level: int = 2) -> None:
        """Append a heading.

        Args:
            words: the heading.
            level: 1 for the title of the page.
        """
        self._append("heading", text=words, level=level)

    def paragraph(self, words: str, state: str = "") -> None:
        """Append a paragraph.

        Args:
            words: the text.
            state: its class in the style sheet: failed, killed, running, note.
        """
        self._append("paragraph", text=words, state=state)

    def code(self, words: str) -> None:
        """Append a command line."""
        self._append("code", text=words)

    def picture(self, name: str, content: bytes, caption: str) -> None:
        """Append an image and write it to a file.

        Args:
            name: of the file.
            content: a PNG file.
            caption: below the image.
        """
        with replacing(self.out / name) as temporary:
            temporary.write_bytes(content)
        data = base64.b64encode(content).decode()
        self._append("picture", name=name, data=data, caption=caption)

    def figure(self, name: str, figure: Any, caption: str) -> None:
        """Append a matplotlib figure and write it to a PNG file.

        Args:
            name: of the file.
            figure: the figure.
            caption: below the figure.
        """
        content = io.BytesIO()
        figure.savefig(content, format="png")
        self.picture(name, content.getvalue(), caption)

    def compared(self, pictures: list[dict[str, Any]], caption: str) -> None:
        """Append images with a slider; Markdown gets the caption only.

        Args:
            pictures: from `slider.content`.
            caption: below the images.
        """
        self._append("compared", pictures=pictures, caption=caption)

    def table(
        self,
        name: str,
        rows: list[dict[str, Any]],
        wide: Sequence[str] = WIDE,
        shown_state: bool = True,
        stacked: bool = False,
    ) -> None:
        """Append a table and write it to a CSV file.

        Args:
            name: of the file, without its ending.
            rows: with the same keys. The page leaves out columns without a value; the value of
                "state" is the row's class in the style sheet.
            wide: columns of sentences.
            shown_state: the page has a column "state".
            stacked: on narrow screens the cells of a row are below one another, with their names;
                on others they wrap. Other tables scroll sideways.
        """
        self._append_table(rows, wide, shown_state, stacked)
        with (
            replacing(self.out / f"{name}.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def _append_table(
        self,
        rows: list[dict[str, Any]],
        wide: Sequence[str],
        shown_state: bool,
        stacked: bool = False,
    ) -> None:
        """Append a table, see `table`."""
        columns = []
        for column in rows[0]:
            values = [row[column] for row in rows]
            empty = all(value in (None, "") for value in values)
            if not empty and (shown_state or column != "state"):
                columns.append(column)
        shown = []
        for row in rows:
            cells = [text(row[column]) for column in columns]
            state = str(row.get("state", ""))
            shown.append({"cells": cells, "state": state})
        self._append("table", names=columns, rows=shown, wide=wide, stacked=stacked)

    def write(self, name: str = "report", title: str = "Noise2Noise report") -> None:
        """Write the page as HTML and Markdown.

        Args:
            name: of both files, without their endings.
            title: of the page.
        """
        for ending in ("html", "md"):
            content = rendered(f"page.{ending}", parts=self.parts, title=title)
            path = self.out / f"{name}.{ending}"
            with replacing(path) as temporary:
                temporary.write_text(content, encoding="utf-8")
