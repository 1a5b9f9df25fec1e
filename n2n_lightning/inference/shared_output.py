"""A folder of results that any number of processes fill: who does which picture, and with what.

While the folder is unfinished, it has a state folder: the checkpoint and the options that it is
denoised with, the claims on its pictures, and its workers. It goes with the last worker.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

from n2n_lightning.devices.choice import fast_type
from n2n_lightning.files import InputError, option, remove_temporaries, sha256
from n2n_lightning.inference.plan import Job, folder_of
from n2n_lightning.runs.claims import Claim, Claims, Finished
from n2n_lightning.runs.processor import processor_name

STATE = ".denoise-state"  # hidden: no input of a folder, whatever the names in it
LARGE_STATE = ".state"  # ends the name of the state folder of a file that goes block by block
SETTINGS = "settings.json"  # in it: what decides the values of the results
WORKERS = "workers"  # in it: claims of the processes
PLANS = "plans"  # in it: a file for each list of pictures
STATE_FORMAT = 1  # of the state folder
POLL_SECONDS = 0.5  # between two looks at pictures that other processes hold
# Arguments that may differ between the processes of one output, or are compared otherwise.
_FREE_ARGUMENTS = frozenset(
    (
        *("pictures", "out", "page", "overwrite", "allow", "adapt", "minutes", "halves"),
        *("best", "choice"),
        *("checkpoint", "device", "fast"),
        *("jobs", "launcher", "set", "mixed", "worker", "status", "summary"),
        "progress_lines",
    )
)


@dataclass(frozen=True)
class Settings:
    """What decides the values of the results.

    Attributes:
        checkpoint: the SHA-256 of its file.
        options: the options of the command, as text.
        computing: processor, device, precision and versions: with others, values differ by
            rounding.
        threads: of the first process; all compute with as many.
    """

    checkpoint: str
    options: Mapping[str, str]
    computing: Mapping[str, str]
    threads: int

    @classmethod
    def of(cls, args: Any, checkpoint: Path, device: str) -> "Settings":
        """Return the settings of this process.

        Args:
            args: of the command.
            checkpoint: its file.
            device: as torch names it.
        """
        import torch

        options = {}
        for name, value in sorted(vars(args).items()):
            if name not in _FREE_ARGUMENTS:
                options[name] = _argument_text(value)
        precision = "float32"
        if args.fast:
            precision = str(fast_type(torch.device(device))).removeprefix("torch.")
        return cls(
            sha256(checkpoint), options, computing_of(device, precision), torch.get_num_threads()
        )

    def check(self, stored: "Settings", folder: Path, mixed: bool, again: str) -> None:
        """Raise InputError where results of these settings must not lie beside those of others.

        Args:
            stored: the settings that the folder was begun with.
            folder: of the results.
            mixed: values may differ by rounding.
            again: what would work.
        """
        if stored.checkpoint != self.checkpoint:
            raise InputError(f"{folder}: was begun with another checkpoint; {again}")
        for name in sorted({*stored.options, *self.options}):
            before = stored.options.get(name)
            if before != self.options.get(name):
                raise InputError(
                    f"{folder}: was begun with another {option(name)} ({before}); {again}"
                )
        if not mixed:
            refuse_other_computing(folder, stored.computing, self.computing)


def _argument_text(value: Any) -> str:
    """Return an argument as text; of a mask of the detector its content, of paths the whole."""
    if isinstance(value, Path):
        return sha256(value) if value.is_file() else str(value.resolve())
    return str(value)


def refuse_other_computing(path: Path, stored: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise InputError where a result was begun on another processor, device or precision.

    Args:
        path: of the result.
        stored: see `computing_of`, of the process that began it.
        now: of this one.
    """
    for name, before in stored.items():
        if before != now.get(name):
            raise InputError(
                f"{path}: was begun with {name} {before}, here it is {now.get(name)};"
                f" {option('mixed', True)} accepts values that differ by rounding"
            )


def computing_of(device: str, precision: str) -> dict[str, str]:
    """Return what decides how results are rounded: processor or GPU, precision and versions."""
    import torch

    from n2n_lightning import __version__

    kind = torch.device(device).type
    if kind == "cuda":
        name = torch.cuda.get_device_name(device)
    elif kind == "cpu":
        name = f"{processor_name()} {torch.backends.cpu.get_cpu_capability()}"
    else:
        name = kind
    return {
        "device": name,
        "precision": precision,
        "torch": torch.__version__,
        "n2n_lightning": __version__,
    }


