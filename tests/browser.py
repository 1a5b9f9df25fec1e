"""A headless Chromium that tests drive through the DevTools protocol, over two pipes."""

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
LIMIT = 300  # seconds until something must have happened


class Browser:
    """One tab, without anything that another one left."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 900, dark: bool = False):
        assert BROWSER
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        words = [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
        ]
        # the browser expects them at 3 and 4; sh of Debian takes one digit alone
        shell = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *words],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._rest = b""
        self._number = 0
        self.errors: list[str] = []
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self.send("Target.attachToTarget", {"targetId": target, "flatten": True})
        self.session = attached["sessionId"]
        self.send("Runtime.enable")
        self.send("Log.enable")
        self.send("Page.enable")
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", {"features": [scheme]})

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        os.close(self._write)
        os.close(self._read)

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", size)

    def send(self, method: str, values: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a command, and wait for its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": values or {}}
        if getattr(self, "session", None):
            message["sessionId"] = self.session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._take_event(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._read, 2**16)
            assert piece, "the browser ended"
            self._rest += piece
        first, _, self._rest = self._rest.partition(b"\0")
        return json.loads(first)

    def _take_event(self, event: dict[str, Any]) -> None:
        """Remember what the page complains of."""
        values = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(values["exceptionDetails"]))
        if event.get("method") == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.errors.append(str(values["entry"]))

    def open(self, address: str) -> None:
        self.send("Page.navigate", {"url": address})

    def get(self, expression: str) -> Any:
        """The value of an expression in the page; promises are awaited."""
        values = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        answer = self.send("Runtime.evaluate", values)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Wait until an expression is true; return its value."""
        ends = time.monotonic() + LIMIT
        while time.monotonic() < ends:
            value = self.get(expression)
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"{expression} did not become true; {self.errors}")

    def set(self, name: str, value: Any) -> None:
        """Change a control as a person does."""
        self.get(
            f"(() => {{ const e = document.getElementById({json.dumps(name)});"
            f" if (e.type === 'checkbox') e.checked = {json.dumps(value)};"
            f" else e.value = {json.dumps(value)};"
            " for (const kind of ['input', 'change'])"
            " e.dispatchEvent(new Event(kind, { bubbles: true })); })()"
        )

    def drop(self, *paths: Path) -> None:
        """Drop files in the middle of the page."""
        files = [str(path) for path in paths]
        data = {"items": [], "files": files, "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            values = {"type": kind, "x": 200, "y": 300, "data": data}
            self.send("Input.dispatchDragEvent", values)

    def key(self, name: str, code: int, shift: bool = False) -> None:
        values = {"key": name, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", {"type": kind, **values})

    def picture(self, path: Path) -> None:
        """Write a screenshot."""
        content = self.send("Page.captureScreenshot", {"format": "png"})["data"]
        path.write_bytes(base64.b64decode(content))
