"""Parameters, weights and KV caches against what is published of models, and hostile config.json."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.recommender import ModelShape, parse_config, read_model, shape_of_parameters
from textnlp_fast.gpu.recommender.precision import weight_format

from .conftest import CONFIGS, NIGHTLY, model

LLAMA: dict[str, Any] = json.loads((CONFIGS / "Meta-Llama-3.1-8B.json").read_text())

# `total_size` of the published model.safetensors.index.json, of 16-bit checkpoints.
PUBLISHED_BYTES = {
    "Meta-Llama-3.1-8B": 16_060_522_496,
    "Meta-Llama-3.1-70B": 141_107_412_992,
    "Mistral-7B-v0.1": 14_483_464_192,
    "Mixtral-8x7B-v0.1": 93_405_585_408,
    "Qwen2.5-7B": 15_231_233_024,
    "Qwen3-8B": 16_381_470_720,
    "Qwen3-32B": 65_524_246_528,
    "Qwen3-30B-A3B": 61_064_245_248,
}
# Of one position, in bytes at 16 bit, worked out by hand: layers x 2 x KV heads x head size x 2.
KV_A_POSITION = {
    "Meta-Llama-3.1-8B": 32 * 2 * 8 * 128 * 2,
    "Meta-Llama-3.1-70B": 80 * 2 * 8 * 128 * 2,
    "Qwen3-30B-A3B": 48 * 2 * 4 * 128 * 2,
    "Qwen2.5-7B": 28 * 2 * 4 * 128 * 2,
    "DeepSeek-V3": 61 * (512 + 64) * 2,
}


@pytest.mark.parametrize("name", PUBLISHED_BYTES)
def test_weights_take_what_the_published_files_take(name: str) -> None:
    assert model(name).weight_bytes(weight_format("bf16")) == PUBLISHED_BYTES[name]


def test_parameters_of_models_with_norms_and_biases_of_their_own() -> None:
    assert model("gemma-2-9b").parameters == 9_241_705_984
    # DeepSeek-V3 without its drafting layer, as its report counts it: 671 B, of which 37 B are active.
    assert model("DeepSeek-V3").parameters == 671_026_419_200
    assert model("DeepSeek-V3").active_parameters == pytest.approx(37e9, rel=0.02)
    assert model("Mixtral-8x7B-v0.1").active_parameters == pytest.approx(12.9e9, rel=0.02)


@pytest.mark.parametrize("name", KV_A_POSITION)
def test_kv_cache_by_hand(name: str) -> None:
    assert model(name).kv_bytes(1, 2) == KV_A_POSITION[name]
    assert model(name).kv_bytes(1000, 1) == KV_A_POSITION[name] * 500


def test_windows_bound_the_cache() -> None:
    mistral, gemma = model("Mistral-7B-v0.1"), model("gemma-2-9b")
    assert mistral.kv_bytes(4096, 2) == mistral.kv_bytes(30000, 2) == 4096 * 32 * 2 * 8 * 128 * 2
    each = 2 * 8 * 256 * 2
    assert gemma.kv_bytes(8000, 2) == 21 * 8000 * each + 21 * 4096 * each
    assert model("Qwen2.5-7B").window is None  # it has a size, and says that it is not used


def test_formats_that_files_tell() -> None:
    assert read_model(CONFIGS / "Qwen3-32B-FP8.json").weights == "fp8-block"
    assert read_model(CONFIGS / "Llama-3.1-70B-Instruct-FP8.json").weights == "fp8"
    assert parse_config(json.dumps({**LLAMA, "quantization_config": None})).weights == "bf16"
    awq = {**LLAMA, "quantization_config": {"quant_method": "awq", "bits": 4}}
    assert parse_config(json.dumps(awq)).weights == "int4"
    assert model("Meta-Llama-3.1-8B").weight_bytes(weight_format("awq")) == pytest.approx(5.7e9, rel=0.02)
    with pytest.raises(InvalidInputError, match="quantisation"):
        parse_config(json.dumps({**LLAMA, "quantization_config": {"quant_method": "hqq"}}))


@given(st.floats(1e7, 1e13))
@settings(max_examples=200 if NIGHTLY else 20, deadline=None)
def test_a_number_of_parameters_makes_a_model_of_that_many(parameters: float) -> None:
    assert shape_of_parameters(parameters).parameters == pytest.approx(parameters, rel=0.05)


@pytest.mark.parametrize("wrong", [0, -1, 1, float("nan"), float("inf"), 1e20])
def test_numbers_of_parameters_that_no_model_has(wrong: float) -> None:
    with pytest.raises(InvalidInputError):
        shape_of_parameters(wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": -1},
        {"num_hidden_layers": 0},
        {"num_hidden_layers": 1.5},
        {"num_hidden_layers": True},
        {"num_hidden_layers": "32"},
        {"num_hidden_layers": 10**400},
        {"num_hidden_layers": None},
        {"hidden_size": 10**9, "intermediate_size": 10**9},
        {"num_attention_heads": 0},
        {"num_key_value_heads": 3},
        {"vocab_size": None},
        {"num_local_experts": 8},
        {"num_local_experts": 8, "num_experts_per_tok": 9},
        {"model_type": "deepseek_v3"},
        {"model_type": ["llama"]},
        {"layer_types": ["full_attention"], "sliding_window": 10},
        {"torch_dtype": "float3"},
        {"mamba_d_state": 128},
        {"linear_num_key_heads": 16},
        {"block_configs": [{"attention": {}}]},
        {"quantization_config": [1]},
        {"quantization_config": "fp8"},
        {"quantization_config": False},
        {"quantization_config": {}},
    ],
)
def test_models_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        parse_config(json.dumps({**LLAMA, **change}))


def test_sizes_not_known_here_can_be_ignored_and_are_told() -> None:
    odd = json.dumps({**LLAMA, "mamba_d_state": 128})
    with pytest.raises(InvalidInputError, match="mamba_d_state"):
        parse_config(odd)
    assert "mamba_d_state" in parse_config(odd, ignore_unknown=True).notes[0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        b"\xff\xfe",
        b'{"a": NaN}',
        b"[" * 100_000,
        b" " * (5 << 20),
        b"{}",
    ],
)
def test_what_is_no_config(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse_config(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                *LLAMA,
                "num_local_experts",
                "sliding_window",
                "kv_lora_rank",
                "text_config",
                "layer_types",
                "quantization_config",
                "mlp_only_layers",
            ]
        ),
        JSON,
        max_size=4,
    )
)
@settings(max_examples=1000 if NIGHTLY else 120, deadline=None)
def test_any_values_make_a_model_or_a_typed_error(change: dict[str, Any]) -> None:
    try:
        read = parse_config(json.dumps({**LLAMA, **change}), ignore_unknown=True)
    except InvalidInputError:
        return
    assert isinstance(read.shape, ModelShape)
    assert read.shape.parameters > 0


def test_a_folder_or_a_file(tmp_path: Any) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps(LLAMA))
    assert read_model(tmp_path / "m").shape.name == "m"
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_model(tmp_path / "none")
