"""What ranks hold, against definitions by heads and matrices that share no code with the rules."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.tensors.architecture import Architecture, parse_architecture
from textnlp_fast.tensors.parallel import portion_of

HEADS, KV_HEADS, HEAD, HIDDEN, INNER, WORDS = 8, 2, 4, 32, 24, 48
LLAMA = Architecture("llama", HEADS, KV_HEADS, HIDDEN)
Table = npt.NDArray[np.int64]


def part(name: str, tensor: Table, model: Architecture, rank: int, degree: int) -> Table:
    portion = portion_of(name, tensor.shape, model, rank=rank, degree=degree)
    if portion is None:
        return tensor
    index = np.concatenate([np.arange(begin, end) for begin, end in portion.ranges])
    return np.take(tensor, index, axis=portion.dim)


def numbered(*shape: int) -> Table:
    return np.arange(int(np.prod(shape))).reshape(shape)


def rows_of_heads(tensor: Table, heads: list[int]) -> Table:
    return np.concatenate([tensor[head * HEAD : (head + 1) * HEAD] for head in heads])


@pytest.mark.parametrize("degree", [2, 4, 8])
def test_query_heads_are_dealt_out_and_key_heads_shared_by_neighbours(degree: int) -> None:
    queries, keys = numbered(HEADS * HEAD, HIDDEN), numbered(KV_HEADS * HEAD, HIDDEN)
    for rank in range(degree):
        each = HEADS // degree
        mine = list(range(rank * each, (rank + 1) * each))
        got = part("model.layers.0.self_attn.q_proj.weight", queries, LLAMA, rank, degree)
        assert np.array_equal(got, rows_of_heads(queries, mine))
        # Head h of the queries attends with head h // (HEADS / KV_HEADS) of the keys: that is the one a rank needs.
        needed = sorted({head // (HEADS // KV_HEADS) for head in mine})
        for name in ("k_proj", "v_proj"):
            got = part(f"model.layers.0.self_attn.{name}.weight", keys, LLAMA, rank, degree)
            assert np.array_equal(got, rows_of_heads(keys, needed))
            bias = part(f"model.layers.0.self_attn.{name}.bias", keys[:, 0], LLAMA, rank, degree)
            assert np.array_equal(bias, rows_of_heads(keys, needed)[:, 0])


@pytest.mark.parametrize(
    "names", [("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"), ("fc1", "fc1", "fc2")]
)
def test_a_pair_of_matrices_multiplies_to_the_same_sum(names: tuple[str, str, str]) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(-9, 9, (INNER, HIDDEN)), rng.integers(-9, 9, (HIDDEN, INNER))
    x = rng.integers(-9, 9, HIDDEN)
    whole = second @ np.maximum(first @ x, 0)
    total = np.zeros_like(whole)
    for rank in range(4):
        up = part(f"model.layers.1.mlp.{names[0]}.weight", first, LLAMA, rank, 4)
        down = part(f"model.layers.1.mlp.{names[2]}.weight", second, LLAMA, rank, 4)
        total += down @ np.maximum(up @ x, 0)
    assert np.array_equal(total, whole)


def test_gpt2_keeps_its_matrices_turned() -> None:
    model = Architecture("gpt2", HEADS, HEADS, HIDDEN)
    fused = numbered(HIDDEN, 3 * HIDDEN)
    queries, keys, values = np.split(fused, 3, axis=1)
    for rank in range(2):
        half = slice(rank * HIDDEN // 2, (rank + 1) * HIDDEN // 2)
        wanted = np.concatenate([each[:, half] for each in (queries, keys, values)], axis=1)
        assert np.array_equal(part("h.3.attn.c_attn.weight", fused, model, rank, 2), wanted)
        assert np.array_equal(part("h.3.attn.c_attn.bias", fused[0], model, rank, 2), wanted[0])
        out = numbered(HIDDEN, HIDDEN)
        assert np.array_equal(part("h.3.attn.c_proj.weight", out, model, rank, 2), out[half])
        assert np.array_equal(part("h.3.attn.c_proj.bias", out[0], model, rank, 2), out[0])
        up = numbered(HIDDEN, 4 * HIDDEN)
        assert np.array_equal(part("h.3.mlp.c_fc.weight", up, model, rank, 2), np.split(up, 2, axis=1)[rank])
        positions = numbered(16, HIDDEN)
        assert np.array_equal(part("wpe.weight", positions, model, rank, 2), positions)


def test_gpt_neox_fuses_head_by_head() -> None:
    model = Architecture("gpt_neox", HEADS, HEADS, HIDDEN)
    fused = numbered(HEADS * 3 * HEAD, HIDDEN)
    by_head = fused.reshape(HEADS, 3, HEAD, HIDDEN)
    for rank in range(4):
        wanted = by_head[2 * rank : 2 * rank + 2].reshape(-1, HIDDEN)
        got = part("gpt_neox.layers.0.attention.query_key_value.weight", fused, model, rank, 4)
        assert np.array_equal(got, wanted)
        dense = numbered(HIDDEN, HIDDEN)
        got = part("gpt_neox.layers.0.attention.dense.weight", dense, model, rank, 4)
        assert np.array_equal(got, np.split(dense, 4, axis=1)[rank])


@pytest.mark.parametrize("degree", [2, 4])
def test_phi3_fuses_part_after_part(degree: int) -> None:
    model = Architecture("phi3", HEADS, KV_HEADS, HIDDEN)
    queries, keys, values = (numbered(n * HEAD, HIDDEN) + 10_000 * n for n in (HEADS, KV_HEADS, KV_HEADS))
    fused = np.concatenate([queries, keys, values])
    gate_up = numbered(2 * INNER, HIDDEN)
    for rank in range(degree):
        names: list[tuple[str, Table]] = [("q_proj", queries), ("k_proj", keys), ("v_proj", values)]
        apart = [
            part(f"model.layers.0.self_attn.{name}.weight", each, LLAMA, rank, degree) for name, each in names
        ]
        got = part("model.layers.0.self_attn.qkv_proj.weight", fused, model, rank, degree)
        assert np.array_equal(got, np.concatenate(apart))
        got = part("model.layers.0.mlp.gate_up_proj.weight", gate_up, model, rank, degree)
        each = INNER // degree
        gate, up = gate_up[rank * each :][:each], gate_up[INNER + rank * each :][:each]
        assert np.array_equal(got, np.concatenate([gate, up]))


def test_stacked_experts_are_dealt_out_one_by_one() -> None:
    fused, down = numbered(3, 2 * INNER, HIDDEN), numbered(3, HIDDEN, INNER)
    for rank in range(2):
        got = part("model.layers.0.mlp.experts.gate_up_proj", fused, LLAMA, rank, 2)
        one = [part("model.layers.0.mlp.gate_up_proj.weight", each, LLAMA, rank, 2) for each in fused]
        assert np.array_equal(got, np.stack(one))
        got = part("model.layers.0.mlp.experts.down_proj", down, LLAMA, rank, 2)
        assert np.array_equal(got, np.split(down, 2, axis=2)[rank])


def test_scales_go_with_their_matrices() -> None:
    column, row = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"
    assert portion_of(f"{column}.weight_scale", (), LLAMA, rank=1, degree=2) is None
    assert portion_of(f"{row}.weight_scale", (1,), LLAMA, rank=1, degree=2) is None
    outputs = numbered(INNER, 1)
    assert np.array_equal(part(f"{column}.weight_scale", outputs, LLAMA, 1, 2), outputs[INNER // 2 :])
    assert np.array_equal(part(f"{row}.weight_scale", outputs, LLAMA, 1, 2), outputs)
    blocks = numbered(4, 6)
    assert np.array_equal(part(f"{row}.weight_scale_inv", blocks, LLAMA, 1, 2), blocks[:, 3:])


WHOLE = [
    ("model.norm.weight", (HIDDEN,)),
    ("model.layers.0.input_layernorm.weight", (HIDDEN,)),
    ("model.layers.0.self_attn.q_norm.weight", (HEAD,)),
    ("model.layers.0.self_attn.o_proj.bias", (HIDDEN,)),
    ("model.layers.0.block_sparse_moe.gate.weight", (8, HIDDEN)),
    ("model.layers.0.self_attn.kv_a_proj_with_mqa.weight", (12, HIDDEN)),
    ("some.thing", (3, 3)),
]


@pytest.mark.parametrize(("name", "shape"), WHOLE)
def test_what_every_rank_needs_is_whole(name: str, shape: tuple[int, ...]) -> None:
    assert portion_of(name, shape, LLAMA, rank=1, degree=2) is None


REFUSED: list[tuple[str, tuple[int, ...], Architecture, int, str]] = [
    ("model.layers.0.self_attn.q_proj.weight", (32, 32), LLAMA, 3, "8 heads"),
    (
        "model.layers.0.self_attn.k_proj.weight",
        (12, 32),
        Architecture("llama", 12, 3),
        4,
        "3 key and value heads",
    ),
    ("model.layers.0.self_attn.q_proj.weight", (32, 32), Architecture(), 2, "nothing says how many"),
    ("model.embed_tokens.weight", (50257, 32), LLAMA, 2, "50257 words"),
    ("model.layers.0.mlp.down_proj.weight", (32, 25), LLAMA, 2, "25 inputs"),
    ("model.layers.0.mlp.up_proj.qweight", (4, 32), LLAMA, 2, "packs several weights"),
    ("transformer.h.0.attn.c_attn.weight", (40, 32), Architecture("gpt_bigcode", 8, 1), 2, "not known"),
    (
        "transformer.h.0.self_attention.query_key_value.weight",
        (40, 32),
        Architecture("falcon", 8, 1),
        2,
        "not known",
    ),
    ("model.layers.0.mlp.experts.gate_up_proj", (2, 32, 48), Architecture("gpt_oss", 8, 8), 2, "interleaves"),
]


@pytest.mark.parametrize(("name", "shape", "model", "degree", "message"), REFUSED)
def test_what_cannot_be_divided_is_refused(
    name: str, shape: tuple[int, ...], model: Architecture, degree: int, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        portion_of(name, shape, model, rank=0, degree=degree)
    assert caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '{"num_attention_heads": -1}', '{"num_attention_heads": "8"}']
)
def test_a_configuration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"config\.json"):
        parse_architecture(text)


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ('{"num_attention_heads": 8}', lambda a: (a.heads, a.key_value_heads) == (8, 8)),
        ('{"n_head": 12, "model_type": "gpt2"}', lambda a: (a.heads, a.model_type) == (12, "gpt2")),
        (
            '{"model_type": "x", "text_config": {"num_attention_heads": 4, "num_key_value_heads": 1}}',
            lambda a: (a.heads, a.key_value_heads) == (4, 1),
        ),
    ],
)
def test_configurations_of_families_are_read(text: str, check: Callable[[Architecture], bool]) -> None:
    assert check(parse_architecture(text))
