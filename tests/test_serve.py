"""The page of n2n serve: who may use it, what it shows, what it writes."""

import asyncio
import http.client
import json
import os
import pickle
import re
import shlex
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import tifffile

from n2n_lightning.files import InputError
from n2n_lightning.formats import opened
from n2n_lightning.inference import streaming
from n2n_lightning.inference.denoiser import load
from n2n_lightning.inference.options import DenoiseOptions
from n2n_lightning.inference.plan import Job
from tests.browser import BROWSER, Browser
from tests.conftest import LIMIT, run
from tests.test_streaming import network

pytest.importorskip("starlette")
from starlette.testclient import TestClient

from n2n_lightning.serve import command, library, preview
from n2n_lightning.serve.prepared import PreparedFile
from n2n_lightning.serve.preview import PagePreview
from n2n_lightning.serve.security import Guard, named_hosts
from n2n_lightning.serve.shown import ShownArray, View

HOST = "127.0.0.1:8000"
OURS = {"Origin": f"http://{HOST}"}


def noisy(*shape: int, seed: int = 0) -> np.ndarray:
    """Smooth content and noise of 16 bit."""
    height, width = shape[-2:]
    rows = np.sin(np.arange(height) / 9)[:, None]
    clean = 8000 + 3000 * rows * np.cos(np.arange(width) / 11)
    noise = np.random.default_rng(seed).normal(0, 500, shape)
    return (clean + noise).astype(np.uint16)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder of one picture, in the folder where the server starts."""
    monkeypatch.chdir(tmp_path)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    tifffile.imwrite(pictures / "a.tif", noisy(96, 120))
    return pictures


def guarded(*words: str) -> Guard:
    """The application of a command `n2n serve`, without a server."""
    args = command.parser().parse_args(list(words))
    return Guard(command.page_of(args).app(), named_hosts("127.0.0.1", 8000))


@pytest.fixture
def client(folder):
    """A browser that opened the address that was printed."""
    guard = guarded("pictures")
    with TestClient(guard, base_url=f"http://{HOST}") as one:
        assert one.get("/", params={"token": guard.token}).status_code == 200
        yield one


# Who may use it


def test_the_printed_address_alone_lets_in(folder):
    guard = guarded("pictures")
    with TestClient(guard, base_url=f"http://{HOST}") as one:
        assert one.get("/").status_code == 403
        assert one.get("/", params={"token": "guess"}).status_code == 403
        assert one.get("/api/library", params={"token": guard.token}).status_code == 403
        answer = one.get("/", params={"token": guard.token})
        assert answer.status_code == 200
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert one.get("/api/library").status_code == 200
        one.cookies.clear()
        assert one.get("/api/library").status_code == 403
        assert one.get("/static/serve.js").status_code == 403


@pytest.mark.parametrize("host", ["evil.example:8000", "127.0.0.1:8001", "127.0.0.1"])
def test_another_host_name_is_refused(client, host):
    assert client.get("/api/library", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "https://" + HOST}],
)
def test_changes_need_the_origin_of_the_page(client, headers):
    for address in ("/api/save", "/api/stop", "/api/preview"):
        assert client.post(address, json={}, headers=headers).status_code == 403
    assert client.put("/upload/b.tif", content=b"x", headers=headers).status_code == 403
    assert client.post("/api/stop", json={}, headers=OURS).status_code == 200


def test_another_site_reads_nothing(client):
    headers = {"Sec-Fetch-Site": "same-site"}  # a server on another port of this machine
    assert client.get("/files/pictures/a.tif", headers=headers).status_code == 403


def test_files_are_those_below_what_was_named(client, folder, tmp_path):
    (tmp_path / "secret.tif").write_bytes(b"secret")
    (folder / "out.tif").symlink_to(tmp_path / "secret.tif")
    (folder / "up").symlink_to(tmp_path, target_is_directory=True)
    (folder / "notes.txt").write_text("no picture")
    assert client.get("/files/pictures/a.tif").content == (folder / "a.tif").read_bytes()
    for key in (
        *("pictures/out.tif", "pictures/up/secret.tif", "pictures/notes.txt", "pictures"),
        *("pictures/%2e%2e/secret.tif", "pictures/..%2fsecret.tif", "pictures//etc/passwd"),
        *("secret.tif", f"{tmp_path}/secret.tif", "results/%2e%2e/secret.tif", "pictures/a%00.tif"),
    ):
        assert client.get(f"/files/{key}").status_code in (400, 404), key
    shown = client.get("/api/library").json()["pictures"]
    assert [one["key"] for one in shown] == ["pictures/a.tif"]


def test_dropped_files_are_bounded_and_stay_in_their_folder(client, monkeypatch):
    monkeypatch.setattr(library, "UPLOAD_BYTES", 1000)
    answer = client.put("/upload/large.tif", content=b"x" * 1001, headers=OURS)
    assert answer.status_code == 413
    assert client.put("/upload/run.exe", content=b"x", headers=OURS).status_code == 400
    assert client.put("/upload/..%5C..%5Cup.tif", content=b"x", headers=OURS).status_code == 201
    first = client.put("/upload/b.tif", content=b"x", headers=OURS)
    second = client.put("/upload/b.tif", content=b"x", headers=OURS)
    assert first.json() == {"key": "dropped/b.tif"}
    assert second.json() == {"key": "dropped/b (2).tif"}
    keys = [one["key"] for one in client.get("/api/library").json()["pictures"]]
    assert keys == ["pictures/a.tif", "dropped/b (2).tif", "dropped/b.tif", "dropped/up.tif"]


def test_an_endless_file_is_not_read_to_its_end(folder, monkeypatch):
    """Nobody states its size, so that it is stopped while it arrives."""
    monkeypatch.setattr(library, "UPLOAD_BYTES", 1000)
    page = command.page_of(command.parser().parse_args(["pictures"]))
    pieces = []

    async def endless():
        while True:
            assert len(pieces) < 50
            pieces.append(b"x" * 100)
            yield pieces[-1]

    with pytest.raises(library.TooLargeError):
        asyncio.run(page.library.receive("endless.tif", 0, endless()))
    assert len(pieces) == 11
    assert not list(page.library.uploads.iterdir())
    page.library.close()


def test_dropped_files_end_with_the_server(folder):
    args = command.parser().parse_args(["pictures"])
    page = command.page_of(args)
    guard = Guard(page.app(), named_hosts("127.0.0.1", 8000))
    with TestClient(guard, base_url=f"http://{HOST}") as one:
        one.get("/", params={"token": guard.token})
        one.put("/upload/b.tif", content=b"x", headers=OURS)
        assert (page.library.uploads / "b.tif").exists()
    assert not page.library.uploads.exists()


class Evil:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def test_checkpoints_are_data(client, folder):
    (folder / "evil.ckpt").write_bytes(pickle.dumps(Evil()))
    messages = previewed(client, "pictures/a.tif", checkpoint="file:pictures/evil.ckpt")
    assert messages[-1][0]["kind"] == "error"
    assert not Path("unpickled").exists()
    answer = client.post(
        "/api/preview", json=wanted("pictures/a.tif", checkpoint="/etc/passwd"), headers=OURS
    )
    assert answer.status_code == 404


def test_another_host_warns(monkeypatch, capsys, folder):
    import uvicorn

    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: sockets[0].close())
    listener = command._listener
    monkeypatch.setattr(command, "_listener", lambda host, port: listener("127.0.0.1", port))
    for host, warned in (("192.0.2.7", True), ("127.0.0.1", False)):
        monkeypatch.setattr(sys, "argv", ["n2n", "pictures", "--no-browser", "--host", host])
        command.main()
        printed = capsys.readouterr()
        assert ("lets other machines in" in printed.err) == warned
        assert f"http://{host}:" in printed.out
    monkeypatch.setattr(sys, "argv", ["n2n", "pictures", "--host", "0.0.0.0"])
    with pytest.raises(InputError, match="every address"):
        command.main()


@pytest.mark.parametrize("body", [b"{}", b"[]", b"no", b"{" * 70_000, b'{"key": 3}'])
def test_what_is_no_request_is_refused_in_one_line(client, body):
    answer = client.post("/api/preview", content=body, headers=OURS)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]


# Results


def saved(client, **changes):
    """Ask for results; the answer."""
    body = {"key": "pictures/a.tif", "out": "", "options": {}, **changes}
    return client.post("/api/save", json=body, headers=OURS)


def ended(client) -> dict:
    """Wait for the results."""
    ends = time.monotonic() + LIMIT
    while time.monotonic() < ends:
        job = client.get("/api/job").json()
        if job["state"] != "running":
            return job
        time.sleep(0.1)
    raise AssertionError("results did not end")


@pytest.mark.slow
def test_results_are_those_of_the_command(client, folder):
    """Their bytes; the input stays; a result that exists is replaced after asking alone."""
    original = (folder / "a.tif").read_bytes()
    chosen = {"strength": 0.7, "outliers": "replace"}
    started = saved(client, options=chosen)
    assert started.status_code == 202
    assert saved(client, options=chosen).status_code == 409  # another tab, meanwhile
    job = ended(client)
    assert job["state"] == "done", job
    words = shlex.split(started.json()["command"])
    assert words[:2] == ["n2n", "denoise"]
    options = words[words.index("clean") + 1 :]
    run("denoise", "pictures/a.tif", "-o", "typed", *options, cwd=Path.cwd())
    result = Path("clean/a.tif").read_bytes()
    assert result == Path("typed/a.tif").read_bytes()
    assert client.get(f"/files/{job['results'][0]['key']}").content == result
    Path("clean/a.tif").write_bytes(b"mine")
    answer = saved(client)
    assert answer.status_code == 409
    assert answer.json()["existing"] == ["clean/a.tif"]
    saved(client, overwrite=False)
    assert ended(client)["state"] == "done"
    assert Path("clean/a.tif").read_bytes() == b"mine"
    saved(client, options=chosen, overwrite=True)
    assert ended(client)["state"] == "done"
    assert Path("clean/a.tif").read_bytes() == result
    assert (folder / "a.tif").read_bytes() == original


@pytest.mark.parametrize("out", ["..", "../pictures", "/tmp", "up"])
def test_results_lie_below_their_folder(client, folder, out):
    Path("clean").mkdir()
    Path("clean/up").symlink_to(folder)
    answer = saved(client, out=out, overwrite=True)
    assert answer.status_code == 400
    assert "is not below clean" in answer.json()["error"]


def test_a_link_that_leads_out_is_not_denoised(client, folder, tmp_path):
    (tmp_path / "secret.tif").write_bytes((folder / "a.tif").read_bytes())
    (folder / "out.tif").symlink_to(tmp_path / "secret.tif")
    answer = saved(client, scope="all")
    assert answer.status_code == 400
    assert "leads out of pictures" in answer.json()["error"]


def test_originals_are_never_overwritten(folder):
    original = (folder / "a.tif").read_bytes()
    guard = guarded("pictures", "-o", "pictures")
    with TestClient(guard, base_url=f"http://{HOST}") as one:
        one.get("/", params={"token": guard.token})
        answer = saved(one, overwrite=True)
        if answer.status_code == 202:
            assert ended(one)["state"] == "failed"
    assert (folder / "a.tif").read_bytes() == original


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_a_server_that_ends_leaves_no_half_result(folder, kind):
    tifffile.imwrite(folder / "large.tif", noisy(12, 256, 256))
    words = [sys.executable, "-m", "n2n_lightning.serve.command", "pictures", "--no-browser"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        address = urlsplit(server.stdout.readline().strip())
        one = http.client.HTTPConnection(address.netloc, timeout=LIMIT)
        one.request("GET", f"/?{address.query}")
        answer = one.getresponse()
        answer.read()
        cookie = answer.headers["set-cookie"].partition(";")[0]
        headers = {"Cookie": cookie, "Origin": f"http://{address.netloc}"}
        body = {"key": "pictures/large.tif", "out": "", "options": {"tta": True}}
        one.request("POST", "/api/save", json.dumps(body), headers)
        assert one.getresponse().status == 202
        one.close()
        ends = time.monotonic() + LIMIT
        while not list(Path("clean").glob("*")) and time.monotonic() < ends:
            time.sleep(0.05)
        server.send_signal(kind)
        server.wait(LIMIT)
    assert not Path("clean/large.tif").exists() or len(tifffile.imread("clean/large.tif")) == 12


# Previews


def test_two_tabs_see_their_own(client, folder):
    """A newer change of a tab replaces its preview, not that of the other one."""
    messages = {}

    def look(tab):
        messages[tab] = previewed(client, "pictures/a.tif", tab=tab)

    tabs = [threading.Thread(target=look, args=(tab,)) for tab in ("one", "two")]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    for tab in ("one", "two"):
        assert messages[tab][-1][0]["kind"] == "end"
    assert np.array_equal(messages["one"][-2][1], messages["two"][-2][1])


def wanted(key: str, **changes) -> dict:
    request = {"tab": "one", "key": key, "array": 0, "place": [0, 0], "step": 1, "options": {}}
    return {**request, "borders": [0, 10_000, 0, 10_000], **changes}


def previewed(client, key: str, **changes) -> list[tuple[dict, np.ndarray | None]]:
    """The messages of a preview."""
    answer = client.post("/api/preview", json=wanted(key, **changes), headers=OURS)
    assert answer.status_code == 200, answer.text
    content = answer.content
    messages = []
    while content:
        head, size = struct.unpack("<II", content[:8])
        message = json.loads(content[8 : 8 + head])
        pixels = None
        if size:
            values = np.frombuffer(content[8 + head : 8 + head + size], message["dtype"])
            pixels = values.reshape(message["shape"])
        messages.append((message, pixels))
        content = content[8 + head + size :]
    return messages


def test_a_preview_has_the_pixels_of_the_result(client, folder):
    assert run("denoise", "pictures/a.tif", "-o", "out", "--strength", 0.7, cwd=Path.cwd()).stdout
    result = tifffile.imread("out/a.tif")
    messages = previewed(client, "pictures/a.tif", options={"strength": 0.7})
    kinds = [message["kind"] for message, _ in messages]
    assert kinds[0] == "before"
    assert kinds[-1] == "end"
    assert np.array_equal(messages[0][1][..., 0], tifffile.imread(folder / "a.tif"))
    stages = {
        message["stage"]: pixels for message, pixels in messages if message["kind"] == "after"
    }
    assert np.array_equal(stages["complete"][..., 0], result)
    middle = stages["middle"][..., 0]
    assert np.abs(middle - result).max() <= 1e-3 * 65535


def pages_of(path: Path, options: DenoiseOptions, place: tuple[int, ...], said=None):
    """A page of a file, prepared for a preview, and a view of all of it."""
    file = PreparedFile(Job(path, Path("out") / path.name), load(), options)
    shown = ShownArray(opened(path), 0, said)
    height, width = shown.size
    view = shown.checked(View(place, slice(0, height), slice(0, width)))
    return file, shown, view


@pytest.mark.slow
@pytest.mark.parametrize("texture", [True, False])
def test_tiles_give_the_page(folder, monkeypatch, texture):
    """Tiles differ from the whole by the rounding of floats, and so one whole number in many."""
    monkeypatch.setattr(preview, "TILE_SIDES", {2: 64})
    values = noisy(160, 200)
    if texture:  # which is put back
        values[:80] += (4000 * (np.random.default_rng(1).random((80, 200)) > 0.5)).astype("u2")
    tifffile.imwrite(folder / "b.tif", values)
    words = () if texture else ("--uneven",)
    run("denoise", "pictures/b.tif", "-o", "out", *words, cwd=Path.cwd())
    result = tifffile.imread("out/b.tif").astype(float)
    options = DenoiseOptions(uneven=not texture)
    file, shown, view = pages_of(folder / "b.tif", options, (0, 0))
    page = PagePreview(file, file.page(0, shown, view))
    page.begin(file.dtype(0))
    tiles = page.tiles(view)
    assert len(tiles) == 12
    assert tiles[0] == (slice(64, 128), slice(64, 128))
    for place in tiles:
        page.add(place)
    page.finish()
    whole = page.result(page.visible(view), 1.0)[..., 0]
    differences = np.abs(whole - result)
    assert differences.max() <= 1
    assert (differences > 0).mean() < 0.01
    assert np.array_equal(page.result((slice(0, 9), slice(0, 9)), 0.0)[..., 0], values[:9, :9])


def test_a_large_file_is_read_where_it_is_seen(folder, monkeypatch):
    """Facts of the whole come from its sample, as of the result; the seen part alone is read."""
    values = noisy(4, 400, 440)
    np.save(folder / "large.npy", values)
    monkeypatch.setattr("n2n_lightning.formats.regions.LARGE_BYTES", 1000)
    monkeypatch.setattr(streaming, "BLOCK_VOXELS", 2**17)
    monkeypatch.setattr("n2n_lightning.inference.block_grid.BLOCK_VOXELS", 2**17)
    monkeypatch.setattr("n2n_lightning.inference.block_grid.DIVIDED_SIDES", {2: 352, 3: 64})
    options = DenoiseOptions(tile=1024)
    from n2n_lightning.arrays.outlier_lists import OutlierCounts
    from n2n_lightning.formats.picture import AskedAxes
    from n2n_lightning.inference.file_denoiser import FileDenoiser
    from n2n_lightning.inference.tile_progress import ProgressLines

    job = Job(folder / "large.npy", Path("out/large.npy"))
    model = network()
    asked = AskedAxes(None, model.layout, model.dims)
    done = FileDenoiser(model, options, asked, ProgressLines()).denoise(job)
    assert isinstance(done.counts, OutlierCounts)
    result = np.load("out/large.npy")
    file = PreparedFile(job, model, options)
    assert file.grid.divided
    shown = ShownArray(opened(job.source))
    view = shown.checked(View((1, 0, 0), slice(96, 336), slice(100, 340)))
    prepared = file.page(0, shown, view)
    assert prepared.pages.noisy.array.size < values[0].size
    page = PagePreview(file, prepared)
    page.begin(file.dtype(0))
    for place in page.tiles(view):
        page.add(place)
    page.finish()
    seen = page.result(page.visible(view), 1.0)[..., 0]
    differences = np.abs(seen.astype(float) - result[1, 96:336, 100:340])
    assert differences.max() <= 1e-3 * 65535
    assert (differences > 1).mean() < 0.001


def test_a_plane_of_any_axis_is_shown_and_compared_with_the_result(client, folder):
    stack = noisy(3, 2, 40, 48)
    tifffile.imwrite(folder / "stack.tif", stack, imagej=True, metadata={"axes": "TZYX"})
    (array,) = client.get("/api/picture", params={"key": "pictures/stack.tif"}).json()["arrays"]
    assert array["axes"] == "TDHW"
    assert [(one["axis"], one["name"], one["length"]) for one in array["sliders"]] == [
        (0, "frame", 3),
        (1, "plane", 2),
    ]
    run("denoise", "pictures/stack.tif", "-o", "out", cwd=folder.parent)
    result = tifffile.imread("out/stack.tif")
    messages = previewed(client, "pictures/stack.tif", place=[2, 1, 0, 0], step=2)
    assert np.array_equal(messages[0][1][..., 0], stack[2, 1, ::2, ::2])
    last, pixels = [one for one in messages if one[0]["kind"] == "after"][-1]
    assert last["stage"] == "complete"
    assert np.array_equal(pixels[..., 0], result[2, 1, ::2, ::2])
    said = client.get("/api/picture", params={"key": "pictures/stack.tif", "axes": "NDWH"})
    assert said.json()["arrays"][0]["width"] == 40
    wrong = client.get("/api/picture", params={"key": "pictures/stack.tif", "axes": "HW"})
    assert wrong.status_code == 400
    assert "--axes HW" in wrong.json()["error"]


def test_a_newer_change_of_a_tab_replaces_the_older_one_and_no_other(folder, monkeypatch):
    """The older one ends after the tile that it is at; another tab gets its own."""
    page = command.page_of(command.parser().parse_args(["pictures"]))
    said: dict[str, list[str]] = {"first": [], "second": [], "other": []}

    def request(tab: str, name: str):
        body = wanted("pictures/a.tif", tab=tab, options={"tta": name == "first"})
        asked, _ = page._asked(body)
        asked.emit = lambda message, pixels: said[name].append(message["kind"])
        return asked

    page.worker.submit(request("one", "first"))
    page.worker.submit(request("two", "other"))
    page.worker.submit(request("one", "second"))
    page.worker.start()
    ends = time.monotonic() + LIMIT
    while "end" not in said["second"] or "end" not in said["other"]:
        assert time.monotonic() < ends
        time.sleep(0.01)
    assert said["first"] == ["replaced"]
    page.worker.end()
    page.worker.join(LIMIT)
    page.library.close()


def started(folder: Path, *words: str) -> tuple[subprocess.Popen, str]:
    """A server in a process of its own, and its address."""
    module = [sys.executable, "-m", "n2n_lightning", "serve", "--no-browser", *words]
    process = subprocess.Popen(module, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, process.stdout.readline().strip()


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2, of #rgb or #rrggbb."""
    digits = colour.lstrip("#")
    if len(digits) == 3:
        digits = "".join(2 * digit for digit in digits)
    light = []
    for start in (0, 2, 4):
        value = int(digits[start : start + 2], 16) / 255
        light.append(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
    red, green, blue = light
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_has_the_contrast_of_wcag_aa():
    from n2n_lightning.serve.app import PAGE_COLORS

    schemes = re.findall(r":root \{(.*?)\}", PAGE_COLORS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w+)", scheme))
        pairs = [("ink", "paper"), ("soft", "paper"), ("accent", "paper"), ("bad", "paper")]
        pairs += [("ink", "code"), ("soft", "code"), ("paper", "accent")]
        for text, ground in pairs:
            light = sorted((luminance(colours[text]), luminance(colours[ground])))
            assert (light[1] + 0.05) / (light[0] + 0.05) >= 4.5, (text, ground)


def test_every_control_has_a_label_and_nothing_is_loaded_from_elsewhere():
    from n2n_lightning.serve.app import FOLDER

    page = (FOLDER / "templates" / "serve.html").read_text(encoding="utf-8")
    for label in re.findall(r"<label.*?</label>", page, re.DOTALL):
        page = page.replace(label, "")
    for control in re.findall(r"<(?:input|select|progress|textarea)[^>]*>", page):
        assert "aria-label" in control, control
    for path in (FOLDER / "templates", FOLDER / "static"):
        for file in path.iterdir():
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"https?://|@import|url\(|innerHTML|\beval\b", text), file


