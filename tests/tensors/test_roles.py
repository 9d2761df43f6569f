"""Names from published checkpoints, and what they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.tensors import KINDS, Role, role_of

# (family, name, kind, stack, layer, expert)
NAMES = [
    ("llama", "model.embed_tokens.weight", "embedding", "", None, None),
    ("llama", "model.layers.12.self_attn.q_proj.weight", "attention", "model.layers", 12, None),
    ("llama", "model.layers.12.self_attn.rotary_emb.inv_freq", "attention", "model.layers", 12, None),
    ("llama", "model.layers.0.mlp.gate_proj.weight", "mlp", "model.layers", 0, None),
    ("llama", "model.layers.79.input_layernorm.weight", "norm", "model.layers", 79, None),
    ("llama", "model.norm.weight", "norm", "", None, None),
    ("llama", "lm_head.weight", "head", "", None, None),
    ("llama, first release", "tok_embeddings.weight", "embedding", "", None, None),
    ("llama, first release", "layers.3.attention.wo.weight", "attention", "layers", 3, None),
    ("llama, first release", "layers.3.feed_forward.w2.weight", "mlp", "layers", 3, None),
    ("llama, first release", "layers.3.ffn_norm.weight", "norm", "layers", 3, None),
    ("llama, first release", "output.weight", "head", "", None, None),
    ("llama, adapter", "base_model.model.model.layers.4.self_attn.v_proj.lora_A.weight", "attention",
     "base_model.model.model.layers", 4, None),
    ("qwen3", "model.layers.5.self_attn.q_norm.weight", "norm", "model.layers", 5, None),
    ("gemma2", "model.layers.5.pre_feedforward_layernorm.weight", "norm", "model.layers", 5, None),
    ("phi3", "model.layers.5.mlp.gate_up_proj.weight", "mlp", "model.layers", 5, None),
    ("gpt2", "wte.weight", "embedding", "", None, None),
    ("gpt2", "transformer.wpe.weight", "embedding", "", None, None),
    ("gpt2", "h.3.attn.c_attn.weight", "attention", "h", 3, None),
    ("gpt2", "h.3.attn.c_proj.bias", "attention", "h", 3, None),
    ("gpt2", "h.3.mlp.c_proj.weight", "mlp", "h", 3, None),
    ("gpt2", "transformer.h.11.ln_2.bias", "norm", "transformer.h", 11, None),
    ("gpt2", "ln_f.weight", "norm", "", None, None),
    ("gpt-neox", "gpt_neox.layers.2.attention.query_key_value.weight", "attention", "gpt_neox.layers", 2, None),
    ("gpt-neox", "gpt_neox.layers.2.mlp.dense_h_to_4h.weight", "mlp", "gpt_neox.layers", 2, None),
    ("gpt-neox", "embed_out.weight", "head", "", None, None),
    ("mixtral", "model.layers.7.block_sparse_moe.experts.3.w1.weight", "experts", "model.layers", 7, 3),
    ("mixtral", "model.layers.7.block_sparse_moe.gate.weight", "router", "model.layers", 7, None),
    ("qwen-moe", "model.layers.23.mlp.experts.59.down_proj.weight", "experts", "model.layers", 23, 59),
    ("qwen-moe", "model.layers.23.mlp.shared_expert.up_proj.weight", "experts", "model.layers", 23, None),
    ("qwen-moe", "model.layers.23.mlp.shared_expert_gate.weight", "router", "model.layers", 23, None),
    ("qwen-moe", "model.layers.23.mlp.gate.weight", "router", "model.layers", 23, None),
    ("deepseek", "model.layers.9.mlp.gate.e_score_correction_bias", "router", "model.layers", 9, None),
    ("deepseek", "model.layers.9.self_attn.kv_a_proj_with_mqa.weight", "attention", "model.layers", 9, None),
    ("deepseek", "model.layers.9.self_attn.kv_a_layernorm.weight", "norm", "model.layers", 9, None),
    ("deepseek", "model.layers.9.mlp.shared_experts.down_proj.weight_scale_inv", "experts", "model.layers", 9, None),
    ("gpt-oss", "model.layers.1.mlp.experts.gate_up_proj_blocks", "experts", "model.layers", 1, None),
    ("gpt-oss", "model.layers.1.mlp.router.weight", "router", "model.layers", 1, None),
    ("gpt-oss", "model.layers.1.self_attn.sinks", "attention", "model.layers", 1, None),
    ("bert", "bert.embeddings.word_embeddings.weight", "embedding", "", None, None),
    ("bert", "embeddings.LayerNorm.weight", "norm", "", None, None),
    ("bert", "bert.encoder.layer.4.attention.self.query.weight", "attention", "bert.encoder.layer", 4, None),
    ("bert", "bert.encoder.layer.4.attention.output.dense.bias", "attention", "bert.encoder.layer", 4, None),
    ("bert", "bert.encoder.layer.4.attention.output.LayerNorm.bias", "norm", "bert.encoder.layer", 4, None),
    ("bert", "bert.encoder.layer.4.intermediate.dense.weight", "mlp", "bert.encoder.layer", 4, None),
    ("bert", "bert.encoder.layer.4.output.dense.weight", "mlp", "bert.encoder.layer", 4, None),
    ("bert", "bert.pooler.dense.weight", "head", "", None, None),
    ("bert", "cls.predictions.decoder.weight", "head", "", None, None),
    ("t5", "shared.weight", "embedding", "", None, None),
    ("t5", "encoder.block.0.layer.1.DenseReluDense.wi_0.weight", "mlp", "encoder.block", 0, None),
    ("t5", "decoder.block.6.layer.0.SelfAttention.o.weight", "attention", "decoder.block", 6, None),
    ("t5", "decoder.block.6.layer.1.EncDecAttention.q.weight", "attention", "decoder.block", 6, None),
    ("mamba", "backbone.embeddings.weight", "embedding", "", None, None),
    ("mamba", "backbone.layers.40.mixer.A_log", "ssm", "backbone.layers", 40, None),
    ("mamba", "backbone.layers.40.mixer.in_proj.weight", "ssm", "backbone.layers", 40, None),
    ("mamba", "backbone.layers.40.mixer.conv1d.weight", "ssm", "backbone.layers", 40, None),
    ("mamba", "backbone.layers.40.norm.weight", "norm", "backbone.layers", 40, None),
    ("mamba", "backbone.norm_f.weight", "norm", "", None, None),
    ("jamba", "model.layers.0.mamba.dt_proj.bias", "ssm", "model.layers", 0, None),
    ("jamba", "model.layers.1.feed_forward.experts.2.up_proj.weight", "experts", "model.layers", 1, 2),
    ("vit", "vision_tower.vision_model.encoder.layers.8.mlp.fc1.weight", "mlp",
     "vision_tower.vision_model.encoder.layers", 8, None),
    ("blocks", "blocks.5.attn.qkv.weight", "attention", "blocks", 5, None),
    ("slashes", "decoder/layer_12/mlp/kernel", "mlp", "decoder.layer", 12, None),
    ("classifier", "score.weight", "head", "", None, None),
    ("nothing known", "foo.bar", "other", "", None, None),
    ("nothing at all", "", "other", "", None, None),
    ("only a number", "7", "other", "", 7, None),
    ("a number beyond all layers", "layers.12345678901234567890.mlp.w1", "mlp", "", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("family", "name", "kind", "stack", "layer", "expert"), NAMES)
def test_names_of_real_models(
    family: str, name: str, kind: str, stack: str, layer: int | None, expert: int | None
) -> None:
    assert role_of(name) == Role(kind, stack, layer, expert), family


@given(st.text(alphabet=st.sampled_from("abchlno019_./*\x00é٣ "), max_size=60) | st.text(max_size=40))
def test_any_name_has_a_role(name: str) -> None:
    role = role_of(name)
    assert role.kind in KINDS
    assert role.layer is None or 0 <= role.layer < 1_000_000