class NoClaim:
    """In place of a claim, where no other process takes part.

    Args:
        piece: the name of the picture.
        finished: gets the picture when it is done.
    """

    def __init__(self, piece: str, finished: list[Finished]) -> None:
        self._piece = piece
        self._finished = finished

    def __enter__(self) -> "NoClaim":
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def finish(self, note: dict[str, Any] | None = None) -> None:
        """Say that the picture is done.

        Args:
            note: plain data about it.
        """
        self._finished.append(Finished(self._piece, note or {}, time.time()))


class Help(NoClaim):
    """In place of a claim on a large picture that another process holds, which is helped."""

    def __init__(self, piece: str) -> None:
        super().__init__(piece, [])


class AloneOutput:
    """Results that one process writes, without a state folder.

    Args:
        overwrite: results that are there are replaced.

    Attributes:
        pictures: the number of all pictures.
        existing: of those that had a result before.
        failed_ones: names of those that failed.
        finished: those that were denoised.
    """

    def __init__(self, overwrite: bool) -> None:
        self.overwrite = overwrite
        self.pictures = 0
        self.existing = 0
        self.failed_ones: dict[str, str] = {}
        self.finished: list[Finished] = []

    def __enter__(self) -> "AloneOutput":
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def missing(self, jobs: Sequence[Job]) -> list[Job]:
        """Return the pictures without a result."""
        missing = [job for job in jobs if self.overwrite or not _has_result(job)]
        self.pictures = len(jobs)
        self.existing = len(jobs) - len(missing)
        return missing

    def claimed(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, NoClaim]]:
        """Yield the pictures that are to be denoised."""
        for job in jobs:
            yield job, NoClaim(job.target.name, self.finished)

    def failed(self, job: Job, reason: str) -> bool:
        """Note why a picture failed; return False, as it is not tried again."""
        self.failed_ones[str(job.target)] = reason
        return False

    def failures(self, jobs: Sequence[Job]) -> int:
        """Return how many of some pictures failed."""
        return len(self.failed_ones)


class SharedOutput:
    """The folder of results, for one of the processes that fill it: a context manager.

    Args:
        out: the folder.
        settings: of this process.
        overwrite: results that are there are replaced; what is unfinished and has no worker begins
            anew.
        mixed: values may differ by rounding from those of other processes.

    Raises:
        InputError: the folder was begun with other settings.

    Attributes:
        replaces: the results that were there at the beginning are replaced.
        threads: to compute with.
        resumed: the folder was begun by another process.
    """

    def __init__(self, out: Path, settings: Settings, overwrite: bool, mixed: bool) -> None:
        self.out = folder_of(out)
        self.state = state_folder(out)
        workers = self.state / WORKERS
        living = Claims(workers).held() if workers.is_dir() else []
        if overwrite and not living:
            remove_state(self.state)
        content = {"format": STATE_FORMAT, "replaces": overwrite, **settings.__dict__}
        path = self.state / SETTINGS
        self.resumed = not _written_first(path, content)
        if self.resumed:
            content = _read_settings(path)
            names = ("checkpoint", "options", "computing", "threads")
            stored = Settings(*(content[name] for name in names))
            again = f"name another folder, or {option('overwrite', True)} begins anew"
            if living:
                again = f"name another folder, as {len(living)} processes are at work in this one"
            settings.check(stored, self.out, mixed, again)
        self.replaces = bool(content["replaces"])
        self.threads = int(content["threads"])
        self.pictures = Claims(self.state / "pictures")
        self.workers = Claims(workers)
        if self.resumed and not living:
            self.pictures.forget_failures()
        self._worker = self.workers.claim(uuid4().hex)

    def __enter__(self) -> "SharedOutput":
        assert self._worker is not None  # its name is new
        self._worker.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._worker is not None
        self._worker.__exit__(kind, error, trace)
        unfinished = error is not None and self.pictures.done_count() > 0
        if not unfinished and not self.workers.held():
            remove_state(self.state)

    def missing(self, jobs: Sequence[Job]) -> list[Job]:
        """Return the pictures without a result, and note how many there are.

        Args:
            jobs: all pictures.
        """
        missing = []
        digest = hashlib.sha256()
        for job in jobs:
            if not self.is_there(job):
                missing.append(job)
            piece = self.piece(job)
            digest.update(piece.encode("utf-8", "surrogateescape"))
        plan = {"pictures": len(jobs), "existing": len(jobs) - len(missing)}
        name = digest.hexdigest()[:16]
        _written_first(self.state / PLANS / f"{name}.json", plan)
        return missing

    def is_there(self, job: Job) -> bool:
        """Return True if a result is there from before this run."""
        if self.replaces or not _has_result(job):
            return False
        # of a killed process maps and certificates may be missing
        return not self.pictures.was_begun(self.piece(job))

    def failed(self, job: Job, reason: str) -> bool:
        """Return True if a picture that failed is tried again, by this process or another one."""
        return not self.pictures.is_over(self.piece(job))

    def failures(self, jobs: Sequence[Job]) -> int:
        """Return how many of some pictures failed, whichever process tried them."""
        given_up = self.pictures.given_up()
        return sum(self.piece(job) in given_up for job in jobs)

    def _rank(self) -> int:
        """Return how many living processes began before this one."""
        assert self._worker is not None
        began = sorted((one.since, one.piece) for one in self.workers.held())
        own = [place for place, (_, piece) in enumerate(began) if piece == self._worker.piece]
        return own[0] if own else 0

    def piece(self, job: Job) -> str:
        """Return the name of a picture among the claims."""
        return os.path.relpath(job.target, self.out).replace(os.sep, "/")

    def claimed(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Claim | Help]]:
        """Yield the pictures that this process is to denoise, until all of them are done.

        Pictures that other processes hold are waited for, as these may die; with large ones, which
        go block by block, this process helps meanwhile.

        Args:
            jobs: the pictures without a result.

        Yields:
            A picture and the claim on it, or Help, a context manager.
        """
        first = first_of(len(jobs), self._rank())
        waiting = [*jobs[first:], *jobs[:first]]
        while waiting:
            held = []
            claimed = 0
            for job in waiting:
                piece = self.piece(job)
                claim = self.pictures.claim(piece)
                if claim is not None:
                    claimed += 1
                    yield job, claim
                    if claim.done:
                        if claim.is_repeated:
                            remove_temporaries(job.target)
                        continue
                if not self.pictures.is_over(piece):
                    held.append(job)
            waiting = held
            if claimed or not waiting:
                continue
            time.sleep(POLL_SECONDS)
            for job in waiting:
                if _goes_block_by_block(job):
                    yield job, Help(self.piece(job))
                    break


