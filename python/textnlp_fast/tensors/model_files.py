"""A model as a user has it: one safetensors file, or a Hugging Face directory with everything in it."""

from __future__ import annotations

import fnmatch
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textnlp_fast.errors import InvalidInputError, UnsafeFileError
from textnlp_fast.tensors.format import SafetensorsFile
from textnlp_fast.tensors.pickles import why_pickle

__all__ = ["ModelFiles", "OtherFile", "check_relative_path"]

_GIT = frozenset({".git", "git~1"})
_NOT_THE_MODEL = frozenset({".git", ".cache"})  # folders that download tools keep beside the files
_MAX_FILES = 100_000
_MAX_INDEX_BYTES = 256 << 20
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class OtherFile:
    """A file that is not safetensors. ``name`` is relative to the model, with slashes; ``size`` in bytes."""

    path: Path
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """All files of a model, ordered by name. ``root`` is the directory that the names are relative to."""

    root: Path
    safetensors: list[SafetensorsFile] = field(default_factory=list)
    others: list[OtherFile] = field(default_factory=list)

    @classmethod
    def scan(cls, path: str | os.PathLike[str], *, exclude: Sequence[str] = ()) -> ModelFiles:
        """Look at a ``.safetensors`` file or at a directory (with its subdirectories), reading headers only.

        ``exclude`` are patterns (``*.pt``, ``checkpoints/*``) of files to leave out; ``.git`` and ``.cache``
        of the directory always are. Raises ``UnsafeFileError`` for pickles, ``SafetensorsError`` for a broken
        header, and ``InvalidInputError`` for links that leave the directory, special files, names that are no
        safe relative paths, and an index that disagrees with the files. Links to files are followed inside
        the directory, and into the ``blobs`` folder of the Hugging Face cache that the directory is a
        snapshot of.
        """
        place = Path(path)
        if place.is_dir():
            return _scan_directory(cls(place.resolve()), exclude)
        if not place.exists():
            raise InvalidInputError(f"{place} does not exist")
        if place.suffix.lower() != ".safetensors":
            if place.is_file():
                _refuse_pickles([(place.name, place)])
            raise InvalidInputError(
                f"{place} is neither a directory nor a .safetensors file",
                hint="Give the model's directory, or a single .safetensors file.",
            )
        file = SafetensorsFile.open(place, name=check_relative_path(place.name))
        return cls(place.absolute().parent, [file], [])

    @staticmethod
    def other(path: str | os.PathLike[str]) -> OtherFile:
        """One file that holds no tensors. Raises ``UnsafeFileError`` for pickles, ``InvalidInputError`` for no file."""
        place = Path(path)
        if not place.is_file():
            raise InvalidInputError(f"{place} is not a regular file")
        _refuse_pickles([(place.name, place)])
        return OtherFile(place, check_relative_path(place.name), place.stat().st_size)


def check_relative_path(name: str) -> str:
    """Return ``name`` if it is a path that stays below its folder, with slashes; else ``InvalidInputError``.

    For names on their way into a manifest and, above all, on their way out of one.
    """
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidInputError(f"the file name {name!a} is not UTF-8") from None
    if not 0 < size <= 4096 or not name.isprintable() or "\\" in name:
        raise InvalidInputError(
            f"the file name {name[:200]!a} is empty, too long or has unprintable characters"
        )
    for segment in name.split("/"):
        if segment in {"", ".", ".."} or len(segment.encode()) > 255:
            raise InvalidInputError(f"the file name {name[:200]!a} is not a relative path below the model")
        # As file systems that fold case, drop a dot or blank at the end, or have streams and short names see it.
        if segment.partition(":")[0].rstrip(" .").lower() in _GIT:
            raise UnsafeFileError(
                f"the file name {name[:200]!a} leads into {segment!a}: git runs what lies there",
                hint="Take that out of the model's directory.",
            )
    return name


