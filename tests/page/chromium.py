"""A headless Chromium, driven over a pipe by its DevTools protocol. Nothing but Python's own library.

The browser ends when the pipe closes, so it can't outlive its driver.
"""

import base64
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]


class Missing(Exception):
    """There is no Chromium on this machine."""


class Failed(Exception):
    """The browser refused a command, or a condition did not come about."""


class Chromium:
    """The browser. Use it in a `with`."""

    def __init__(self):
        binary = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
        if binary is None:
            raise Missing(f"none of {', '.join(NAMES)} is installed; Debian: apt-get install chromium")
        self.profile = tempfile.TemporaryDirectory(prefix="page-test-", ignore_cleanup_errors=True)
        commands_out, commands_in = os.pipe()
        answers_out, answers_in = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        script = f'exec "$@" 3<&{commands_out} 4>&{answers_in}'
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", script, "chromium", binary, "--headless=new", "--remote-debugging-pipe",
             "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions",
             "--no-first-run", "--no-proxy-server", "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
             f"--user-data-dir={self.profile.name}", "about:blank"],
            pass_fds=(commands_out, answers_in), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(commands_out)
        os.close(answers_in)
        self.input = os.fdopen(commands_in, "wb", buffering=0)
        self.output = os.fdopen(answers_out, "rb")
        self.answers = {}
        self.listeners = {}
        self.pages = []
        self.lock = threading.Lock()
        self.last = 0
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        rest = b""
        while True:
            try:
                piece = self.output.read1(1 << 16)
            except (OSError, ValueError):
                piece = b""
            if not piece:
                for answer in list(self.answers.values()):
                    answer.put({"error": {"message": "the browser is gone"}})
                return
            *messages, rest = (rest + piece).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    answer = self.answers.pop(message["id"], None)
                    if answer:
                        answer.put(message)
                else:
                    listener = self.listeners.get(message.get("sessionId"))
                    if listener:
                        listener(message["method"], message["params"])

    def send(self, method, session=None, **params):
        """Gives a command and waits for its result."""
        answer = queue.Queue()
        with self.lock:
            self.last += 1
            message = {"id": self.last, "method": method, "params": params}
            if session:
                message["sessionId"] = session
            self.answers[self.last] = answer
            self.input.write(json.dumps(message).encode() + b"\0")
        try:
            message = answer.get(timeout=60)
        except queue.Empty:
            raise Failed(f"{method}: no answer within a minute") from None
        if "error" in message:
            raise Failed(f"{method}: {message['error']['message']}")
        return message["result"]

    def page(self, **size):
        """A new tab, in a context of its own: no storage is shared."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.pages.append(Page(self, session, target, **size))
        return self.pages[-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.send("Browser.close")
        except Failed:
            pass
        self.input.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(timeout=10)
        self.output.close()
        self.profile.cleanup()


class Page:
    """A tab, and every complaint it has made."""

    def __init__(self, browser, session, target, width=1280, height=800, dark=False):
        self.browser, self.session, self.target = browser, session, target
        self.complaints = []
        self.requests = []
        browser.listeners[session] = self._hear
        for domain in ["Page", "Runtime", "Log", "Network"]:
            self.send(f"{domain}.enable")
        self.resize(width, height)
        self.media(dark=dark)
        # Violations of the Content-Security-Policy, told by the page itself as well as by the log.
        self.send("Page.addScriptToEvaluateOnNewDocument", source="""
            addEventListener('securitypolicyviolation', (event) =>
              console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));""")

    def send(self, method, **params):
        return self.browser.send(method, self.session, **params)

    def _hear(self, method, params):
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            entry = params["entry"]
            self.complaints.append(f"{entry['text']} {entry.get('url', '')}".strip())
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def resize(self, width, height, scale=1):
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False)

    def media(self, dark=False, calm=False):
        self.send("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if calm else "no-preference"}])

    def open(self, url):
        self.send("Page.navigate", url=url)

    def run(self, script):
        """The value of an expression in the page; a promise is waited for."""
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise Failed(f"{script}: {details.get('exception', {}).get('description') or details['text']}")
        return result["result"].get("value")

    def until(self, script, what=None, within=10.0):
        """Waits until an expression is true; the seconds it took."""
        begun = time.monotonic()
        while True:
            try:
                is_so = self.run(f"Promise.resolve({script}).then(Boolean)")
            except Failed as error:  # The page may be on its way elsewhere.
                is_so = False
                if time.monotonic() - begun > within:
                    raise error
            took = time.monotonic() - begun
            if is_so:
                return took
            if took > within:
                raise Failed(f"not within {within:g} s: {what or script}")
            time.sleep(0.02)

    def text(self, selector):
        """What a person reads there; None if there is no such element, or it does not show."""
        return self.run(f"""(() => {{
            const found = document.querySelector({json.dumps(selector)});
            return found && found.checkVisibility() ? found.innerText : null;
        }})()""")

    def click(self, selector):
        """Clicks with the mouse where the element is, if nothing covers it."""
        box = self.run(f"""(() => {{
            const element = document.querySelector({json.dumps(selector)});
            if (!element) return null;
            element.scrollIntoView({{ block: 'nearest' }});
            const box = element.getBoundingClientRect();
            const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
            const hit = document.elementFromPoint(x, y);
            return [x, y, element === hit || element.contains(hit) || (hit?.contains(element) ?? false), hit?.outerHTML.slice(0, 120)];
        }})()""")
        if not box or not box[2]:
            raise Failed(f"{selector} can't be clicked: {box and box[3]}")
        for kind in ["mousePressed", "mouseReleased"]:
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def press(self, key):
        """Presses a key: a character, or a name such as `Enter`."""
        codes = {"Enter": ("\r", 13), "Escape": (None, 27), "Tab": (None, 9)}
        text, code = codes.get(key, (key, ord(key[0].upper())))
        named = {"key": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", **named, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **named)

    def type(self, text):
        self.send("Input.insertText", text=text)

    def screenshot(self, path):
        data = self.send("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
