"""The choice for each kind of data: choice.json, choice.ckpt, and what they restore."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError, json_text, replacing
from n2n_lightning.inference.denoiser import TrainedDenoiser, load
from n2n_lightning.selection.blend import FilterChoice, combined, filter_denoiser
from n2n_lightning.selection.candidates import BUNDLED_PARTS, Part
from n2n_lightning.training import adaptation

CHOICE_FILE = "choice.json"
CHOICE_FORMAT = 1  # of that file


def bundled_part(name: str) -> Part:
    """Return a bundled checkpoint as a part of a choice.

    Args:
        name: `bundled`, the one for pictures, or `movie`.
    """
    return Part(load(BUNDLED_PARTS[name], device="cpu"), name)


@dataclass
class Choice:
    """What was chosen for the data of one kind.

    Attributes:
        kind: see data_set.array_kind.
        name: of the candidate.
        why: the reason, in words.
        parts: its denoisers.
        weights: of each; the input has the rest to 1.
        lines: what was tried, what each scored, and why, for the terminal.
        table: a row for each candidate.
        channels: that are denoised together.
    """

    kind: str
    name: str
    why: str
    parts: list[Part]
    weights: list[float]
    channels: int
    lines: list[str] = field(default_factory=list)
    table: list[dict[str, Any]] = field(default_factory=list)

    def denoiser(self) -> TrainedDenoiser:
        """Return the denoiser."""
        return combined([part.denoiser for part in self.parts], self.weights)


def without_comparison(kind: str, name: str, channels: int, why: str) -> Choice:
    """Return the choice of a bundled checkpoint for data that are not compared.

    Args:
        kind: see data_set.array_kind.
        name: `bundled` or `movie`.
        channels: that are denoised together.
        why: the reason.
    """
    part = bundled_part(name)
    shown = "bundled checkpoint" if name == "bundled" else "bundled checkpoint for movies"
    lines = [f"{kind}: chosen: {shown}; {why}"]
    return Choice(kind, shown, why, [part], [1.0], channels, lines)


def save_choices(choices: Sequence[Choice], folder: Path) -> Path:
    """Write choice.json, and choice.ckpt, choice_2.ckpt, ... of the networks in it.

    Args:
        choices: one for each kind of data.
        folder: of the results.

    Returns:
        The path of choice.json.
    """
    path = folder / CHOICE_FILE
    path.unlink(missing_ok=True)  # an older one would name the networks that are written now
    stored = []
    networks = 0
    for choice in choices:
        parts: list[dict[str, Any]] = []
        for part in choice.parts:
            if isinstance(part.source, Path):
                networks += 1
                name = "choice.ckpt" if networks == 1 else f"choice_{networks}.ckpt"
                adaptation.save(part.denoiser, part.denoiser.info, folder / name)
                parts.append({"checkpoint": name})
            elif isinstance(part.source, FilterChoice):
                parts.append({"filter": asdict(part.source)})
            else:
                parts.append({"checkpoint": part.source})
        entry = {
            "kind": choice.kind,
            "name": choice.name,
            "why": choice.why,
            "channels": choice.channels,
            "parts": parts,
            "weights": choice.weights,
            "lines": choice.lines,
            "table": choice.table,
        }
        stored.append(entry)
    with replacing(path) as temporary:
        temporary.write_text(
            json_text({"format": CHOICE_FORMAT, "choices": stored}), encoding="utf-8"
        )
    return path


def load_choices(folder: Path) -> list[Choice]:
    """Restore the choices of a folder of results.

    Args:
        folder: with choice.json.

    Returns:
        One choice for each kind of data.

    Raises:
        InputError: it is missing, damaged, or of a newer version.
    """
    path = folder / CHOICE_FILE
    if not path.is_file():
        raise InputError("choice", folder, f"has no {CHOICE_FILE}, which denoise --best writes")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        version = stored["format"]
        if version > CHOICE_FORMAT:
            raise InputError(f"{path}: written by a newer n2n_lightning (format {version})")
        return [_restored(entry, path.parent) for entry in stored["choices"]]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is damaged; denoise --best writes it anew") from error


def _restored(entry: dict[str, Any], folder: Path) -> Choice:
    """Return a choice with its denoisers."""
    channels = entry["channels"]
    parts = []
    for stored in entry["parts"]:
        if "filter" in stored:
            choice = FilterChoice(**stored["filter"])
            parts.append(Part(filter_denoiser(choice, channels), choice))
        elif stored["checkpoint"] in BUNDLED_PARTS:
            parts.append(bundled_part(stored["checkpoint"]))
        else:
            path = folder / stored["checkpoint"]
            parts.append(Part(load(path, device="cpu"), path))
    return Choice(
        entry["kind"],
        entry["name"],
        entry["why"],
        parts,
        entry["weights"],
        channels,
        entry["lines"],
        entry["table"],
    )


def choice_for(kind: str, choices: Sequence[Choice]) -> Choice:
    """Return the choice for data of a kind.

    Args:
        kind: see data_set.array_kind.
        choices: one for each kind.

    Raises:
        InputError: there is none for this kind.
    """
    for choice in choices:
        if choice.kind == kind:
            return choice
    kinds = ", ".join(choice.kind for choice in choices)
    raise InputError(
        f"{kind}: the choice is for {kinds}; --best chooses for these, too, with"
        " --overwrite where there is a choice"
    )
