"""All benchmarks of speed and memory in under ten minutes: `make bench`.

    python benchmarks/bench.py [--only startup training ...] [--out bench.json]

Runs the other programs of this folder with sizes that fit the time, and collects their results in
one JSON file with the machine, the versions and the commit. docs/explanation/performance.md
explains them.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from n2n_lightning.runs.folder import git_commit

HERE = Path(__file__).parent
PARTS = {
    "startup": ["--rounds", "3"],
    "training": ["--rounds", "3"],
    "memory": ["--gigabytes", "2"],
    "denoise_size": ["--megapixels", "1", "10"],
    "sweep_workers": ["--rounds", "1"],
}


def processor() -> str:
    """Return the processor's name and its features for low precision."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor()
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in lines.items()}
    fast = {"avx512_bf16", "amx_bf16", "avx2"} & set(fields.get("flags", "").split())
    return f"{fields.get('model name', platform.machine())} ({', '.join(sorted(fast))})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    args = parser.parse_args()
    import torch

    found = {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {
            name: version(name)
            for name in ("torch", "pytorch-lightning", "torchmetrics", "hydra-core")
        },
        "commit": git_commit(),
    }
    print("\n".join(f"{name}: {value}" for name, value in found.items()))
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.only:
            print(f"\n{name}", flush=True)
            out = Path(temporary) / f"{name}.json"
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, HERE / f"{name}.py", *PARTS[name], "--out", out], check=False
            )
            if done.returncode:
                sys.exit(f"error: benchmarks/{name}.py ended with status {done.returncode}")
            found[name] = json.loads(out.read_text())
            print(f"({time.perf_counter() - started:.0f} s)", flush=True)
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{args.out}")


if __name__ == "__main__":
    main()
