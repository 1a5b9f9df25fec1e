"""The processes of one run (trainer=ddp): the first one writes all files, the others follow."""

import os

LEADER = "N2N_LIGHTNING_LEADER"  # set in the processes that a run starts


class PeerProcessDied(RuntimeError):
    """Another process of the run (trainer=ddp) ended before its time."""


def is_worker_rank() -> bool:
    """Whether this process was started by another one of the same run (trainer=ddp), which writes all files."""
    return LEADER in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"
