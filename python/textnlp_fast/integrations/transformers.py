"""Hugging Face transformers, straight from a repository and into one.

    model = from_pretrained(AutoModelForCausalLM, "textnlp://org/model@champion", repository="s3://bucket/models")
    save_pretrained("textnlp://org/model@1.3.0", model, tokenizer)

By default the version becomes a directory in the cache of `local_versions.py`, by its deltas where another version is
there, and transformers reads that as any directory. With `stream=True` the weights are decoded into memory and handed
over as a `state_dict`: nothing of them is written, which pays where a machine loads a version once.

`register()` makes plain `from_pretrained("textnlp://...")` of models, configurations, tokenizers and processors, and
`pipeline(model=...)`, know such URLs: the function of transformers through which all of them ask for files,
`utils.hub.cached_files`, is given the directory in place of the URL, and so is the one that lists chat templates.
Written to transformers 5.24.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError, MissingPackageError, TextnlpFastError
from textnlp_fast.integrations.local_versions import model_folder, small_files_of
from textnlp_fast.integrations.urls import ModelURL, Place, is_model_url, open_repository, parse_model_url
from textnlp_fast.loading import load
from textnlp_fast.storage.push import PushReport
from textnlp_fast.storage.repository import Repository

__all__ = ["from_pretrained", "register", "save_pretrained"]

# Where transformers keeps a tokenizer's further chat templates.
_TEMPLATES: Final = "additional_chat_templates"


def from_pretrained(
    kind: Any,
    url: str,
    *args: Any,
    repository: Place | None = None,
    cache_dir: str | Path | None = None,
    stream: bool = False,
    **options: Any,
) -> Any:
    """What `kind.from_pretrained` makes of a version: a model, a tokenizer, a configuration; any class that has one.

    A path in the URL is a folder of the version, as `subfolder` names it elsewhere. `options` are those of
    `kind.from_pretrained`; `cache_dir` is where directories of versions are kept.

    `stream` is for models: their weights go from the repository into memory, whole and verified. It cannot be had
    with quantisation, adapters or code of the model's own (`trust_remote_code`): InvalidInputError. Raises what
    pulling or loading a version does.
    """
    parsed = parse_model_url(url)
    opened = open_repository(parsed, repository)
    name, version = opened.resolve(parsed.reference)
    exact = replace(parsed, name=name, selector=version)
    if stream:
        made = _streamed(kind, exact, args, opened, options)
    else:
        folder = model_folder(exact, repository=opened, cache_dir=cache_dir)
        made = kind.from_pretrained(str(folder), *args, **options)
    model = made[0] if isinstance(made, tuple) else made
    if hasattr(model, "config") and hasattr(model, "name_or_path"):
        # What it goes by in adapters and other models that are made of it: no folder of this machine.
        model.name_or_path = model.config.name_or_path = str(exact)
    return made


def save_pretrained(
    url: str,
    *objects: Any,
    repository: Place | None = None,
    parent: str | None = "auto",
    message: str = "",
    metadata: Mapping[str, str] | None = None,
    **options: Any,
) -> PushReport:
    """Publishes models, tokenizers, processors, configurations (all that has `save_pretrained`) as one version.

    `options` go to the first one's `save_pretrained` (`max_shard_size`, say). Saving the same again changes nothing.
    Raises InvalidInputError if the URL names no exact version, or a path; what a push raises.
    """
    parsed = parse_model_url(url)
    version = parsed.exact
    if parsed.path is not None:
        raise InvalidInputError(f"{url}: a version is published whole", hint="Leave the path out.")
    if not objects:
        raise InvalidInputError("there is nothing to save", hint="Pass the model, then its tokenizer.")
    opened = open_repository(parsed, repository, for_push=True)
    with tempfile.TemporaryDirectory(prefix="textnlp-fast-") as folder:
        for position, each in enumerate(objects):
            each.save_pretrained(folder, **(options if position == 0 else {}))
        return opened.push(folder, parsed.name, version, parent=parent, message=message, metadata=metadata)


def register(*, repository: Place | None = None, cache_dir: str | Path | None = None) -> Callable[[], None]:
    """Has transformers know `textnlp://` URLs in this process. What it returns undoes that.

    With a `repository` only that one is read: a URL that names another is refused.
    """
    hub = _transformers("transformers.utils.hub")
    _transformers("transformers.tokenization_utils_base")
    cached_files, list_repo_templates = hub.cached_files, hub.list_repo_templates

    def folder_of(url: str) -> str:
        try:
            return str(model_folder(url, repository=repository, cache_dir=cache_dir))
        except TextnlpFastError as error:
            # Of others transformers says that there is no such model, whatever they say.
            raise OSError(str(error)) from error

    @wraps(cached_files)
    def files(path_or_repo_id: Any, *args: Any, **options: Any) -> Any:
        is_ours = is_model_url(path_or_repo_id)
        return cached_files(folder_of(path_or_repo_id) if is_ours else path_or_repo_id, *args, **options)

    @wraps(list_repo_templates)
    def templates(repo_id: Any, **options: Any) -> Any:
        if not is_model_url(repo_id):
            return list_repo_templates(repo_id, **options)
        return sorted(path.stem for path in Path(folder_of(repo_id), _TEMPLATES).glob("*.jinja"))

    _replace({cached_files: files, list_repo_templates: templates})
    return lambda: _replace({files: cached_files, templates: list_repo_templates})


def _replace(functions: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
    """Puts others in the place of functions, under every name by which transformers' own modules know them."""
    for name, module in list(sys.modules.items()):
        if name == "transformers" or name.startswith("transformers."):
            for key, value in list(vars(module).items()):
                # Not by ==, which arrays among a module's names would answer in their own way.
                if callable(value) and getattr(value, "__name__", None) in (
                    "cached_files",
                    "list_repo_templates",
                ):
                    other = functions.get(value)
                    if other is not None:
                        setattr(module, key, other)


