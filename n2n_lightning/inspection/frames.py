"""The frames of a movie that show its scene, and a line for those that do not."""

from dataclasses import replace

import torch

from n2n_lightning.arrays.frame_checks import FrameReview, review
from n2n_lightning.data.scenes import EqualSizeScenes
from n2n_lightning.inspection.reports import InspectionReport


def frames_that_count(report: InspectionReport, scenes: EqualSizeScenes) -> EqualSizeScenes:
    """Leave out dead frames and copies, so that nothing else is measured on them, and report them.

    Args:
        report: gets a line for frames that are left out, and one for channels that take turns.
        scenes: one movie, its frames the captures.

    Returns:
        The movie without these frames; as it is where fewer than 3 frames would be left.
    """
    count = int(scenes.captures(torch.tensor([0]))[0])
    found = review([scenes.image(0, t).numpy() for t in range(count)])
    live = found.live
    pages = report.numbers.get("pages") or list(range(count))  # their numbers in the file
    dead = {pages[t]: reason for t, reason in found.dead.items()}
    copies = {pages[t]: pages[first] for t, first in found.copies.items()}
    _reported(report, replace(found, dead=dead, copies=copies), scenes.names[0])
    if len(live) < 3 or len(live) == count:
        return scenes
    frames = torch.stack([scenes.image(0, t) for t in live])
    return EqualSizeScenes([frames], scenes.names, torch.tensor([len(live)]), scenes.nodata_values)


def pages_that_count(report: InspectionReport, scenes: EqualSizeScenes) -> EqualSizeScenes:
    """Leave out the dead pages of a stack of single images, and report channels that take turns.

    Args:
        report: gets a line for pages that are left out.
        scenes: the pages of a file, a scene each.

    Returns:
        The others; all of them where fewer than 3 are left.
    """
    pages = [scenes.image(i, 0).numpy() for i in range(len(scenes.names))]
    if len(pages) < 3:
        return scenes
    found = review(pages, movie=False)
    live = [t for t in range(len(pages)) if t not in found.dead]
    turns = review([pages[t] for t in live]).period
    if turns == 1 and not found.dead:
        return scenes
    _reported(report, replace(found, period=turns), scenes.names[0])
    if len(live) < 3 or not found.dead:
        return scenes
    report.numbers["pages"] = live
    return scenes.part(torch.tensor(live))


def _reported(report: InspectionReport, found: FrameReview, first: str) -> None:
    """Lines for what was left out, and for channels that take turns."""
    dead = [*report.numbers.get("dead_frames", []), *found.dead]
    report.numbers |= {
        "dead_frames": dead,
        "copied_frames": list(found.copies),
        "turns": found.period,
    }
    name = first.rpartition(", image ")[0] or first
    if found.dead or found.copies:
        report.add(
            "frames",
            "; ".join(found.lines(name)) + ": not looked at here, nothing can be learnt from them",
        )
    turns = found.turns(name)
    if turns:
        report.add("in turn", turns, bad=True)
