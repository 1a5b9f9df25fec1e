"""Each extra in an environment of its own: what its command needs must be in it, and no more.

    python packaging/try_extras.py FOLDER [EXTRA ...]

Builds the wheel, installs it in FOLDER/base, and for each extra makes an environment beside it that
sees base and has the extra alone. In each it makes a file of the kind and denoises it, or runs
the command that the extra is for. Prints time and size of each installation. Needs hatchling.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = str(ROOT / "constraints.txt")
SMALL = "model=residual_unet model.width=4 data.train_pairs=8 data.val_pairs=4 data.batch_size=4"
TRAIN = f"train {SMALL} trainer.max_epochs=1"
SWEEP = f"{TRAIN} -m optim.lr=0.01,0.001"
RUN = "outputs/run"
NOISY = "import numpy as np; noisy = np.random.default_rng(0).normal(90, 9, (64, 96))"
# What makes a noisy file of a kind, where the kind's own library can.
FILES = {
    "pnm": ("a.pgm", "import netpbmfile; netpbmfile.imwrite('a.pgm', noisy.astype('uint16'))"),
    "mrc": ("a.mrc", "import mrcfile; mrcfile.write('a.mrc', noisy.astype('float32'))"),
    "nifti": (
        "a.nii.gz",
        "import nibabel; nibabel.save(nibabel.Nifti1Image(noisy, np.eye(4)), 'a.nii.gz')",
    ),
    "fits": ("a.fits", "from astropy.io import fits; fits.PrimaryHDU(noisy).writeto('a.fits')"),
    "zarr": ("a.zarr", "import zarr; zarr.save_array('a.zarr', noisy)"),
    "video": (
        "a.mp4",
        "import imageio.v3; frames = np.stack([np.stack([noisy.astype('uint8')] * 3, -1)] * 4);"
        " imageio.v3.imwrite('a.mp4', frames, plugin='pyav', codec='libx264')",
    ),
}
# Commands of the other extras, after a training in RUN where they need one.
COMMANDS = {
    "base": ["doctor", f"{SWEEP} trainer.accelerator=cpu", "check noisy.npy"],
    "joblib": [f"{SWEEP} hydra/launcher=joblib"],
    "ray": [f"{SWEEP} hydra/launcher=ray"],
    "optuna": [f"{TRAIN} -m hydra/sweeper=n2n_optuna hydra.sweeper.n_trials=2"],
    "export": [f"{TRAIN} hydra.run.dir={RUN}", f"export {RUN} a.onnx"],
    "zoo": [f"{TRAIN} hydra.run.dir={RUN}", f"export {RUN} a.zip"],
}
# Those that no command shows without a file of an instrument, a cluster, or a network.
IMPORTS = {
    "czi": "import czifile",
    "nd2": "import nd2",
    "dicom": "import pydicom",
    "relion": "import starfile",
    "slurm": "import submitit, hydra_plugins.hydra_submitit_launcher",
    "hub": "import huggingface_hub",
    "serve": "import starlette, uvicorn, n2n_lightning.serve.app",
    "watch": "import watchfiles",
}


def environment(folder: Path, base: Path | None, requirement: str) -> tuple[Path, float]:
    """Make an environment; return its interpreter and the seconds that the installation took.

    Args:
        folder: of the environment, replaced where it is there.
        base: an environment whose packages it sees; None: none.
        requirement: what is installed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    programs = "Scripts" if os.name == "nt" else "bin"
    python = folder / programs / "python"
    if base is not None:
        link = packages(folder) / "base.pth"
        link.write_text(str(packages(base)))
    begin = time.perf_counter()
    words = ["-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS, requirement]
    subprocess.run([str(python), *words], check=True)
    return python, time.perf_counter() - begin


def packages(folder: Path) -> Path:
    """Return the folder of an environment in which packages lie."""
    return next(folder.glob("**/site-packages"))


def megabytes(folder: Path) -> float:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(sizes) / 1e6


def try_extra(extra: str, python: Path, work: Path) -> None:
    """Run what an extra is for, in an empty folder.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    name, make = FILES.get(extra, ("noisy.npy", "np.save('noisy.npy', noisy)"))
    run = [str(python), "-c", f"{NOISY}; {make}"]
    subprocess.run(run, cwd=work, check=True)
    lines = [*COMMANDS.get(extra, []), f"denoise {name} -o clean"]
    for line in lines:
        command = [str(python), "-m", "n2n_lightning", *line.split()]
        subprocess.run(command, cwd=work, check=True, stdout=subprocess.DEVNULL)
    if extra in IMPORTS:
        subprocess.run([str(python), "-c", IMPORTS[extra]], cwd=work, check=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("folder", type=Path)
    p.add_argument("extras", nargs="*", default=[*FILES, *COMMANDS, *IMPORTS])
    args = p.parse_args()
    folder = args.folder.resolve()
    shutil.rmtree(folder / "dist", ignore_errors=True)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = (folder / "dist").glob("*.whl")
    python, seconds = environment(folder / "base", None, str(wheel))
    print(f"base: {seconds:.0f} s, {megabytes(packages(folder / 'base')):.0f} MB", flush=True)
    try_extra("base", python, folder / "work")
    failed = []
    for extra in args.extras:
        if extra == "base":
            continue
        own = folder / extra
        python, seconds = environment(own, folder / "base", f"{wheel}[{extra}]")
        print(f"{extra}: {seconds:.0f} s, {megabytes(packages(own)):.0f} MB more", flush=True)
        try:
            try_extra(extra, python, folder / "work")
        except subprocess.CalledProcessError as error:
            failed.append(extra)
            print(f"{extra}: {error}", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
