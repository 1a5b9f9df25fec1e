"""The thread that denoises previews: a step of one tab at a time, the newest change first."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from n2n_lightning.files import InputError, Parser, one_line, spelled
from n2n_lightning.formats.picture import Picture
from n2n_lightning.inference.checkpoint import checkpoint_of
from n2n_lightning.inference.denoiser import TrainedDenoiser, load
from n2n_lightning.inference.device import move_to_device
from n2n_lightning.inference.options import DenoiseOptions
from n2n_lightning.inference.plan import Job
from n2n_lightning.serve.prepared import PreparedFile
from n2n_lightning.serve.preview import PagePreview, TilePlace
from n2n_lightning.serve.shown import ShownArray, View

KEPT_MODELS, KEPT_FILES, KEPT_PAGES = 3, 2, 6  # in memory
KEPT_BYTES = 2**29  # of results of pages, together

Emit = Callable[[dict[str, Any], np.ndarray | None], None]
KeptKey = tuple[Any, ...]


class NewerChangeWaits(Exception):
    """A newer change waits, so that a step is given up and done again later."""


@dataclass
class PreviewRequest:
    """What a tab of the page wants to see.

    Attributes:
        tab: name of the tab; a newer request of it replaces this one.
        job: the file.
        picture: the file, opened.
        number: of the array in it.
        view: what is visible.
        checkpoint: a file.
        options: of the command; `strength` is not used.
        strength: share of the result.
        fast: compute in bfloat16.
        emit: takes messages for the tab, each with pixels or without.
    """

    tab: str
    job: Job
    picture: Picture
    number: int
    view: View
    checkpoint: Path
    options: DenoiseOptions
    strength: float
    fast: bool
    emit: Emit
    closed: bool = False

    @property
    def file_key(self) -> KeptKey:
        """All that decides what is measured on the file."""
        source = self.job.source
        status = source.stat()
        weights = self.checkpoint.stat()
        return (
            *(source, self.job.part, status.st_mtime_ns, status.st_size),
            *(self.checkpoint, weights.st_mtime_ns, self.fast, self.options),
        )


class Kept:
    """The objects that were used last, by their keys.

    Args:
        most: number of them.
        size: returns the bytes of one; None: their number alone counts.
    """

    def __init__(self, most: int, size: Callable[[Any], int] | None = None) -> None:
        self.most = most
        self.size = size
        self._kept: OrderedDict[KeptKey, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: KeptKey, make: Callable[[], Any]) -> Any:
        """Return the object of a key, made where there is none.

        Args:
            key: decides what it is.
            make: makes it.
        """
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make()
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and self._too_many():
                self._kept.popitem(last=False)
            return self._kept[key]

    def _too_many(self) -> bool:
        total = 0
        if self.size is not None:
            total = sum(self.size(one) for one in self._kept.values())
        return len(self._kept) > self.most or total > KEPT_BYTES


class PreviewWorker(threading.Thread):
    """Denoise what the tabs want to see, in one thread.

    Args:
        device: of the networks.
        parser: of `denoise`, which spells options in messages.
    """

    def __init__(self, device: str, parser: Parser) -> None:
        super().__init__(name="previews", daemon=True)
        self.device = device
        self.parser = parser
        self._waiting: dict[str, tuple[PreviewRequest, Iterator[None]]] = {}
        self._steps: dict[str, int] = {}
        self._changed = threading.Condition()
        self._urgent = threading.Event()
        self._ended = False
        self._models = Kept(KEPT_MODELS)
        self._files = Kept(KEPT_FILES)
        self._pages = Kept(KEPT_PAGES, lambda page: page.size if page else 0)

    def submit(self, request: PreviewRequest) -> None:
        """Begin with a request at once; an earlier one of its tab ends."""
        with self._changed:
            self._drop(request.tab)
            self._waiting[request.tab] = (request, self._run(request))
            self._steps[request.tab] = 0
            self._urgent.set()
            self._changed.notify()

    def cancel(self, request: PreviewRequest) -> None:
        """End a request whose tab does not listen any more."""
        with self._changed:
            waiting = self._waiting.get(request.tab)
            if waiting is not None and waiting[0] is request:
                self._drop(request.tab)
                self._urgent.set()

    def end(self) -> None:
        """End the thread after the layer that it computes."""
        with self._changed:
            self._ended = True
            self._urgent.set()
            self._changed.notify()

    def _drop(self, tab: str) -> None:
        waiting = self._waiting.pop(tab, None)
        if waiting is not None:
            request, _ = waiting
            self._say(request, {"kind": "replaced"})
            request.closed = True

    def run(self) -> None:
        """Do a step of the request with the fewest steps, until the server ends."""
        with spelled(self.parser.spell):
            while True:
                with self._changed:
                    while not self._waiting and not self._ended:
                        self._changed.wait()
                    if self._ended:
                        return
                    self._urgent.clear()
                    tab = min(self._waiting, key=self._steps.__getitem__)
                    request, steps = self._waiting[tab]
                    self._steps[tab] += 1
                self._step(request, steps)

    def _step(self, request: PreviewRequest, steps: Iterator[None]) -> None:
        """Do one step, and say what went wrong."""
        try:
            next(steps)
            return
        except StopIteration:
            self._say(request, {"kind": "end"})
        except InputError as error:
            self._say(request, {"kind": "error", "text": str(error)})
        except Exception as error:  # of a damaged file, a library, a device without memory
            reason = f"{type(error).__name__}: {one_line(error, 200)}"
            self._say(request, {"kind": "error", "text": reason})
        with self._changed:
            waiting = self._waiting.get(request.tab)
            if waiting is not None and waiting[0] is request:
                del self._waiting[request.tab]

    def _say(
        self, request: PreviewRequest, message: dict[str, Any], pixels: np.ndarray | None = None
    ) -> None:
        if not request.closed:
            request.emit(message, pixels)

    def _run(self, request: PreviewRequest) -> Iterator[None]:
        """Do the steps of a request; each ends at a yield."""
        shown = ShownArray(request.picture, request.number, request.options.axes)
        file: PreparedFile = yield from self._again(lambda: self._file(request))
        page = self._page(request, file, shown)
        self._say(request, {"kind": "notes", "lines": file.lines})
        if page is None:
            self._say(request, {"kind": "copied"})
            return
        yield
        said = _Said(request, shown, page, self._say)
        if not page.complete:
            middle = page.middle(request.view)
            quick = yield from self._again(lambda: page.quick(middle, request.strength))
            said.show(middle, quick, "middle")
            yield
        dtype = yield from self._again(lambda: file.dtype(request.number))
        self._say(request, {"kind": "notes", "lines": file.lines})
        page.begin(dtype)
        tiles = page.tiles(request.view)
        total = len(page.done) + len(tiles)
        if page.done and not page.complete:
            for place in page.done.values():
                said.show(place, page.result(place, request.strength), "tile")
        for place in tiles:
            yield from self._again(partial(page.add, place))
            message = {"kind": "progress", "done": len(page.done), "total": total}
            self._say(request, message)
            said.show(place, page.result(place, request.strength), "tile")
            yield
        page.finish()
        visible = page.visible(request.view)
        said.show(visible, page.result(visible, request.strength), "complete")

    def _again(self, work: Callable[[], Any]) -> Generator[None, None, Any]:
        """Do something, again where it was interrupted; return its result."""
        while True:
            try:
                return work()
            except NewerChangeWaits:
                yield

    def _file(self, request: PreviewRequest) -> PreparedFile:
        model = self._model(request.checkpoint, request.fast)
        return self._files.get(
            request.file_key, lambda: PreparedFile(request.job, model, request.options)
        )

    def _page(
        self, request: PreviewRequest, file: PreparedFile, shown: ShownArray
    ) -> PagePreview | None:
        """Return the page of a request with the tiles that are done; None: it is copied."""
        view = request.view
        key: KeptKey = (*request.file_key, request.number, view.place)
        if file.facts is not None and file.grid.divided:
            key = (*key, str(view))  # the page is a part around what is visible

        def make() -> PagePreview | None:
            prepared = file.page(request.number, shown, view)
            return None if prepared is None else PagePreview(file, prepared)

        page: PagePreview | None = self._pages.get(key, make)
        return page

    def _model(self, checkpoint: Path, fast: bool) -> TrainedDenoiser:
        """Return a network on the device, which gives up when something newer waits."""
        key = (checkpoint, checkpoint_of(checkpoint).stat().st_mtime_ns, fast)

        def make() -> TrainedDenoiser:
            model = load(checkpoint, device="cpu")
            move_to_device(model, self.device, fast)
            for part in model.modules():
                part.register_forward_pre_hook(self._give_up)
            return model

        model: TrainedDenoiser = self._models.get(key, make)
        return model

    def _give_up(self, module: torch.nn.Module, inputs: Any) -> None:
        """Interrupt a network between two layers where a newer change waits."""
        if self._urgent.is_set():
            raise NewerChangeWaits


@dataclass
class _Said:
    """Shows parts of a page to the tab that asked for it."""

    request: PreviewRequest
    shown: ShownArray
    page: PagePreview
    say: Callable[[PreviewRequest, dict[str, Any], np.ndarray | None], None]

    def show(self, place: TilePlace, values: np.ndarray, stage: str) -> None:
        """Send the visible pixels of a place.

        Args:
            place: of the page.
            values: (h, w, C).
            stage: middle, tile or complete.
        """
        *_, rows, columns = place
        prepared = self.page.prepared
        first_row = rows.start + prepared.first_row
        first_column = columns.start + prepared.first_column
        view = self.request.view
        axis = self.shown.channel_axis
        channels = slice(3)
        if axis is not None and not self.shown.is_colour:
            channel = view.place[axis]
            channels = slice(channel, channel + 1)
        pixels = view.of(values, first_row, first_column)[..., channels]
        if not pixels.size:
            return
        row, column = view.corner(first_row, first_column)
        message = {"kind": "after", "stage": stage, "row": row, "column": column}
        self.say(self.request, message, pixels)
