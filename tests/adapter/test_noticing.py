"""A machine hears from its cloud that it is taken back: the command that the units run, against a metadata service."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from adapter.test_machine import PATIENCE_S, until


class _Metadata(BaseHTTPRequestHandler):
    """EC2's metadata service (IMDSv2), which has nothing to tell until it is told to."""

    taken = threading.Event()
    asked = 0

    def do_PUT(self) -> None:
        self._answer(200, b"a-token")

    def do_GET(self) -> None:
        type(self).asked += 1
        if self.headers.get("X-aws-ec2-metadata-token") != "a-token":
            self._answer(401, b"")
        elif self.path == "/latest/meta-data/spot/instance-action" and self.taken.is_set():
            self._answer(200, json.dumps({"action": "terminate", "time": "2026-01-01T00:00:00Z"}).encode())
        else:
            self._answer(404, b"")

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_a_machine_hears_of_its_end(started: list[subprocess.Popen[bytes]]) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        waiting = subprocess.Popen(
            [sys.executable, "-m", "textnlp_fast.cli", "deploy", "await-notice", "--cloud", "aws",
             "--endpoint", f"http://127.0.0.1:{server.server_port}"],
            stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        started.append(waiting)
        until(lambda: _Metadata.asked >= 3)
        assert waiting.poll() is None
        _Metadata.taken.set()
        said, _ = waiting.communicate(timeout=PATIENCE_S)
        assert waiting.returncode == 0 and b"spot-interruption: terminate at 2026" in said
    finally:
        server.shutdown()
        server.server_close()
