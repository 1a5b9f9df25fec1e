"""The page with a slider between before and after, in a real browser where there is one."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from n2n_lightning.reporting import slider
from tests.conftest import run

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# Moves everything that can be moved, and leaves in the page what came of it.
SCRIPT = """
<script>
window.addEventListener("error", (event) => { document.body.dataset.error = event.message; });
const root = document.querySelector(".viewer"), $ = (name) => root.querySelector("." + name);
const set = (name, value) => {
  const e = $(name); e.value = value; e.dispatchEvent(new Event("input"));
};
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const pixel = (name) => Array.from($(name).getContext("2d").getImageData(5, 5, 1, 1).data);
(async () => {
  const viewers = [...document.querySelectorAll(".viewer")];
  while (viewers.some((one) => one.dataset.ready !== "yes")) await wait(20);
  const found = {}, after = $("after"), view = $("view");
  found.viewers = document.querySelectorAll(".viewer").length;
  found.layers = [...$("right").options].map((option) => option.textContent);
  found.buttons = $("strip").children.length;
  for (const at of [0, 250, 1000]) { set("split", at); found["clip" + at] = after.style.clipPath; }
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
  found.key = $("split").value;
  set("zoom", "4"); found.zoomed = parseFloat(after.style.width); set("zoom", "0");
  found.fits = after.getBoundingClientRect().width <= view.clientWidth + 1;
  const box = $("difference"); box.checked = true; box.dispatchEvent(new Event("input"));
  found.removed = !$("removed").hidden;
  found.middle = pixel("removed");
  const first = after.toDataURL(); set("page", 1); await wait(300);
  found.other = after.toDataURL() !== first;
  if (found.buttons) {
    $("strip").lastChild.click(); await wait(300);
    found.clicked = $("name-right").textContent;
  }
  found.about = $("about").textContent;
  found.paper = getComputedStyle(document.body).backgroundColor;
  found.error = document.body.dataset.error || "";
  found.wide = document.documentElement.scrollWidth <= window.innerWidth;
  found.pixel = pixel("before");
  const result = document.createElement("pre");
  result.id = "found"; result.textContent = JSON.stringify(found);
  document.body.append(result);
})();
</script>
"""


def looked_at(page: Path, *options: str) -> tuple[dict, str, str]:
    """What the script found in a page, what the browser said, and the page itself after it."""
    assert BROWSER
    text = page.read_text(encoding="utf-8")
    there = page.with_stem("looked_at")
    there.write_text(text.replace("</body>", SCRIPT + "</body>"), encoding="utf-8")
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--v=0",
    ]
    command += ["--virtual-time-budget=9000", *options, "--dump-dom", there.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    match = re.search(r'<pre id="found">(.*?)</pre>', done.stdout)
    assert match, done.stderr[-2000:]
    return json.loads(match[1].replace("&quot;", '"')), done.stderr, done.stdout


# On one worker, which writes `page` once.
pytestmark = pytest.mark.xdist_group("slider")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    draws = np.random.default_rng(0)
    stack = draws.poisson(1000 + 500 * np.arange(3)[:, None, None], (3, 120, 500)).astype(np.uint16)
    stack[0, 0, 0] = 65535  # one hot pixel does not make all others black
    tifffile.imwrite(folder / "stack.tif", stack, photometric="minisblack")
    colour = draws.integers(0, 256, (90, 130, 3)).astype(np.uint8)
    Image.fromarray(colour).save(folder / "zebra.png")
    done = run("denoise", "stack.tif", "zebra.png", "-o", "out", "--page", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "page.html: before and after" in done.stdout
    return folder / "out" / "page.html"


@pytest.mark.slow
def test_a_page_holds_everything_and_asks_for_nothing(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(
        r"(src|href)\s*=\s*[\"']?http|url\(|@import|<link(?! rel=\"icon\" href=\"data:,\")", text
    )
    assert "default-src 'none'" in text
    assert "stack.tif" in text
    assert "zebra.png" in text
    assert len(text) < 20e6


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(
    ("options", "dark"), [(("--window-size=390,800",), False), (("--window-size=1200,900",), True)]
)
def test_the_slider_moves_in_a_browser(page, options, dark):
    scheme = ("--blink-settings=preferredColorScheme=0",) if dark else ()
    found, said, _ = looked_at(page, *options, *scheme)
    assert [found[f"clip{at}"] for at in (0, 250, 1000)] == [
        f"inset(0px 0px 0px {at}%)" for at in ("0", "25", "100")
    ]
    assert int(found["key"]) == 980
    assert found["zoomed"] == 2000
    assert found["fits"]
    assert found["removed"]
    assert found["middle"][3] == 255
    assert found["other"]
    assert "uint16" in found["about"]
    low, high = map(float, re.search(r"Shown: ([\d.e+]+) to ([\d.e+]+)", found["about"]).groups())
    assert 1300 < low < 1500 < high < 1700  # the middle 99.8% of the page with 1,500 photons
    assert 20 < found["pixel"][0] < 235
    assert found["wide"]  # nothing to scroll sideways, on a phone either
    assert found["error"] == ""
    assert "CONSOLE" not in said
    assert (found["paper"] == "rgb(255, 255, 255)") != dark


@pytest.mark.slow
def test_large_pictures_are_made_smaller_and_many_are_left_out(tmp_path):
    draws = np.random.default_rng(0)
    large = draws.integers(0, 256, (2600, 2200, 3)).astype(np.uint8)
    slider.write_page(tmp_path / "a.html", [slider.pair("a", large, large, "HWC")], "a")
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "Made smaller, 2 x 2 pixels to one" in text
    assert len(text) < 20e6
    small = slider.pair("b", large[:8, :8], large[:8, :8], "HWC")
    slider.write_page(tmp_path / "b.html", [small] * 30, "b")
    assert "6 more pictures are not shown" in (tmp_path / "b.html").read_text(encoding="utf-8")
    floats = np.linspace(-5, 5, 64 * 64).reshape(64, 64).astype(np.float32)
    floats[3, 3] = np.nan
    ((before, _), label), *_ = slider.pair("c", floats, floats, "HW").pages
    assert before.dtype == np.uint8
    assert (before[0, 0], before[-1, -1]) == (0, 255)
    assert label.startswith("Shown: -4.99")
    volume = slider.pair(
        "d", np.zeros((20, 9, 9), np.uint16), np.zeros((20, 9, 9), np.uint16), "DHW"
    )
    assert len(volume.pages) == slider.MAX_PAGES
    labels = [label for _, label in volume.pages]
    assert labels[0].endswith("page 1 of 20.")
    assert labels[-1].endswith("page 20 of 20.")
    assert volume.about.endswith(f"{slider.MAX_PAGES} of 20 pages are here.")


@pytest.mark.walk
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_report_compares_runs_and_jobs_of_a_sweep(tmp_path):
    small = [
        "data.train_pairs=12",
        "data.val_pairs=8",
        "model=drunet",
        "model.widths=[4]",
        "model.blocks=[1]",
    ]
    small += ["data.batch_size=6", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
    assert run("train", *small, "hydra.run.dir=outputs/one", cwd=tmp_path).returncode == 0
    sweep = ["-m", "optim.lr=0.01,0.001", *small, "hydra.sweep.dir=outputs/grid"]
    assert run("train", *sweep, cwd=tmp_path).returncode == 0
    done = run("report", "outputs", "--out", "page", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found, said, _ = looked_at(tmp_path / "page" / "report.html", "--window-size=390,800")
    assert found["viewers"] == 7  # of the sweep; of each of three runs samples and errors
    assert found["buttons"] == 4  # noisy, two jobs, clean
    assert all(f"optim.lr={rate}: " in " ".join(found["layers"]) for rate in ("0.01", "0.001"))
    assert found["clicked"] == "clean"
    assert found["removed"]
    assert found["wide"]
    assert found["error"] == ""
    assert "CONSOLE" not in said
    (tmp_path / "outputs" / "one" / "samples.npz").write_bytes(b"PK damaged")
    done = run("report", "outputs", "--out", "page", cwd=tmp_path)
    assert done.returncode == 1
    assert "samples.npz: damaged; its samples are left out" in done.stderr
