"""The guide's examples run, one after the other, where their libraries are installed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.storage import Repository
from textnlp_fast.storage.registry.registry import Registry

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "guide" / "libraries.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    monkeypatch.chdir(tmp_path)
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
    )
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained("llama")
    level = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=level, unk_token="a").save_pretrained("llama")
    repository = Repository.open("weights", create=True)
    repository.push("llama", "org/llama", "1.0.0")
    Registry(repository).set_alias("org/llama", "champion", "1.0.0")
    if importlib.util.find_spec("mlflow") is not None:
        from mlflow.store.artifact import artifact_repository_registry as found  # noqa: PLC0415

        from textnlp_fast.integrations.mlflow import TextnlpArtifactRepository  # noqa: PLC0415

        found._artifact_repository_registry.register("textnlp", TextnlpArtifactRepository)
    examples = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 6
    scope: dict[str, Any] = {}
    for example in examples:
        needed = set(re.findall(r"^(?:from|import) (\w+)", example, re.MULTILINE)) - {"textnlp_fast"}
        if all(importlib.util.find_spec(name) is not None for name in needed):
            exec(compile(example, str(GUIDE), "exec"), scope)
    assert repository.models()["org/raw"] == ["1.0.0"]
    assert scope["rows"].shape[0] == 8 and len(scope["header"]) == 8
    assert (tmp_path / "copy" / "config.json").is_file()
    if "place" in scope:
        assert "LlamaForCausalLM" in Path(scope["place"]).read_text(encoding="utf-8")
