"""Continue a sweep that was interrupted."""

import importlib.util
import shlex
from collections.abc import Sequence
from pathlib import Path

from n2n_lightning.config.overrides import MULTIRUN, quote, unquoted
from n2n_lightning.config.targets import refuse_foreign, targets_in_words
from n2n_lightning.files import InputError, option
from n2n_lightning.runs.folder import read_sweep_request
from n2n_lightning.sweep.jobs import set_aside
from n2n_lightning.sweep.results import read_sweep

PLUGIN_EXTRAS = {
    "hydra/launcher=joblib": ("joblib", "hydra_plugins.hydra_joblib_launcher"),
    "hydra/launcher=ray": ("ray", "hydra_plugins.hydra_ray_launcher"),
    "hydra/launcher=slurm": ("slurm", "hydra_plugins.hydra_submitit_launcher"),
    "hydra/sweeper=n2n_optuna": ("optuna", "hydra_plugins.hydra_optuna_sweeper"),
}
TRIALS = "hydra.sweeper.n_trials="


def resumed_sweep(arguments: Sequence[str]) -> list[str]:
    """Replace `sweep.resume=FOLDER` by the command line that continues the sweep in that folder.

    Alone it repeats what the sweep was started with. An Optuna study gets the trials that are left
    of those first asked for: one whose job was killed is marked as failed, and a seeded sampler
    does not propose its points again.

    Returns:
        The command line; without `sweep.resume=` the arguments, -m first.

    Raises:
        InputError: there is no such sweep, or it was another one, or a package is missing.
    """
    arguments = [a.replace("hydra/sweeper=optuna", "hydra/sweeper=n2n_optuna") for a in arguments]
    # Hydra takes -m before the overrides or after them only
    arguments.sort(key=lambda word: word not in MULTIRUN)
    for choice, (extra, package) in PLUGIN_EXTRAS.items():
        if choice in arguments and importlib.util.find_spec(package) is None:
            raise InputError(
                f"{choice.replace('n2n_', '')}: needs pip install 'n2n_lightning[{extra}]'"
            )
    folder = _last_value(arguments, "sweep.resume=")
    if folder is None or folder == "null":
        return arguments
    return _continued(Path(folder), [a for a in arguments if not a.startswith("sweep.resume=")])


def _continued(folder: Path, typed: list[str]) -> list[str]:
    """Return the command line that continues the sweep in a folder."""
    request = read_sweep_request(folder)
    if not request:
        raise InputError(
            "sweep.resume", folder, "not the folder of a sweep; it has no readable sweep.json"
        )
    stored = [str(word) for word in request["arguments"]]
    refuse_foreign(targets_in_words(stored), option("sweep.resume", folder), typed)
    typed = [word for word in typed if not word.lstrip("+").startswith("allow=")]
    if not points(typed):
        typed = [*stored, *typed]
    if points(typed) != points(stored):
        reason = f"was started with {shlex.join(stored)}; repeat that, or nothing"
        raise InputError("sweep.resume", folder, reason)
    words = [a for a in typed if a not in MULTIRUN and not a.startswith("hydra.sweep.dir=")]
    arguments = ["-m", *words, f"hydra.sweep.dir={quote(str(folder))}"]
    database = folder / "study.db"
    if not database.exists():
        return arguments
    n_trials = int(_last_value(arguments, TRIALS) or request["n_trials"])
    remaining = _rest_of_study(database, n_trials)
    for row in read_sweep(folder):
        if row["state"] not in ("finished", "failed", "running"):
            set_aside(folder / row["job"])  # a trial that was killed: another takes its place
    return [*arguments, *remaining]


def points(arguments: Sequence[str]) -> set[str]:
    """Return the arguments that say what is run; those of Hydra say where, and may change."""
    return {a for a in arguments if not a.startswith(("-", "hydra", "sweep."))}


def _last_value(arguments: Sequence[str], option: str) -> str | None:
    """Return what the last argument `option` (with its =) is set to; None where there is none."""
    values = [a.removeprefix(option) for a in arguments if a.startswith(option)]
    return unquoted(values[-1]) if values else None


def _rest_of_study(database: Path, n_trials: int) -> list[str]:
    """Return the options that continue an Optuna study to a number of trials."""
    try:
        import optuna
    except ImportError:
        raise InputError(
            "hydra/sweeper=optuna: needs pip install 'n2n_lightning[optuna]'"
        ) from None
    from optuna.trial import Trial, TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name="n2n_lightning", storage=f"sqlite:///{database}")
    done = 0
    for trial in study.get_trials(deepcopy=False):
        ended = trial.state in (TrialState.COMPLETE, TrialState.FAIL)
        if ended and "killed" not in trial.user_attrs:
            done += 1
        elif trial.state == TrialState.RUNNING:
            # another takes its place
            Trial(study, trial._trial_id).set_user_attr("killed", True)
            study.tell(trial.number, state=TrialState.FAIL)
    if done >= n_trials:
        reason = f"all {n_trials} trials are done; {TRIALS} asks for more"
        raise InputError("sweep.resume", database.parent, reason)
    count = len(study.get_trials(deepcopy=False))
    return [
        f"{TRIALS}{n_trials - done}",
        f"hydra.sweeper.sampler.seed={1000 + count}",
        f"hydra.sweep.subdir={count}_${{hydra.job.num}}",
    ]