@pytest.mark.walk
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_from_opening_to_saved_files_in_a_browser(folder, tmp_path):
    many = tmp_path / "many"
    many.mkdir()
    for number in range(500):
        tifffile.imwrite(many / f"f{number}.tif", noisy(8, 9, seed=number))
    stack = noisy(3, 2, 64, 72)
    tifffile.imwrite(folder / "stack.tif", stack, imagej=True, metadata={"axes": "TZYX"})
    dropped = tmp_path / "dropped.tif"
    tifffile.imwrite(dropped, noisy(300, 400))
    process, address = started(tmp_path, "pictures", "many")
    ready = "document.body?.dataset.state === 'ready'"
    with Browser(tmp_path / "profile") as tab:
        tab.open(address)
        tab.wait(ready)
        assert "token" not in tab.get("location.href")
        assert tab.get("$('picture').options.length") == 502
        assert tab.get("document.cookie") == ""

        tab.drop(dropped)
        tab.wait("$('picture').value === 'dropped/dropped.tif'")
        tab.wait(ready)
        tab.wait("$('stage').textContent === 'as it will be saved'")
        first = tab.get("$('canvas').toDataURL()")
        tab.set("strength", "0.3")
        tab.wait(f"$('strength-said').textContent === '0.3' && {ready}")
        tab.wait("$('canvas').toDataURL() !== " + json.dumps(first))
        tab.get("$('view').focus()")
        before = tab.get("$('split').value")
        tab.key("ArrowLeft", 37)
        assert int(tab.get("$('split').value")) == int(before) - 20
        tab.key("r", 82)
        assert tab.get("$('show').value") == "residual"
        tab.key("+", 187)
        assert tab.get("viewer.scale()") > 1
        tab.set("zoom", "0")
        tab.wait("$('command').textContent.includes('--strength=0.3')")
        tab.get("$('save').click()")
        tab.wait("document.body.dataset.job === 'done'")
        assert tifffile.imread(tmp_path / "clean" / "dropped.tif").shape == (300, 400)

        tab.set("picture", "pictures/stack.tif")
        tab.wait("$('sliders').children.length === 2")
        tab.wait(ready)
        tab.set("scope", "all")
        tab.get("$('save').click()")
        tab.wait("$('saved').textContent.startsWith('written: 2 of 2')")
        assert tifffile.imread(tmp_path / "clean" / "stack.tif").shape == stack.shape
        tab.get("$('save').click()")
        tab.wait("$('ask').open")
        assert "clean/a.tif" in tab.get("$('question').textContent")
        tab.get("document.querySelector('#ask [value=cancel]').click()")
        tab.resize(390, 800)
        assert tab.get("document.documentElement.scrollWidth <= innerWidth")
        problems = [one for one in tab.errors if "409" not in one]
        assert not problems
    process.terminate()
    process.wait(LIMIT)
    process.stdout.close()
