"""The processes of one run (trainer=ddp): the first one writes all files, the others follow.

On one machine the first process starts the others. On several (trainer.num_nodes), Slurm, torchrun
or the user starts a process or more on each, all with the same command.
"""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from n2n_lightning.files import InputError

# set by the first process of a run for those that it starts: the run folder
LEADER = "N2N_LIGHTNING_LEADER"
# What numbers the processes of all machines from 0: torchrun, Slurm; the user, by machine.
_RANKS = ("RANK", "SLURM_PROCID", "NODE_RANK")
_NODES = re.compile(r"\+{0,2}trainer\.num_nodes=(\d+)")
_RUN_FOLDER = re.compile(r"(?:hydra\.run\.dir|resume)=(.+)")


class PeerProcessDied(RuntimeError):
    """Another process of the run (trainer=ddp) ended before its time."""


def is_worker_rank() -> bool:
    """Return True in each process of a run but the first one."""
    if LEADER in os.environ:
        return os.environ.get("LOCAL_RANK", "0") != "0"
    return spans_machines(sys.argv[1:]) and _rank_of_launcher() != "0"


def spans_machines(arguments: Sequence[str]) -> bool:
    """Return True if a command line is that of a run on several machines.

    >>> spans_machines(["trainer=ddp", "trainer.num_nodes=2"]), spans_machines(["trainer=ddp"])
    (True, False)
    """
    nodes = [match[1] for match in map(_NODES.fullmatch, arguments) if match]
    return bool(nodes) and int(nodes[-1]) > 1


def leader_folder() -> Path:
    """Return the run folder of the first process; see `is_worker_rank`."""
    if LEADER in os.environ:
        return Path(os.environ[LEADER])
    return shared_folder(sys.argv[1:])


def shared_folder(arguments: Sequence[str]) -> Path:
    """Return the folder of a run on several machines, which its command line must name.

    Raises:
        InputError: it does not.
    """
    for word in arguments:
        match = _RUN_FOLDER.fullmatch(word)
        if match:
            return Path(match[1])
    raise InputError(
        "trainer.num_nodes: all machines write into one folder; name it with hydra.run.dir="
    )


def _rank_of_launcher() -> str:
    """Return the number of this process in the run, as its launcher says; 0 if nothing says so."""
    for name in _RANKS:
        if name in os.environ:
            rank = os.environ[name]
            break
    else:
        return "0"
    if name == "NODE_RANK" and rank == "0":
        return os.environ.get("LOCAL_RANK", "0")
    return rank