def first_of(count: int, others: int) -> int:
    """Return the picture that a process begins with, far from those of the other ones.

    Processes that go through the pictures side by side would ask for each one twice.

    Args:
        count: of the pictures.
        others: processes that began before.

    >>> [first_of(8, others) for others in range(4)]
    [0, 4, 2, 6]
    """
    share = 0.0
    step = 0.5
    while others:
        share += step * (others % 2)
        others //= 2
        step /= 2
    return int(share * count)


def _goes_block_by_block(job: Job) -> bool:
    """Return True if some process is at work on the blocks of a picture."""
    state = job.target.with_name(job.target.name + LARGE_STATE)
    return (state / "asked.json").exists()


def _has_result(job: Job) -> bool:
    """Return True if a result exists; one that would be the picture itself is refused later."""
    return job.target.exists() and job.target.resolve() != job.source.resolve()


def output_for(
    args: Any, checkpoint: Path, device: str, jobs: Sequence[Job], missing: Sequence[Job]
) -> SharedOutput | AloneOutput:
    """Return the results of a command, as other processes may fill them, too.

    A single picture is denoised by one process, and an adapted checkpoint is that of one process.

    Args:
        args: of the command.
        checkpoint: its file.
        device: as torch names it.
        jobs: the pictures.
        missing: those without a result.

    Raises:
        InputError: the folder was begun with other settings.
    """
    import torch

    begun = state_folder(args.out).is_dir()
    is_alone = len(jobs) == 1 and not args.worker
    if is_alone or args.adapt or args.best or not (missing or begun):
        return AloneOutput(args.overwrite)
    settings = Settings.of(args, checkpoint, device)
    output = SharedOutput(args.out, settings, args.overwrite, args.mixed)
    if output.threads != settings.threads:
        torch.set_num_threads(output.threads)
    return output


def state_folder(out: Path) -> Path:
    """Return the state folder of a folder of results.

    Args:
        out: the folder, or the name of a picture in it.
    """
    return folder_of(out) / STATE


def remove_state(folder: Path) -> None:
    """Delete a state folder; its name is free at once."""
    aside = folder.with_name(f"{folder.name}.{uuid4().hex}")
    with suppress(FileNotFoundError):
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _written_first(path: Path, content: Any) -> bool:
    """Write a file whole unless it is there; return True if written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid4().hex}")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: then the moment between is not protected
        if path.exists():
            return False
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _read_settings(path: Path) -> dict[str, Any]:
    """Read the settings of a state folder.

    Raises:
        InputError: they are damaged, or of another version of this program.
    """
    content: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("format") != STATE_FORMAT:
        raise InputError(
            f"{path.parent}: was written by another version of this program;"
            f" {option('overwrite', True)} begins anew"
        )
    return content
