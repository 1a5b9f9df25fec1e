"""A page put together piece by piece: HTML that needs no other file, and the same as Markdown with files beside it."""

import base64
import csv
import html
import io
from pathlib import Path
from typing import Any

from n2n_lightning.files import replacing

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; margin: 0 auto; max-width: 60rem; padding: 1rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; } h3 { margin-bottom: .3rem; }
img { max-width: 100%; height: auto; } figure { margin: 1rem 0; } figcaption, .note { color: #555; font-size: .9rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child, .left { text-align: left; } td.wrap { white-space: normal; min-width: 14rem; }
pre { background: #f4f4f4; padding: .6rem; overflow-x: auto; font-size: .85rem; white-space: pre-wrap;
  word-break: break-word; }
.failed { color: #b00020; } .running { color: #8a5a00; }
@media print { body { max-width: none; font-size: 11pt; }
  h2, h3 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def html_table(rows: list[dict[str, Any]]) -> str:
    """Rows of equal keys as a table; columns without a value are left out."""
    names = [n for n in rows[0] if any(row[n] not in (None, "") for row in rows)]
    wide = ("budget", "differs from the report", "reason")
    head = "".join(f"<th{' class=left' if n in wide else ''}>{html.escape(n)}</th>" for n in names)
    body = ""
    for row in rows:
        states = {"failed": " class=failed", "killed": " class=failed", "running": " class=running"}
        kind = states.get(str(row.get("state")), "")
        styles = {n: ' class="wrap left"' if n in wide else "" for n in names}
        cells = "".join(f"<td{styles[n]}>{html.escape(_text(row[n]))}</td>" for n in names)
        body += f"<tr{kind}>{cells}</tr>\n"
    return f"<div class=scroll><table><tr>{head}</tr>\n{body}</table></div>"


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """The same in Markdown.

    >>> print(markdown_table([{"run": "a", "PSNR": 25.861}, {"run": "b", "PSNR": None}]))
    | run | PSNR |
    | --- | --- |
    | a | 25.86 |
    | b |  |
    """
    names = [n for n in rows[0] if any(row[n] not in (None, "") for row in rows)]
    lines = [names, ["---"] * len(names), *([_text(row[n]).replace("|", "\\|") for n in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


class Page:
    """The page, put together piece by piece: HTML, Markdown, and the files beside them."""

    def __init__(self, out: Path) -> None:
        self.out, self.html, self.markdown = out, "", ""

    def heading(self, text: str, level: int = 2) -> None:
        self.html += f"<h{level}>{html.escape(text)}</h{level}>\n"
        self.markdown += f"\n{'#' * level} {text}\n\n"

    def paragraph(self, text: str, kind: str = "") -> None:
        self.html += f"<p{f' class={kind}' if kind else ''}>{html.escape(text)}</p>\n"
        self.markdown += f"{text}\n\n"

    def code(self, text: str) -> None:
        self.html += f"<pre>{html.escape(text)}</pre>\n"
        self.markdown += f"```\n{text}\n```\n\n"

    def picture(self, name: str, content: bytes, caption: str) -> None:
        with replacing(self.out / name) as temporary:
            temporary.write_bytes(content)
        data = base64.b64encode(content).decode()
        caption = html.escape(caption)
        self.html += (
            f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption>'
        )
        self.html += "</figure>\n"
        self.markdown += f"![{caption}]({name})\n\n"

    def figure(self, name: str, figure: Any, caption: str) -> None:
        content = io.BytesIO()
        figure.savefig(content, format="png")
        self.picture(name, content.getvalue(), caption)

    def table(self, name: str, rows: list[dict[str, Any]]) -> None:
        self.html += html_table(rows)
        self.markdown += markdown_table(rows) + "\n\n"
        with (
            replacing(self.out / f"{name}.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def write(self, name: str = "report", title: str = "Noise2Noise report") -> None:
        page = f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{html.escape(title)}</title>"
        page += '<meta name=viewport content="width=device-width, initial-scale=1"><link rel=icon href="data:,">'
        page += f"<style>{STYLE}</style></head><body>\n{self.html}</body></html>\n"
        for ending, content in (("html", page), ("md", self.markdown)):
            with replacing(self.out / f"{name}.{ending}") as temporary:
                temporary.write_text(content, encoding="utf-8")
