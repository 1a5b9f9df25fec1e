"""Train a denoiser: `n2n train model=unet optim.lr=0.01`, with `-m` for sweeps.

Composes the configuration in conf/, trains, and leaves a run folder: `.hydra/` (what was asked),
`result.json`, `metrics.csv`, TensorBoard events, `samples.png`, `checkpoints/best.ckpt` and
`checkpoints/last.ckpt`.
"""

import errno
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from n2n_lightning.config import overrides as override_syntax
from n2n_lightning.config import validation
from n2n_lightning.config.hydra_versions import MAIN_OPTIONS
from n2n_lightning.config.overrides import CONF, MULTIRUN
from n2n_lightning.config.resume import continued_config, resolve_hydra_of, resumed_folder
from n2n_lightning.files import DiskFull, InputError
from n2n_lightning.runs import folder as run_folder
from n2n_lightning.runs.processes import (
    LEADER,
    PeerProcessDied,
    is_worker_rank,
    leader_folder,
    shared_folder,
    spans_machines,
)
from n2n_lightning.sweep import jobs, watch
from n2n_lightning.sweep.resume import resumed_sweep

START_LIMIT = 600  # seconds that other machines wait for the first one: it may read large data
SWEEP_WORDS = (*MULTIRUN, "sweep.", "hydra/")  # beginnings of words that concern sweeps


def main() -> None:
    """Run the command line; exit with 0, 1 (it broke), 2 (cannot work as asked), 128 + signal."""
    # Hydra then raises, and _explained's line is all that is shown
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    arguments = sys.argv[1:]
    status: Any = 0
    folder: Path | None = None
    began: list[str] = []
    with watch.prepared() as sweep:
        try:
            if is_worker_rank():
                _follow(leader_folder())
            else:
                if spans_machines(arguments):
                    shared_folder(arguments)  # says so, where none is named
                validation.foreign(arguments)
                arguments = override_syntax.quoted(arguments)
                if any(word.startswith(SWEEP_WORDS) for word in arguments):
                    arguments = resumed_sweep(arguments)
                resumed: Path | None = None
                if any(word.startswith("resume=") for word in arguments):
                    resumed = resumed_folder(arguments)
                if resumed:
                    began = run_folder.read_overrides(resumed)  # for hints and for Hydra
                if resumed and not override_syntax.asks_hydra(arguments):
                    _resume(resumed, arguments)
                else:
                    arguments = override_syntax.after_flags(arguments, began)
                    sweep.arguments = arguments
                    sys.argv[1:], folder = override_syntax.claim_run_folder(arguments)
                    _composed()
        except SystemExit as error:
            status = error.code
        except (Exception, KeyboardInterrupt) as error:
            if sweep.begun and not (_mistyped(error) and sweep.withdrawn()):
                status = watch.explain(error)
            else:
                status = _explained(error, [*began, *arguments])
        if sweep.begun:
            status = sweep.close(status)
    override_syntax.remove_empty_folder(folder)
    sys.exit(status)


@hydra.main(**MAIN_OPTIONS, config_path=str(CONF), config_name="config")
def _composed(config: DictConfig) -> float | None:
    """Start what Hydra composed: a run, or a job of a sweep, whose score its sweeper takes."""
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir).absolute()
    overrides = [o for o in job.overrides.task if not o.startswith(("sweep.", "resume="))]
    if job.mode == RunMode.MULTIRUN:
        return jobs.run_job(config, folder, overrides, job)
    try:
        if (folder / "result.json").exists():
            place = _shown(folder)
            raise InputError(
                f"{place} holds a run: resume={place} continues it, another hydra.run.dir starts"
                " anew"
            )
        from n2n_lightning.training.run import start  # after all that needs no torch

        print_summary(start(config, folder, overrides, hydra=job), _shown(folder))
    except Exception as error:  # here, for Hydra would add lines of its own
        sys.exit(_explained(error, sys.argv[1:]))
    return None