# --- streaming ------------------------------------------------------------------------------------------------


def _streamed(
    kind: Any, url: ModelURL, args: tuple[Any, ...], opened: Repository, options: dict[str, Any]
) -> Any:
    transformers = _transformers("transformers")
    refused = [
        name for name in ("trust_remote_code", "quantization_config", "subfolder") if options.get(name)
    ]
    if refused or url.path is not None:
        raise InvalidInputError(
            f"weights are not streamed with {', '.join(refused) or 'a path in the URL'}",
            hint="Leave stream=True out.",
        )
    manifest = opened.trusted_manifest(url.name, url.selector)
    if any(entry.path == "adapter_config.json" for entry in manifest.files):
        raise InvalidInputError(f"{url} is an adapter", hint="Use textnlp_fast.integrations.peft.")
    with tempfile.TemporaryDirectory(prefix="textnlp-fast-") as temporary:
        folder = small_files_of(opened, manifest, Path(temporary))
        config = options.pop("config", None)
        if config is None:
            config = transformers.AutoConfig.from_pretrained(folder)
        if getattr(config, "quantization_config", None) is not None:
            raise InvalidInputError(f"{url} is quantised", hint="Leave stream=True out.")
        generation = options.pop("generation_config", None)
        if generation is None and (folder / "generation_config.json").exists():
            generation = transformers.GenerationConfig.from_pretrained(folder)
    weights = load(manifest.model, manifest.version, repository=opened, framework="torch")
    return _concrete(kind, config).from_pretrained(
        None, *args, config=config, state_dict=weights, generation_config=generation, **options
    )


def _concrete(kind: Any, config: Any) -> Any:
    """The class that an `AutoModel...` stands for with this configuration: those take no weights without a name."""
    if not hasattr(kind, "from_config"):
        return kind
    with _transformers("torch").device("meta"):
        return type(kind.from_config(config))


def _transformers(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            "transformers is not installed", hint="pip install 'textnlp-fast[transformers]'"
        ) from error
