"""Seconds and peak memory of `denoise` against the size of the picture, beside non-local means.

    python benchmarks/denoise_size.py [--megapixels 1 10 100] [--formats tif png npy]
                                      [--out FILE.json]

Each picture is denoised by the command, in a process of its own, whose peak resident memory the
kernel reports. Non-local means denoises the smallest size only; its memory and time are
proportional to the size.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from skimage import data

NL_MEANS = """
import sys, numpy as np
from skimage.restoration import denoise_nl_means
x = np.load(sys.argv[1])
options = {"h": 0.06, "sigma": 0.08, "patch_size": 5, "patch_distance": 6, "channel_axis": -1}
np.save(sys.argv[2], denoise_nl_means(x, **options))
"""


def picture(path: Path, megapixels: float) -> None:
    """Return a noisy photograph, repeated to the size, RGB, 8 bit."""
    side = round((megapixels * 1e6) ** 0.5)
    tile = data.retina()[:1000, :1000]
    rng = np.random.default_rng(0)
    tile = (tile + rng.normal(0, 20, tile.shape)).clip(0, 255).astype(np.uint8)
    image = np.tile(tile, (-(-side // 1000), -(-side // 1000), 1))[:side, :side]
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(image, level=1))
    elif path.suffix == ".tif":
        tifffile.imwrite(path, image, photometric="rgb")
    else:
        np.save(path, image)


def measured(command: list[str]) -> tuple[float, float]:
    """Return seconds and peak memory, MiB, of a command."""
    code = (
        "import resource, subprocess, sys\n"
        "status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(status)"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True
    )
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return time.perf_counter() - started, int(done.stdout) / unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 10, 100])
    parser.add_argument("--formats", nargs="+", default=["tif"], choices=["tif", "png", "npy"])
    parser.add_argument("--out", type=Path, default=Path("denoise_size.json"))
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for megapixels in args.megapixels:
            for suffix in args.formats:
                path = Path(temporary) / f"noisy.{suffix}"
                picture(path, megapixels)
                command = [
                    sys.executable,
                    "-m",
                    "n2n_lightning.denoise",
                    str(path),
                    "-o",
                    str(path.parent / "out"),
                ]
                rows.append(
                    ("n2n_lightning", suffix, megapixels, *measured([*command, "--overwrite"]))
                )
                print("{:16}{:5}{:7.0f} MP {:8.1f} s {:8.0f} MiB".format(*rows[-1]), flush=True)
        small = Path(temporary) / "small.npy"
        picture(small, min(args.megapixels))
        np.save(small, np.load(small).astype(np.float32) / 255)
        command = [sys.executable, "-c", NL_MEANS, str(small), str(small.with_name("out.npy"))]
        rows.append(("non-local means", "npy", min(args.megapixels), *measured(command)))
        print("{:16}{:5}{:7.0f} MP {:8.1f} s {:8.0f} MiB".format(*rows[-1]))
    names = ("method", "format", "megapixels", "seconds", "peak_mib")
    args.out.write_text(
        json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
