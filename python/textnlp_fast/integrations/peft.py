"""PEFT's adapters, straight from a repository and into one.

    model = from_pretrained(base_model, "textnlp://org/model-lora@champion", repository="s3://bucket/models")
    save_pretrained("textnlp://org/model-lora@1.1.0", model, base_model="org/model@1.0.0")

An adapter is a version like any other, coded against the adapter before it. Its lineage names the model that it is
for, and `textnlp_fast push --adapter` what was merged: `textnlp-fast lineage` walks both.
`register()` makes `PeftModel.from_pretrained(model, "textnlp://...")`, `load_adapter` and
`PeftConfig.from_pretrained` know such URLs. Written to peft 0.21.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError, MissingPackageError
from textnlp_fast.integrations.local_versions import model_folder
from textnlp_fast.integrations.urls import Place, is_model_url, open_repository, parse_model_url
from textnlp_fast.storage.push import PushReport
from textnlp_fast.storage.registry.lineage import Lineage, exact_lineage

__all__ = ["from_pretrained", "register", "save_pretrained"]

# Whose argument of which name may be a URL.
_ENTRANCES: Final = (
    ("peft", "PeftModel", "from_pretrained", "model_id"),
    ("peft", "PeftModel", "load_adapter", "model_id"),
    ("peft.config", "PeftConfigMixin", "from_pretrained", "pretrained_model_name_or_path"),
    ("peft.config", "PeftConfigMixin", "_get_peft_type", "model_id"),
)


def from_pretrained(
    model: Any,
    url: str,
    *,
    repository: Place | None = None,
    cache_dir: str | Path | None = None,
    **options: Any,
) -> Any:
    """`PeftModel.from_pretrained` of a base model and an adapter's version; `options` are those of peft.

    A path in the URL is a folder of the version: one of several adapters that it has. Raises what a pull does.
    """
    folder = model_folder(parse_model_url(url), repository=repository, cache_dir=cache_dir)
    return _module("peft").PeftModel.from_pretrained(model, str(folder), **options)


def save_pretrained(
    url: str,
    model: Any,
    *,
    base_model: str | None = None,
    repository: Place | None = None,
    parent: str | None = "auto",
    message: str = "",
    **options: Any,
) -> PushReport:
    """Publishes the adapter of a `PeftModel`, or a directory that peft saved, as a version.

    `base_model` is what the adapter is for, NAME@VERSION here or a name elsewhere; by default what the adapter's own
    configuration says. `options` go to the model's `save_pretrained`. Raises InvalidInputError if the URL names no
    exact version or the directory holds no adapter; what a push raises.
    """
    parsed = parse_model_url(url)
    version = parsed.exact
    if parsed.path is not None:
        raise InvalidInputError(f"{url}: a version is published whole", hint="Leave the path out.")
    opened = open_repository(parsed, repository, for_push=True)
    with tempfile.TemporaryDirectory(prefix="textnlp-fast-") as temporary:
        if isinstance(model, str | Path):
            folder = Path(model)
        else:
            folder = Path(temporary)
            model.save_pretrained(temporary, **options)
        if not (folder / "adapter_config.json").is_file():
            raise InvalidInputError(f"{folder} holds no adapter", hint="It needs adapter_config.json.")
        if base_model is None:
            said = _module("peft").PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
            base_model = _as_reference(said) if said else None
        lineage = exact_lineage(opened, parsed.name, version, Lineage(base_model=base_model))
        return opened.push(
            folder, parsed.name, version, parent=parent, message=message, metadata=lineage.metadata()
        )


def register(*, repository: Place | None = None, cache_dir: str | Path | None = None) -> Callable[[], None]:
    """Has peft know `textnlp://` URLs in this process. What it returns undoes that.

    With a `repository` only that one is read: a URL that names another is refused.
    """
    undone: list[Callable[[], None]] = []
    for module, owner, method, argument in _ENTRANCES:
        kind = getattr(_module(module), owner)
        before = kind.__dict__[method]
        is_class_method = isinstance(before, classmethod)
        wrapped = _translating(
            before.__func__ if is_class_method else before,
            argument,
            repository=repository,
            cache_dir=cache_dir,
        )
        setattr(kind, method, classmethod(wrapped) if is_class_method else wrapped)
        undone.append(partial(setattr, kind, method, before))

    def undo() -> None:
        for each in reversed(undone):
            each()

    return undo


def _translating(
    function: Callable[..., Any], argument: str, *, repository: Place | None, cache_dir: str | Path | None
) -> Callable[..., Any]:
    """The function with a directory where it is given a URL under that name."""
    signature = inspect.signature(function)

    @wraps(function)
    def translated(*args: Any, **options: Any) -> Any:
        bound = signature.bind(*args, **options)
        value = bound.arguments.get(argument)
        if value is not None and is_model_url(value):
            folder = model_folder(str(value), repository=repository, cache_dir=cache_dir)
            bound.arguments[argument] = str(folder)
        return function(*bound.args, **bound.kwargs)

    return translated


def _as_reference(said: str) -> str:
    """A base model that was loaded by URL, as a lineage names it; others as they are called."""
    return str(parse_model_url(said).reference) if is_model_url(said) else said


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingPackageError("peft is not installed", hint="pip install 'textnlp-fast[peft]'") from error
