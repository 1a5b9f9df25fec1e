"""Denoise pictures as an instrument writes them: `n2n watch FOLDER -o OUT`.

Each picture is denoised once it was not written to for two seconds and can be opened, in
sub-folders, too. A picture that changes later is denoised again; a command that is started again
does nothing twice. Ctrl-C ends it. Takes the options of `denoise` for single pictures.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2n_lightning.files import InputError, Parser, command
from n2n_lightning.formats.picture import AskedAxes
from n2n_lightning.inference.arguments import add_denoise_options, checked_arguments
from n2n_lightning.inference.plan import Job, jobs_below
from n2n_lightning.watch.settling import Settling

if TYPE_CHECKING:
    from n2n_lightning.inference.file_denoiser import FileDenoiser
    from n2n_lightning.watch.scenes import Scenes

# Options of denoise that need all pictures at once, or write one page for all.
NEED_ALL = (
    "adapt", "best", "choice", "certify", "halves", "jobs", "launcher", "movie", "page",
    "second", "status", "summary", "unbias",
)  # fmt: skip
SETTLE = 2.0  # seconds
SEARCH = 10.0  # seconds between searches where no event came: some are lost


def parser() -> Parser:
    """Return the parser of the command line."""
    p = Parser(prog="n2n watch", description=__doc__)
    add_denoise_options(p)
    p.add_argument(
        "--settle",
        type=float,
        default=SETTLE,
        help="seconds for which a picture must not change (default 2)",
    )
    p.add_argument(
        "--poll",
        action="store_true",
        help="search the folder four times a second: for disks without events",
    )
    p.add_argument(
        "--captures",
        action="store_true",
        help="the pictures of a folder are captures of one scene: denoise their mean, too, and"
        " estimate what more captures would give (OUT/captures.html)",
    )
    return p


@dataclass
class Watch:
    """A folder that is watched.

    Attributes:
        settling: which pictures are ready.
        denoiser: of each.
        scenes: means of captures; None: they are not captures.
    """

    settling: Settling
    denoiser: "FileDenoiser"
    scenes: "Scenes | None" = None
    _said: dict[Path, str] = field(default_factory=dict)

    def run(self, wakes: Iterator[bool]) -> None:
        """Denoise what comes, until the iterator ends.

        Args:
            wakes: True where the folder may have changed.
        """
        if self.scenes is not None:
            for job in self.settling.done_before():
                self.scenes.add(job)
        searched = float("-inf")
        for changed in wakes:
            now = time.monotonic()
            if not (changed or self.settling.waiting or now - searched >= SEARCH):
                continue
            searched = now
            ready = self.settling.ready()
            for source, owner in self.settling.clashes.items():
                self._say(source, f"{source}: has the name of the result of {owner}; rename it")
            for job in ready:
                self._denoise(job)
            if self.scenes is not None and not ready:
                self.scenes.denoise_one_mean()

    def _denoise(self, job: Job) -> None:
        """Denoise a picture; where that fails it waits, and the reason is said once."""
        # a large one that was not finished goes on; what is there is of an earlier content
        denoiser = replace(self.denoiser, overwrite=job.target.exists())
        try:
            result = denoiser.denoise(job)
        except InputError as error:
            self.settling.fail(job)
            self._say(job.source, f"waits: {error}")
            return
        except FileNotFoundError:  # taken away meanwhile
            return
        print(result, flush=True)
        if self.settling.finish(job) and self.scenes is not None:
            self.scenes.add(job)

    def _say(self, source: Path, line: str) -> None:
        """Print why a picture waits, once."""
        if self._said.get(source) != line:
            self._said[source] = line
            print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Watch a folder."""
    args = parser().parse_args()
    _check(args)
    from n2n_lightning.formats.fits_planes import good_flags, parsed
    from n2n_lightning.watch.waking import wakes

    (folder,) = map(Path, args.pictures)
    with good_flags(parsed(args.dq_good)):
        watch = _watch_of(args, folder)
        found = jobs_below(folder, args.out, [])
        missing = sum(not job.target.exists() for job in found)
        print(
            f"{folder}: {len(found)} pictures, {missing} without a result; Ctrl-C ends", flush=True
        )
        try:
            watch.run(wakes(folder, args.poll))
        except KeyboardInterrupt:
            print("stopped; the same command goes on", file=sys.stderr)


def _check(args: Any) -> None:
    """Raise InputError where the arguments cannot be."""
    for name in NEED_ALL:
        if getattr(args, name):
            raise InputError(name, getattr(args, name), "needs all pictures: n2n denoise has it")
    if args.overwrite:
        raise InputError("overwrite", True, "here a result that you delete is made again")
    checked_arguments(args)
    if len(args.pictures) != 1 or not Path(args.pictures[0]).is_dir():
        raise InputError(f"{' '.join(args.pictures)}: name one folder, that the pictures come to")
    if args.out.exists() and not args.out.is_dir():
        raise InputError(f"{args.out}: is a file; name a folder")
    if args.out.resolve() == Path(args.pictures[0]).resolve():
        raise InputError("out", args.out, "is where the pictures come; name another folder")
    if not 0 <= args.settle <= 3600:
        raise InputError("settle", args.settle, "must be 0 to 3600 seconds")


def _watch_of(args: Any, folder: Path) -> Watch:
    """Return the watch of a folder, with its denoiser."""
    from rich.progress import Progress

    from n2n_lightning.devices.choice import device_of
    from n2n_lightning.inference.checkpoint import PRETRAINED
    from n2n_lightning.inference.denoiser import load
    from n2n_lightning.inference.device import move_to_device
    from n2n_lightning.inference.file_denoiser import FileDenoiser
    from n2n_lightning.inference.options import DenoiseOptions
    from n2n_lightning.inference.outlier_files import read_mask
    from n2n_lightning.watch.scenes import Scenes

    model = load(args.checkpoint or PRETRAINED, args.allow, device="cpu")
    if model.context:
        raise InputError(
            "checkpoint", args.checkpoint, "sees frames that are not there yet; use n2n denoise"
        )
    move_to_device(model, device_of(args.device), args.fast)
    options = DenoiseOptions.of(args)
    asked = AskedAxes(args.axes, model.layout, model.dims)
    defects = read_mask(args.bad_pixels) if args.bad_pixels else None
    denoiser = FileDenoiser(
        model,
        options,
        asked,
        Progress(disable=True),
        defects=defects,
        mask=args.bad_pixels,
    )
    scenes = Scenes(folder, args.out, model, options, asked) if args.captures else None
    return Watch(Settling(folder, args.out, args.settle), denoiser, scenes)


if __name__ == "__main__":
    command(main, parser)
