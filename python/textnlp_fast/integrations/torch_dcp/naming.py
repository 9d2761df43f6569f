"""Which version a checkpoint's id means, for saves and for loads."""

from __future__ import annotations

import os
import re
from typing import Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.names import ModelReference, check_version, parse_reference

__all__ = ["reference_of", "step_hint", "version_of"]

# The largest number that every reader of JSON and of semantic versions takes as it is.
_LAST_STEP: Final = 2**53 - 1
_STEP = re.compile(r"[0-9]+\Z")
_ENDS_IN_STEP = re.compile(r"[^0-9.]([0-9]{1,16})/*\Z")


def version_of(checkpoint_id: str | os.PathLike[str] | int) -> str:
    """The version that a save publishes: the id itself, or 0.0.STEP for a step's number. Raises InvalidInputError."""
    text = str(checkpoint_id)
    if not _STEP.match(text):
        try:
            return check_version(text)
        except InvalidInputError as error:
            raise InvalidInputError(str(error.args[0]), hint=step_hint(text) or error.hint) from None
    step = int(text) if len(text) <= 32 else _LAST_STEP + 1
    if step > _LAST_STEP:
        raise InvalidInputError(f"{text[:40]} is too high for a step", hint=f"Steps go up to {_LAST_STEP}.")
    return f"0.0.{step}"


def reference_of(checkpoint_id: str | os.PathLike[str] | int, model: str) -> ModelReference:
    """What a load reads: what `version_of` says, or an alias or a stage of `model`, or any `NAME@VERSION`.

    Raises InvalidInputError.
    """
    text = str(checkpoint_id)
    if "@" in text:
        return parse_reference(text)
    try:
        return parse_reference(f"{model}@{version_of(text) if _STEP.match(text) else text}")
    except InvalidInputError as error:
        raise type(error)(str(error.args[0]), hint=step_hint(text) or error.hint) from None


def step_hint(text: str) -> str:
    """What to write in place of "step-7" or "/checkpoints/7"; "" where there is no step in it."""
    found = _ENDS_IN_STEP.search(text)
    return f"Pass the step's number alone: {int(found[1])} is version 0.0.{int(found[1])}." if found else ""
