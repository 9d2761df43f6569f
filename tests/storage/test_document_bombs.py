"""Small documents that would fill memory are refused before they are parsed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from textnlp_fast.contents import documents
from textnlp_fast.contents.documents import parse_document, seal_document
from textnlp_fast.errors import CorruptDataError, InvalidInputError

# A part of the document, repeated up to 60 MB: parsed, each takes more than a gigabyte.
BOMBS = {"empty_lists": "[],", "empty_objects": "{},", "small_numbers": "9,", "nested_lists": "["}
PROGRAM = """
import resource, sys
from textnlp_fast.contents.documents import parse_document
from textnlp_fast.errors import CorruptDataError

part = sys.argv[1].encode()
data = b'{"format":1,"x":[' + part * (60_000_000 // len(part)) + b"1]}"
room = 512 << 20
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))
try:
    parse_document(data, "the bomb")
except CorruptDataError as error:
    sys.exit(0 if "values" in str(error) else 3)
sys.exit(4)
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_within_bounded_memory(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, BOMBS[name]], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])


def test_what_no_reader_takes_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"format": 1, "x": list(range(100))}
    assert parse_document(seal_document(document), "it") == document
    monkeypatch.setattr(documents, "MAX_VALUES", 100)
    with pytest.raises(InvalidInputError, match="more than readers take"):
        seal_document(document)
    monkeypatch.setattr(documents, "MAX_VALUES", 1000)
    data = seal_document(document)
    monkeypatch.setattr(documents, "MAX_VALUES", 50)
    with pytest.raises(CorruptDataError, match="more than 50 values"):
        parse_document(data, "it")
