"""List the models that have a name: `n2n models`, and which of them are here.

`--checkpoint NAME` and `load("NAME")` look in the package, then in the user's folder, which
`n2n models` names. `hf:OWNER/NAME` is the file `model.ckpt` of a repository on the Hugging Face
hub (pip install 'n2n_lightning[hub]'). Nothing is downloaded that was not asked for by name.
"""

import hashlib
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from n2n_lightning.files import InputError, Parser, command, replacing

HUB = "hf:"  # before the name of a repository on the Hugging Face hub
HUB_FILE = "model.ckpt"
_BLOCK = 2**20  # bytes that are downloaded at a time


@dataclass(frozen=True)
class Model:
    """A checkpoint that has a name.

    Attributes:
        purpose: what it is for.
        licence: of its weights.
        scores: some of its scores, with their data.
        file: of the package; None: not in it.
        address: from which `n2n models --fetch NAME` downloads it; None: from nowhere.
        sha256: of the file at that address, in hexadecimal digits.
    """

    purpose: str
    licence: str
    scores: str
    file: Path | None = None
    address: str | None = None
    sha256: str = ""


_FOLDER = Path(__file__).parent
MODELS: Mapping[str, Model] = {
    "pretrained": Model(
        purpose="pictures with noise of any strength; the default",
        licence="MIT; the photographs it learnt from: docs/checkpoints/CREDITS.csv",
        scores="CBSD68, Gaussian noise 15 / 25 / 50: 33.37 / 30.64 / 27.29 dB",
        file=_FOLDER / "pretrained.ckpt",
    ),
    "movie": Model(
        purpose="movies, with two frames on either side of each",
        licence="MIT; the weights of pretrained",
        scores="generated movies: 0.1 to 1.2 dB above pretrained frame by frame",
        file=_FOLDER / "movie.ckpt",
    ),
}


def users_folder() -> Path:
    """Return the folder of the user in which `NAME.ckpt` is the model NAME; it may be missing."""
    return platformdirs.user_data_path("n2n_lightning") / "models"


def model_file(name: str) -> Path | None:
    """Return the checkpoint file of a model.

    Args:
        name: of the package, of the user's folder, or `hf:OWNER/NAME`, which is downloaded.

    Returns:
        The file; None where no model has that name.

    Raises:
        InputError: the model is known and not here, or cannot be downloaded.
    """
    if name.startswith(HUB):
        return _hub_file(name)
    model = MODELS.get(name)
    if model is not None and model.file is not None:
        return model.file
    own = users_folder() / f"{name}.ckpt"
    if Path(name).name == name and own.is_file():
        return own
    if model is not None:
        raise InputError(f"{name}: not downloaded yet; n2n models --fetch {name} does it")
    return None


def _hub_file(name: str) -> Path:
    """Download a model of the Hugging Face hub, unless it is in that library's cache."""
    repository = name.removeprefix(HUB)
    if repository.count("/") != 1:
        raise InputError(f"{name}: must be {HUB}OWNER/NAME")
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        raise InputError(
            f"{name}: needs huggingface_hub, which is not installed:"
            " pip install 'n2n_lightning[hub]'"
        ) from None
    try:
        return Path(huggingface_hub.hf_hub_download(repository, HUB_FILE))
    except Exception as error:  # of the library, of its network client, of the disk
        reason = str(error).partition("\n")[0]
        raise InputError(f"{name}: {HUB_FILE} cannot be downloaded: {reason}") from error


def fetch(name: str, models: Mapping[str, Model] = MODELS) -> Path:
    """Download a model into the user's folder, and compare its checksum.

    Args:
        name: of the model.
        models: the models that have an address.

    Returns:
        The file.

    Raises:
        InputError: no model of that name has an address, it cannot be reached, or its content is
            not what it should be.
    """
    model = models.get(name)
    if model is None or model.address is None:
        known = [other for other, one in models.items() if one.address]
        listed = f"there are {', '.join(known)}" if known else "no model has an address so far"
        raise InputError(f"{name}: has no address to download it from; {listed}")
    target = users_folder() / f"{name}.ckpt"
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(model.address) as answer, replacing(target) as temporary:
            with temporary.open("wb") as file:
                while block := answer.read(_BLOCK):
                    digest.update(block)
                    file.write(block)
            if digest.hexdigest() != model.sha256:
                raise InputError(
                    f"{model.address}: is not the file that was meant, its sha256 is"
                    f" {digest.hexdigest()}; nothing was kept"
                )
    except urllib.error.URLError as error:
        raise InputError(f"{model.address}: cannot be downloaded: {error.reason}") from error
    return target


def parser() -> Parser:
    """Return the parser of the command line."""
    p = Parser(prog="n2n models", description=__doc__)
    p.add_argument("--fetch", metavar="NAME", help="download a model into the user's folder")
    return p


def main() -> None:
    """List the models, or download one."""
    args = parser().parse_args()
    if args.fetch:
        print(f"{fetch(args.fetch)}: --checkpoint {args.fetch} takes it")
        return
    for name, model in MODELS.items():
        place = model.file or users_folder() / f"{name}.ckpt"
        size = f"{place.stat().st_size / 1e6:.1f} MB" if place.is_file() else "not downloaded"
        print(f"{name}: {model.purpose} ({size})")
        print(f"    {model.scores}")
        print(f"    licence: {model.licence}")
    folder = users_folder()
    for path in sorted(folder.glob("*.ckpt")):
        if path.stem not in MODELS:
            print(f"{path.stem}: yours ({path.stat().st_size / 1e6:.1f} MB)")
    print(f"further ones: NAME.ckpt in {folder}, hf:OWNER/NAME, or the path of a file")


if __name__ == "__main__":
    command(main, parser)
