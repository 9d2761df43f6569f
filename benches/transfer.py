# ruff: noqa: PLC0415, PLW0108 - each contender loads its own package, in its own process, and begins when it is called
"""Moving one large file: ours beside boto3, awscrt, obstore, s3fs and the AWS command line, same server, same run.

Downloads come from nginx, uploads go to a small server that checks CRC-32 (``tests/fakes/part_server.py``), both on
loopback: so this measures what a client costs, not a network. Each contender is a process of its own; its time
and its processor time are taken around the transfer, without imports. Rounds are interleaved in random order; medians
are kept. What arrived is compared with what was sent each time, outside of the clock.

    python benches/transfer.py --size-mib 2048 --rounds 3
    python benches/transfer.py --only "textnlp-fast" boto3
    AWS_CLI=/path/to/aws python benches/transfer.py          a command line that is not on the PATH
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from textnlp_fast.hashing import Blake3

HERE = Path(__file__).resolve()
PART_SERVER = HERE.parents[1] / "tests" / "fakes" / "part_server.py"
PART_BYTES = 16 << 20
STREAMS = 8
# What checks the bytes that it moved: end to end, or on the way.
CHECKS = {
    "textnlp-fast": "BLAKE3 / CRC-32",
    "textnlp-fast, digest named": "- / BLAKE3, CRC-32",
    "textnlp-fast, on disk": "BLAKE3 / -",
    "boto3": "- / CRC-32",
    "aws s3 cp": "- / CRC-32",
    "awscrt": "- / CRC-32",
    "obstore": "- / -",
    "obstore ranges": "- / -",
    "s3fs": "- / CRC-32",
}
NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000;
client_body_temp_path {folder}/t; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t;
uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
server {{ listen 127.0.0.1:{port}; root {folder};
add_header x-amz-meta-textnlp-fast-blake3 {digest}; }} }}
"""


# --- contenders: what runs in a process of its own -------------------------------------------------------------


def _ours(
    verb: str, endpoint: str, place: Path, state: Path, digest: str | None, **how: Any
) -> Callable[[], object]:
    from textnlp_fast.objectstore import open_store
    from textnlp_fast.objectstore.transfers import TransferSettings, download, upload_file
    from textnlp_fast.objectstore.transfers.moving import upload_target

    store = open_store("s3://bucket", endpoint_url=endpoint)
    settings = TransferSettings(state_folder=state, **{"sync": False, **how})
    if verb == "upload":
        target = upload_target(store, "sent", settings).__enter__()  # the client, as the others have theirs
        return lambda: upload_file(place, target, settings, digest=digest)
    return lambda: download(store, "model.bin", place, settings)


def _boto3(verb: str, endpoint: str, place: Path) -> Callable[[], object]:
    import boto3
    from boto3.s3.transfer import TransferConfig

    client = boto3.client("s3", endpoint_url=endpoint)
    config = TransferConfig(multipart_chunksize=PART_BYTES, max_concurrency=STREAMS)
    if verb == "upload":
        return lambda: client.upload_file(str(place), "bucket", "sent", Config=config)
    return lambda: client.download_file("bucket", "model.bin", str(place), Config=config)


def _awscrt(verb: str, endpoint: str, place: Path) -> Callable[[], object]:
    from awscrt.auth import AwsCredentialsProvider
    from awscrt.http import HttpHeaders, HttpRequest
    from awscrt.io import ClientBootstrap, DefaultHostResolver, EventLoopGroup
    from awscrt.s3 import (
        S3ChecksumAlgorithm,
        S3ChecksumConfig,
        S3ChecksumLocation,
        S3Client,
        S3RequestTlsMode,
        S3RequestType,
    )

    loops = EventLoopGroup()
    client = S3Client(
        bootstrap=ClientBootstrap(loops, DefaultHostResolver(loops)),
        region="us-east-1",
        tls_mode=S3RequestTlsMode.DISABLED,
        credential_provider=AwsCredentialsProvider.new_static("test", "test"),
        part_size=PART_BYTES,
    )
    host = endpoint.removeprefix("http://")
    headers = HttpHeaders([("host", host)])
    if verb == "upload":
        headers.add("content-length", str(place.stat().st_size))
        request = HttpRequest("PUT", "/bucket/sent", headers)
        checksum = S3ChecksumConfig(algorithm=S3ChecksumAlgorithm.CRC32, location=S3ChecksumLocation.TRAILER)
        return lambda: client.make_request(
            type=S3RequestType.PUT_OBJECT,
            request=request,
            send_filepath=str(place),
            checksum_config=checksum,
        ).finished_future.result()
    request = HttpRequest("GET", "/bucket/model.bin", headers)
    return lambda: client.make_request(
        type=S3RequestType.GET_OBJECT, request=request, recv_filepath=str(place)
    ).finished_future.result()


