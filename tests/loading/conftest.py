"""A repository with a history, made once for all tests that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from delta.models import Model
from loading.loads import OPTIONS, WINDOW, push_history
from textnlp_fast.storage import Repository

History = tuple[Path, dict[str, Model]]


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """The repository's folder, and what each version holds. Read it only."""
    folder = tmp_path_factory.mktemp("history")
    repository = Repository.open(folder / "r", create=True, options=OPTIONS, window_bytes=WINDOW)
    return folder / "r", push_history(repository, folder / "models")
