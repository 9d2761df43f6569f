"""What stands in paths: names of models, versions, targets. What looks like none is refused before any look-up."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

__all__ = ["Alias", "ModelName", "Target", "VersionSelector"]

_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
ModelName = Annotated[
    str,
    Path(
        pattern=rf"^{_WORD}(/{_WORD}){{0,3}}$",
        max_length=388,
        description="One to four words joined by `/`",
        examples=["tiny-llama"],
    ),
]
VersionSelector = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.+:_-]*$",
        max_length=160,
        description="A version, an alias, `stage:NAME` or `latest`",
        examples=["1.0.0"],
    ),
]
Alias = Annotated[str, Path(pattern=r"^[a-z][a-z0-9._-]{0,63}$", max_length=64, examples=["champion"])]
Target = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,95}$",
        max_length=96,
        description="What serves a version",
        examples=["eu/serving-1"],
    ),
]