def _obstore(verb: str, endpoint: str, place: Path, *, ranges: bool = False) -> Callable[[], object]:
    import obstore
    from obstore.store import S3Store

    store = S3Store("bucket", endpoint=endpoint, client_options={"allow_http": True, "timeout": "600s"})
    if verb == "upload":
        return lambda: obstore.put(
            store, "sent", place, use_multipart=True, chunk_size=PART_BYTES, max_concurrency=STREAMS
        )

    def stream() -> None:
        with place.open("wb") as file:
            for piece in obstore.get(store, "model.bin").stream(min_chunk_size=8 << 20):
                file.write(piece)

    def in_ranges() -> None:
        size = obstore.head(store, "model.bin")["size"]
        with place.open("wb") as file, ThreadPoolExecutor(STREAMS) as pool:
            file.truncate(size)

            def fetch(start: int) -> None:
                data = obstore.get_range(store, "model.bin", start=start, end=min(size, start + PART_BYTES))
                os.pwrite(file.fileno(), data, start)

            list(pool.map(fetch, range(0, size, PART_BYTES)))

    return in_ranges if ranges else stream


def _s3fs(verb: str, endpoint: str, place: Path) -> Callable[[], object]:
    import s3fs

    files = s3fs.S3FileSystem(client_kwargs={"endpoint_url": endpoint})

    def copy() -> None:  # its put and get list the bucket first, which these servers do not do
        if verb == "upload":
            with place.open("rb") as source, files.open("bucket/sent", "wb", block_size=PART_BYTES) as target:
                shutil.copyfileobj(source, target, PART_BYTES)
        else:
            with (
                files.open("bucket/model.bin", "rb", block_size=PART_BYTES) as source,
                place.open("wb") as target,
            ):
                shutil.copyfileobj(source, target, PART_BYTES)

    return copy


def _aws(verb: str, endpoint: str, place: Path) -> Callable[[], object]:
    names = ["s3://bucket/model.bin", str(place)]
    if verb == "upload":
        names = [str(place), "s3://bucket/sent"]
    command = [os.environ.get("AWS_CLI") or "aws", "s3", "cp", "--no-progress", *names]
    return lambda: subprocess.run(
        [*command, "--endpoint-url", endpoint], check=True, stdout=subprocess.DEVNULL
    )


def contender(
    name: str, verb: str, endpoint: str, place: Path, state: Path, digest: str
) -> Callable[[], object]:
    """The transfer, set up and not begun."""
    if name.startswith("textnlp-fast"):
        how = {"sync": True} if name.endswith("on disk") else {}
        return _ours(verb, endpoint, place, state, digest if name.endswith("named") else None, **how)
    makers: dict[str, Callable[[str, str, Path], Callable[[], object]]] = {
        "boto3": _boto3,
        "awscrt": _awscrt,
        "obstore": _obstore,
        "obstore ranges": lambda verb, endpoint, place: _obstore(verb, endpoint, place, ranges=True),
        "s3fs": _s3fs,
        "aws s3 cp": _aws,
    }
    return makers[name](verb, endpoint, place)


def contenders(verb: str) -> list[str]:
    """Those that are installed and have such a transfer."""
    names = ["textnlp-fast"]
    if verb == "download":
        names += ["textnlp-fast, on disk", "obstore ranges"]
    else:
        names.append("textnlp-fast, digest named")
    for name, package in (("boto3", "boto3"), ("awscrt", "awscrt"), ("obstore", "obstore"), ("s3fs", "s3fs")):
        if importlib.util.find_spec(package) is not None:
            names.append(name)
    if shutil.which(os.environ.get("AWS_CLI") or "aws"):
        names.append("aws s3 cp")
    return names


def run_client(arguments: list[str]) -> None:
    """The process of one contender: prints seconds and processor seconds."""
    name, verb, endpoint, place, state, digest = arguments
    go = contender(name, verb, endpoint, Path(place), Path(state), digest)

    def processor_s() -> float:
        uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(use.ru_utime + use.ru_stime for use in uses)

    before, started = processor_s(), time.perf_counter()
    go()
    seconds = time.perf_counter() - started
    # The kernel's own mark of this program: what getrusage says begins with the process that forked it.
    most = int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))[0])
    if name == "aws s3 cp":
        most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    sys.stdout.write(json.dumps([seconds, processor_s() - before, most * 1024]) + "\n")


# --- the race ----------------------------------------------------------------------------------------------------


