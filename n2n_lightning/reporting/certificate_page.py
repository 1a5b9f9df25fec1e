"""The page of certificates: what holds, and where structure was removed or added."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from n2n_lightning.files import replacing
from n2n_lightning.inference.certificates import FileCertificate, PageCertificate
from n2n_lightning.metrics.certificate import FAILS, UNKNOWN, UNMEASURABLE
from n2n_lightning.reporting.html import HtmlReport, rendered

STATES = {FAILS: "failed", UNKNOWN: "running", UNMEASURABLE: "note"}  # classes of rows
COLORS = {"removed": "tab:red", "added": "tab:cyan"}
MOST_FILES = 24  # on the page
MOST_BOXES = 200  # drawn on an image
EXPLANATION = (
    "Each quantity of the results is compared with the noisy captures, whose noise is zero on"
    " average: relative difference, and its 95% interval. It holds if the interval is within the"
    " tolerance. Brightness is binned by the result of one capture and compared with the other:"
    " that the result is right on average where it has a value does not say that every true"
    " brightness is kept (shrinkage). Errors that all captures share are not seen."
)


class _Page(HtmlReport):
    """A page whose tables and images stand in it alone."""

    def table(self, name: str, rows: list[dict[str, Any]]) -> None:
        columns = [column for column in rows[0] if column != "state"]
        shown = []
        for row in rows:
            shown.append({"cells": [row[column] for column in columns], "state": row["state"]})
        self._append("table", names=columns, rows=shown, wide=("remark",))

    def figure(self, name: str, figure: Any, caption: str) -> None:
        import base64
        import io

        content = io.BytesIO()
        figure.savefig(content, format="png")
        data = base64.b64encode(content.getvalue()).decode()
        self._append("picture", name=name, data=data, caption=caption)


def write_certificates(path: Path, files: Sequence[FileCertificate]) -> None:
    """Write the page of the certificates of files.

    Args:
        path: of the page.
        files: the certificates; of more than MOST_FILES the first are on the page.
    """
    page = _Page(path.parent)
    page.heading("Certificate of values", 1)
    page.paragraph(EXPLANATION, "note")
    for file in files[:MOST_FILES]:
        page.heading(file.source)
        for one in file.pages:
            _add(page, one)
        if file.left_out:
            page.paragraph(f"{file.left_out} more pages have no certificate.", "note")
    left_out = len(files) - MOST_FILES
    if left_out > 0:
        page.paragraph(f"{left_out} more files are in their JSON files alone.", "note")
    content = rendered("page.html", parts=page.parts, title="Certificate of values")
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def _add(page: _Page, one: PageCertificate) -> None:
    """Add the certificate of one page of a file."""
    if one.name:
        page.heading(one.name, 3)
    for said in one.lines():
        page.paragraph(said[:1].upper() + said[1:] + ".")
    rows = []
    for line in one.certificate.lines:
        low, high = line.interval
        measured = np.isfinite(line.value)
        bounded = np.isfinite(low) and np.isfinite(high)
        rows.append(
            {
                "quantity": line.name,
                "difference": f"{line.value:+.1%}" if measured else "",
                "95% interval": f"{low:+.1%} to {high:+.1%}" if bounded else "",
                "verdict": line.verdict,
                "remark": line.remark,
                "state": STATES.get(line.verdict, ""),
            }
        )
    if rows:
        page.table("certificate", rows)
    if one.structure is not None:
        caption = "The result. Red: structure was removed; cyan: structure was added."
        page.figure("structure", _drawn(one), caption)


def _drawn(one: PageCertificate) -> Any:
    """Draw a result with the boxes of its places."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    known_channels = np.isfinite(one.result)
    sums = np.where(known_channels, one.result, 0).sum(0)
    count = known_channels.sum(0)
    image = np.where(count > 0, sums / np.maximum(count, 1), np.nan)
    known = image[np.isfinite(image)]
    low, high = np.percentile(known, (0.5, 99.5)) if known.size else (0.0, 1.0)
    height, width = image.shape
    size = 6.0
    figure = Figure(figsize=(size, size * min(height / width, 2)), dpi=120)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-9))
    axes.set_axis_off()
    assert one.structure is not None
    for place in one.structure.places[:MOST_BOXES]:
        top, left, bottom, right = place.box
        corner = (left - 0.5, top - 0.5)
        box = Rectangle(
            corner, right - left, bottom - top, fill=False, edgecolor=COLORS[place.kind]
        )
        axes.add_patch(box)
    return figure
