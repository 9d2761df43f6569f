"""`textnlp-fast node-cache`: keeps pieces of a repository's objects on this machine, and gives them to others."""

from __future__ import annotations

import signal
import socket
import threading
from pathlib import Path

import click

from textnlp_fast.cli.arguments import FiniteRange, repository_option
from textnlp_fast.cli.configured import current_settings, reach, repository_url
from textnlp_fast.errors import InvalidInputError

EPILOG = """\b
Examples:
  textnlp-fast node-cache --repo s3://my-bucket/models --cache /var/cache/models
  textnlp-fast node-cache --repo s3://my-bucket/models --cache /cache --listen 0.0.0.0:9410 \\
    --peer dns+http://node-cache.serving.svc:9410
  TEXTNLP_FAST_PEERS=http://127.0.0.1:9410 textnlp-fast pull my-model@1.0.0 out/
"""


@click.command("node-cache", epilog=EPILOG)
@repository_option
@click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for pieces."
)
@click.option(
    "--limit-gib", type=FiniteRange(min=0), default=64.0, show_default=True, help="Most that is kept there."
)
@click.option(
    "--listen", default="127.0.0.1:9410", show_default=True, metavar="HOST:PORT", help="Where to listen."
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="URL",
    help="Other nodes: http://HOST:PORT or dns+http://NAME:PORT.",
)
@click.option(
    "--advertise", metavar="URL", help="This node as others have it. Default: by --listen, or by its host's."
)
def command(
    *,
    repo: str | None,
    cache: Path,
    limit_gib: float,
    listen: str,
    peers: tuple[str, ...],
    advertise: str | None,
) -> None:
    """Serve this machine's pieces of a repository's objects, until it is ended.

    All nodes together read each object about once from the repository. The secret that nodes ask each other for is
    TEXTNLP_FAST_PEER_TOKEN; without one only this machine is served. SIGKILL loses nothing that was kept.
    """
    from textnlp_fast.errors import StorageUnavailableError  # noqa: PLC0415
    from textnlp_fast.objectstore import open_store  # noqa: PLC0415
    from textnlp_fast.objectstore.peers import Members, NodeServer, PieceCache, Swarm  # noqa: PLC0415
    from textnlp_fast.storage import Repository  # noqa: PLC0415

    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise InvalidInputError(f"{listen!r} is no address to listen at", hint="Write HOST:PORT.")
    if len(port) > 5 or int(port) > 65_535:
        raise InvalidInputError(
            f"there is no port {port[:20]}", hint="Ports go from 1 to 65535; 0 takes any."
        )
    settings = current_settings()
    secret = settings.peer_token if settings is not None else None
    token = secret.get_secret_value() if secret is not None else None
    url = repository_url(repo)
    try:
        Repository.open(url, **reach())
    except StorageUnavailableError as error:
        # It will be there again, and pieces that are here can be served until then.
        click.echo(f"warning: the repository cannot be reached yet: {error.args[0]}", err=True)
    store = open_store(url, **reach())
    me = advertise or f"http://{_own_name(host, peers)}:{port}"
    kept = PieceCache(cache, limit_bytes=round(limit_gib * (1 << 30)))
    kept.check()
    swarm = Swarm(store, Members(peers, me=me), cache=kept, token=token, name=me)
    server = NodeServer(swarm, host.strip("[]"), int(port), token=token, name=me)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: threading.Thread(target=server.close).start())
    click.echo(f"listening on {host}:{server.port} as {me}", err=True)
    server.serve()


def _own_name(host: str, peers: tuple[str, ...]) -> str:
    """This node's host as others have it: among what its peers' names mean, else where it listens."""
    if host not in ("0.0.0.0", "[::]", "::"):
        return host
    try:
        found = {
            str(one[4][0]) for one in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
        }
    except OSError:
        found = set()
    named = [one for one in sorted(found) if any(f"//{one}:" in peer for peer in peers)]
    address = next(iter(named or sorted(found)), "127.0.0.1")
    return f"[{address}]" if ":" in address else address
