"""Train a denoiser: `python -m n2n_lightning.train model=unet optim.lr=0.01`, with `-m` for sweeps.

Composes the configuration in conf/, trains, and leaves a run folder: `.hydra/` (what was asked),
`result.json`, `metrics.csv`, TensorBoard events, `samples.png`, `checkpoints/best.ckpt` and
`checkpoints/last.ckpt`.
"""

import errno
import os
import shlex
import sys
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from n2n_lightning import sweep
from n2n_lightning.config import overrides as override_syntax
from n2n_lightning.config import validation
from n2n_lightning.files import DiskFull, InputError, replacing
from n2n_lightning.runs import folder as run_folder
from n2n_lightning.runs.processes import PeerProcessDied, is_worker_rank
from n2n_lightning.sweep.jobs import job as sweep_job
from n2n_lightning.sweep.jobs import stored_result
from n2n_lightning.sweep.resume import resumed
from n2n_lightning.sweep.watch import explain

CONF = override_syntax.CONF


def summary(result: dict[str, Any], folder: Path) -> None:
    """The small table at the end of a run."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if result["val_self_loss"] is not None:
        console.print(
            "There is one image of each scene, and nothing to compare with: the checkpoint is"
            " the last one. The loss of images kept back against themselves is"
            f" {result['val_self_loss']:.5f}; that is no PSNR, and a smaller one may be a worse"
            " picture. data.val_noisy= with a few scenes taken twice would estimate PSNR."
        )
    elif result["noisy_psnr_estimate"] is not None:
        low, high = (
            f"{end:.2f}" if end else "?"
            for end in result["val_psnr_estimate_interval"] or (None, None)
        )
        value = result["val_psnr_estimate"]
        found = f"{value:.2f} dB [{low}, {high}]" if value else "not measurable with so few pixels"
        table = Table(title=None, show_header=True)
        table.add_column("")
        table.add_column("PSNR, estimated from noisy images [95%]", justify="right")
        table.add_row("noisy input", f"{result['noisy_psnr_estimate']:.2f} dB")
        table.add_row("denoised", found)
        console.print(table)
    elif result["val_psnr"] is not None:
        table = Table(title=None, show_header=True)
        for column in ("", "PSNR (mean of images)", "PSNR (total MSE)"):
            table.add_column(column, justify="right" if column else "left")
        for label, name in (("noisy input", "noisy_psnr"), ("denoised", "val_psnr")):
            table.add_row(label, f"{result[name]:.2f} dB", f"{result[f'{name}_total']:.2f} dB")
        console.print(table)
    if pixels := result.get("outlier_pixels"):
        name = (
            "val_psnr_without_outliers"
            if result["val_psnr"] is not None
            else "val_psnr_estimate_without_outliers"
        )
        print(
            f"without {pixels:.0f} isolated pixels that stand out"
            f" (docs/reference/outliers.md): {result[name]:.2f} dB"
        )
    if (
        scored := (result.get("score_of") or {})
        .get("captures", "mean of both")
        .removeprefix("mean of both")
    ):
        print(
            f"the score is that of {scored}"
            if scored[0] != ":"
            else f"the score is the mean of both captures{scored}"
        )
    score = next((n for n in ("psnr_estimate", "psnr") if result[f"val_{n}"] is not None), None)
    if score and result[f"val_{score}"] < result[f"noisy_{score}"]:
        print(
            "worse than the noisy input: train longer (trainer.max_epochs=, trainer.max_time=),"
            " or at another optim.lr="
        )
    rate = f", {result['images_per_second']:.0f} images/s" if result["images_per_second"] else ""
    scored = score is not None or (
        result["noisy_psnr_estimate"] is not None and result["best_epoch"]
    )
    best = f"best epoch {result['best_epoch']} of" if scored else "epochs:"
    console.print(f"{best} {result['epochs']}, {result['seconds']:.0f} s of training{rate}")
    if not any((folder / "checkpoints").glob("*.ckpt")):
        print(
            f"run folder:  {folder}; nothing else was kept: no checkpoint, no curves"
            " (trainer.fast_dev_run)"
        )
        return
    program, place = Path(sys.executable).name, shlex.quote(str(folder))
    print(f"run folder:  {folder}")
    print(f"curves:      {program} -m tensorboard.main --logdir {place}")
    print(f"denoise:     {program} -m n2n_lightning.denoise PICTURES -o clean --checkpoint {place}")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _main(cfg: DictConfig) -> float | None:
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir).absolute()
    shown = Path(os.path.relpath(folder)) if folder.is_relative_to(Path.cwd()) else folder
    if job.mode == RunMode.RUN:
        try:
            if cfg.resume is None and (folder / "result.json").exists() and not is_worker_rank():
                raise InputError(
                    f"{shown} holds a run: resume={shown} continues it, another hydra.run.dir"
                    " starts anew"
                )
            before = run_folder.read_result(folder) if cfg.resume is not None else {}
            finished = _run(cfg, folder)
            if not is_worker_rank():
                if (
                    before.get("status") == "finished"
                    and before.get("epochs") == finished["epochs"]
                ):
                    print(
                        "it was finished already; a larger trainer.max_epochs= or max_time="
                        " beside resume= goes further"
                    )
                summary(finished, shown)
        except Exception as error:
            sys.exit(_explain(error))
        return None
    overrides = [o for o in job.overrides.task if not o.startswith("sweep.")]
    result = stored_result(folder, overrides, cfg.sweep.retry_failed)
    if result is None:
        with sweep_job(
            job.launcher["_target_"],
            int(job.launcher.get("n_jobs", 1)),
            cfg.sweep.jobs_per_gpu,
            folder,
        ):
            result = _run_of_sweep(cfg, folder)
    return run_folder.ranking_score(result) if result["status"] == "finished" else None


def _run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Checks the composed configuration, writes `.hydra/`, and trains."""
    job = HydraConfig.get()
    overrides = [o for o in job.overrides.task if not o.startswith(("sweep.", "resume="))]
    asked = [o for o in overrides if o.startswith(("noise=", "noise."))]
    if asked and "noise" not in cfg.data:
        raise InputError(
            f"{asked[0]}: data={job.runtime.choices['data']} are noisy already; noise= goes with"
            " data=photos and data=images"
        )
    cfg = _as_begun(cfg, folder, overrides)
    config: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    override_syntax.apply_time_budget(config, overrides)
    override_syntax.placed(config, Path(job.runtime.cwd))

    def accepted() -> None:
        if is_worker_rank():
            return
        for name, content in {
            "config": cfg,
            "overrides": overrides,
            "hydra": {"hydra": job},
        }.items():
            with replacing(folder / ".hydra" / f"{name}.yaml") as temporary:
                OmegaConf.save(content, temporary)

    if job.mode == RunMode.MULTIRUN:
        # the folder is this job's own, and a failed job is a row with its overrides, too
        accepted()
    command = shlex.join(
        ["python", "-m", "n2n_lightning.train", *map(override_syntax.bare, overrides)]
    )
    from n2n_lightning.training import warm_start  # after all that needs no torch
    from n2n_lightning.training.run import train

    if cfg.init is not None and cfg.resume is None:
        warm_start.refuse_overrides(str(config["init"]), overrides, config["model"])
    with nullcontext() if is_worker_rank() else run_folder.locked(folder):
        return train(config, folder, command, lines=job.mode == RunMode.MULTIRUN, accepted=accepted)


