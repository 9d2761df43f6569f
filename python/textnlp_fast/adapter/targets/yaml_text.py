"""YAML that every reader reads alike: in a stable order, and with every text that could be taken for something else in
quotes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import yaml

__all__ = ["yaml_text"]

#: Texts that no version of YAML takes for a number, a date or a word of its own, `_WORDS` aside.
_PLAIN: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*", re.ASCII)
_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})


class _Dumper(yaml.SafeDumper):  # type: ignore[misc, unused-ignore]  # yaml has no types
    """No anchors, lists set in from their keys."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)


def _text(dumper: Any, value: str) -> Any:
    style = '"'
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        style = ""
    elif value.endswith("\n") and value.isascii() and "\t" not in value and "\r" not in value:
        # Scripts and units stay legible; the emitter goes back to quotes where a block would not hold the text.
        style = "|"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style or None)


_Dumper.add_representer(str, _text)


def yaml_text(*documents: Mapping[str, Any], head: Iterable[str] = ()) -> str:
    """The documents, keys in the order they have; `head` are lines of comment."""
    said = "".join(f"# {line}\n" for line in head)
    body = yaml.dump_all(
        [dict(one) for one in documents],
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=False,
        allow_unicode=False,
        width=1 << 30,
        explicit_start=len(documents) > 1,
    )
    return said + str(body)
