"""A real Chromium without a window, told what to do over a pipe by its own protocol (DevTools)."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SECONDS = 60.0
_NAMES = ("chromium", "chromium-browser", "google-chrome")
#: Puts the two ends of pipes where Chromium wants them: descriptors 3 and 4.
_START = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # it has none for root, and the page is ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def find_chromium() -> str | None:
    """Where it is, None if it is not installed."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


class Page:
    """A tab.

    Attributes:
        errors: what the console, the policy or a script complained of.
        requests: all URLs that the page asked for, blocked or not.
    """

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer, self._buffer, self._count = reader, writer, b"", 0
        self._session: str | None = None
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go there, and wait until all has been loaded."""
        self.errors.clear()
        self.requests.clear()
        self._call("Page.navigate", url=url)
        self._wait("Page.loadEventFired")
        self.value("new Promise(done => setTimeout(done, 0))")  # what the load event itself started

    def value(self, script: str) -> Any:
        """What a script comes to."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def emulate(self, *, scheme: str = "light", media: str = "") -> None:
        """Theme and medium."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", media=media, features=features)

    def resize(self, width: int, height: int) -> None:
        """The window."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self._call("Page.printToPDF")["data"])

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._writer, data) :]
        answer = self._wait(self._count)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _wait(self, wanted: int | str) -> dict[str, Any]:
        deadline = time.monotonic() + _SECONDS
        while True:
            message = self._next(deadline)
            self._note(message)
            if wanted in (message.get("id"), message.get("method")):
                return message

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._reader], [], [], max(deadline - time.monotonic(), 0))
            assert ready, "Chromium does not answer"
            data = os.read(self._reader, 1 << 20)
            assert data, "Chromium has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"]))
        elif message.get("method") == "Runtime.consoleAPICalled":
            self.errors.append(json.dumps(params["args"]))
        elif message.get("method") == "Log.entryAdded":
            self.errors.append(params["entry"]["text"])
        elif message.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])


@contextmanager
def chromium(program: str, folder: Path) -> Iterator[Page]:
    """A tab of a new browser, which keeps all it writes in ``folder``."""
    to_browser, from_browser = os.pipe(), os.pipe()
    words = [sys.executable, "-c", _START, str(to_browser[0]), str(from_browser[1]), program, *_OPTIONS]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*words, f"--user-data-dir={folder / 'profile'}"],
            pass_fds=(to_browser[0], from_browser[1]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"HOME": str(folder)},
        )
    os.close(to_browser[0])
    os.close(from_browser[1])
    try:
        yield Page(from_browser[0], to_browser[1])
    finally:
        os.close(to_browser[1])  # which ends it
        os.close(from_browser[0])
        try:
            process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
