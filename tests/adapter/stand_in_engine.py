"""A server that speaks as much of OpenAI's API as deployments ask of one: a process, started as any engine is.

    python stand_in_engine.py serve MODEL_DIR --port PORT [--served-model-name NAME] [anything else]

It serves the files that it finds, says what it was started with, and answers slowly where it is asked to.
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def option(words: list[str], name: str, default: str = "") -> str:
    return words[words.index(name) + 1] if name in words else default


class Handler(BaseHTTPRequestHandler):
    words: list[str]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        folder = Path(self.words[1])
        if self.path == "/health":
            self._answer(200 if (folder / "config.json").exists() else 503, {})
        elif self.path == "/v1/models":
            name = option(self.words, "--served-model-name", "model")
            self._answer(200, {"object": "list", "data": [{"id": name, "object": "model"}]})
        elif self.path == "/started-with":
            files = sorted(one.name for one in folder.iterdir())
            self._answer(200, {"words": self.words, "files": files, "note": os.environ.get("NOTE")})
        else:
            self._answer(404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
        time.sleep(float(body.get("sleep_s", 0)))
        text = f"echo: {body.get('prompt', '')}"
        self._answer(200, {"object": "text_completion", "choices": [{"index": 0, "text": text}]})

    def _answer(self, status: int, document: object) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Quiet."""


def main() -> None:
    Handler.words = sys.argv[1:]
    port = int(option(Handler.words, "--port"))
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
