"""Sweeps: many runs of one command, and their common result.

Hydra says where jobs run and how points are chosen (conf/hydra/). Here is what its launchers leave
open: one GPU per job, no process left behind, finished jobs skipped when a sweep is continued, and
the table of all jobs.
"""

import warnings

from n2n_lightning.config.hydra_versions import register_resolver
from n2n_lightning.sweep.cluster import gpus_per_job
from n2n_lightning.sweep.watch import Start

__all__ = ["Start"]

# conf/hydra/ has launchers of the plugins' names, with keys explained and other defaults; workers
# import this, too.
warnings.filterwarnings("ignore", r"(?s).*is validated against ConfigStore schema")

register_resolver("n2n_gpu_per_job", gpus_per_job)
