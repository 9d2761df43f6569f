"""Which files a job may touch: those below the folders that the service was allowed, links resolved.

A path is resolved when it is asked for and again when the job begins, and what the second look found is what is worked
with. Below that, `tensors.model_files` follows no link out of a model's folder, and `contents.placing` none at all.
Whoever may write to a root by other ways than the service, while a job runs, is trusted with what is in that root.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from textnlp_fast.destinations import kind_of
from textnlp_fast.errors import InvalidInputError, NotAllowedError
from textnlp_fast.objectstore import ObjectStore, local_folder

__all__ = ["Roots"]

_LONGEST_NAME: Final = 255


class Roots:
    """The folders that jobs may read models from and write them to. Empty: none, and such jobs are refused.

    No place within the repository, where that is a folder, is one for a job.
    """

    def __init__(self, folders: Iterable[Path], store: ObjectStore) -> None:
        self.folders = tuple(Path(folder).expanduser().absolute() for folder in folders)
        repository = local_folder(store.url)
        self._repository = None if repository is None else Path(os.path.realpath(repository))
        for folder in self.folders:
            if not folder.is_dir():
                raise InvalidInputError(
                    f"{folder} was allowed for transfers, and is no folder", hint="Make it, or name another."
                )

    def allows(self, path: str) -> bool:
        """Whether a path is below a root, whatever lies there."""
        try:
            self._resolved(path)
        except (NotAllowedError, InvalidInputError):
            return False
        return True

    @staticmethod
    def typed(paths: Iterable[str]) -> dict[str, str]:
        """What was typed by where it leads, and so for the folders around: errors are to show no links' targets."""
        found = {}
        for path in paths:
            for called in (Path(path).parent, Path(path)):
                text, place = str(called), os.path.realpath(called)
                if place not in {text, "/"}:
                    found[place] = text
        return found

    def source(self, path: str) -> Path:
        """The model that a job reads, resolved. Raises NotAllowedError, InvalidInputError."""
        place = self._resolved(path)
        mode = _mode(place, path)
        if mode is None:
            raise InvalidInputError(f"{path} does not exist", hint="Name a folder, or a safetensors file.")
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise InvalidInputError(f"{path} is {kind_of(mode)}, and neither a folder nor a file")
        return place

    def folder_to_make(self, path: str) -> Path:
        """The folder that a job makes or updates, resolved: strictly below a root. Raises as `source`."""
        place = self._resolved(path)
        if place in self._real():
            raise InvalidInputError(f"{path} is a root itself", hint="Name a folder below it.")
        mode = _mode(place, path)
        if mode is not None and not stat.S_ISDIR(mode):
            raise InvalidInputError(f"{path} is {kind_of(mode)}, and no folder")
        return place

    def file_to_make(self, path: str) -> Path:
        """The file that a job writes, resolved; its folder must be there. Raises as `source`."""
        place = self._resolved(path)
        folder, mode = _mode(place.parent, path), _mode(place, path)
        if folder is None or not stat.S_ISDIR(folder):
            raise InvalidInputError(f"the folder of {path} does not exist", hint="Make it first.")
        if mode is not None and not stat.S_ISREG(mode):
            raise InvalidInputError(f"{path} is {kind_of(mode)}, and no file")
        return place

    def _resolved(self, path: str) -> Path:
        if not self.folders:
            raise NotAllowedError(
                "this service may touch no folder of its machine",
                hint="Its operator allows some: textnlp-fast serve --allow-path FOLDER.",
            )
        if not path.startswith("/") or "\0" in path:
            raise InvalidInputError(f"{path!r:.200} is no absolute path")
        try:
            if any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.split("/")):
                raise InvalidInputError(f"{path!r:.200} has a name of more than {_LONGEST_NAME} bytes")
            place = Path(os.path.realpath(path))
        except InvalidInputError:
            raise
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise InvalidInputError(f"{path!r:.200} is no path: {why}") from None
        # One message, whether or not there is something at the path: it tells nothing of what lies elsewhere.
        if not any(place.is_relative_to(root) for root in self._real()):
            raise NotAllowedError(
                f"{path!r:.200} is not below a folder that transfers may touch",
                hint="The list of roots (transfers/roots) says which those are.",
            )
        repository = self._repository
        if repository is not None and (place.is_relative_to(repository) or repository.is_relative_to(place)):
            raise NotAllowedError(f"{path!r:.200} is where the repository itself is")
        return place

    def _real(self) -> list[Path]:
        return [Path(os.path.realpath(folder)) for folder in self.folders]


def _mode(place: Path, path: str) -> int | None:
    """What is at a place; None: nothing."""
    try:
        return place.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidInputError(f"{path:.200} cannot be looked at: {error.strerror}") from None
