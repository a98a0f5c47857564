"""Headless Chromium by its DevTools protocol over a pipe (`--remote-debugging-pipe`): no library and no open port are needed."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SOFTWARE_GL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: the page was not opened in a browser")


class Browser:
    """One page of one browser; `console` and `requests` collect what it said and what it asked for."""

    def __init__(self, width: int = 1280, height: int = 800, webgl: bool = True, touch: bool = False) -> None:
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        read_command, self._write = os.pipe()
        self._read, write_answer = os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4
        shell = f'exec "$@" 3<&{read_command} 4>&{write_answer}'
        gl = SOFTWARE_GL if webgl else ("--disable-gpu", "--disable-3d-apis")
        arguments = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-background-networking", "--disable-component-update"]
        arguments += ["--no-first-run", "--hide-scrollbars", f"--user-data-dir={self.profile.name}", "--remote-debugging-pipe", *gl]
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *arguments, "about:blank"],
            pass_fds=(read_command, write_answer),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_command)
        os.close(write_answer)
        self._buffer, self._count, self._session = b"", 0, ""
        self.console: list[str] = []
        self.requests: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.size(width, height, touch)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._write)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._read)
        self.profile.cleanup()

    def _message(self, timeout_s: float) -> dict[str, Any]:
        end = time.monotonic() + timeout_s
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            data = os.read(self._read, 1 << 20)
            if not data:
                raise RuntimeError("the browser ended")
            self._buffer += data
        text, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        self._note(message)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.console.append(str(parameters["exceptionDetails"].get("exception", {}).get("description", parameters)))
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning", "assert"):
                self.console.append(f"{parameters['type']}: {[a.get('value', a.get('description')) for a in parameters['args']]}")
            case "Log.entryAdded" if parameters["entry"]["level"] in ("error", "warning"):
                self.console.append(f"{parameters['entry']['level']}: {parameters['entry']['text']}")
            case "Network.requestWillBeSent" if not parameters["request"]["url"].startswith("data:"):
                self.requests.append(parameters["request"]["url"])

    def send(self, method: str, timeout_s: float = 60.0, **parameters: Any) -> dict[str, Any]:
        """One command and its answer. Raises RuntimeError with the browser's own words."""
        self._count += 1
        command: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._write, json.dumps(command).encode() + b"\0")
        while True:
            answer = self._message(timeout_s)
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def size(self, width: int, height: int, touch: bool = False) -> None:
        """Make the window as large as a screen, of a hand-held device where `touch`."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch)
        if touch:
            self.send("Emulation.setTouchEmulationEnabled", enabled=True)

    def open(self, path: Path) -> float:
        """Load a local file; returns seconds until everything is loaded and a frame was drawn."""
        self.console.clear()
        self.requests.clear()
        started = time.monotonic()
        self.send("Page.navigate", url=path.resolve().as_uri())
        frame = "new Promise(r => { const f = () => requestAnimationFrame(() => requestAnimationFrame(() => r(1)));"
        self.evaluate(frame + " document.readyState === 'complete' ? f() : addEventListener('load', f); })")
        return time.monotonic() - started

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression (promises are awaited). Raises RuntimeError for an exception."""
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"].get("exception", {}).get("description", answer["exceptionDetails"])))
        return answer["result"].get("value")

    def press(self, key: str, shift: bool = False, code: int = 0) -> None:
        """One key down and up, as a person would."""
        codes = {"Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Escape": 27}
        number = code or codes.get(key, ord(key[0].upper()))
        text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
        common = {"key": key, "windowsVirtualKeyCode": number, "modifiers": 8 if shift else 0}
        self.send("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, x: float, y: float) -> None:
        """A click of the left button at a place in the window, px."""
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press, move and release."""
        self.send("Input.dispatchMouseEvent", type="mousePressed", x=start[0], y=start[1], button="left", buttons=1, clickCount=1)
        for share in (0.5, 1.0):
            x, y = (a + share * (b - a) for a, b in zip(start, end))
            self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left", buttons=1)
        self.send("Input.dispatchMouseEvent", type="mouseReleased", x=end[0], y=end[1], button="left", clickCount=1)

    def picture(self, path: Path | None = None, clip: tuple[float, float, float, float] | None = None) -> bytes:
        """PNG of the window, or of (x, y, width, height) of the page."""
        options: dict[str, Any] = {"format": "png"}
        if clip is not None:
            options |= {"clip": dict(zip(("x", "y", "width", "height"), clip), scale=1), "captureBeyondViewport": True}
        data = base64.b64decode(self.send("Page.captureScreenshot", **options)["data"])
        if path is not None:
            path.write_bytes(data)
        return data

    def pdf(self) -> bytes:
        """The page as it would be printed on A4."""
        answer = self.send("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=True, timeout_s=120)
        return base64.b64decode(answer["data"])
