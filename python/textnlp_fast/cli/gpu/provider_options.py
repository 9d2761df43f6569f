"""`--option PROVIDER.NAME=VALUE`: what a provider is made with, as its class takes it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from textnlp_fast.cli.arguments import notes
from textnlp_fast.errors import InvalidInputError

__all__ = ["parsed_options"]

_LARGEST_FILE = 1 << 16


def parsed_options(texts: Iterable[str], providers: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
    """For each provider its options. Raises InvalidInputError for one that no provider of the call takes."""
    from textnlp_fast.gpu.providers.registry import provider_options  # noqa: PLC0415

    names = set(providers)
    found: dict[str, dict[str, Any]] = {}
    for key, value in notes(texts, "--option").items():
        provider, dot, name = key.partition(".")
        name = name.replace("-", "_")
        if not dot or not name:
            raise InvalidInputError(
                f"--option {key!r} is not PROVIDER.NAME",
                hint="Write azure.subnet=network/subnet, for example.",
            )
        if provider not in names:
            raise InvalidInputError(
                f"--option {key!r} is of {provider!r}, which --in does not name",
                hint=f"Name a place of it: --in {provider}:REGION.",
            )
        taken = {one: kind for one, kind in provider_options(provider).items() if _can_be_said(kind)}
        if name not in taken:
            near = difflib.get_close_matches(name, taken, 1, 0.6)
            raise InvalidInputError(
                f"provider {provider!r} takes no option {name!r} from a command line",
                hint=f"Did you mean {near[0]!r}?" if near else f"It takes: {', '.join(sorted(taken))}.",
            )
        found.setdefault(provider, {})[name] = _value(key, _read(value), taken[name])
    return found


def _can_be_said(kind: str) -> bool:
    return any(word in kind for word in ("str", "bool")) and "Mapping" not in kind and "Callable" not in kind


def _value(key: str, text: str, kind: str) -> Any:
    if "bool" in kind:
        if text not in ("true", "false"):
            raise InvalidInputError(f"--option {key}={text!r} is neither true nor false")
        return text == "true"
    return [one for one in text.split(",") if one] if "Sequence" in kind or "list" in kind else text


def _read(value: str) -> str:
    """The value, or what is in the file that `@PATH` names."""
    if not value.startswith("@"):
        return value
    path = Path(value[1:]).expanduser()
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        text = data.decode().strip()
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
        ) from None
    if len(data) > _LARGEST_FILE:
        raise InvalidInputError(f"{path} has more than {_LARGEST_FILE} bytes: it is no option")
    return text
