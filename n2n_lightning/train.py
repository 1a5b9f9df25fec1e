"""Train a denoiser: `python -m n2n_lightning.train model=unet optim.lr=0.01`, with `-m` for sweeps.

Composes the configuration in conf/, trains, and leaves a run folder: `.hydra/` (what was asked), `result.json`,
`metrics.csv`, TensorBoard events, `samples.png`, `checkpoints/best.ckpt` and `checkpoints/last.ckpt`.
"""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from n2n_lightning import mistakes, sweep
from n2n_lightning.files import FULL, DiskFull, InputError, disk_full, replacing

HERE = Path(__file__).resolve().parent
CONF = next(folder for folder in (HERE / "conf", HERE.parent / "conf") if folder.is_dir())


def train(
    config: dict[str, Any],
    folder: Path,
    command: str,
    lines: bool = False,
    accepted: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """One run, from its plain configuration to its run folder; returns what `result.json` holds.

    Continues from `folder/checkpoints/last.ckpt` if there is one, or from the checkpoint before if that is damaged.

    Args:
        config: the resolved configuration, plain dicts and lists.
        folder: the run folder.
        command: what repeats the run, for `result.json`.
        lines: print a line per epoch even where the output is a terminal.
        accepted: called when everything is built, before the run folder is written to.

    Raises:
        InputError: the configuration or the data cannot work.
        Diverged: the loss became NaN or infinite.
        Interrupted: SIGINT or SIGTERM arrived; the run can be continued.
        Deserted: another process of the run ended.
    """
    import pytorch_lightning as pl
    import torch
    from hydra.utils import instantiate

    from n2n_lightning import callbacks
    from n2n_lightning.module import Denoiser, Diverged
    from n2n_lightning.networks import multiply_accumulates

    _quiet()
    if not isinstance(config["seed"], int) or config["seed"] < 0:
        raise InputError(f"seed={config['seed']}: must be a whole number, 0 or more")
    pl.seed_everything(config["seed"], verbose=False)

    if config["target"] not in ("noisy", "clean"):
        raise InputError(f"target={config['target']}: must be noisy or clean")
    mistakes.refuse(config)
    data = _construct("data", lambda: instantiate(config["data"], supervised=config["target"] == "clean"))
    data.setup()
    if config["model"].get("channels") == "auto":
        config = {**config, "model": {**config["model"], "channels": data.channels}}
    network = _construct("model", lambda: instantiate(config["model"]))
    module = Denoiser(
        network,
        loss=_construct("loss", lambda: instantiate(config["loss"])),
        optimizer=_construct("optim", lambda: instantiate(config["optim"])),
        scheduler=_construct("scheduler", lambda: instantiate(config["scheduler"])),
        spec={"model": config["model"], "scale": data.scale, "config": config},
        reference=data.reference,
        bounded=data.bounded,
    )
    _construct("optim or scheduler", module.optimization)
    parameters = sum(p.numel() for p in network.parameters())
    operations = _construct("model", lambda: multiply_accumulates(network, data.channels))

    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "pytorch_lightning": pl.__version__}
    before = sweep.read_result(folder)

    def write(status: str, reason: str | None = None) -> dict[str, Any]:
        if follows():
            return {"status": status}
        scores = {**_scores(module.history), "epochs": len(module.history)}
        if not module.history:  # a run that goes on has not read its checkpoint yet
            scores = {name: before.get(name, value) for name, value in scores.items()}
        result = {
            "status": status,
            "reason": reason,
            **scores,
            "seed": config["seed"],
            "parameters": parameters,
            "macs_per_pixel": operations,
            "data": data.fingerprint,
            "precision": options["precision"],
            "device": _device_name(device),
            "processes": trainer.world_size,
            "versions": versions,
            "git_commit": commit,
            "command": command,
            "process": f"{socket.gethostname()}:{os.getpid()}",
        }
        with replacing(folder / "result.json") as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n")
        return result

    checkpoints = folder / "checkpoints"
    begin = callbacks.resumable(checkpoints)
    keepers = [callbacks.Best(checkpoints)] if data.reference == "clean" else []
    stop = callbacks.StopOnSignal(checkpoints / "last.ckpt")
    options = dict(config["trainer"])
    bar = options.pop("enable_progress_bar")
    bar = sys.stdout.isatty() and not lines if bar == "auto" else bar
    options["precision"] = _precision(options)
    watchers: list[pl.Callback] = [callbacks.LastWord(), callbacks.ProgressBar() if bar else callbacks.EpochLines()]
    # The stop is last: its checkpoint must hold what the others do after the same batch, as averages of the weights.
    watchers += [*instantiate(list(config["callbacks"].values())), callbacks.Pictures(folder / "samples.png"), stop]
    trainer = _construct(
        "trainer",
        lambda: instantiate(
            options,
            default_root_dir=str(folder),
            enable_progress_bar=bar,
            logger=[callbacks.Curves(folder), callbacks.MetricsFile(folder / "metrics.csv", lambda: write("running"))],
            callbacks=[*watchers, *keepers, callbacks.Last(checkpoints)],
            plugins=[callbacks.WholeCheckpoints()],
        ),
    )
    device, commit = trainer.strategy.root_device, _git_commit()
    if config["data"].get("batch_size", trainer.world_size) < trainer.world_size:
        raise InputError(
            f"data.batch_size={config['data']['batch_size']}: cannot be split among {trainer.world_size} processes"
        )
    if not follows():
        size = f"{parameters:,} parameters, {operations:,} MAC/pixel"
        several = f" in {trainer.world_size} processes" if trainer.world_size > 1 else ""
        print(f"{type(network).__name__}: {size}, {options['precision']} on {device}{several}", flush=True)

    try:
        accepted()
        write("running")
        os.environ.setdefault(LEADER, str(os.getpid()))
        threading.excepthook = _quiet_where_full
        trainer.fit(module, data, ckpt_path=begin, weights_only=True)
    except callbacks.Interrupted as error:
        write("interrupted", str(error))
        raise
    except Exception as error:
        cause, error = error, disk_full(folder, error) or error  # of the event files, which are not ours
        if trainer.world_size > 1 and re.search(r"[Cc]onnection (closed|reset)|[Bb]roken pipe|remote peer", str(error)):
            error = Deserted("another process of this run ended; resume=RUN_FOLDER continues from the last checkpoint")
        known = isinstance(error, Diverged | DiskFull | Deserted)
        with suppress(DiskFull):
            write("failed", str(error) if known else f"{type(error).__name__}: {error}")
        if error is cause:
            raise
        raise error from cause
    finally:
        threading.excepthook = threading.__excepthook__
        if not follows():
            os.environ.pop(LEADER, None)
        data.release()
    result = write("finished")
    if follows():
        return result
    _hyperparameters(folder, config, result)
    if stop.received:  # in the last validation, when there was nothing left to stop
        raise callbacks.Interrupted(stop.received)
    return result


