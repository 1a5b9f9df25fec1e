"""A sweep as one thing.

Where jobs run and how points are chosen is Hydra's business (conf/hydra/); here is what Hydra's
launchers leave open: one GPU per job, no process left behind, skipping what is done when a sweep is
continued, and the result of it all.
"""

import warnings

from omegaconf import OmegaConf

from n2n_lightning.sweep.jobs import gpus
from n2n_lightning.sweep.watch import Start, Sweep

__all__ = ["Start", "Sweep"]

# conf/hydra/ has launchers of the plugins' names, with keys explained and other defaults; workers
# import this, too.
warnings.filterwarnings("ignore", r"(?s).*is validated against ConfigStore schema")

OmegaConf.register_new_resolver("n2n_gpu_per_job", lambda: 1 if gpus() else 0, replace=True)