def _as_begun(cfg: Any, folder: Path, overrides: list[str]) -> Any:
    """The configuration of a run that goes on: what it began with, and what was typed since then.

    The defaults in conf/ may be others by now, and what a checkpoint holds fits those of its own
    time.
    """
    stored = [folder / ".hydra" / f"{name}.yaml" for name in ("config", "overrides")]
    if not all(path.is_file() for path in stored) or not any(
        (folder / "checkpoints").glob("*.ckpt")
    ):
        return cfg
    begun: Any = OmegaConf.load(stored[0])
    asked: Any = OmegaConf.load(stored[1])
    new = [o for o in overrides if o not in set(asked)]
    names = [o.lstrip("+").partition("=")[0] for o in new]
    if any(name == "experiment" or name.startswith("~") for name in names):  # much may change
        return cfg
    merged: Any = OmegaConf.create({})
    for group in cfg:
        now = cfg._get_node(group)
        if group in ("hydra", "init", "resume", *names) or group not in begun:
            merged[group] = now
            continue
        merged[group] = then = begun._get_node(group)
        if OmegaConf.is_dict(then) and OmegaConf.is_dict(now):
            for key in [k for k in then if k not in now]:  # an option that there is no more
                del then[key]
            for key in [k for k in now if k not in then]:  # or that came since then
                then[key] = now._get_node(key)
            merged[group] = then
    for name in names:
        if "." in name:
            OmegaConf.update(merged, name, OmegaConf.select(cfg, name), force_add=True)
    return merged


