"""The processes of one run (trainer=ddp): the first one writes all files, the others follow."""

import os
from pathlib import Path

# set by the first process of a run for those that it starts: the run folder
LEADER = "N2N_LIGHTNING_LEADER"


class PeerProcessDied(RuntimeError):
    """Another process of the run (trainer=ddp) ended before its time."""


def is_worker_rank() -> bool:
    """Return True in a process that the first one of the same run started."""
    return LEADER in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"


def leader_folder() -> Path:
    """Return the run folder of the process that started this one; see `is_worker_rank`."""
    return Path(os.environ[LEADER])
