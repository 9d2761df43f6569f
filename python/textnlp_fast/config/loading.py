"""Puts the sources of settings together: argument before environment before files before defaults."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import yaml
from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from textnlp_fast.config.settings import PREFIX, Settings, names_of
from textnlp_fast.errors import InvalidInputError

__all__ = ["load_settings"]

_LIMIT_BYTES: Final = 1 << 20
# Variables with our prefix that are no settings: they say where settings are, or are read by the core.
_NOT_SETTINGS: Final = frozenset({f"{PREFIX}{name}" for name in ("CONFIG", "ENV_FILE", "ISA")})


def load_settings(
    path: str | os.PathLike[str] | None = None,
    *,
    env_file: str | os.PathLike[str] | None = None,
    **arguments: Any,
) -> Settings:
    """The settings as arguments, the environment, files and defaults say, in this order.

    `path` is a YAML file (else the one that `TEXTNLP_FAST_CONFIG` names), `env_file` a file of variables (else
    `TEXTNLP_FAST_ENV_FILE`), which comes between the environment and the YAML file. No file is read that nobody named:
    a folder one happens to work in should not decide where models go. Raises InvalidInputError for a value or a name
    that is wrong, and says where it came from.
    """
    path = path or os.environ.get(f"{PREFIX}CONFIG") or None
    env_file = env_file or os.environ.get(f"{PREFIX}ENV_FILE") or None
    if path is None and env_file is None and not arguments:
        known = _variables()
        return _of_environment(frozenset(each for each in os.environ.items() if each[0] in known))
    return _load(path, env_file, arguments)


@cache
def _variables() -> frozenset[str]:
    return frozenset(variable for name in Settings.model_fields for variable in names_of(name))


@lru_cache(maxsize=1)
def _of_environment(_: frozenset[tuple[str, str]]) -> Settings:
    """The settings of the environment alone. Each operation asks for them, and they seldom change meanwhile."""
    return _load(None, None, {})


def _load(
    path: str | os.PathLike[str] | None, env_file: str | os.PathLike[str] | None, arguments: Mapping[str, Any]
) -> Settings:
    _refuse_unknown(arguments, Settings.model_fields, "argument")
    given = {name: value for name, value in arguments.items() if value is not None}
    layers: list[tuple[Mapping[str, Any], Mapping[str, str]]] = [
        (given, dict.fromkeys(given, "argument")),
        _from_variables(os.environ, "environment"),
    ]
    if env_file:
        layers.append(_from_variables(_read_env_file(Path(env_file)), os.fspath(env_file)))
    if path:
        values = _read_yaml(Path(path))
        layers.append((values, dict.fromkeys(values, os.fspath(path))))
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for values, where in reversed(layers):
        merged |= values
        sources |= where
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        raise _explained(error, sources) from None
    settings._sources = sources
    return settings


def _from_variables(variables: Mapping[str, str | None], where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Values by the settings' names, and where each was found."""

    class Source(EnvSettingsSource):
        def _load_env_vars(self) -> Mapping[str, str | None]:
            return variables

    source: Source | None = None  # takes longer than all else here, and most find nothing to read
    values: dict[str, Any] = {}
    found: dict[str, str] = {}
    for name, field in Settings.model_fields.items():
        variable = next((one for one in names_of(name) if variables.get(one)), None)
        if variable is None:
            continue  # an empty variable is an unset one
        source = source or Source(Settings, case_sensitive=True)
        try:
            complex_ = source.field_is_complex(field)
            values[name] = source.prepare_field_value(name, field, variables[variable], complex_)
        except (ValueError, SettingsError):
            raise InvalidInputError(
                f"{variable} ({where}) is not the JSON of a {name}", hint="See docs/guide/configuration.md."
            ) from None
        found[name] = f"{where} ({variable})"
    return values, found


def _read_env_file(path: Path) -> dict[str, str | None]:
    text = _read(path)
    from io import StringIO  # noqa: PLC0415 - only where such a file is used

    variables = dotenv_values(stream=StringIO(text), interpolate=False)
    known = _variables() | _NOT_SETTINGS
    # Other programs' variables may stand in it, too; what looks like ours must be ours.
    suspects = [name for name in variables if name.startswith(PREFIX) or _nearest(name, known, 0.9)]
    _refuse_unknown([name for name in suspects if name not in known], known, str(path))
    return variables


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(_read(path))
    except (yaml.YAMLError, RecursionError) as error:
        problem = getattr(error, "problem", None) or "it is nested too deep"
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise InvalidInputError(f"{path}{line} is not YAML: {problem}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidInputError(f"{path} is not a list of settings", hint="Write one `name: value` a line.")
    _refuse_unknown(document, Settings.model_fields, str(path))
    return {name: value for name, value in document.items() if value is not None}


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(f"cannot read settings from {path}: {error.strerror}") from error
    if len(data) > _LIMIT_BYTES:
        raise InvalidInputError(f"{path} has more than {_LIMIT_BYTES} bytes: it is no file of settings")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidInputError(f"{path} is not UTF-8") from None


def _nearest(name: object, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    return next(iter(difflib.get_close_matches(str(name), list(known), 1, cutoff)), None)


def _refuse_unknown(names: Iterable[object], known: Iterable[str], where: str) -> None:
    known = list(known)
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        near = _nearest(unknown, known)
        raise InvalidInputError(
            f"there is no setting {unknown!r} ({where})",
            hint=f"Did you mean {near!r}?" if near else "`textnlp-fast config show` lists all settings.",
        )


def _explained(error: ValidationError, sources: Mapping[str, str]) -> InvalidInputError:
    """What is wrong with which setting, and where that was set; never its value, which may be a secret."""
    lines = []
    for one in error.errors(include_input=False, include_url=False, include_context=False):
        name = _field_of(str(one["loc"][0])) if one["loc"] else "settings"
        below = "".join(f".{part}" for part in one["loc"][1:])
        lines.append(f"{name}{below}, from {sources.get(name, 'a default')}: {one['msg']}")
    return InvalidInputError(
        "; ".join(lines), hint="`textnlp-fast config show` says where each value comes from."
    )


def _field_of(location: str) -> str:
    """The setting's name, where the error names one of its variables."""
    return next((name for name in Settings.model_fields if location in names_of(name)), location)
