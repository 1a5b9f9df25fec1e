"""What a Ray cluster has, which may be more than the machine that jobs are sent from."""

import logging

from n2n_lightning.devices.cards import gpus


def gpus_per_job(address: str | None = None) -> int:
    """Return how many GPUs a job of Ray's asks for: 1 where there are some, else 0.

    Args:
        address: of a running cluster; empty: Ray starts on this machine.
    """
    if address in (None, "", "local"):
        return 1 if gpus() else 0
    import ray

    ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        return 1 if ray.cluster_resources().get("GPU") else 0
    finally:
        ray.shutdown()
