"""What is installed: the doctor's report, completion, models by name, the parts of a release."""

import functools
import hashlib
import http.server
import os
import subprocess
import sys
import threading
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import n2n_lightning
from n2n_lightning import __main__
from n2n_lightning.files import InputError
from n2n_lightning.inference import models
from n2n_lightning.inference.checkpoint import MOVIE, PRETRAINED, checkpoint_of
from n2n_lightning.inference.models import MODELS, Model
from n2n_lightning.install import completion, doctor

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def server(tmp_path):
    """An HTTP server of a folder: its address, and the folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_port}", folder
        one.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        """Print nothing."""


@pytest.fixture
def users_folder(tmp_path, monkeypatch):
    """The folder of the user's models, elsewhere and empty."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(models, "users_folder", lambda: folder)
    return folder


def test_names_of_the_package_and_files_of_that_name(tmp_path, monkeypatch, users_folder):
    monkeypatch.chdir(tmp_path)
    assert checkpoint_of("movie") == MOVIE
    assert checkpoint_of("pretrained") == PRETRAINED
    assert all(model.file.is_file() for model in MODELS.values() if model.file)
    (users_folder / "mine.ckpt").write_bytes(PRETRAINED.read_bytes())
    assert checkpoint_of("mine") == users_folder / "mine.ckpt"
    assert checkpoint_of("../mine") == Path("../mine")  # a path, never a name
    Path("movie").write_bytes(b"a file of the user's")
    assert checkpoint_of("movie") == Path("movie")
    assert checkpoint_of("nonesuch") == Path("nonesuch")


def test_what_is_fetched_is_what_was_meant_or_nothing(server, users_folder):
    address, folder = server
    (folder / "m.ckpt").write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    one = Model("stars", "MIT", "none", address=f"{address}/m.ckpt", sha256=right)
    assert models.fetch("m", {"m": one}).read_bytes() == b"weights"

    (folder / "m.ckpt").write_bytes(b"others")
    with pytest.raises(InputError, match=r"is not the file that was meant.*nothing was kept"):
        models.fetch("m", {"m": one})
    assert (users_folder / "m.ckpt").read_bytes() == b"weights"
    assert len(list(users_folder.iterdir())) == 1

    with pytest.raises(InputError, match="cannot be downloaded"):
        models.fetch("m", {"m": Model("stars", "MIT", "none", address=f"{address}/no.ckpt")})
    with pytest.raises(InputError, match="there are m"):
        models.fetch("other", {"m": one})


def test_nothing_is_fetched_unasked(monkeypatch, users_folder):
    far = Model("stars", "MIT", "none", address="http://127.0.0.1:9/m.ckpt", sha256="0")
    monkeypatch.setattr(models, "MODELS", {"far": far})
    with pytest.raises(InputError, match="n2n models --fetch far"):
        checkpoint_of("far")


class _Hub(http.server.BaseHTTPRequestHandler):
    """Answers for one file of one repository, as the hub does."""

    content = b"weights"

    def do_HEAD(self):
        self._answer(b"")

    def do_GET(self):
        self._answer(self.content)

    def _answer(self, body):
        there = self.path == "/me/cells/resolve/main/model.ckpt"
        self.send_response(200 if there else 404)
        self.send_header("ETag", '"1"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("Content-Length", str(len(self.content) if there else 0))
        self.end_headers()
        if there:
            self.wfile.write(body)

    def log_message(self, *words):
        """Print nothing."""


def test_models_of_the_hub(tmp_path):
    """In a process of its own: the library reads the hub's address when it is imported."""
    pytest.importorskip("huggingface_hub")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        code = (
            "from n2n_lightning.inference.models import model_file\n"
            "from n2n_lightning.files import InputError\n"
            "print(model_file('hf:me/cells').read_bytes())\n"
            "for name in ('hf:me/none', 'hf:cells'):\n"
            "    try:\n"
            "        model_file(name)\n"
            "    except InputError as error:\n"
            "        print(error)\n"
        )
        environment = {
            **os.environ,
            "HF_ENDPOINT": f"http://127.0.0.1:{one.server_port}",
            "HF_HOME": str(tmp_path),
            "HF_HUB_DISABLE_XET": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        one.shutdown()
    lines = done.stdout.splitlines()
    assert lines[0] == "b'weights'"
    assert lines[1].startswith("hf:me/none: model.ckpt cannot be downloaded: ")
    assert lines[2:] == ["hf:cells: must be hf:OWNER/NAME"]


def test_doctor_names_what_is_missing_and_what_installs_it(monkeypatch, capsys):
    real = doctor.version

    def version(name):
        if name == "mrcfile":
            raise PackageNotFoundError(name)
        if name == "torchmetrics":
            return "1.0"
        return real(name)

    monkeypatch.setattr(doctor, "version", version)
    monkeypatch.setattr(sys, "argv", ["n2n"])
    assert doctor.main() == 1
    printed = capsys.readouterr().out
    assert "mrc: missing mrcfile>=1.5; pip install 'n2n_lightning[mrc]'" in printed
    assert "missing: torchmetrics<2,>=1.7 (1.0 is installed)" in printed
    assert "nifti: installed" in printed
    assert str(Path.home()) not in printed


def _completed(line: str, monkeypatch, tmp_path) -> list[str]:
    """The words that a shell is offered behind a line."""
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "words"),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    subprocess.run(
        [sys.executable, "-m", "n2n_lightning"], env=environment, cwd=tmp_path, check=False
    )
    return [word.strip() for word in (tmp_path / "words").read_text().split("\n") if word]


def test_shells_complete_commands_options_and_groups(monkeypatch, tmp_path):
    assert _completed("n2n den", monkeypatch, tmp_path) == ["denoise"]
    assert set(_completed("n2n ", monkeypatch, tmp_path)) >= set(__main__.COMMANDS)
    options = _completed("n2n denoise a.tif --str", monkeypatch, tmp_path)
    assert options == ["--strength"]
    assert "model=unet" in _completed("n2n train model=", monkeypatch, tmp_path)
    assert "noise=" in _completed("n2n train no", monkeypatch, tmp_path)


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_scripts_of_shells_name_the_command(shell, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["n2n", shell])
    completion.main()
    assert "n2n" in capsys.readouterr().out


def test_version_and_unknown_commands(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["n2n", "--version"])
    __main__.main()
    assert capsys.readouterr().out == f"n2n_lightning {n2n_lightning.__version__}\n"
    monkeypatch.setattr(sys, "argv", ["n2n", "polish"])
    with pytest.raises(SystemExit):
        __main__.main()
    assert "polish: no such command" in capsys.readouterr().err
