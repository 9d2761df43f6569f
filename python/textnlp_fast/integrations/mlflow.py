"""MLflow's artifacts in a repository: `textnlp://NAME@VERSION` wherever MLflow takes an artifact's URI.

    mlflow.artifacts.download_artifacts("textnlp://org/model@champion?repo=s3://bucket/models")

Listing and downloading read one version, named by itself, an alias or a stage. Logging a directory publishes one:
MLflow logs into a place as often as it likes, and a version is made once, by one push, and never changes. So the URI
has to name a version that is not there yet, and a second directory, or a single file, is refused.

MLflow finds this class by its entry point `mlflow.artifact_repository`. Written to mlflow 3.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import tempfile
from pathlib import Path
from typing import Any

from textnlp_fast.errors import MissingPackageError, TextnlpFastError
from textnlp_fast.integrations.urls import ModelURL, open_repository, parse_model_url
from textnlp_fast.storage.stored_files import StoredFiles

try:
    from mlflow.entities import FileInfo
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
except ImportError as error:
    raise MissingPackageError("mlflow is not installed", hint="pip install mlflow-skinny") from error

__all__ = ["TextnlpArtifactRepository"]


class TextnlpArtifactRepository(ArtifactRepository):  # type: ignore[misc]
    """A version as MLflow sees artifacts. Errors are `MlflowException`, with ours as their cause."""

    def __init__(
        self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> None:
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        self._place, self._asked, self._repository = artifact_uri.partition("?repo=")
        self._files: dict[tuple[str, str | None], StoredFiles] = {}
        if "@" in self._place:
            self._parsed(None)

    def list_artifacts(self, path: str | None = None) -> list[Any]:
        """What is directly below a directory of the version, nothing for a file. Raises MlflowException if neither."""
        url, files = self._opened(path)
        if url.path in files.entries:
            return []
        prefix = url.path + "/" if url.path else ""
        rows: dict[str, Any] = {}
        for entry in files.entries.values():
            if entry.path.startswith(prefix):
                first, slash, _ = entry.path.removeprefix(prefix).partition("/")
                name = posixpath.join((path or "").strip("/"), first)
                rows[first] = FileInfo(name, bool(slash), None if slash else entry.size)
        if url.path and not rows:
            raise MlflowException(f"{url} is not there", RESOURCE_DOES_NOT_EXIST)
        return [rows[name] for name in sorted(rows)]

    def log_artifacts(self, local_dir: str | os.PathLike[str], artifact_path: str | None = None) -> None:
        """Publishes a directory as the version that the URI names, below `artifact_path` there."""
        url = self._parsed(artifact_path)
        try:
            version = url.exact
            opened = open_repository(url, for_push=True)
            with tempfile.TemporaryDirectory(prefix="textnlp-fast-") as temporary:
                source = Path(local_dir)
                if url.path:
                    shutil.copytree(source, Path(temporary, url.path))
                    source = Path(temporary)
                opened.push(source, url.name, version)
        except TextnlpFastError as error:
            raise _refused(error) from error
        self._files = {}

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Raises MlflowException: one file after another makes no version."""
        raise MlflowException(
            f"{self.artifact_uri} is a version, which one push makes: log a directory with all of its files, once"
            " (log_artifacts), and single files to another place",
            INVALID_PARAMETER_VALUE,
        )

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Raises MlflowException: what keeps a version is the registry's to say (`textnlp-fast gc`)."""
        raise MlflowException("a version never changes", INVALID_PARAMETER_VALUE)

    def _download_file(self, remote_file_path: str, local_path: str | os.PathLike[str]) -> None:
        url, files = self._opened(remote_file_path)
        try:
            path = files.entry(url.path or "").path
            descriptor = os.open(local_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                files.copy(path, descriptor)
            except BaseException:
                Path(local_path).unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)
        except TextnlpFastError as error:
            raise _refused(error) from error

    def _parsed(self, path: str | None) -> ModelURL:
        """The URI with a path below it. MLflow cuts URIs as it likes: `textnlp://org` and `model@1.0.0/config.json`."""
        below = (path or "").strip("/")
        place = self._place.rstrip("/") if below else self._place
        try:
            return parse_model_url(
                f"{place}/{below}{self._asked}{self._repository}" if below else self.artifact_uri
            )
        except TextnlpFastError as error:
            raise _refused(error) from error

    def _opened(self, path: str | None) -> tuple[ModelURL, StoredFiles]:
        """What a path below the URI says, and the version that it meant when it was first asked for."""
        url = self._parsed(path)
        files = self._files.get((url.name, url.selector))
        if files is None:
            try:
                files = open_repository(url).files(url.name, url.selector)
            except TextnlpFastError as error:
                raise _refused(error) from error
            self._files[url.name, url.selector] = files
        return url, files


def _refused(error: TextnlpFastError) -> Any:
    missing = isinstance(error, LookupError)
    return MlflowException(str(error), RESOURCE_DOES_NOT_EXIST if missing else INVALID_PARAMETER_VALUE)
