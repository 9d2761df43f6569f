"""Finding pickles without running them: by name where the name says so, by content everywhere."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path

__all__ = ["why_pickle"]

_PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"})
_ZIP_MAGIC = b"PK\x03\x04"
_PROTOCOLS_WITH_MARK = range(2, 6)
_PROBE_BYTES = 4096
_ENOUGH_OPCODES = 8
_MAX_DIRECTORY_BYTES = 64 << 20


def why_pickle(path: Path) -> str | None:
    """What makes ``path`` a pickle, or ``None``.

    Reads its first 4 KiB, and the directory of a zip archive.
    """
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        return f"{path.suffix} files are pickles"
    with path.open("rb") as file:
        head = file.read(_PROBE_BYTES)
    if head.startswith(_ZIP_MAGIC):
        return _why_pickle_in_zip(path, head)
    if head[:1] == b"\x80" and len(head) > 1 and head[1] in _PROTOCOLS_WITH_MARK and _reads_as_pickle(head):
        return f"it starts like a pickle of protocol {head[1]}"
    if path.suffix.lower() == ".bin" and _reads_as_pickle(head):
        return "it reads like a pickle of an old protocol"
    return None


def _why_pickle_in_zip(path: Path, head: bytes) -> str | None:
    name_length = int.from_bytes(head[26:28], "little")
    names = [head[30 : 30 + name_length].decode("utf-8", "replace")]
    try:
        with zipfile.ZipFile(path) as archive:
            if path.stat().st_size - archive.start_dir <= _MAX_DIRECTORY_BYTES:
                names += archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        pass  # no archive that anything could load; its first name was seen
    found = next((name for name in names if name.lower().endswith((".pkl", ".pickle"))), None)
    return f"it is a zip archive with the pickle {found!r}" if found else None


def _reads_as_pickle(head: bytes) -> bool:
    """Whether the first bytes are pickle opcodes; they are read one by one, never executed."""
    count = 0
    try:
        for opcode, _, _ in pickletools.genops(head):
            count += 1
            if opcode.name == "STOP" or count >= _ENOUGH_OPCODES:
                return count > 1
    except Exception:  # noqa: BLE001  the reader raises whatever a stranger's bytes lead it to
        return False
    return False
