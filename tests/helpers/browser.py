"""A real headless Chromium, controlled over a pipe with the Chrome DevTools protocol."""

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time

import pytest

TIMEOUT_S = 60
# Chromium reads commands from descriptor 3 and answers on 4. This is a small program, not preexec_fn, because a process that
# runs jax must not fork.
WITH_PIPES = """
import os, sys
spare = [os.dup2(int(sys.argv[1]), 100), os.dup2(int(sys.argv[2]), 101)]
os.dup2(spare[0], 3)
os.dup2(spare[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
KEYS = {
    "Enter": ("Enter", 13, "\r"),
    "Tab": ("Tab", 9, ""),
    "/": ("Slash", 191, "/"),
    "ArrowDown": ("ArrowDown", 40, ""),
    "End": ("End", 35, ""),
    "Escape": ("Escape", 27, ""),
    "d": ("KeyD", 68, "d"),
    "j": ("KeyJ", 74, "j"),
    "k": ("KeyK", 75, "k"),
}
# Computes the contrast ratio of text against its background as defined by WCAG 2.1.
CONTRAST = """
(selectors) => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const background = (element) => {
    const color = parse(getComputedStyle(element).backgroundColor);
    return color.length === 3 || color[3] > 0 ? color : background(element.parentElement);
  };
  const contrast = (element) => {
    const colors = [parse(getComputedStyle(element).color), background(element)];
    const [a, b] = colors.map(luminance).sort((p, q) => q - p);
    return (a + 0.05) / (b + 0.05);
  };
  return selectors.map((selector) => [selector, contrast(document.querySelector(selector))]);
}
"""


def chromium():
    """Return the path of the browser; skip the test if there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium: make setup-test installs it (apt-get install chromium)")
    return found


class Browser:
    """One page, as a context manager. `events` are the events that the browser reported since the page was opened."""

    def __init__(self, profile):
        to_browser, write = os.pipe()
        read, from_browser = os.pipe()
        self._read, self._write = read, write
        flags = ["--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command = [chromium(), *flags, f"--user-data-dir={profile}", "--window-size=1200,900", "about:blank"]
        pipes = (to_browser, from_browser)
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", WITH_PIPES, *map(str, pipes), *command],
            pass_fds=pipes,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._ids, self._buffer, self.events = itertools.count(1), b"", []
        self._session = None
        pages = [info for info in self.send("Target.getTargets")["targetInfos"] if info["type"] == "page"]
        self._session = self.send("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._session = None
        try:
            self.send("Browser.close")
            self._process.wait(timeout=TIMEOUT_S)
        finally:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def send(self, method, **params):
        """Send a command and return its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (reply := self._next()).get("id") != number:
            self.events.append(reply)
        assert "error" not in reply, reply
        return reply["result"]

    def _next(self):
        deadline = time.monotonic() + TIMEOUT_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "Chromium does not answer"
            part = os.read(self._read, 1 << 20)
            assert part, "Chromium ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path, fragment=""):
        """Load a local page and wait until it is complete."""
        for url in ("about:blank", f"file://{path}{fragment}"):  # changing only the fragment would not reload
            self.events.clear()
            self.send("Page.navigate", url=url)
            while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
                self.events.append(self._next())

    def evaluate(self, expression):
        """Evaluate a JavaScript expression, or wait for its promise, and return its JSON value."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, condition):
        """Wait until a JavaScript condition is true."""
        deadline = time.monotonic() + TIMEOUT_S
        while not self.evaluate(f"Boolean({condition})"):
            assert time.monotonic() < deadline, condition
            self.evaluate("new Promise((done) => setTimeout(done, 10))")

    def press(self, name):
        """Press and release a key."""
        code, number, text = KEYS[name]
        key = {"key": name, "code": code, "windowsVirtualKeyCode": number}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **key) if text else self.send(
            "Input.dispatchKeyEvent", type="rawKeyDown", **key
        )
        self.send("Input.dispatchKeyEvent", type="keyUp", **key)

    def type_text(self, text):
        """Type text into the focused element."""
        self.send("Input.insertText", text=text)

    @contextlib.contextmanager
    def color_scheme(self, scheme):
        """Prefer "light" or "dark" while the context lasts."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        try:
            yield
        finally:
            self.send("Emulation.setEmulatedMedia", features=[])

    @contextlib.contextmanager
    def window(self, width, height):
        """Resize the window while the context lasts."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        try:
            yield
        finally:
            self.send("Emulation.clearDeviceMetricsOverride")

    def contrasts(self, selectors):
        """Return the contrast ratio of the first element of each selector."""
        return dict(self.evaluate(f"({CONTRAST})({json.dumps(selectors)})"))

    def screenshot(self, path):
        """Save the visible part of the page as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def problems(self):
        """Return script errors, blocked content, dialogs and console messages."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Page.javascriptDialogOpening")
        return [event for event in self.events if event.get("method") in kinds]

    def requests(self):
        """Return the URLs that the page requested, except its own URL."""
        urls = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("file://", "about:"))]
