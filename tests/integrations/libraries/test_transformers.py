"""transformers and PEFT on `textnlp://` URLs: what they compute is what they compute from the local directory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from delta.models import tree
from textnlp_fast.errors import InvalidInputError, MissingPackageError, VersionExistsError
from textnlp_fast.integrations import peft as ours_peft
from textnlp_fast.integrations import transformers as ours
from textnlp_fast.integrations.local_versions import CACHE_VARIABLE
from textnlp_fast.storage import Repository
from textnlp_fast.storage.registry.lineage import lineage_of
from textnlp_fast.storage.registry.registry import Registry

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")
tokenizers: Any = pytest.importorskip("tokenizers")

URL = "textnlp://org/llama@champion"


@dataclass(frozen=True)
class House:
    repository: str
    local: Path
    logits: Any
    tokenizer: Any


def prompt() -> Any:
    return torch.tensor([[1, 2, 3, 4]])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    root = tmp_path_factory.mktemp("house")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16).eval()
    model.generation_config.max_new_tokens = 3
    words = {"[UNK]": 0, "a": 1, "b": 2}
    level = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    level.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=level, unk_token="[UNK]", pad_token="[UNK]", eos_token="b"
    )
    tokenizer.chat_template = {"default": "{{ messages }}", "tools": "{{ tools }}"}
    repository = str(root / "repo")
    report = ours.save_pretrained(
        "textnlp://org/llama@1.0.0", model, tokenizer, repository=repository, max_shard_size="16KB"
    )
    assert report.tensors == sum(1 for _ in model.named_parameters())
    Registry(Repository.open(repository)).set_alias("org/llama", "champion", "1.0.0")
    model.save_pretrained(root / "local", max_shard_size="16KB")
    tokenizer.save_pretrained(root / "local")
    assert len(list((root / "local").glob("*.safetensors"))) > 1
    local = transformers.AutoModelForCausalLM.from_pretrained(root / "local")
    return House(repository, root / "local", local(prompt()).logits, tokenizer)


@pytest.fixture
def registered(house: House) -> Iterator[None]:
    undo = ours.register(repository=house.repository)
    yield
    undo()


def test_what_was_saved_is_what_transformers_writes(house: House, tmp_path: Path) -> None:
    Repository.open(house.repository).pull("org/llama", "1.0.0", tmp_path / "out")
    (tmp_path / "out" / ".textnlp-fast.json").unlink()
    assert tree(tmp_path / "out") == tree(house.local)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["AutoModelForCausalLM", "LlamaForCausalLM"])
def test_logits_are_those_of_the_directory(house: House, stream: bool, kind: str, tmp_path: Path) -> None:
    model = ours.from_pretrained(getattr(transformers, kind), URL, repository=house.repository, stream=stream)
    assert torch.equal(model(prompt()).logits, house.logits)
    assert model.dtype == torch.bfloat16 and not model.training
    assert model.generation_config.max_new_tokens == 3
    assert model.name_or_path == "textnlp://org/llama@1.0.0"
    # Streamed weights leave nothing behind.
    assert (tmp_path / "versions").exists() is not stream


@pytest.mark.parametrize("stream", [False, True])
def test_options_are_passed_on(house: House, stream: bool) -> None:
    model, info = ours.from_pretrained(
        transformers.AutoModelForCausalLM,
        URL,
        repository=house.repository,
        stream=stream,
        dtype=torch.float32,
        output_loading_info=True,
    )
    assert model.dtype == torch.float32
    assert not info["missing_keys"] and not info["unexpected_keys"]
    local = transformers.AutoModelForCausalLM.from_pretrained(house.local, dtype=torch.float32)
    assert torch.equal(model(prompt()).logits, local(prompt()).logits)


def test_tokenizers_and_configurations(house: House) -> None:
    tokenizer = ours.from_pretrained(transformers.AutoTokenizer, URL, repository=house.repository)
    assert tokenizer("a b c").input_ids == house.tokenizer("a b c").input_ids == [1, 2, 0]
    config = ours.from_pretrained(transformers.AutoConfig, URL, repository=house.repository)
    assert config.hidden_size == 32


@pytest.mark.usefixtures("registered")
def test_plain_from_pretrained(house: House) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(URL)
    assert torch.equal(model(prompt()).logits, house.logits)
    assert model.generation_config.max_new_tokens == 3
    tokenizer = transformers.AutoTokenizer.from_pretrained(URL)
    assert tokenizer("a b c").input_ids == [1, 2, 0]
    assert set(tokenizer.chat_template) == {"default", "tools"}
    assert transformers.AutoConfig.from_pretrained(URL).hidden_size == 32
    assert transformers.GenerationConfig.from_pretrained(URL).max_new_tokens == 3
    answer = transformers.pipeline("text-generation", model=URL)("a b", max_new_tokens=2)
    local = transformers.pipeline("text-generation", model=str(house.local))("a b", max_new_tokens=2)
    assert answer == local
    with pytest.raises(OSError, match=r"no version 9\.0\.0"):
        transformers.AutoConfig.from_pretrained("textnlp://org/llama@9.0.0")
    with pytest.raises(OSError, match="another repository"):
        transformers.AutoConfig.from_pretrained("textnlp://org/llama?repo=/elsewhere")
    with pytest.raises(OSError, match=r"config\.json is a file, and no model"):
        transformers.AutoModelForCausalLM.from_pretrained("textnlp://org/llama@1.0.0/config.json")
    # Directories are what they were.
    assert transformers.AutoConfig.from_pretrained(house.local).hidden_size == 32


def test_what_is_registered_can_be_undone(house: House) -> None:
    hub = transformers.utils.hub
    before = hub.cached_files
    undo = ours.register(repository=house.repository)
    assert hub.cached_files is not before
    undo()
    assert hub.cached_files is before
    with pytest.raises(Exception, match=r"textnlp|Repo id"):
        transformers.AutoConfig.from_pretrained(URL)


def test_a_new_version_is_a_delta(house: House) -> None:
    model = ours.from_pretrained(transformers.AutoModelForCausalLM, URL, repository=house.repository)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight[0] += 0.5
    first = ours.save_pretrained(
        "textnlp://org/llama@1.1.0", model, house.tokenizer, repository=house.repository, message="tuned"
    )
    assert first.parent == "org/llama@1.0.0" and first.new_contents < first.tensors
    again = ours.save_pretrained(
        "textnlp://org/llama@1.1.0", model, house.tokenizer, repository=house.repository
    )
    assert again.already_there
    with pytest.raises(VersionExistsError):
        ours.save_pretrained("textnlp://org/llama@1.0.0", model, house.tokenizer, repository=house.repository)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda repo: ours.save_pretrained("textnlp://m", object(), repository=repo), "which version"),
        (lambda repo: ours.save_pretrained("textnlp://m@1.0.0/a", object(), repository=repo), "whole"),
        (lambda repo: ours.save_pretrained("textnlp://m@1.0.0", repository=repo), "nothing to save"),
        (
            lambda repo: ours.from_pretrained(
                transformers.AutoConfig, "textnlp://org/llama@1.0.0/config.json", repository=repo
            ),
            "is a file",
        ),
        (
            lambda repo: ours.from_pretrained(
                transformers.AutoModel, URL, repository=repo, stream=True, trust_remote_code=True
            ),
            "trust_remote_code",
        ),
    ],
)
def test_what_is_refused(house: House, call: Any, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        call(house.repository)


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys  # noqa: PLC0415

    monkeypatch.setitem(sys.modules, "transformers.utils.hub", None)
    with pytest.raises(MissingPackageError, match="transformers"):
        ours.register()


# --- the hub's cache ----------------------------------------------------------------------------------------------


def test_an_exported_version_is_found_offline(house: House, tmp_path: Path) -> None:
    from textnlp_fast.storage.hub import export_snapshot  # noqa: PLC0415

    repository = Repository.open(house.repository)
    export_snapshot(repository, "org/llama", "1.0.0", "my-org/llama", cache_dir=tmp_path / "hub")
    options = {"cache_dir": str(tmp_path / "hub"), "local_files_only": True}
    model = transformers.AutoModelForCausalLM.from_pretrained("my-org/llama", **options)
    assert torch.equal(model(prompt()).logits, house.logits)
    tokenizer = transformers.AutoTokenizer.from_pretrained("my-org/llama", **options)
    assert tokenizer("a b c").input_ids == [1, 2, 0]


# --- adapters -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapter(house: House, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An adapter of the model, published; its logits."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("versions")))
        base = ours.from_pretrained(transformers.AutoModelForCausalLM, URL, repository=house.repository)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = peft.get_peft_model(base, config).eval()
    ours_peft.save_pretrained("textnlp://org/lora@1.0.0", model, repository=house.repository)
    return model(prompt()).logits


def base_of(house: House) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(house.local)


def test_an_adapter_computes_what_it_did(house: House, adapter: Any) -> None:
    model = ours_peft.from_pretrained(base_of(house), "textnlp://org/lora", repository=house.repository)
    assert torch.equal(model(prompt()).logits, adapter)
    assert not torch.equal(adapter, house.logits)


def test_an_adapter_knows_its_model(house: House, adapter: Any) -> None:
    manifest = Repository.open(house.repository).manifest("org/lora", "1.0.0")
    assert lineage_of(manifest).base_model == "org/llama@1.0.0"


def test_plain_peft(house: House, adapter: Any) -> None:
    import peft  # noqa: PLC0415

    before = peft.PeftModel.__dict__["from_pretrained"]
    undo = ours_peft.register(repository=house.repository)
    try:
        model = peft.PeftModel.from_pretrained(base_of(house), "textnlp://org/lora@1.0.0")
        assert torch.equal(model(prompt()).logits, adapter)
        assert peft.PeftConfig.from_pretrained("textnlp://org/lora").r == 2
        model.load_adapter("textnlp://org/lora", adapter_name="second")
        model.set_adapter("second")
        assert torch.equal(model(prompt()).logits, adapter)
    finally:
        undo()
    assert peft.PeftModel.__dict__["from_pretrained"] is before


def test_a_directory_of_an_adapter_is_pushed(house: House, adapter: Any, tmp_path: Path) -> None:
    Repository.open(house.repository).pull("org/lora", "1.0.0", tmp_path / "lora")
    report = ours_peft.save_pretrained(
        "textnlp://org/lora@1.1.0",
        tmp_path / "lora",
        base_model="meta/elsewhere",
        repository=house.repository,
    )
    assert report.stored_bytes == 0 and report.parent == "org/lora@1.0.0"
    manifest = Repository.open(house.repository).manifest("org/lora", "1.1.0")
    assert lineage_of(manifest).base_model == "meta/elsewhere"
    with pytest.raises(InvalidInputError, match="no adapter"):
        ours_peft.save_pretrained("textnlp://org/lora@1.2.0", house.local, repository=house.repository)


def test_an_adapter_is_not_streamed(house: House, adapter: Any) -> None:
    with pytest.raises(InvalidInputError, match="adapter"):
        ours.from_pretrained(
            transformers.AutoModelForCausalLM, "textnlp://org/lora", repository=house.repository, stream=True
        )