class Deserted(RuntimeError):
    """Another process of the run (trainer=ddp) ended before its time."""


def _quiet_where_full(happened: Any) -> None:
    """Says nothing of TensorBoard's thread that found the disk full: the run finds it too, and says so in one line."""
    if not (isinstance(happened.exc_value, OSError) and happened.exc_value.errno in FULL):
        threading.__excepthook__(happened)


LEADER = "N2N_LIGHTNING_LEADER"  # set in the processes that a run starts


def follows() -> bool:
    """Whether this process was started by another one of the same run (trainer=ddp), which writes all files."""
    return LEADER in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"


def _scores(history: list[dict[str, float]]) -> dict[str, Any]:
    """The best epoch's scores (without clean images the last one's), and the speed of the whole training."""
    scored = [row for row in history if "val_psnr" in row]
    best = max(scored, key=lambda row: row["val_psnr"], default=history[-1] if history else {})
    names = ("val_psnr", "val_psnr_total", "noisy_psnr", "noisy_psnr_total", "val_loss", "val_noisy_loss", "train_loss")
    seconds = sum(row["seconds"] for row in history)
    return {
        **{name: best.get(name) for name in names},
        "best_epoch": best.get("epoch"),
        "seconds": round(seconds, 3),
        "images_per_second": round(sum(row["images"] for row in history) / seconds, 1) if seconds else None,
    }


