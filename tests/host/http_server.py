"""An HTTP server in two processes: one answers, after `busy_s` of computing a request; the other only inherits.

``python http_server.py PORT BUSY_S`` prints the pid of the process that answers and of the one that never does, but
computes all the time.
"""

from __future__ import annotations

import os
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        until_s = time.thread_time() + float(sys.argv[2])
        while time.thread_time() < until_s:
            pass
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


def main() -> None:
    server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    heir = os.fork()
    if not heir:
        while True:  # as a forked engine does, beside a listening socket that is not its own
            pass
    sys.stdout.write(f"{os.getpid()} {heir}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
