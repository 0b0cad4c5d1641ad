"""A headless Chromium for tests, driven over the DevTools protocol (CDP) by aiohttp's websocket.

    async with open_browser(tmp_path) as page:
        await page.goto(f"file://{path}")
        await page.press("Tab", "Enter", "Control+s")
        assert await page.evaluate("document.title") == "Review"

Every name but loopback fails to resolve inside it, so that a page that reaches outside fails here
too; `page.requests` lists what was asked for. Tests skip where there is no Chromium.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
from pydantic import JsonValue

from flywheel.records import JsonObject
from tests.chromium import BrowserError, Chromium, require_chromium

__all__ = ["BrowserError", "Page", "open_browser", "require_chromium"]

ANSWER_S = 30.0
MODIFIERS = {"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}
NAMED_KEYS = {
    "Backspace": 8,
    "Tab": 9,
    "Enter": 13,
    "Escape": 27,
    "Space": 32,
    "PageUp": 33,
    "PageDown": 34,
    "End": 35,
    "Home": 36,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "Delete": 46,
}
_TEXT_OF = {"Enter": "\r", "Space": " "}


class Page:
    """One tab. Its log starts empty and is never cleared: `requests`, `errors`, `downloads`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, downloads: Path) -> None:
        self.requests: list[str] = []
        """URLs asked for, in order, those of the page itself included."""
        self.errors: list[str] = []
        """Uncaught exceptions, console.error and what the browser reports (CSP breaches too)."""
        self.downloads_folder = downloads
        self._socket = socket
        self._session = ""
        self._sent = 0
        self._waiting: dict[int, asyncio.Future[JsonObject]] = {}
        self._events: dict[str, Callable[[JsonObject], None]] = {
            "Network.requestWillBeSent": lambda p: self.requests.append(_at(p, "request", "url")),
            "Runtime.exceptionThrown": lambda p: self.errors.append(
                _at(p, "exceptionDetails", "exception", "description")
                or _at(p, "exceptionDetails", "text")
            ),
            "Log.entryAdded": self._logged,
            "Runtime.consoleAPICalled": self._called_console,
            "Page.javascriptDialogOpening": self._accept_dialog,
            "Browser.downloadWillBegin": self._download_begins,
            "Browser.downloadProgress": self._download_goes_on,
        }
        self._names: dict[str, str] = {}
        self._done: asyncio.Queue[Path] = asyncio.Queue()
        self._loose: set[asyncio.Task[JsonObject]] = set()
        self._reader = asyncio.create_task(self._read())

    async def start(self) -> None:
        """Opens the tab and subscribes to what is logged."""
        made = await self.send("Target.createTarget", url="about:blank")
        joined = await self.send("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        self._session = str(joined["sessionId"])
        await self.send(
            "Browser.setDownloadBehavior",
            behavior="allow",
            downloadPath=str(self.downloads_folder),
            eventsEnabled=True,
        )
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            await self.send(f"{domain}.enable")

    async def send(self, method: str, **params: JsonValue) -> JsonObject:
        """One protocol command and its result.

        Raises:
            BrowserError: the browser refused it or did not answer.
        """
        self._sent += 1
        number = self._sent
        message: JsonObject = {"id": number, "method": method, "params": params}
        if self._session and not method.startswith(("Browser.", "Target.")):
            message["sessionId"] = self._session
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json(message)
        try:
            answer = await asyncio.wait_for(self._waiting[number], ANSWER_S)
        except TimeoutError as error:
            raise BrowserError(f"{method}: no answer in {ANSWER_S:g} s") from error
        finally:
            del self._waiting[number]
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']}")
        result = answer.get("result")
        return result if isinstance(result, dict) else {}

    async def goto(self, url: str) -> None:
        """Opens a URL and waits until it has loaded."""
        await self._leave("Page.navigate", url=url)

    async def reload(self) -> None:
        """Loads the page again in the same process: what it stored is there for certain."""
        await self._leave("Page.reload")

    async def _leave(self, method: str, **params: JsonValue) -> None:
        """Leaves the document for another, and waits until that one has loaded.

        On a machine that is busy a navigation is now and then dropped without a word: once more.
        """
        for is_last in (False, True):
            # The old document answers `complete` until the new one is there.
            await self.evaluate("window.__left = true")
            answer = await self.send(method, **params)
            if answer.get("errorText"):
                raise BrowserError(f"{method} {params}: {answer['errorText']}")
            try:
                await self.wait_for("!window.__left && document.readyState === 'complete'")
            except BrowserError:
                if is_last:
                    raise
            else:
                return

    async def evaluate(self, script: str) -> JsonValue:
        """The value of a JavaScript expression; a promise is awaited.

        Raises:
            BrowserError: it threw.
        """
        answer = await self.send(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in answer:
            raise BrowserError(f"{script}: {_at(answer, 'result', 'description')}")
        result = answer["result"]
        return result.get("value") if isinstance(result, dict) else None

    async def wait_for(self, condition: str, *, timeout_s: float = 15.0) -> None:
        """Waits until a JavaScript expression is true."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while True:
            # A navigation throws away the context a script runs in: ask the next one.
            with contextlib.suppress(BrowserError):
                if await self.evaluate(f"Boolean({condition})"):
                    return
            if loop.time() > until:
                shown = await self.evaluate("document.body.innerText.slice(0, 800)")
                raise BrowserError(f"not true in {timeout_s:g} s: {condition}; the page: {shown}")
            await asyncio.sleep(0.03)

    async def press(self, *keys: str) -> None:
        """Presses keys one after another: `a`, `?`, `Enter`, `Shift+Tab`, `Control+s`."""
        for combination in keys:
            *held, key = combination.split("+") if len(combination) > 1 else [combination]
            modifiers = sum(MODIFIERS[name] for name in held)
            event = _key_event(key, modifiers)
            await self.send("Input.dispatchKeyEvent", type="keyDown", **event)
            event.pop("text", None)
            await self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    async def type(self, text: str) -> None:
        """Types a text into what has the focus."""
        await self.send("Input.insertText", text=text)

    async def click(self, selector: str) -> None:
        """Clicks the middle of an element with the mouse."""
        where = await self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        assert isinstance(where, list)
        for kind in ("mousePressed", "mouseReleased"):
            await self.send(
                "Input.dispatchMouseEvent",
                type=kind,
                x=where[0],
                y=where[1],
                button="left",
                clickCount=1,
            )

    async def choose_files(self, selector: str, *paths: Path) -> None:
        """Puts files into an `<input type=file>`, as its dialog would."""
        found = await self.send(
            "Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})"
        )
        files: list[JsonValue] = [str(path) for path in paths]
        await self.send(
            "DOM.setFileInputFiles", files=files, objectId=_at(found, "result", "objectId")
        )

    async def set_window(
        self, width: int, height: int, *, scheme: str = "light", reduced_motion: bool = True
    ) -> None:
        """Size in CSS pixels, and which colour scheme the system is said to prefer."""
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        motion = "reduce" if reduced_motion else "no-preference"
        await self.send(
            "Emulation.setEmulatedMedia",
            features=[
                {"name": "prefers-color-scheme", "value": scheme},
                {"name": "prefers-reduced-motion", "value": motion},
            ],
        )

    async def go_offline(self) -> None:
        """Pulls the network cable, loopback included."""
        await self.send(
            "Network.emulateNetworkConditions",
            offline=True,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )

    async def screenshot(self, path: Path, *, full_page: bool = False) -> Path:
        """Writes what is seen as PNG."""
        answer = await self.send(
            "Page.captureScreenshot", format="png", captureBeyondViewport=full_page
        )
        path.write_bytes(base64.b64decode(str(answer["data"])))
        return path

    async def next_download(self, *, timeout_s: float = 15.0) -> Path:
        """Waits for the next file that is completely saved, in the order they were."""
        try:
            return await asyncio.wait_for(self._done.get(), timeout_s)
        except TimeoutError as error:
            raise BrowserError(f"no file was saved in {timeout_s:g} s") from error

    async def stop(self) -> None:
        """Ends the browser."""
        with contextlib.suppress(BrowserError, ConnectionError, aiohttp.ClientError):
            await self.send("Browser.close")
        self._reader.cancel()

    async def _read(self) -> None:
        async for message in self._socket:
            event = json.loads(message.data)
            if event.get("id") in self._waiting:
                self._waiting[event["id"]].set_result(event)
            elif event.get("method") in self._events:
                self._events[event["method"]](event["params"])
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result({"error": "the browser has closed the connection"})

    def _logged(self, params: JsonObject) -> None:
        if _at(params, "entry", "level") == "error":
            self.errors.append(f"{_at(params, 'entry', 'text')} {_at(params, 'entry', 'url')}")

    def _called_console(self, params: JsonObject) -> None:
        arguments = params["args"]
        if params["type"] == "error" and isinstance(arguments, list):
            said = [one for one in arguments if isinstance(one, dict)]
            self.errors.append(
                " ".join(str(one.get("value", one.get("description"))) for one in said)
            )

    def _accept_dialog(self, _: JsonObject) -> None:
        task = asyncio.create_task(self.send("Page.handleJavaScriptDialog", accept=True))
        self._loose.add(task)
        task.add_done_callback(self._loose.discard)

    def _download_begins(self, params: JsonObject) -> None:
        self._names[str(params["guid"])] = str(params["suggestedFilename"])

    def _download_goes_on(self, params: JsonObject) -> None:
        if params["state"] == "completed":
            name = Path(str(params.get("filePath") or self._names[str(params["guid"])])).name
            self._done.put_nowait(self.downloads_folder / name)


@contextlib.asynccontextmanager
async def open_browser(folder: Path) -> AsyncIterator[Page]:
    """A fresh browser with one tab; its profile and downloads lie under the folder given."""
    require_chromium()
    profile, downloads = folder / "chromium", folder / "downloads"
    profile.mkdir(parents=True, exist_ok=True)
    downloads.mkdir(exist_ok=True)
    (profile / "DevToolsActivePort").unlink(missing_ok=True)
    async with (
        Chromium(profile) as chromium,
        aiohttp.ClientSession() as session,
        # Screenshots are larger than aiohttp's limit for a message.
        session.ws_connect(await chromium.url(), max_msg_size=0) as socket,
    ):
        page = Page(socket, downloads)
        await page.start()
        try:
            yield page
        finally:
            await page.stop()


def _key_event(key: str, modifiers: int) -> JsonObject:
    if key in NAMED_KEYS:
        event: JsonObject = {
            "key": " " if key == "Space" else key,
            "code": key,
            "windowsVirtualKeyCode": NAMED_KEYS[key],
        }
        text = _TEXT_OF.get(key)
    else:
        code = f"Key{key.upper()}" if key.isalpha() else f"Digit{key}" if key.isdigit() else ""
        event = {"key": key, "code": code, "windowsVirtualKeyCode": ord(key.upper())}
        text = key
    event["modifiers"] = modifiers
    # With Control, Alt or Meta held a key is a command and types nothing.
    if text is not None and not modifiers & ~MODIFIERS["Shift"]:
        event["text"] = text
    return event


def _at(value: JsonValue, *path: str) -> str:
    """The text at a path of a protocol message; empty where there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""
