#!/usr/bin/env python3
"""An upstream to try the gateway on: it sends back what it gets, and behaves as badly as it is told.

    demo/upstream.py [PORT [ADDRESS]]                 port 3000 of 127.0.0.1 unless said; 0 takes a free one
    curl -X POST http://127.0.0.1:3000/mood/hanging   or failing, or well

A request with a body gets that body back; one without, a line of JSON. `x-method` and `x-path` say what came.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MOODS = ["well", "failing", "hanging"]


class Upstream(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port=0, address="127.0.0.1"):
        super().__init__((address, port), Handler)
        self.changed = threading.Condition()
        self.mood = "well"
        self.served = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def feels(self, mood):
        with self.changed:
            self.mood = mood
            self.changed.notify_all()

    def handle_error(self, request, client_address):
        pass  # A caller that goes away is nothing to tell of.


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "demo"
    # A head and a body that are written one by one must not wait for each other.
    disable_nagle_algorithm = True

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.command == "POST" and self.path.startswith("/mood/"):
            return self.set_mood(self.path.removeprefix("/mood/"))
        with self.server.changed:
            self.server.served += 1
            self.server.changed.wait_for(lambda: self.server.mood != "hanging")
            status = 500 if self.server.mood == "failing" else 200
        kind = self.headers.get("content-type", "application/octet-stream")
        if not body:
            kind, body = "application/json", json.dumps({"hello": "from upstream", "path": self.path}).encode() + b"\n"
        self.say(status, kind, body)

    def set_mood(self, mood):
        if mood not in MOODS:
            return self.say(404, "text/plain", f"there are {', '.join(MOODS)}\n".encode())
        self.server.feels(mood)
        self.say(200, "text/plain", f"{mood}\n".encode())

    def say(self, status, kind, body):
        self.send_response(status)
        for name, value in [("content-type", kind), ("content-length", len(body)), ("x-method", self.command), ("x-path", self.path)]:
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    upstream = Upstream(int(sys.argv[1]) if len(sys.argv) > 1 else 3000, *sys.argv[2:])
    print(f"listening on port {upstream.server_port}", flush=True)
    upstream.serve_forever()
