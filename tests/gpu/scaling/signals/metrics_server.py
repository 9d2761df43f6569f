"""Loopback replicas: real HTTP servers whose /metrics say what a test makes them say."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

__all__ = ["MetricsServer", "vllm_text"]


def vllm_text(
    *,
    running: float = 0,
    waiting: float = 0,
    finished: float = 0,
    prompt_tokens: float = 0,
    output_tokens: float = 0,
    kv: float = 0.0,
    ttft: dict[str, float] | None = None,
) -> str:
    """The metrics of one vLLM replica, in the form that its /metrics has."""
    labels = 'engine="0",model_name="llama"'
    lines = [
        "# HELP vllm:num_requests_running Number of requests in model execution batches.",
        "# TYPE vllm:num_requests_running gauge",
        f"vllm:num_requests_running{{{labels}}} {running}",
        f"vllm:num_requests_waiting{{{labels}}} {waiting}",
        f"vllm:kv_cache_usage_perc{{{labels}}} {kv}",
        f"vllm:gpu_cache_usage_perc{{{labels}}} 0.77",
        f"vllm:prompt_tokens_total{{{labels}}} {prompt_tokens}",
        f"vllm:generation_tokens_total{{{labels}}} {output_tokens}",
        f'vllm:request_success_total{{{labels},finished_reason="stop"}} {finished}',
        f'vllm:request_success_total{{{labels},finished_reason="abort"}} 0.0',
        'vllm:cache_config_info{block_size="16",num_gpu_blocks="1000",engine="0"} 1.0',
    ]
    for bound, count in (ttft or {}).items():
        lines.append(f'vllm:time_to_first_token_seconds_bucket{{{labels},le="{bound}"}} {count}')
        lines.append(f'vllm:request_queue_time_seconds_bucket{{{labels},le="{bound}"}} {count}')
    return "\n".join(lines) + "\n"


class MetricsServer:
    """`text` is called for each GET; what it raises or hangs on is the server's affair. `requests` are their paths."""

    def __init__(self, text: Callable[[], str] | str, *, status: int = 200) -> None:
        self.text = text
        self.status = status
        self.requests: list[tuple[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                outer.requests.append((self.path, self.rfile.read(length).decode()))
                said = outer.text() if callable(outer.text) else outer.text
                body = said.encode()
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> MetricsServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