def _resume(folder: Path, arguments: Sequence[str]) -> None:
    """Continue a run with its stored configuration and the options that were typed now."""
    from n2n_lightning.training.run import start

    folder = folder.absolute()
    config, overrides = continued_config(folder, arguments)
    resolve_hydra_of(folder)
    before = run_folder.read_result(folder)
    result = start(config, folder, overrides)
    if before.get("status") == "finished" and before.get("epochs") == result["epochs"]:
        print(
            "it was finished already; a larger trainer.max_epochs= or max_time= beside resume= goes"
            " further"
        )
    print_summary(result, _shown(folder))


def _follow(folder: Path) -> None:
    """Be a further process of the run in a folder (trainer=ddp)."""
    from n2n_lightning.training.run import start

    if LEADER not in os.environ:
        _wait_for_first(folder)
    resolve_hydra_of(folder)
    config, overrides = run_folder.read_request(folder)
    start(config, folder, overrides)


def _wait_for_first(folder: Path) -> None:
    """Wait until the first process of a run on several machines has begun it."""
    deadline = time.monotonic() + START_LIMIT
    while run_folder.read_result(folder).get("status") != "running":
        if time.monotonic() > deadline:
            raise InputError(
                f"{folder}: the first machine of the run did not begin it in {START_LIMIT} s;"
                " it must see the same folder"
            )
        time.sleep(0.5)


def _shown(folder: Path) -> Path:
    """Return a folder as it is printed: relative to the working folder, where it is in it."""
    return Path(os.path.relpath(folder)) if folder.is_relative_to(Path.cwd()) else folder


def print_summary(result: dict[str, Any], folder: Path) -> None:
    """Print the small table at the end of a run.

    Args:
        result: the content of result.json.
        folder: the run folder, as it is to be shown.
    """
    from rich.console import Console

    console = Console(highlight=False)
    _print_scores(console, result)
    outliers = result.get("outlier_pixels")
    if outliers:
        kind = "val_psnr" if result["val_psnr"] is not None else "val_psnr_estimate"
        print(
            f"without {outliers:.0f} isolated pixels that stand out (docs/reference/outliers.md):"
            f" {result[f'{kind}_without_outliers']:.2f} dB"
        )
    _print_scored_captures(result)
    score: str | None = None
    for name in ("psnr_estimate", "psnr"):
        if score is None and result[f"val_{name}"] is not None:
            score = name
    if score and result[f"val_{score}"] < result[f"noisy_{score}"]:
        print(
            "worse than the noisy input: train longer (trainer.max_epochs=, trainer.max_time=), or"
            " at another optim.lr="
        )
    rate = f", {result['images_per_second']:.0f} images/s" if result["images_per_second"] else ""
    estimated = result["noisy_psnr_estimate"] is not None and result["best_epoch"]
    best = f"best epoch {result['best_epoch']} of" if score or estimated else "epochs:"
    console.print(f"{best} {result['epochs']}, {result['seconds']:.0f} s of training{rate}")
    if not run_folder.has_checkpoint(folder):
        print(
            f"run folder:  {folder}; nothing else was kept: no checkpoint, no curves"
            " (trainer.fast_dev_run)"
        )
        return
    program, place = Path(sys.executable).name, shlex.quote(str(folder))
    print(f"run folder:  {folder}")
    print(f"curves:      {program} -m tensorboard.main --logdir {place}")
    print(f"denoise:     n2n denoise PICTURES -o clean --checkpoint {place}")


