"""Contents that bases are made of, fetched once into a temporary file: checked there, and read again and again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.staging import disk_errors
from textnlp_fast.contents.windows import write_exactly
from textnlp_fast.storage.decoding import Decoder
from textnlp_fast.storage.manifest import Content
from textnlp_fast.storage.planning import PullStep, pull_step

__all__ = ["fetched_contents"]


@contextmanager
def fetched_contents(
    decoder: Decoder, contents: Mapping[str, Content], digests: Iterable[str], held: Mapping[str, Held]
) -> Iterator[dict[str, Held]]:
    """Where the contents are, every one compared with its digest; what is `held` spares reading.

    The file is gone with the context. Raises what `Decoder.run` does, and OutOfSpaceError.
    """
    steps = [pull_step(contents, digest, held) for digest in dict.fromkeys(digests)]
    places: dict[str, Held] = {}
    if not steps:
        yield places
        return
    with ExitStack() as stack:
        with disk_errors(Path(tempfile.gettempdir())):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="textnlp-fast-"))
            path = str(Path(folder) / "contents")
            size = 0
            for step in steps:
                places[step.content.digest] = Held(path, size)
                size += step.content.size
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

            def sink(step: PullStep, offset: int, data: memoryview) -> None:
                write_exactly(descriptor, data, places[step.content.digest].offset + offset)

            try:
                for error in decoder.run(steps, sink, held=held).values():
                    raise error
            finally:
                os.close(descriptor)
        yield places
