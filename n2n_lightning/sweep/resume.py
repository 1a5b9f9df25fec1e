"""Going on with a sweep that was interrupted."""

import importlib.util
import json
import shlex
from pathlib import Path

from n2n_lightning.config.overrides import keep_default_network, quote, unquoted
from n2n_lightning.files import InputError
from n2n_lightning.sweep.jobs import set_aside
from n2n_lightning.sweep.results import read_sweep

PLUGIN_EXTRAS = {
    "hydra/launcher=ray": ("ray", "hydra_plugins.hydra_ray_launcher"),
    "hydra/launcher=slurm": ("slurm", "hydra_plugins.hydra_submitit_launcher"),
    "hydra/sweeper=n2n_optuna": ("optuna", "hydra_plugins.hydra_optuna_sweeper"),
}


def resumed(arguments: list[str]) -> list[str]:
    """The command line with `sweep.resume=FOLDER` carried out: the same sweep, in that folder.

    Alone it repeats what the sweep was started with. An Optuna study gets the trials that are left
    of those first asked for: one whose job was killed is marked as failed, and a seeded sampler
    does not propose its points again.
    """
    arguments = [a.replace("hydra/sweeper=optuna", "hydra/sweeper=n2n_optuna") for a in arguments]
    # Hydra takes -m before the overrides or after them only
    arguments.sort(key=lambda a: a not in ("-m", "--multirun"))
    for choice, (extra, package) in PLUGIN_EXTRAS.items():
        if choice in arguments and importlib.util.find_spec(package) is None:
            raise InputError(
                f"{choice.replace('n2n_', '')}: needs pip install 'n2n_lightning[{extra}]'"
            )
    given = [a.removeprefix("sweep.resume=") for a in arguments if a.startswith("sweep.resume=")]
    folders = [unquoted(value) for value in given]
    if not folders or folders[-1] == "null":
        return arguments
    folder = Path(folders[-1])
    try:
        before = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
        stored_arguments = [str(a) for a in before["arguments"]]
    except (OSError, ValueError, KeyError):
        raise InputError(
            "sweep.resume", folder, "not the folder of a sweep; it has no readable sweep.json"
        ) from None
    for job in sorted(folder.glob("*/.hydra/hydra.yaml"))[:1]:
        keep_default_network(job.parent.parent)
    own = [a for a in arguments if not a.startswith("sweep.resume=")]
    if not points(own):
        own = [*stored_arguments, *own]
    if points(own) != points(stored_arguments):
        raise InputError(
            "sweep.resume",
            folder,
            f"was started with {shlex.join(stored_arguments)}; repeat that, or nothing",
        )
    own = [
        "-m",
        *(a for a in own if a not in ("-m", "--multirun") and not a.startswith("hydra.sweep.dir=")),
    ]
    own += [f"hydra.sweep.dir={quote(str(folder))}"]
    database = folder / "study.db"
    asked = [
        a.removeprefix("hydra.sweeper.n_trials=")
        for a in own
        if a.startswith("hydra.sweeper.n_trials=")
    ]
    if not database.exists():
        return own
    rest = _rest_of_study(database, int(asked[-1] if asked else before["n_trials"]))
    for row in read_sweep(folder):
        if row["state"] not in ("finished", "failed", "running"):
            set_aside(folder / row["job"])  # a trial that was killed: another takes its place
    return [*own, *rest]


def points(arguments: list[str]) -> set[str]:
    """The arguments that say what is run; those of Hydra say where and how, and may change."""
    return {a for a in arguments if not a.startswith(("-", "hydra", "sweep."))}


def _rest_of_study(database: Path, n_trials: int) -> list[str]:
    try:
        import optuna
    except ImportError:
        raise InputError(
            "hydra/sweeper=optuna: needs pip install 'n2n_lightning[optuna]'"
        ) from None
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name="n2n_lightning", storage=f"sqlite:///{database}")
    done = 0
    for trial in study.get_trials(deepcopy=False):
        if (
            trial.state in (TrialState.COMPLETE, TrialState.FAIL)
            and "killed" not in trial.user_attrs
        ):
            done += 1
        elif trial.state == TrialState.RUNNING:
            # another takes its place
            optuna.trial.Trial(study, trial._trial_id).set_user_attr("killed", True)
            study.tell(trial.number, state=TrialState.FAIL)
    if done >= n_trials:
        raise InputError(
            "sweep.resume",
            database.parent,
            f"all {n_trials} trials are done; hydra.sweeper.n_trials= asks for more",
        )
    count = len(study.get_trials(deepcopy=False))
    return [
        f"hydra.sweeper.n_trials={n_trials - done}",
        f"hydra.sweeper.sampler.seed={1000 + count}",
        f"hydra.sweep.subdir={count}_${{hydra.job.num}}",
    ]
