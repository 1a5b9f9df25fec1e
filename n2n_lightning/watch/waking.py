"""When a folder is worth searching: events of the operating system, or a clock."""

import time
from collections.abc import Iterator
from pathlib import Path

TICK = 0.25  # seconds: pictures that rest are noticed that soon


def wakes(folder: Path, polling: bool) -> Iterator[bool]:
    """Yield every TICK, True where something in the folder may have changed.

    Args:
        folder: with all folders below it.
        polling: there are no events, as on some network disks: always True.
    """
    try:
        import watchfiles
    except ModuleNotFoundError:  # not installed: n2n_lightning[watch]
        polling = True
    if polling:
        while True:
            time.sleep(TICK)
            yield True
    changes = watchfiles.watch(
        folder, rust_timeout=int(1000 * TICK), yield_on_timeout=True, raise_interrupt=True
    )
    for changed in changes:
        yield bool(changed)
