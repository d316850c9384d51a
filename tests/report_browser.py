# SPDX-License-Identifier: Apache-2.0
"""Chromium without a window, driven over its pipe (the DevTools protocol: JSON messages that end with a zero byte)."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from pathlib import Path

SECONDS = 120


class Browser:
    """A page in a browser of its own. requests: addresses that it asked for; errors: what it logged or threw. Use as a
    context manager."""

    def __init__(self, profile: Path, width: int, height: int):
        (to_read, self.to_write), (self.to_listen, to_answer) = os.pipe(), os.pipe()
        command = "exec chromium --headless --no-sandbox --disable-gpu --remote-debugging-pipe"
        given = f"--user-data-dir={profile} --window-size={width},{height} about:blank"
        pipes = f"3<&{to_read} 4>&{to_answer}"
        with open(profile.with_suffix(".log"), "wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", f"{command} {given} {pipes}"], pass_fds=(to_read, to_answer), stdout=log, stderr=log
            )  # fmt: skip
        os.close(to_read)
        os.close(to_answer)
        self.buffer, self.number, self.session = b"", 0, None
        self.events: list[dict] = []
        self.requests: list[str] = []
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)
        os.close(self.to_write)
        os.close(self.to_listen)

    def call(self, method: str, **params) -> dict:
        """The result of a command."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.to_write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self) -> dict:
        end = time.monotonic() + SECONDS
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.to_listen], [], [], max(0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self.to_listen, 1 << 16)
            assert part, "the browser ended"
            self.buffer += part
        text, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(text)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, params: dict) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(str(params["args"]))
        elif method == "Page.loadEventFired":
            self.events.append(params)

    def open(self, address: str) -> None:
        """Returns when the page has loaded."""
        self.events.clear()
        self.call("Page.navigate", url=address)
        while not self.events:
            self._next()

    def value(self, script: str):
        """What a JavaScript expression gives."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def point(self, selector: str) -> None:
        """Moves the mouse onto the middle of the first element, which is scrolled into view."""
        x, y = self.value(
            f"(() => {{ const at = document.querySelector({json.dumps(selector)}); "
            "at.scrollIntoView({block: 'center', behavior: 'instant'}); const box = at.getBoundingClientRect(); "
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        self.value("new Promise(requestAnimationFrame)")
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def shot(self, path: Path) -> None:
        """A PNG of the whole page."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))
