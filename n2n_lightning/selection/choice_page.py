"""The page of a choice: what was tried, what each scored, and why."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n2n_lightning.reporting.html import HtmlReport
from n2n_lightning.selection.choice import Choice

WIDE = ("candidate", "reason", "left out")


def write_choice_page(choices: Sequence[Choice], folder: Path) -> None:
    """Write choice.html.

    Args:
        choices: one for each kind of data.
        folder: of the results.
    """
    page = HtmlReport(folder)
    for number, choice in enumerate(choices):
        page.heading(choice.kind, 1)
        for line in choice.lines:
            page.paragraph(line)
        if choice.table:
            name = "choice" if not number else f"choice_{number + 1}"
            rows = [_shown_row(row) for row in choice.table]
            page.table(name, rows, WIDE, stacked=True)
    page.write("choice", "What was chosen")


def _shown_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the table as the page shows it."""
    low, high = row["interval"]
    shown = {
        "candidate": row["candidate"],
        "PSNR estimate (dB)": row["psnr_estimate"],
        "error less the checkpoint's": f"{row['less_than_checkpoint']:.3g}",
        "95% interval": f"{low:.3g} to {high:.3g}",
        "seconds": row["seconds"],
        "chosen": "yes" if row["chosen"] else "",
        "reason": row["reason"],
        "left out": row["refused"],
    }
    if "flash_kept" in row:
        shown["flash kept"] = f"{row['flash_kept']:.0%}"
    return shown
