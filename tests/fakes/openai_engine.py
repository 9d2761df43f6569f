"""An engine that speaks OpenAI's chat completions and exports vLLM's gauges: so many requests at once, others wait.

Run as a process: ``python openai_engine.py PORT NAME --slots 4 --token-s 0.02``. Tokens are words of the replica's
name, one each ``token_s``; a request has ``max_tokens`` of them. ``POST /set`` overrides the gauges and the health.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from contextlib import suppress
from typing import Any


class Engine:
    def __init__(self, name: str, slots: int, token_s: float) -> None:
        self.name, self.slots, self.token_s = name, slots, token_s
        self.running = self.waiting = self.served = 0
        self.gate = asyncio.Semaphore(slots)
        self.override: dict[str, Any] = {}

    def metrics(self) -> str:
        figures = {
            "num_requests_running": self.override.get("running", self.running),
            "num_requests_waiting": self.override.get("waiting", self.waiting),
            "kv_cache_usage_perc": self.override.get("kv", 0.9 * self.running / self.slots),
        }
        lines = []
        for name, value in figures.items():
            lines += [
                f"# HELP vllm:{name} As vLLM has it.",
                f"# TYPE vllm:{name} gauge",
                f'vllm:{name}{{engine="0",model_name="m"}} {float(value)}',
            ]
        lines += ["# TYPE vllm:request_success_total counter"]
        lines += [
            f'vllm:request_success_total{{engine="0",finished_reason="stop",model_name="m"}} {self.served}.0'
        ]
        return "\n".join(lines) + "\n"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            await self.answer(reader, writer)
        with suppress(OSError):
            writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split("\r\n")[0].split(" ")
        headers = {
            key.lower(): value.strip()
            for key, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if path == "/health":
            return whole(writer, int(self.override.get("health", 200)), b"")
        if path == "/metrics":
            return whole(writer, 200, self.metrics().encode(), "text/plain; version=0.0.4")
        if path == "/set":
            self.override = json.loads(body)
            return whole(writer, 200, b"{}")
        if path == "/v1/models":
            rows = {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": self.name}]}
            return whole(writer, 200, json.dumps(rows).encode(), "application/json")
        if path != "/v1/chat/completions" or method != "POST":
            return whole(writer, 404, b"")
        if self.override.get("refuse"):
            status = int(self.override["refuse"])
            return whole(writer, status, b'{"error": {"message": "refused"}}', "application/json")
        if self.override.get("drop"):
            return None  # as where the process dies with the request in hand
        request = json.loads(body)
        began = time.monotonic()
        self.waiting += 1
        try:
            await self.gate.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            await self.generate(writer, request, time.monotonic() - began)
            self.served += 1
        finally:
            self.running -= 1
            self.gate.release()

    async def generate(self, writer: asyncio.StreamWriter, request: dict[str, Any], waited_s: float) -> None:
        stream = request.get("stream", False)
        tokens = int(request.get("max_tokens", 4))
        if not stream:
            await asyncio.sleep(tokens * self.token_s)
            answer = {
                "id": "c",
                "object": "chat.completion",
                "model": "m",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": self.name}}],
                "waited_s": waited_s,
                "replica": self.name,
            }
            whole(writer, 200, json.dumps(answer).encode(), "application/json")
            return
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
            + f"x-replica: {self.name}\r\n\r\n".encode()
        )
        for number in range(tokens):
            delta = {"content": f"{self.name}{number} "}
            event = {
                "id": "c",
                "object": "chat.completion.chunk",
                "model": "m",
                "sent_at": time.time(),
                "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
            }
            text = f"data: {json.dumps(event)}\n\n".encode()
            writer.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
            await writer.drain()
            await asyncio.sleep(self.token_s)
        text = b"data: [DONE]\n\n"
        writer.write(f"{len(text):x}\r\n".encode() + text + b"\r\n0\r\n\r\n")
        await writer.drain()


def whole(writer: asyncio.StreamWriter, status: int, body: bytes, kind: str = "text/plain") -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("name")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--token-s", type=float, default=0.02)
    said = parser.parse_args()
    engine = Engine(said.name, said.slots, said.token_s)
    server = await asyncio.start_server(engine.handle, "127.0.0.1", said.port, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