def _scan_directory(model: ModelFiles, exclude: Sequence[str]) -> ModelFiles:
    found = [
        (name, path)
        for name, path in _regular_files(model.root)
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in exclude)
    ]
    if not found:
        raise InvalidInputError(f"{model.root} holds no files")
    plain = [(name, path) for name, path in found if path.suffix.lower() != ".safetensors"]
    _refuse_pickles(plain)
    for name, path in plain:
        model.others.append(OtherFile(path, name, path.stat().st_size))
    for name, path in found:
        if path.suffix.lower() == ".safetensors":
            model.safetensors.append(SafetensorsFile.open(path, name=name))
    for other in model.others:
        if fnmatch.fnmatchcase(other.name, "*.safetensors.index*.json"):
            _check_index(other, model.safetensors)
    return model


def _regular_files(root: Path) -> list[tuple[str, Path]]:
    """Name and path of every file below ``root``, by name."""
    found: list[tuple[str, Path]] = []
    for folder, subfolders, files in os.walk(root, onerror=_raise):
        here = Path(folder)
        if here == root:
            subfolders[:] = [name for name in subfolders if name not in _NOT_THE_MODEL]
            files[:] = [name for name in files if name != ".git"]  # of a worktree or a submodule
        for subfolder in subfolders:
            if (here / subfolder).is_symlink():
                raise InvalidInputError(
                    f"{here / subfolder} is a link to a directory",
                    hint="Put the files themselves into the model.",
                )
        for file in files:
            path = here / file
            name = check_relative_path(path.relative_to(root).as_posix())
            _check_regular(path, root)
            found.append((name, path))
            if len(found) > _MAX_FILES:
                raise InvalidInputError(
                    f"{root} holds more than {_MAX_FILES} files: is it a model's directory?"
                )
    return sorted(found)


def _check_regular(path: Path, root: Path) -> None:
    try:
        target = path.resolve(strict=True)
        mode = target.stat().st_mode
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise InvalidInputError(
            f"{path} cannot be read: {error}", hint="Is it a link to a removed file?"
        ) from error
    if not stat.S_ISREG(mode):
        raise InvalidInputError(f"{path} is not a regular file")
    homes = [root]
    if root.parent.name == "snapshots":  # a Hugging Face cache: its snapshots are links into its blobs
        homes.append(root.parent.parent / "blobs")
    if path.is_symlink() and not any(target.is_relative_to(home) for home in homes):
        raise InvalidInputError(
            f"{path} is a link to {target}, outside the model", hint="Put the file itself into the model."
        )


def _refuse_pickles(files: list[tuple[str, Path]]) -> None:
    pickles = []
    for name, path in files:
        try:
            reason = why_pickle(path)
        except OSError as error:
            raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
        if reason:
            pickles.append(f"{name} ({reason})")
    if pickles:
        more = f" and {len(pickles) - _SHOWN} more" if len(pickles) > _SHOWN else ""
        raise UnsafeFileError(f"pickle files run code when loaded: {', '.join(pickles[:_SHOWN])}{more}")


def _check_index(index: OtherFile, files: list[SafetensorsFile]) -> None:
    """Every tensor of an index must be in the file that it names."""
    if index.size > _MAX_INDEX_BYTES:
        raise InvalidInputError(f"{index.path}: an index of {index.size} bytes is too large")
    try:
        content: Any = json.loads(index.path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{index.path} is not JSON: {error}") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict):
        raise InvalidInputError(f"{index.path} has no weight_map")
    folder = index.name.rpartition("/")[0]
    names = {file.name: {tensor.name for tensor in file.tensors} for file in files}
    for tensor, file in weight_map.items():
        place = f"{folder}/{file}" if folder else file
        if not isinstance(file, str) or place not in names:
            raise InvalidInputError(
                f"{index.path} puts tensor {tensor[:200]!a} into {file!a}, which is not there",
                hint="Download the missing shard, or write the index again.",
            )
        if tensor not in names[place]:
            raise InvalidInputError(
                f"{index.path} puts tensor {tensor[:200]!a} into {file!a}, which does not hold it",
                hint="The index belongs to other files: download the model again, or write the index again.",
            )


def _raise(error: OSError) -> None:
    raise InvalidInputError(f"cannot read {error.filename}: {error.strerror}") from error
