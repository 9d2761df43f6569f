"""`textnlp-fast deploy agent`: runs an engine beside it, and changes its version when it is told."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from textnlp_fast.cli.arguments import (
    AGENT_TOKEN_VARIABLE,
    FiniteRange,
    StorageVerb,
    agent_token,
    open_repository,
    repository_option,
)
from textnlp_fast.cli.deploy.rolling import token_option

EPILOG = f"""\b
Example:
  export {AGENT_TOKEN_VARIABLE}=...
  textnlp-fast deploy agent --repo s3://bucket/models --model llm --version champion --folder /srv/chat \\
      --ready-url http://127.0.0.1:8000/health --host 10.0.0.1 -- vllm serve {{model_dir}} --port 8000
SIGTERM ends the engine, then the agent. A kill -9 of the agent leaves the engine serving; the next agent finds it.
"""


@click.command("agent", cls=StorageVerb, epilog=EPILOG, context_settings={"ignore_unknown_options": True})
@click.argument("words", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@repository_option
@click.option("--model", required=True, metavar="NAME", help="Whose versions are served.")
@click.option(
    "--version", metavar="VERSION", help="What to serve where nothing was served from this folder yet."
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Where versions are kept, and what is remembered.",
)
@click.option("--ready-url", required=True, metavar="URL", help="Answers with 2xx once the engine serves.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address of the agent; others need a token."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=9402, show_default=True, help="0: any free one."
)
@token_option
@click.option(
    "--start",
    "start_s",
    type=FiniteRange(1, 86400),
    default=900.0,
    show_default=True,
    help="Seconds until it counts as failed.",
)
@click.option(
    "--stop",
    "stop_s",
    type=FiniteRange(0, 3600),
    default=60.0,
    show_default=True,
    help="Seconds that it may take to end.",
)
def command(
    *,
    words: tuple[str, ...],
    repo: str | None,
    model: str,
    version: str | None,
    folder: Path,
    ready_url: str,
    host: str,
    port: int,
    token_file: Path | None,
    start_s: float,
    stop_s: float,
) -> None:
    """Run COMMAND, an engine, with {model_dir} replaced by the folder of the version to serve, and change the version
    when a rollout says so.

    Use a token only where the network is yours: nothing is encrypted.
    """
    from textnlp_fast.adapter.rollout.agent import ReplicaAgent  # noqa: PLC0415
    from textnlp_fast.adapter.rollout.restarting import RestartEngine  # noqa: PLC0415
    from textnlp_fast.gpu.health.http import checked_url  # noqa: PLC0415
    from textnlp_fast.storage.version_manager import parse_reference  # noqa: PLC0415

    checked_url(ready_url)
    repository = open_repository(repo)
    exact = None
    if version is not None:
        exact = repository.resolve(parse_reference(f"{model}@{version}"))[1]
    folder.mkdir(parents=True, exist_ok=True)
    engine = RestartEngine(
        words, folder, repository, model, ready_url=ready_url, start_s=start_s, stop_s=stop_s
    )
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with ReplicaAgent(engine, folder, host=host, port=port, token=agent_token(token_file)) as agent:
        engine.start(exact)
        click.echo(f"serving {agent.url}/v1/state")
        ended.wait()
    engine.close(stop_engine=True)
