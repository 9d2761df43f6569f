"""An engine that reads a folder when it starts: `served_folder.py FOLDER PORT`. It loads little, to start quickly."""

from __future__ import annotations

import http.server
import json
import signal
import socketserver
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file


def answer_of(tensors: dict[str, np.ndarray], x: int) -> dict[str, Any]:
    """What inference gives: it depends on every byte of the weights."""
    vector = np.full(tensors["w"].shape[1], float(x), dtype=np.float32)
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].tobytes(), total)
    return {"sum": total, "y": float((tensors["w"] @ vector).sum())}


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away."""


def serve_tensors(port: int, tensors: dict[str, np.ndarray], gate: Any = None) -> None:
    """`/v1/infer?x=` and `/health`, which finds a version unwell whose weights say so."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/health":
                self._say(503 if tensors["health"][0] > 0 else 200, {})
                return
            if not self.path.startswith("/v1/infer?x="):
                self._say(404, {})
                return
            x = int(self.path.rpartition("=")[2])
            try:
                if gate is None:
                    said = answer_of(tensors, x)
                else:
                    with gate.request():
                        said = answer_of(tensors, x)
            except Exception:  # noqa: BLE001  (the gate's own, which this file does not load)
                self._say(503, {})
                return
            self._say(200, said)

        def _say(self, status: int, said: dict[str, Any]) -> None:
            raw = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

    server = _Server(("127.0.0.1", port), Handler)

    def finish(*_: Any) -> None:
        # As engines do on SIGTERM: what runs is answered.
        threading.Thread(target=server.shutdown).start()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, finish)
    server.serve_forever(0.02)
    time.sleep(0.1)


if __name__ == "__main__":
    weights = load_file(Path(sys.argv[1]) / "model.safetensors")
    if weights["health"][0] > 1:
        sys.exit("these weights cannot be loaded")
    serve_tensors(int(sys.argv[2]), weights)
