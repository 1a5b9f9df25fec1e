"""Which process of a run on several machines is the first."""

import sys
from pathlib import Path

import pytest

from n2n_lightning.files import InputError
from n2n_lightning.runs import processes

NODES = ["trainer=ddp", "trainer.num_nodes=2", "hydra.run.dir=/shared/a"]


@pytest.mark.parametrize(
    ("arguments", "environment", "follows"),
    [
        (NODES, {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, False),
        (NODES, {"SLURM_PROCID": "3", "SLURM_LOCALID": "0"}, True),
        (NODES, {"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, False),
        (NODES, {"RANK": "1", "LOCAL_RANK": "1"}, True),
        (NODES, {"NODE_RANK": "0"}, False),
        (NODES, {"NODE_RANK": "1"}, True),
        (NODES, {"NODE_RANK": "0", "LOCAL_RANK": "1"}, True),
        (NODES, {}, False),
        # four runs of their own in one allocation
        (["seed=1"], {"SLURM_PROCID": "3"}, False),
        ([*NODES, "trainer.num_nodes=1"], {"SLURM_PROCID": "3"}, False),
        # one that the first process started on its machine
        ([], {processes.LEADER: "/shared/a", "LOCAL_RANK": "1"}, True),
        ([], {processes.LEADER: "/shared/a"}, False),
    ],
)
def test_the_first_process_leads(arguments, environment, follows, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK", processes.LEADER):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    assert processes.is_worker_rank() == follows
    if follows:
        assert processes.leader_folder() == Path("/shared/a")


def test_the_folder_of_several_machines_is_named():
    assert processes.shared_folder(["resume=/shared/b"]) == Path("/shared/b")
    with pytest.raises(InputError, match=r"name it with hydra\.run\.dir="):
        processes.shared_folder(["trainer.num_nodes=2"])