def _run_of_sweep(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """One run of a sweep: what stops it before training began is its result, too."""
    try:
        return _run(cfg, folder)
    except Exception as error:
        if signum := getattr(error, "signum", 0):
            sys.exit(128 + signum)  # not an Exception: it ends the sweep, not only this job
        result = run_folder.read_result(folder)
        if result.get("status") != "failed":
            reason = (
                str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            )
            result = {"status": "failed", "reason": " ".join(reason.split())}
            run_folder.write_result(folder, result)
        traceback.print_exc(file=sys.stdout)  # into the job's log.txt
        return result


def _resumed(arguments: list[str]) -> list[str]:
    """The command line with `resume=FOLDER` replaced by what the run in FOLDER was started with, then the rest."""
    given = [
        a.removeprefix("resume=")
        for a in arguments
        if a.startswith("resume=") and a != "resume=null"
    ]
    folders = [override_syntax.unquoted(value) for value in given]
    if not folders:
        return arguments
    folder = Path(folders[-1])
    asked = folder / ".hydra" / "overrides.yaml"
    if not asked.is_file():
        raise InputError("resume", folder, "not a run folder; it has no .hydra/overrides.yaml")
    if {"-m", "--multirun"} & {*arguments}:
        raise InputError(
            "resume", folder, "continues a single run; a sweep is continued with sweep.resume="
        )
    if not any((folder / "checkpoints").glob("*.ckpt")):
        raise InputError("resume", folder, "there is no checkpoints/last.ckpt to continue from")
    override_syntax.keep_default_network(folder)
    before = [str(a) for a in OmegaConf.load(asked) if not str(a).startswith("resume=")]
    after = [a for a in arguments if not a.startswith("resume=")]
    after = [a for a in after if a not in before]  # what is as it was need not be said, and may be
    fixed = [a for a in after if a.lstrip("+~").startswith(("optim", "scheduler", "model", "seed"))]
    if fixed:
        raise InputError(
            f"{fixed[0]}: cannot change when a run goes on, its checkpoint has it; start a new run"
        )
    value = override_syntax.quote(str(folder))
    return [*before, *after, f"resume={value}", f"hydra.run.dir={value}"]


def _mistyped(error: BaseException) -> bool:
    """Whether what was asked for cannot work."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    return isinstance(error, InputError | HydraException | OmegaConfBaseException)


def _explain(error: BaseException) -> int:
    """One line for the person at the terminal, and the exit status; what nobody foresaw is raised again."""
    if _mistyped(error):
        line = " ".join(str(error).split())
        print("error:", validation.explained(line, sys.argv[1:], CONF), file=sys.stderr)
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
    if isinstance(error, OSError) and error.errno in (
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
    ):
        print("error:", _unwritable(error), file=sys.stderr)
        return 2
    raise error


def _unwritable(error: OSError) -> InputError:
    option = "hydra.sweep.dir" if {"-m", "--multirun"} & {*sys.argv} else "hydra.run.dir"
    return override_syntax.unwritable(Path(str(error.filename)), option, error)


def main() -> None:
    """The command line: exit status 0, 1 for what broke, 2 for what cannot work as asked, 128+n after signal n."""
    # Hydra then raises, and _explain's line is all that is shown
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    status: Any = 0
    folder: Path | None = None
    try:
        if not is_worker_rank():
            validation.foreign(sys.argv[1:])
            sys.argv[1:] = resumed(_resumed(override_syntax.quoted(sys.argv[1:])))
        sweep.Sweep.arguments = sys.argv[1:]
        if not is_worker_rank():
            sys.argv[1:], folder = override_syntax.claim_run_folder(sys.argv[1:])
        _main()
    except SystemExit as error:
        status = error.code
    except (Exception, KeyboardInterrupt) as error:
        begun = sweep.Sweep.current and not (_mistyped(error) and sweep.Sweep.current.withdrawn())
        status = explain(error) if begun else _explain(error)
    if sweep.Sweep.current:
        status = sweep.Sweep.current.close(status)
    override_syntax.remove_empty_folder(folder)
    sys.exit(status)


if __name__ == "__main__":
    main()
