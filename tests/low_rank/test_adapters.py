"""Adapters as PEFT writes them; what is damaged, hostile or no plain LoRA is refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.delta import adapters, low_rank
from textnlp_fast.delta.adapters import parse_config, read_adapter
from textnlp_fast.errors import InvalidInputError, TextnlpFastError, UnsafeFileError, UnsupportedFormatError

PLAIN: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "bias": "none",
    "target_modules": ["q_proj"],
}
Q = "base_model.model.model.layers.0.self_attn.q_proj"


def written(tmp_path: Path, config: dict[str, Any], tensors: dict[str, Any]) -> Path:
    save = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed").save_file
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save(tensors, tmp_path / "adapter_model.safetensors")
    return tmp_path


def matrix(rows: int, columns: int, seed: int = 0, kind: Any = np.float32) -> Any:
    return np.random.default_rng(seed).normal(0, 0.1, (rows, columns)).astype(kind)


def change(adapter: adapters.Adapter, index: int = 0) -> Any:
    """What a module adds to zeros."""
    factors = adapter.factors(adapter.modules[index])
    zeros = np.zeros((factors.rows, factors.columns), dtype=np.float32)
    out = low_rank.predict(zeros.tobytes(), factors, dtype="F32")
    return np.frombuffer(out, dtype=np.float32).reshape(zeros.shape)


def test_a_linear_module(tmp_path: Path) -> None:
    a, b = matrix(4, 6), matrix(5, 4, 1)
    adapter = read_adapter(written(tmp_path, PLAIN, {f"{Q}.lora_A.weight": a, f"{Q}.lora_B.weight": b}))
    (module,) = adapter.modules
    assert (module.name, module.shape, module.scale) == ("model.layers.0.self_attn.q_proj", (5, 6), 2.0)
    np.testing.assert_allclose(change(adapter), 2 * b @ a, rtol=1e-5)
    assert adapter.match(["x.weight", "model.layers.0.self_attn.q_proj.weight"]) == {
        "model.layers.0.self_attn.q_proj.weight": module
    }
    assert adapter.match(["outer.model.layers.0.self_attn.q_proj.weight"]).keys() == {
        "outer.model.layers.0.self_attn.q_proj.weight"
    }


def test_an_embedding_and_the_adapter_name_in_the_key(tmp_path: Path) -> None:
    a, b = matrix(4, 9, kind=np.float16), matrix(3, 4, 1, np.float16)
    tensors = {
        "base_model.model.embed.lora_embedding_A": a,
        "base_model.model.embed.lora_embedding_B": b,
        f"{Q}.lora_A.default.weight": matrix(4, 6),
        f"{Q}.lora_B.default.weight": matrix(5, 4),
        "base_model.model.score.weight": matrix(2, 2),
    }
    adapter = read_adapter(written(tmp_path, PLAIN, tensors))
    assert [module.name for module in adapter.modules].count("embed") == 1
    assert adapter.others == ["base_model.model.score.weight"]
    place = next(i for i, module in enumerate(adapter.modules) if module.name == "embed")
    assert adapter.modules[place].shape == (9, 3)
    np.testing.assert_allclose(
        change(adapter, place), 2 * (b.astype(np.float32) @ a.astype(np.float32)).T, rtol=1e-5
    )


def test_weights_that_lie_in_by_out(tmp_path: Path) -> None:
    a, b = matrix(4, 6), matrix(5, 4, 1)
    config = PLAIN | {"fan_in_fan_out": True}
    adapter = read_adapter(written(tmp_path, config, {f"{Q}.lora_A.weight": a, f"{Q}.lora_B.weight": b}))
    assert adapter.modules[0].shape == (6, 5)
    np.testing.assert_allclose(change(adapter), 2 * (b @ a).T, rtol=1e-5)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({}, (4, 2.0)),
        ({"use_rslora": True}, (4, 4.0)),
        ({"alpha_pattern": {"q_proj": 2}}, (4, 0.5)),
        ({"alpha_pattern": {"k_proj": 2}}, (4, 2.0)),
        ({"alpha_pattern": {"0.self_attn.q_proj": 6}}, (4, 1.5)),
        ({"alpha_pattern": {"elf_attn.q_proj": 6}}, (4, 2.0)),
        ({"alpha_pattern": {"^model.q_proj": 6}}, (4, 2.0)),
        ({"alpha_pattern": {"^model.layers.0.self_attn.q_proj": 6}}, (4, 1.5)),
        ({"rank_pattern": {"q_proj": 2}}, (2, 4.0)),
        ({"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 3}, "use_rslora": True}, (2, 3 / 2**0.5)),
        ({"rank_pattern": None, "fan_in_fan_out": None}, (4, 2.0)),
    ],
)  # fmt: skip
def test_rank_and_scale(extra: dict[str, Any], expected: tuple[int, float]) -> None:
    config = parse_config(json.dumps(PLAIN | extra).encode())
    assert config.rank_and_scale("model.layers.0.self_attn.q_proj") == expected


@pytest.mark.parametrize(
    "extra",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"lora_bias": True},
        {"peft_type": "IA3"},
        {"alora_invocation_tokens": [1]},
        {"rank_pattern": {"(a+)+$": 4}},
    ],
)
def test_what_is_more_than_lora_is_unsupported(extra: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFormatError) as caught:
        parse_config(json.dumps(PLAIN | extra).encode())
    assert "Leave the adapter out" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b" " * ((1 << 20) + 1),
        *(
            json.dumps(PLAIN | extra).encode()
            for extra in (
                {"r": 0}, {"r": "4"}, {"r": True}, {"r": 1 << 40}, {"r": None}, {"lora_alpha": None},
                {"lora_alpha": "x"},
                {"lora_alpha": 10**400}, {"lora_alpha": float("nan")}, {"use_rslora": 1}, {"fan_in_fan_out": "no"},
                {"rank_pattern": []}, {"rank_pattern": {"q": 0}}, {"alpha_pattern": {"q": []}},
            )
        ),
    ],
)  # fmt: skip
def test_a_damaged_configuration_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse_config(text)


ANY_JSON = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text())


@given(st.dictionaries(st.sampled_from([*PLAIN, "use_dora", "alpha_pattern"]), ANY_JSON))
def test_any_configuration_is_read_or_refused(extra: dict[str, Any]) -> None:
    try:
        parse_config(json.dumps(PLAIN | extra).encode())
    except TextnlpFastError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("tensors", "error"),
    [
        ({f"{Q}.lora_A.weight": (4, 6)}, InvalidInputError),
        ({f"{Q}.lora_B.weight": (4, 6)}, InvalidInputError),
        ({f"{Q}.lora_A.weight": (3, 6), f"{Q}.lora_B.weight": (5, 3)}, InvalidInputError),
        ({f"{Q}.lora_A.weight": (4, 6), f"{Q}.lora_B.weight": (5, 3)}, InvalidInputError),
        ({f"{Q}.lora_A.weight": (4, 0), f"{Q}.lora_B.weight": (5, 4)}, InvalidInputError),
        (
            {f"{Q}.lora_A.weight": (4, 6), f"{Q}.lora_A.x.weight": (4, 6), f"{Q}.lora_B.weight": (5, 4)},
            InvalidInputError,
        ),
        ({f"{Q}.lora_A.weight": (4, 6, 3, 3), f"{Q}.lora_B.weight": (5, 4, 1, 1)}, UnsupportedFormatError),
        (
            {f"{Q}.lora_A.weight": (4, 6), f"{Q}.lora_B.weight": (5, 4), f"{Q}.lora_magnitude_vector": (5,)},
            UnsupportedFormatError,
        ),
        (
            {f"{Q}.lora_A.weight": (4, 6), f"{Q}.lora_B.weight": (5, 4), f"{Q}.lora_B.bias": (5,)},
            UnsupportedFormatError,
        ),
    ],
)
def test_damaged_or_other_weights(
    tmp_path: Path, tensors: dict[str, tuple[int, ...]], error: type[Exception]
) -> None:
    place = written(tmp_path, PLAIN, {name: np.zeros(shape, np.float32) for name, shape in tensors.items()})
    with pytest.raises(error):
        read_adapter(place)


def test_factors_of_doubles_are_unsupported(tmp_path: Path) -> None:
    tensors = {f"{Q}.lora_A.weight": np.zeros((4, 6)), f"{Q}.lora_B.weight": np.zeros((5, 4))}
    with pytest.raises(UnsupportedFormatError, match="F64"):
        read_adapter(written(tmp_path, PLAIN, tensors))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="adapter_config"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(PLAIN))
    with pytest.raises(InvalidInputError, match=r"adapter_model\.safetensors"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(UnsafeFileError):
        read_adapter(tmp_path)


@pytest.mark.parametrize(
    "names",
    [[], ["q_proj.weight"], [f"{outer}.model.layers.0.self_attn.q_proj.weight" for outer in ("x", "y")]],
)
def test_a_module_that_fits_no_tensor_or_two(tmp_path: Path, names: list[str]) -> None:
    place = written(tmp_path, PLAIN, {f"{Q}.lora_A.weight": matrix(4, 6), f"{Q}.lora_B.weight": matrix(5, 4)})
    with pytest.raises(InvalidInputError, match="fits"):
        read_adapter(place).match(names)
