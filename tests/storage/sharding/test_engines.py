"""Engines read what sharding makes: transformers, huggingface_hub's own functions, and ranks that run together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.storage import merge_shards, shard_model
from textnlp_fast.tensors.architecture import parse_architecture
from textnlp_fast.tensors.parallel import portion_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
TOKENS = torch.arange(12)[None] * 7 % 96


def make(folder: Path, kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "llama":
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    else:
        model = transformers.MixtralForCausalLM(transformers.MixtralConfig(**SIZES, num_local_experts=4))
    model.save_pretrained(folder)
    return model.eval()


CASES: list[tuple[str, str, int | None]] = [
    ("llama", "size_based", None),
    ("llama", "layer_based", None),
    ("llama", "pipeline", 3),
    ("llama", "adaptive", None),
    ("mixtral", "expert_based", 2),
    ("mixtral", "layer_based", None),
]


@pytest.mark.parametrize(("kind", "strategy", "ranks"), CASES)
def test_transformers_loads_the_shards(tmp_path: Path, kind: str, strategy: str, ranks: int | None) -> None:
    model = make(tmp_path / "source", kind)
    report = shard_model(
        tmp_path / "source",
        tmp_path / "out",
        strategy=strategy,  # type: ignore[arg-type]
        ranks=ranks,
        max_shard_bytes=40_000,
    )
    assert len(report.files) > 2
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True).eval()
    there = loaded.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, there[name]), name
    with torch.no_grad():
        assert torch.equal(model(TOKENS).logits, loaded(TOKENS).logits)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_together_compute_what_the_model_does(tmp_path: Path, ranks: int) -> None:
    """Each rank is a Llama with a part of the heads; with four ranks, two of them share each key head."""
    model = make(tmp_path / "source", "llama")
    shard_model(tmp_path / "source", tmp_path / "out", strategy="tensor_parallel", ranks=ranks)
    sizes = dict(
        SIZES,
        head_dim=8,
        num_attention_heads=4 // ranks,
        num_key_value_heads=max(1, 2 // ranks),
        intermediate_size=48 // ranks,
        vocab_size=96 // ranks,
    )
    parts = []
    for rank in range(ranks):
        each = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()
        each.load_state_dict(
            safetensors_torch.load_file(tmp_path / "out" / f"rank-{rank}" / "model.safetensors")
        )
        parts.append(each)
    with torch.no_grad():
        table = torch.cat([each.model.embed_tokens.weight for each in parts])
        hidden = torch.nn.functional.embedding(TOKENS, table)
        places = model.model.rotary_emb(hidden, torch.arange(TOKENS.shape[1])[None])
        for number in range(SIZES["num_hidden_layers"]):
            layers = [each.model.layers[number] for each in parts]
            normed = layers[0].input_layernorm(hidden)
            hidden = hidden + sum(
                layer.self_attn(normed, position_embeddings=places, attention_mask=None)[0]
                for layer in layers
            )
            normed = layers[0].post_attention_layernorm(hidden)
            hidden = hidden + sum(layer.mlp(normed) for layer in layers)
        hidden = parts[0].model.norm(hidden)
        logits = torch.cat([each.lm_head(hidden) for each in parts], dim=-1)
        torch.testing.assert_close(logits, model(TOKENS).logits, rtol=1e-4, atol=1e-5)
    merge_shards(tmp_path / "out", tmp_path / "back")
    for path in (tmp_path / "source").iterdir():
        assert path.read_bytes() == (tmp_path / "back" / path.name).read_bytes()


FAMILIES = [
    "Llama",
    "Qwen2",
    "Qwen3",
    "Mistral",
    "Mixtral",
    "Gemma2",
    "Olmo2",
    "Cohere",
    "Qwen2Moe",
    "Qwen3Moe",
    "DeepseekV3",
    "GPTNeoX",
    "Granite",
    "Glm4",
    "Phi",
    "Starcoder2",
    "Llama4Text",
]
# Which axis of a matrix, counted from the last, a style of transformers' divides.
STYLES = {"colwise": -2, "rowwise": -1, "packed_colwise": -2, "packed_rowwise": -1, "embedding_rowwise": -2}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rules_are_those_of_transformers_plans(family: str) -> None:
    """Its models say by module how ranks divide them; what it gathers and splits again, engines divide too."""
    if not hasattr(transformers, f"{family}Config"):
        pytest.skip(f"this transformers has no {family}")
    experts = {"num_experts": 4, "num_local_experts": 4} if "Mo" in family or family == "Mixtral" else {}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=96,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=8,
        num_key_value_heads=4,
        **experts,
    )
    plan = getattr(config, "base_model_tp_plan", None)
    if not plan:
        pytest.skip(f"this transformers has no plan for {family}")
    model = parse_architecture(json.dumps(config.to_dict(), default=str))
    compared = 0
    for module, style in plan.items():
        axis = STYLES.get(style.removesuffix("_gather_output").removesuffix("_split_input"))
        fused = module.endswith(("gate_up_proj", "qkv_proj")) and "gather" in style
        if axis is None or fused:
            continue
        name = f"model.{module.replace('*', '0')}"
        stacked = ".experts." in module
        shape = (4, 64, 64) if stacked else (192 if module.endswith("query_key_value") else 64, 64)
        for rank in range(2):
            portion = portion_of(name if stacked else f"{name}.weight", shape, model, rank=rank, degree=2)
            assert portion is not None, name
            assert portion.dim - len(shape) == axis, name
            assert portion.length == shape[portion.dim] // 2
            assert len(portion.ranges) == (2 if style.startswith("packed") else 1)
        compared += 1
    assert compared >= 4