def _print_scores(console: Any, result: dict[str, Any]) -> None:
    """Print the scores of a run, and those of the noisy images."""
    from rich.table import Table

    table = Table(title=None, show_header=True)
    if result["val_self_loss"] is not None:
        console.print(
            "There is one image of each scene, and nothing to compare with: the checkpoint is the"
            " last one. The loss of images kept back against themselves is"
            f" {result['val_self_loss']:.5f}; that is no PSNR, and a smaller one may be a worse"
            " picture. data.val_noisy= with a few scenes taken twice would estimate PSNR."
        )
    elif result["noisy_psnr_estimate"] is not None:
        denoised = "not measurable with so few pixels"
        if result["val_psnr_estimate"]:
            ends = result["val_psnr_estimate_interval"] or (None, None)
            low, high = (f"{end:.2f}" if end else "?" for end in ends)
            denoised = f"{result['val_psnr_estimate']:.2f} dB [{low}, {high}]"
        table.add_column("")
        table.add_column("PSNR, estimated from noisy images [95%]", justify="right")
        table.add_row("noisy input", f"{result['noisy_psnr_estimate']:.2f} dB")
        table.add_row("denoised", denoised)
        if result.get("movie_psnr_estimate"):
            table.add_row("the whole movie, denoised", _movie_score(result))
        console.print(table)
    elif result["val_noisy_loss"] is not None:
        console.print(
            "PSNR is not measurable (see above); the checkpoint is that with the smallest loss of"
            f" pixels that the network did not see, {result['val_noisy_loss']:.5f}. It ranks runs"
            " with the same data.context and data.blind."
        )
    elif result["val_psnr"] is not None:
        table.add_column("")
        table.add_column("PSNR (mean of images)", justify="right")
        table.add_column("PSNR (total MSE)", justify="right")
        for label, name in (("noisy input", "noisy_psnr"), ("denoised", "val_psnr")):
            table.add_row(label, f"{result[name]:.2f} dB", f"{result[f'{name}_total']:.2f} dB")
        console.print(table)
    elif result.get("movie_psnr_estimate"):  # nothing was held out
        print(f"the whole movie, denoised: PSNR {_movie_score(result)}, estimated")


def _movie_score(result: dict[str, Any]) -> str:
    """Return the score of a whole movie with its interval."""
    ends = ["?" if end is None else f"{end:.2f}" for end in result["movie_psnr_estimate_interval"]]
    return f"{result['movie_psnr_estimate']:.2f} dB [{', '.join(ends)}]"


def _print_scored_captures(result: dict[str, Any]) -> None:
    """Print whose score it is, where that is not the plain mean of both captures of a pair."""
    captures = (result.get("score_of") or {}).get("captures", "mean of both")
    detail = captures.removeprefix("mean of both")
    if detail.startswith(":"):
        print(f"the score is the mean of both captures{detail}")
    elif detail:
        print(f"the score is that of {detail}")


def _mistyped(error: BaseException) -> bool:
    """Return True for an error of the person who typed the command."""
    return isinstance(error, InputError | HydraException | OmegaConfBaseException)


def _explained(error: BaseException, arguments: Sequence[str]) -> int:
    """Print one line about an error, or raise it again where nobody foresaw it.

    Args:
        error: the reason why the run ended.
        arguments: the command line.

    Returns:
        The exit status.
    """
    if _mistyped(error):
        line = " ".join(str(error).split())
        print("error:", validation.explained(line, arguments, CONF), file=sys.stderr)
        return 2
    if isinstance(error, KeyboardInterrupt):
        print("interrupted before training began", file=sys.stderr)
        return 128 + 2
    from n2n_lightning.training.callbacks import Interrupted
    from n2n_lightning.training.module import Diverged

    if isinstance(error, Interrupted):
        if is_worker_rank():
            return 0  # Lightning kills the first process where another one ends otherwise
        print(error, file=sys.stderr)
        return 128 + error.signum
    if isinstance(error, Diverged | DiskFull | PeerProcessDied):
        print("error:", error, file=sys.stderr)
        return 1
    unwritable = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
    if isinstance(error, OSError) and error.errno in unwritable:
        option = "hydra.sweep.dir" if MULTIRUN & {*arguments} else "hydra.run.dir"
        place = Path(str(error.filename))
        print("error:", override_syntax.unwritable(place, option, error), file=sys.stderr)
        return 2
    raise error


if __name__ == "__main__":
    main()
