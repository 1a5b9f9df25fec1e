"""Frames of a movie or stack that an inspection leaves out, with a line for them."""

from dataclasses import replace

import torch

from n2n_lightning.arrays.frame_checks import FrameReview, review
from n2n_lightning.data.scene_set import EqualSizeScenes, SceneSet
from n2n_lightning.inspection.inspection_report import InspectionReport


def frames_that_count(report: InspectionReport, scenes: EqualSizeScenes) -> EqualSizeScenes:
    """Leave out dead frames and copies, so that nothing else is measured on them, and report them.

    Args:
        report: gets a line for frames that are left out, and one for channels that take turns.
        scenes: one movie, its frames the captures.

    Returns:
        The movie without these frames; unchanged if fewer than 3 frames would be left.
    """
    count = scenes.count_of(0)
    frames = [scenes.image(0, t) for t in range(count)]
    checked = review([frame.numpy() for frame in frames])
    numbered = checked
    if report.pages:
        numbered = _numbered(checked, report.pages)
    _add_lines(report, numbered, scenes.names[0])
    live = checked.live
    if len(live) < 3 or len(live) == count:
        return scenes
    live_frames = [frames[t] for t in live]
    stacked = torch.stack(live_frames)
    counts = torch.tensor([len(live)])
    return EqualSizeScenes([stacked], scenes.names, counts, scenes.nodata_values)


def _numbered(checked: FrameReview, pages: list[int]) -> FrameReview:
    """Return a review with the frames' numbers in the file."""
    dead = {}
    for t, reason in checked.dead.items():
        dead[pages[t]] = reason
    copies = {}
    for t, first in checked.copies.items():
        copies[pages[t]] = pages[first]
    return replace(checked, dead=dead, copies=copies)


def pages_that_count(report: InspectionReport, scenes: SceneSet) -> SceneSet:
    """Leave out the dead pages of a stack of single images, and report channels that take turns.

    Args:
        report: gets a line for pages that are left out.
        scenes: the pages of a file, a scene each.

    Returns:
        The other pages; all of them if fewer than 3 would be left.
    """
    count = len(scenes.names)
    if count < 3:
        return scenes
    pages = [scenes.image(i, 0).numpy() for i in range(count)]
    checked = review(pages, movie=False)
    live = [t for t in range(count) if t not in checked.dead]
    live_pages = [pages[t] for t in live]
    turns = review(live_pages).period
    if turns == 1 and not checked.dead:
        return scenes
    _add_lines(report, replace(checked, period=turns), scenes.names[0])
    if len(live) < 3 or not checked.dead:
        return scenes
    report.pages = live
    report.numbers["pages"] = live
    return scenes.part(torch.tensor(live))


def _add_lines(report: InspectionReport, checked: FrameReview, first: str) -> None:
    """Add lines for frames that are left out, and for channels that take turns.

    Args:
        report: that they are added to.
        checked: with the frames' numbers in the file.
        first: name of the first frame.
    """
    report.turns = checked.period
    dead_before = report.numbers.get("dead_frames", [])
    report.numbers["dead_frames"] = [*dead_before, *checked.dead]
    report.numbers["copied_frames"] = list(checked.copies)
    report.numbers["turns"] = checked.period
    file, _, _ = first.rpartition(", image ")
    name = file or first
    if checked.dead or checked.copies:
        lines = "; ".join(checked.lines(name))
        report.add("frames", f"{lines}: not looked at here, nothing can be learnt from them")
    turns = checked.turns(name)
    if turns:
        report.add("in turn", turns, bad=True)