def digest_of(paths: list[Path]) -> str:
    """BLAKE3 of files, one after the other."""
    hasher, buffer = Blake3(), memoryview(bytearray(4 << 20))
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                hasher.update(buffer[:count])
    return hasher.hexdigest()


@contextmanager
def servers(folder: Path, digest: str) -> Iterator[dict[str, str]]:
    """nginx for downloads, which says what an upload of ours would have left as metadata, or the part server where
    there is none; the part server for uploads."""
    parts = subprocess.Popen(
        [sys.executable, str(PART_SERVER), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parts.stdout is not None
    upload = f"http://127.0.0.1:{int(parts.stdout.readline())}"
    nginx, download = None, upload
    found = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if found:
        port = random.randrange(20_000, 30_000)
        settings = NGINX.format(folder=folder, port=port, digest=digest)
        (folder / "nginx.conf").write_text(settings, encoding="utf-8")
        nginx = subprocess.Popen([found, "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
        download = f"http://127.0.0.1:{port}"
        time.sleep(1)
    try:
        yield {"upload": upload, "download": download}
    finally:
        parts.communicate()
        if nginx is not None:
            nginx.terminate()
            nginx.wait()


def race(
    verb: str, endpoint: str, folder: Path, names: list[str], rounds: int, digest: str
) -> dict[str, list[list[float]]]:
    """[seconds, processor seconds, bytes of memory] of each round of each contender."""
    figures: dict[str, list[list[float]]] = {name: [] for name in names}
    source, target = folder / "bucket" / "model.bin", folder / "out.bin"
    for turn in range(rounds):
        for name in random.Random(turn).sample(names, len(names)):
            target.unlink(missing_ok=True)
            shutil.rmtree(folder / ".parts", ignore_errors=True)
            place = source if verb == "upload" else target
            done = subprocess.run(
                [
                    sys.executable,
                    str(HERE),
                    "--client",
                    name,
                    verb,
                    endpoint,
                    str(place),
                    str(folder / "state"),
                    digest,
                ],
                capture_output=True,
                text=True,
                check=False,
                timeout=900,
                env={**os.environ, **CREDENTIALS},
            )
            if done.returncode:
                sys.stderr.write(f"{name} cannot {verb} here: {done.stderr[-400:]}\n")
                figures.pop(name, None)
                names = [other for other in names if other != name]
                continue
            arrived = [target] if verb == "download" else sorted((folder / ".parts").rglob("*"))
            if digest_of([path for path in arrived if path.is_file()]) != digest:
                sys.exit(f"{name}: what arrived is not what was sent")
            figures[name].append(json.loads(done.stdout.splitlines()[-1]))
    return figures


CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def show(verb: str, figures: dict[str, list[list[float]]], size: int) -> None:
    """Prints a table, quickest first."""
    table = Table(title=f"{verb} of {size / 1e9:.2f} GB", title_justify="left", box=None, pad_edge=False)
    for title in ("", "GB/s", "CPU s/GB", "memory, MB", "checks (down / up)"):
        table.add_column(title, justify="left" if title in ("", "checks (down / up)") else "right")
    rows = {
        name: [statistics.median(column) for column in zip(*rounds, strict=True)]
        for name, rounds in figures.items()
    }
    for name, (seconds, processor, memory) in sorted(rows.items(), key=lambda row: row[1][0]):
        table.add_row(
            name,
            f"{size / seconds / 1e9:.2f}",
            f"{processor / (size / 1e9):.2f}",
            f"{memory / 1e6:.0f}",
            CHECKS[name],
        )
    Console(width=110).print(table)


def main() -> None:
    if "--client" in sys.argv[1:2]:
        run_client(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size-mib", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--verbs", nargs="*", default=["download", "upload"])
    parser.add_argument("--only", nargs="*", help="names of contenders")
    options = parser.parse_args()
    size = options.size_mib << 20
    with tempfile.TemporaryDirectory(prefix="transfer-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx reads as somebody else
        (folder / "bucket").mkdir()
        with (folder / "bucket" / "model.bin").open("wb") as file:
            block = random.Random(1).randbytes(64 << 20)
            for number in range(0, size, len(block)):
                file.write(block[: min(len(block), size - number)])
        digest = digest_of([folder / "bucket" / "model.bin"])
        with servers(folder, digest) as endpoints:
            for verb in options.verbs:
                names = [each for each in contenders(verb) if not options.only or each in options.only]
                show(verb, race(verb, endpoints[verb], folder, names, options.rounds, digest), size)
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    Console(width=110).print(f"{os.cpu_count()} processors, load {load} at the end")


if __name__ == "__main__":
    main()
