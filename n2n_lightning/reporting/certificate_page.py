"""The page of certificates: what holds, and where structure was removed or added."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from n2n_lightning.files import InputError, replacing
from n2n_lightning.inference.certificates import FileCertificate, PageCertificate
from n2n_lightning.metrics.certificate import FAILS, UNKNOWN, UNMEASURABLE
from n2n_lightning.reporting import slider
from n2n_lightning.reporting.html import HtmlReport, rendered
from n2n_lightning.reporting.sample_images import Samples, compared, most_of

STATES = {FAILS: "failed", UNKNOWN: "running", UNMEASURABLE: "note"}  # classes of rows
COLORS = {"removed": "tab:red", "added": "tab:cyan"}
CERTIFICATE = "certificate.json"  # in a run folder
MAPS = "certificate.npz"  # in a run folder, see sample_images.Samples
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

    def table(
        self,
        name: str,
        rows: list[dict[str, Any]],
        wide: Sequence[str] = ("remark",),
        shown_state: bool = False,
        stacked: bool = False,
    ) -> None:
        self._append_table(rows, wide, shown_state, stacked)

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
        page.paragraph(f"{_sentence(said)}.")
    rows = table_rows([line.as_dict() for line in one.certificate.lines])
    if rows:
        page.table("certificate", rows)
    if one.structure is not None:
        caption = "The result. Red: structure was removed; cyan: structure was added."
        page.figure("structure", _drawn(one), caption)


def table_rows(quantities: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the table of a certificate.

    Args:
        quantities: as `CertificateLine.as_dict` gives them, and JSON files hold them.

    Returns:
        A row of texts for each; "state" is its class in the style sheet.
    """
    rows = []
    for quantity in quantities:
        value = quantity["difference"]
        low, high = quantity["interval"]
        bounded = low is not None and high is not None
        rows.append(
            {
                "quantity": quantity["quantity"],
                "difference": "" if value is None else f"{value:+.1%}",
                "95% interval": f"{low:+.1%} to {high:+.1%}" if bounded else "",
                "verdict": quantity["verdict"],
                "remark": quantity["remark"],
                "state": STATES.get(quantity["verdict"], ""),
            }
        )
    return rows


def add_run_certificate(page: HtmlReport, folder: Path, number: int, room: float) -> list[str]:
    """Append the certificate of the validation scenes of a run to a page.

    Args:
        page: the page.
        folder: of the run, see `validation_certificate`.
        number: of the run, for the names of files.
        room: bytes that its images may take.

    Returns:
        A line for each part that cannot be read.
    """
    path = folder / CERTIFICATE
    if not path.is_file():
        return []
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        scenes = written["validation"]["pages"]
        tables = [table_rows(scene["quantities"]) for scene in scenes]
    except (ValueError, KeyError, TypeError):
        return [f"{path}: damaged; its values are left out"]
    page.heading("Which values the validation scenes keep", 3)
    if (folder / MAPS).is_file():
        try:
            pictures = compared(Samples.load(folder / MAPS))
        except InputError as error:
            return [str(error)]
        pictures = most_of(pictures, room)
        page.compared(slider.content(pictures, room), "The error of each pixel, with a slider")
    page.paragraph(EXPLANATION, "note")
    for place, (scene, rows) in enumerate(zip(scenes, tables, strict=True)):
        page.heading(scene["page"], 4)
        page.paragraph(f"{_sentence(scene['line'])}.")
        structure = scene["structure"]
        reason = scene.get("structure_reason", "")
        said = structure["line"] if structure else reason
        if said:
            page.paragraph(f"{_sentence(said)}.")
        if rows:
            page.table(f"certificate_{number}_{place}", rows, wide=("remark",), shown_state=False)
    return []


def _sentence(line: str) -> str:
    """Begin a line with a capital letter."""
    return line[:1].upper() + line[1:]


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
