"""A real browser, headless, driven over a pipe with the DevTools protocol: no driver and no package beside it."""

import base64
import contextlib
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # containers run tests as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--remote-debugging-pipe",
)


def find_browser():
    """Return the path of a browser; None where there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Page:
    """One page of a browser; what it logs, and what its scripts throw, is in ``problems``."""

    def __init__(self, connection):
        self._connection = connection
        self.problems = connection.problems

    def open(self, path, width=1280, height=900, dark=False):
        """Open a file from disk, at a size and in a colour scheme."""
        self.resize(width, height, dark)
        self.send("Page.navigate", url=Path(path).absolute().as_uri())
        self.wait("document.documentElement.dataset.ready === 'yes'")

    def resize(self, width, height=900, dark=False):
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Emulation.setScrollbarsHidden", hidden=True)

    def send(self, method, **params):
        return self._connection.send(method, params)

    def run(self, script):
        """Return what a script comes to, a promise too."""
        told = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait(self, condition, seconds=60):
        """Wait until a script is true, asking again as soon as it has answered."""
        end = time.monotonic() + seconds
        while not self.run(f"new Promise(told => setTimeout(() => told(Boolean({condition})), 20))"):
            assert time.monotonic() < end, f"{condition} did not become true"

    def text(self, selector):
        return self.run(f"document.querySelector({json.dumps(selector)}).textContent")

    def texts(self, selector):
        return self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(one => one.textContent)")

    def click(self, selector):
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def picture(self, path, whole=False):
        """Write a PNG of the page, or of what is seen of it."""
        told = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(told["data"]))

    def pdf(self):
        return base64.b64decode(self.send("Page.printToPDF", printBackground=True)["data"])


def _high(descriptor):
    """Give a descriptor a number that is out of the way."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved


class _Connection:
    def __init__(self, browser, profile):
        to_browser, from_here = map(_high, os.pipe())
        to_here, from_browser = map(_high, os.pipe())

        def connect():  # the browser reads from its descriptor 3, and writes to 4
            os.dup2(to_browser, 3)
            os.dup2(from_browser, 4)

        command = [browser, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, preexec_fn=connect, close_fds=False, **quiet)
        os.close(to_browser)
        os.close(from_browser)
        self._write, self._read = os.fdopen(from_here, "wb"), os.fdopen(to_here, "rb")
        self._numbers, self._rest, self._session = itertools.count(1), b"", None
        self.problems = []

    def attach(self):
        """Open a page."""
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self.send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable", {})

    def send(self, method, params):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while True:
            told = self._receive()
            if told.get("id") == number:
                assert "error" not in told, f"{method}: {told['error']}"
                return told["result"]
            self._notice(told)

    def _receive(self):
        while b"\0" not in self._rest:
            read = self._read.read1(1 << 20)
            assert read, "the browser has ended"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _notice(self, told):
        kind, params = told.get("method"), told.get("params", {})
        if kind == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif kind == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(" ".join(str(one.get("value")) for one in params["args"]))
        elif kind == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(params["entry"]["text"])
        elif kind == "Network.requestWillBeSent" and params["request"]["url"].startswith(("http", "ws")):
            self.problems.append(f"asked the network for {params['request']['url']}")
        elif kind == "Page.javascriptDialogOpening":
            self.problems.append(f"a dialog: {params['message']}")

    def close(self):
        with contextlib.suppress(OSError):
            self._write.close()  # the browser ends with its pipe
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._read.close()


@contextlib.contextmanager
def opened(browser):
    """Start a browser, and yield a page of it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        connection = _Connection(browser, profile)
        try:
            connection.attach()
            yield Page(connection)
        finally:
            connection.close()