def _construct(group: str, make: Any) -> Any:
    """What `make` returns; what Hydra or a constructor says against the configuration becomes one line."""
    import pytorch_lightning as pl
    from hydra.errors import InstantiationException
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    try:
        return make()
    except InputError:
        raise
    except (InstantiationException, ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
        cause = error.__cause__ or error
        if isinstance(cause, InputError):
            raise cause from None
        line = " ".join(str(cause).split())
        line = mistakes.unexpected(line, pl.Trainer) if group == "trainer" else line
        # A message that begins with the option itself says already where the mistake is.
        raise InputError(line if re.match(r"\w+(\.\w+)+=", line) else f"{group}: {line}") from error


def _precision(options: dict[str, Any]) -> str:
    """bf16-mixed where the device computes in bfloat16 faster than in float32, else 32-true."""
    import torch

    if options["precision"] != "auto":
        return str(options["precision"])
    if torch.cuda.is_available() and options["accelerator"] in ("auto", "gpu", "cuda"):
        fast = torch.cuda.get_device_capability() >= (8, 0)
    elif torch.backends.mps.is_available() and options["accelerator"] in ("auto", "gpu", "mps"):
        fast = False
    else:
        able = torch.cpu.get_capabilities()
        fast = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return "bf16-mixed" if fast else "32-true"


def _device_name(device: Any) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def _git_commit() -> str | None:
    """The commit of this code, with `-dirty` if it was changed since; None outside a checkout."""
    if not (HERE.parent / ".git").exists():
        return None
    command = ["git", "-C", str(HERE), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _hyperparameters(folder: Path, config: dict[str, Any], result: dict[str, Any]) -> None:
    """The run's row in TensorBoard's HParams tab, one for the whole run, written when its scores are known."""
    from torch.utils.tensorboard import SummaryWriter

    chosen = {name: config[name]["_target_"].rsplit(".", 1)[-1] for name in ("data", "model", "loss")}
    numbers = {k: v for k, v in config["optim"].items() if isinstance(v, int | float) and not isinstance(v, bool)}
    rates = {f"optim.{name}": value for name, value in numbers.items()}
    params = {**rates, **chosen, "seed": config["seed"], "batch_size": config["data"].get("batch_size", 0)}
    names = ("val_psnr", "val_psnr_total", "val_noisy_loss", "train_loss")
    scores = {f"final/{name}": result[name] for name in names if result[name] is not None}
    with SummaryWriter(str(folder)) as writer:
        writer.add_hparams(params, scores, run_name=".")


def _quiet() -> None:
    """Lightning's hints that do not apply here, and its advertising, off."""
    import logging
    import warnings

    for name in ("pytorch_lightning", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # batches are one indexing operation
        ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
        ".*your dataloader is not resumable.*",
        ".*recommended to use `self.log.*sync_dist=True.*",  # every process validates on all images
        ".*`isinstance.treespec, LeafSpec.` is deprecated.*",  # Lightning 2.6 with torch 2.13
    ):
        warnings.filterwarnings("ignore", message)


def summary(result: dict[str, Any], folder: Path) -> None:
    """The small table at the end of a run."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if result["val_psnr"] is None and result["val_noisy_loss"] is not None:
        console.print(
            "There are no clean images to compare with: the checkpoint is the last one. Its loss against noisy images,"
            f" which is mostly their own noise, is {result['val_noisy_loss']:.5f}."
        )
    elif result["val_psnr"] is not None:
        table = Table(title=None, show_header=True)
        for column in ("", "PSNR (mean of images)", "PSNR (total MSE)"):
            table.add_column(column, justify="right" if column else "left")
        for label, name in (("noisy input", "noisy_psnr"), ("denoised", "val_psnr")):
            table.add_row(label, f"{result[name]:.2f} dB", f"{result[f'{name}_total']:.2f} dB")
        console.print(table)
    rate = f", {result['images_per_second']:.0f} images/s" if result["images_per_second"] else ""
    best = f"best epoch {result['best_epoch']} of" if result["best_epoch"] else "epochs:"
    console.print(f"{best} {result['epochs']}, {result['seconds']:.0f} s of training{rate}")
    print(f"run folder:  {folder}")
    print(f"curves:      {Path(sys.executable).name} -m tensorboard.main --logdir {shlex.quote(str(folder))}")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _main(cfg: DictConfig) -> float | None:
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir).absolute()
    shown = Path(os.path.relpath(folder)) if folder.is_relative_to(Path.cwd()) else folder
    if job.mode == RunMode.RUN:
        try:
            if cfg.resume is None and (folder / "result.json").exists() and not follows():
                raise InputError(f"{shown} holds a run: resume={shown} continues it, another hydra.run.dir starts anew")
            finished = _run(cfg, folder)
            if not follows():
                summary(finished, shown)
        except Exception as error:
            sys.exit(_explain(error))
        return None
    overrides = [o for o in job.overrides.task if not o.startswith("sweep.")]
    result = sweep.stored(folder, overrides, cfg.sweep.retry_failed)
    if result is None:
        with sweep.job(job.launcher["_target_"], int(job.launcher.get("n_jobs", 1)), cfg.sweep.jobs_per_gpu, folder):
            result = _run_of_sweep(cfg, folder)
    return sweep.merit(result) if result["status"] == "finished" else None


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
    config: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)

    def accepted() -> None:
        if follows():
            return
        for name, content in {"config": cfg, "overrides": overrides, "hydra": {"hydra": job}}.items():
            with replacing(folder / ".hydra" / f"{name}.yaml") as temporary:
                OmegaConf.save(content, temporary)

    if job.mode == RunMode.MULTIRUN:
        accepted()  # the folder is this job's own, and a failed job is a row with its overrides, too
    command = shlex.join(["python", "-m", "n2n_lightning.train", *overrides])
    with nullcontext() if follows() else sweep.held(folder):
        return train(config, folder, command, lines=job.mode == RunMode.MULTIRUN, accepted=accepted)


def _run_of_sweep(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """One run of a sweep: what stops it before training began is its result, too."""
    try:
        return _run(cfg, folder)
    except Exception as error:
        if signum := getattr(error, "signum", 0):
            sys.exit(128 + signum)  # not an Exception: it ends the sweep, not only this job
        result = sweep.read_result(folder)
        if result.get("status") != "failed":
            reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            result = {"status": "failed", "reason": " ".join(reason.split())}
            with replacing(folder / "result.json") as temporary:
                temporary.write_text(json.dumps(result) + "\n")
        traceback.print_exc(file=sys.stdout)  # into the job's log.txt
        return result


def _resumed(arguments: list[str]) -> list[str]:
    """The command line with `resume=FOLDER` replaced by what the run in FOLDER was started with, then the rest."""
    folders = [a.removeprefix("resume=") for a in arguments if a.startswith("resume=") and a != "resume=null"]
    if not folders:
        return arguments
    folder = Path(folders[-1])
    asked = folder / ".hydra" / "overrides.yaml"
    if not asked.is_file():
        raise InputError(f"resume={folder}: not a run folder; it has no .hydra/overrides.yaml")
    if {"-m", "--multirun"} & {*arguments}:
        raise InputError(f"resume={folder}: continues a single run; a sweep is continued with sweep.resume=")
    if not any((folder / "checkpoints").glob("*.ckpt")):
        raise InputError(f"resume={folder}: there is no checkpoints/last.ckpt to continue from")
    before = [str(a) for a in OmegaConf.load(asked) if not str(a).startswith("resume=")]
    after = [a for a in arguments if not a.startswith("resume=")]
    fixed = [a for a in after if a.lstrip("+~").startswith(("optim", "scheduler", "model", "seed"))]
    if fixed:
        raise InputError(f"{fixed[0]}: cannot change when a run goes on, its checkpoint has it; start a new run")
    value = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return [*before, *after, f"resume='{value}'", f"hydra.run.dir='{value}'"]


def _mistyped(error: BaseException) -> bool:
    """Whether what was asked for cannot work."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    return isinstance(error, InputError | HydraException | OmegaConfBaseException)


def _explain(error: BaseException) -> int:
    """One line for the person at the terminal, and the exit status; what nobody foresaw is raised again."""
    if _mistyped(error):
        line = " ".join(str(error).split())
        print("error:", mistakes.explained(line, sys.argv[1:], CONF), file=sys.stderr)
        return 2
    if isinstance(error, KeyboardInterrupt):
        print("interrupted before training began", file=sys.stderr)
        return 128 + 2
    from n2n_lightning.callbacks import Interrupted
    from n2n_lightning.module import Diverged

    if isinstance(error, Interrupted):
        if follows():
            return 0  # Lightning kills the first process where another one ends otherwise
        print(error, file=sys.stderr)
        return 128 + error.signum
    if isinstance(error, Diverged | DiskFull | Deserted):
        print("error:", error, file=sys.stderr)
        return 1
    raise error


def main() -> None:
    """The command line: exit status 0, 1 for what broke, 2 for what cannot work as asked, 128+n after signal n."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises, and _explain's line is all that is shown
    status: Any = 0
    try:
        if not follows():
            sys.argv[1:] = sweep.resumed(_resumed(sys.argv[1:]))
        sweep.Sweep.arguments = sys.argv[1:]
        _main()
    except SystemExit as error:
        status = error.code
    except (Exception, KeyboardInterrupt) as error:
        begun = sweep.Sweep.current and not (_mistyped(error) and sweep.Sweep.current.withdrawn())
        status = sweep.explain(error) if begun else _explain(error)
    if sweep.Sweep.current:
        status = sweep.Sweep.current.close(status)
    sys.exit(status)


if __name__ == "__main__":
    main()
