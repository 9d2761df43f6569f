"""A very small engine, to try deployments with on a machine without a GPU.

    python small_engine.py --repo weights --model custom-llm --port 8001 --agent-port 9411 --folder replica-1

It holds a version's tensors in memory, answers OpenAI's completions with figures made of them, so that other weights
give other answers, exports its queue under vLLM's names, and has an agent by which a rollout changes the weights in
place, without a restart. It is an example of those parts, not a language model.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

import textnlp_fast
from textnlp_fast.adapter.rollout.agent import ReplicaAgent
from textnlp_fast.adapter.rollout.gate import DrainingError
from textnlp_fast.integrations.tensor_replica import TensorReplica, last_served
from textnlp_fast.storage import Repository


class Server(BaseHTTPRequestHandler):
    replica: TensorReplica
    tensors: dict[str, np.ndarray]
    model: str
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        look = self.replica.look()
        if self.path == "/health":
            self.answer(200 if look.ready else 503, {})
        elif self.path == "/v1/models":
            self.answer(200, {"object": "list", "data": [{"id": self.model, "object": "model"}]})
        elif self.path == "/metrics":
            label = f'{{model_name="{self.model}"}}'
            text = "# TYPE vllm:num_requests_running gauge\n"
            text += f"vllm:num_requests_running{label} {self.replica.gate.running}\n"
            text += "# TYPE vllm:num_requests_waiting gauge\n"
            text += f"vllm:num_requests_waiting{label} 0\n"
            self.send(200, "text/plain; version=0.0.4", text.encode())
        else:
            self.answer(404, {"error": {"message": "there is nothing here"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
        if self.path != "/v1/completions":
            self.answer(404, {"error": {"message": "there is nothing here"}})
            return
        try:
            with self.replica.gate.request():
                time.sleep(float(body.get("think_s", 0.02)))
                text = self.say(str(body.get("prompt", "")))
                version = self.replica.version
        except DrainingError as error:
            self.answer(503, {"error": {"message": str(error.args[0])}})
            return
        choice = {"index": 0, "text": text, "finish_reason": "stop"}
        name = f"{self.model}@{version}"
        self.answer(200, {"object": "text_completion", "model": name, "choices": [choice]})

    def say(self, prompt: str) -> str:
        """A figure of each tensor, under a seed of the prompt."""
        seed = np.random.default_rng(list(prompt.encode()))
        return " ".join(
            f"{float(one.astype(np.float32).ravel() @ seed.standard_normal(one.size)):.3f}"
            for one in self.tensors.values()
        )

    def answer(self, status: int, document: object) -> None:
        self.send(status, "application/json", json.dumps(document).encode())

    def send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True  # health checks hang up when they have read enough


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repo", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--version", default="latest", help="where nothing was served from the folder yet")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--agent-port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="what the replica remembers")
    chosen = parser.parse_args()

    chosen.folder.mkdir(parents=True, exist_ok=True)
    repository = Repository.open(chosen.repo)
    wanted = last_served(chosen.folder, chosen.version)
    version = repository.manifest(chosen.model, None if wanted == "latest" else wanted).version
    Server.model = chosen.model
    Server.tensors = dict(textnlp_fast.load(chosen.model, version, repository=repository))
    Server.replica = TensorReplica(Server.tensors, repository, chosen.model, version, folder=chosen.folder)
    server = ThreadingHTTPServer(("127.0.0.1", chosen.port), Server)
    with ReplicaAgent(Server.replica, chosen.folder, port=chosen.agent_port) as agent:
        print(
            f"{chosen.model}@{version} at http://127.0.0.1:{chosen.port}, its agent at {agent.url}",
            flush=True,
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            server.shutdown()


if __name__ == "__main__":
    main()
