"""The addresses of the page: what is asked for, and what answers."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from n2n_lightning import __version__
from n2n_lightning.config.choices import DTYPES, OUTLIERS
from n2n_lightning.devices.choice import device_of
from n2n_lightning.files import InputError, Parser, spelled
from n2n_lightning.formats import opened
from n2n_lightning.formats.picture import Picture
from n2n_lightning.inference.bundled import bundled_checkpoint
from n2n_lightning.inference.checkpoint import checkpoint_of
from n2n_lightning.inference.models import MODELS, users_folder
from n2n_lightning.inference.options import DenoiseOptions
from n2n_lightning.inference.plan import Job, planned
from n2n_lightning.serve.choices import Choices
from n2n_lightning.serve.jobs import Jobs, findings
from n2n_lightning.serve.library import Entry, Library, TooLargeError
from n2n_lightning.serve.messages import BadRequestError, body_of, packed, text_of, whole
from n2n_lightning.serve.shown import ShownArray, View
from n2n_lightning.serve.worker import Kept, PreviewRequest, PreviewWorker

FOLDER = Path(__file__).parent
PAGE_COLORS = FOLDER.parent / "reporting" / "templates" / "colors.css"  # those of all pages
RESULTS = "results"  # before the names of results, in addresses
KEPT_PICTURES = 4  # open files
LISTED_EXISTING = 5  # results that are there already, of which the page says the name


class Site:
    """What the addresses answer.

    Args:
        library: the pictures.
        out: the folder of the results; a folder below it may be chosen.
        device: of the networks.
        checkpoints: further ones, as typed.
        parser: of the command `denoise`.
    """

    def __init__(
        self,
        library: Library,
        out: Path,
        device: str,
        checkpoints: Sequence[Path],
        parser: Parser,
    ) -> None:
        self.library = library
        self.out = out
        self.device = device
        self.named = list(checkpoints)
        self.parser = parser
        self.jobs = Jobs()
        self.worker = PreviewWorker(device_of(device), parser)
        self._open = Kept(KEPT_PICTURES)
        self._checking = asyncio.Lock()
        self._found: dict[tuple[Any, ...], list[str]] = {}
        self._job_keys: list[str] = []

    # Pictures

    async def index(self, request: Request) -> Response:
        """Answer with the page."""
        page = (FOLDER / "templates" / "serve.html").read_text(encoding="utf-8")
        return Response(page.replace("{{ version }}", __version__), media_type="text/html")

    async def colors(self, request: Request) -> Response:
        """Answer with the colours that all pages of this package have."""
        return FileResponse(PAGE_COLORS, media_type="text/css")

    async def listed(self, request: Request) -> Response:
        """Answer with the names of pictures and checkpoints, and the choices of options."""
        entries = await asyncio.to_thread(self.library.entries)
        pictures = []
        checkpoints = self._checkpoint_choices()
        for entry in entries:
            item = {"key": entry.key, "name": entry.key}
            if entry.path.suffix == ".ckpt":
                checkpoints.append({"key": f"file:{entry.key}", "name": entry.key})
            else:
                pictures.append(item)
        content = {
            "pictures": pictures,
            "checkpoints": checkpoints,
            "outliers": OUTLIERS,
            "dtypes": DTYPES,
            "out": str(self.out),
        }
        return JSONResponse(content)

    def _checkpoint_choices(self) -> list[dict[str, str]]:
        """Return the checkpoints that have a name, or were named."""
        choices = [{"key": "", "name": "built-in, by the file"}]
        for name, model in MODELS.items():
            if model.file is not None:
                choices.append({"key": f"model:{name}", "name": f"{name}: {model.purpose}"})
        folder = users_folder()
        own = sorted(folder.glob("*.ckpt")) if folder.is_dir() else []
        for path in own:
            choices.append({"key": f"model:{path.stem}", "name": path.stem})
        for number, path in enumerate(self.named):
            choices.append({"key": f"named:{number}", "name": str(path)})
        return choices

    def _checkpoint(self, key: str) -> Path | str | None:
        """Return the checkpoint of a choice, as it is typed; None: the built-in one that suits."""
        kind, _, name = key.partition(":")
        if not key:
            return None
        known = {choice["key"] for choice in self._checkpoint_choices()}
        if kind == "file":
            return self.library.entry(name).path
        if key not in known:
            raise KeyError(key)
        return self.named[int(name)] if kind == "named" else name

    def _opened(self, entry: Entry) -> Picture:
        status = entry.path.stat()
        key = (entry.path, entry.part, status.st_mtime_ns, status.st_size)
        picture: Picture = self._open.get(key, lambda: opened(entry.path, entry.part))
        return picture

    async def picture(self, request: Request) -> Response:
        """Answer with the arrays of a picture, and the axes that have sliders."""
        entry = self.library.entry(request.query_params.get("key", ""))
        axes = request.query_params.get("axes") or None

        def described() -> list[dict[str, Any]]:
            picture = self._opened(entry)
            arrays = []
            for number in range(len(picture.values)):
                with spelled(self.parser.spell):
                    arrays.append(ShownArray(picture, number, axes).description())
            return arrays

        arrays = await asyncio.to_thread(described)
        return JSONResponse({"arrays": arrays})

    async def upload(self, request: Request) -> Response:
        """Store a dropped file, and answer with its key."""
        size = int(request.headers.get("content-length") or 0)
        entry = await self.library.receive(request.path_params["name"], size, request.stream())
        return JSONResponse({"key": entry.key}, status_code=201)

    async def file(self, request: Request) -> Response:
        """Answer with a picture, or a result, as a file."""
        key = request.path_params["key"]
        if key.startswith(f"{RESULTS}/"):
            path = self._result(key.removeprefix(f"{RESULTS}/"))
        else:
            path = self.library.entry(key).path
        if not path.is_file():
            raise KeyError(key)
        return FileResponse(path, filename=path.name, media_type="application/octet-stream")

    def _result(self, place: str) -> Path:
        """Return a result; raise KeyError where it is not below the folder of the results."""
        path = self._below_out(place)
        if not path.resolve().is_relative_to(self.out.resolve()):
            raise KeyError(place)
        return path

    def _below_out(self, place: str) -> Path:
        """Return a folder or file below the folder of the results, with all links resolved."""
        path = self.out / place
        if "\0" in place or not path.resolve().is_relative_to(self.out.resolve()):
            raise InputError(f"{place}: is not below {self.out}")
        return path

    async def check(self, request: Request) -> Response:
        """Answer with what `n2n check` says about a picture."""
        entry = self.library.entry(request.query_params.get("key", ""))
        axes = request.query_params.get("axes", "")
        key = (entry.typed, axes, entry.path.stat().st_mtime_ns)
        async with self._checking:
            if key not in self._found:
                self._found[key] = await findings(entry.typed, axes)
        return JSONResponse({"lines": self._found[key]})

    # Previews

    async def preview(self, request: Request) -> Response:
        """Answer with the pixels of a plane, and then with its preview, part by part."""
        body = await body_of(request)
        asked = await asyncio.to_thread(self._asked, body)
        return StreamingResponse(self._preview(*asked), media_type="application/octet-stream")

    def _asked(self, body: dict[str, Any]) -> tuple[PreviewRequest, bytes]:
        """Return the request of a tab, and its first message: the pixels of the input."""
        with spelled(self.parser.spell):
            entry = self.library.entry(text_of(body.get("key"), "key"))
            chosen = self._chosen(body)
            checkpoint = self._checkpoint(text_of(body.get("checkpoint", ""), "checkpoint"))
            words = Choices.of(chosen, checkpoint, self.device)
            args = words.arguments([entry.typed], self.out)
            picture = self._opened(entry)
            number = whole(body.get("array", 0), "array")
            shown = ShownArray(picture, number, args.axes)
            view = shown.checked(_view_of(body))
            job = Job(entry.path, self.out / entry.path.name, entry.part)
            if checkpoint is None:
                checkpoint = bundled_checkpoint(None, [job], args.axes)
            options = DenoiseOptions.of(args)
            pixels = shown.plane(view)
            message = {
                "kind": "before",
                "row": view.rows.start,
                "column": view.columns.start,
                "step": view.step,
                "percentiles": shown.percentiles(view),
            }
            asked = PreviewRequest(
                tab=text_of(body.get("tab"), "tab", 64),
                job=job,
                picture=picture,
                number=number,
                view=view,
                checkpoint=checkpoint_of(checkpoint),
                options=_without_strength(options),
                strength=options.strength,
                fast=args.fast,
                emit=lambda message, pixels: None,
            )
            return asked, packed(message, pixels)

    def _chosen(self, body: dict[str, Any]) -> dict[str, Any]:
        chosen = body.get("options", {})
        if not isinstance(chosen, dict):
            raise BadRequestError("options: must be an object")
        return chosen

    async def _preview(self, asked: PreviewRequest, first: bytes) -> AsyncIterator[bytes]:
        """Yield the messages of a preview, until it is complete or a newer one replaces it."""
        yield first
        loop = asyncio.get_running_loop()
        messages: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

        def emit(message: dict[str, Any], pixels: np.ndarray | None) -> None:
            item = (message["kind"], packed(message, pixels))
            loop.call_soon_threadsafe(messages.put_nowait, item)

        asked.emit = emit
        self.worker.submit(asked)
        try:
            while True:
                kind, content = await messages.get()
                yield content
                if kind in ("end", "error", "replaced"):
                    return
        finally:
            self.worker.cancel(asked)

    # Results

    async def save(self, request: Request) -> Response:
        """Start writing results; where some are there already, ask what becomes of them."""
        body = await body_of(request)
        if self.jobs.busy:
            return JSONResponse({"error": "results are being written; wait or stop"}, 409)
        with spelled(self.parser.spell):
            pictures, words, line, out = self._command_of(body)
            overwrite = body.get("overwrite")
            planned_jobs, _ = await asyncio.to_thread(planned, pictures, out, overwrite is True)
        root = self.library.root_of(text_of(body.get("key"), "key"))
        for job in planned_jobs:
            if root.is_folder and not job.source.resolve().is_relative_to(root.path.resolve()):
                raise InputError(f"{job.source}: leads out of {root.path}")
        targets = [job.target for job in planned_jobs]
        existing = [str(path) for path in targets if os.path.lexists(path)]
        if existing and overwrite is None:
            answer = {"existing": existing[:LISTED_EXISTING], "count": len(existing)}
            return JSONResponse(answer, 409)
        self._job_keys = []
        for path in targets:
            self._job_keys.append(f"{RESULTS}/{path.relative_to(self.out).as_posix()}")
        await self.jobs.start(words, line, targets)
        return JSONResponse({"command": line}, 202)

    def _command_of(self, body: dict[str, Any]) -> tuple[list[str], list[str], str, Path]:
        """Return the pictures, the words of the command, the command as typed, and the folder."""
        entry = self.library.entry(text_of(body.get("key"), "key"))
        root = self.library.root_of(entry.key)
        pictures = [entry.typed]
        if body.get("scope") == "all":
            pictures = [str(root.path)]
            if not root.is_folder:
                pictures = [one.typed for one in self.library.named_files()]
        chosen = dict(self._chosen(body))
        checkpoint = self._checkpoint(text_of(body.get("checkpoint", ""), "checkpoint"))
        choices = Choices.of(chosen, checkpoint, self.device)
        out = self._below_out(text_of(body.get("out", ""), "out", 255))
        choices.arguments(pictures, out)
        words = choices.command(pictures, out)
        line = choices.line(pictures, out)
        if body.get("overwrite") is True:
            words.append("--overwrite")
            line += " --overwrite"
        return pictures, words, line, out

    async def command(self, request: Request) -> Response:
        """Answer with the command that does the same, for a shell."""
        with spelled(self.parser.spell):
            _, _, line, _ = self._command_of(await body_of(request))
        return JSONResponse({"command": line})

    async def job(self, request: Request) -> Response:
        """Answer with how far the results are."""
        current = self.jobs.current
        if current is None:
            return JSONResponse({"state": "none"})
        return JSONResponse(current.description(self._job_keys))

    async def stop(self, request: Request) -> Response:
        """Stop writing results."""
        await self.jobs.stop()
        return await self.job(request)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Run the thread of previews while the server runs; nothing stays behind."""
        self.worker.start()
        try:
            yield
        finally:
            await self.jobs.stop()
            self.worker.end()
            self.library.close()

    def app(self) -> Starlette:
        """Return the application with all addresses; security.Guard is put around it."""
        return Starlette(
            routes=[
                Route("/", self.index),
                Route("/api/library", self.listed),
                Route("/api/picture", self.picture),
                Route("/api/check", self.check),
                Route("/api/preview", self.preview, methods=["POST"]),
                Route("/api/command", self.command, methods=["POST"]),
                Route("/api/save", self.save, methods=["POST"]),
                Route("/api/job", self.job),
                Route("/api/stop", self.stop, methods=["POST"]),
                Route("/upload/{name}", self.upload, methods=["PUT"]),
                Route("/files/{key:path}", self.file),
                Route("/static/colors.css", self.colors),
                Mount("/static", StaticFiles(directory=FOLDER / "static")),
            ],
            lifespan=self.lifespan,
            exception_handlers={
                InputError: _bad,
                BadRequestError: _bad,
                KeyError: _missing,
                TooLargeError: _too_large,
            },
        )


def _view_of(body: dict[str, Any]) -> View:
    """Return the view that the page asks for; it is not checked against the array."""
    place = body.get("place")
    borders = body.get("borders")
    if not isinstance(place, list) or not isinstance(borders, list) or len(borders) != 4:
        raise BadRequestError("place, borders: must be lists")
    top, bottom, left, right = [whole(border, "borders") for border in borders]
    index = tuple(whole(one, "place") for one in place)
    step = whole(body.get("step", 1), "step")
    return View(index, slice(top, bottom), slice(left, right), step)


def _without_strength(options: DenoiseOptions) -> DenoiseOptions:
    """Return options for previews, which are mixed with the input when they are shown."""
    return replace(options, strength=1.0, tile="auto")


async def _bad(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _missing(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "not among the named files"}, 404)


async def _too_large(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the dropped files are larger than 2 GB together"}, 413)
