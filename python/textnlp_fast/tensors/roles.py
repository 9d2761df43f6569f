"""What a tensor is for, told by its name: which layer it is in, and whether it is attention, an MLP, a norm, ...

Names follow no standard. The rules here are read off the checkpoints of the families that people use; what none of them
knows is `other`, never an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["KINDS", "Role", "role_of"]

#: Kinds in the order in which a person would list them.
KINDS: Final = (
    "embedding",
    "attention",
    "mlp",
    "experts",
    "router",
    "ssm",
    "norm",
    "head",
    "other",
)

_NUMBER = re.compile(r"[0-9]{1,6}", re.ASCII)
_GLUED = re.compile(r"(?P<stack>layers?|blocks?|h)_?(?P<number>[0-9]{1,6})", re.ASCII)
_NORM = re.compile(r".*norm.*|(.*_)?ln(_?[0-9a-z]+)?", re.ASCII)
_EXPERT = re.compile(r"(?:shared_|local_|routed_)?experts?(_gate_up_proj|_down_proj)?", re.ASCII)
_ROUTER = re.compile(r"router.*|shared_expert_gate|e_score_correction_bias|(expert_)?gating", re.ASCII)
_SSM = re.compile(r"mamba[0-9]?|mixer|ssm|a_log|x_proj|dt_proj|conv1d|ssm_.*", re.ASCII)
_ATTENTION = re.compile(
    r".*attn.*|.*attention.*|[qkvo]_(?:[ab]_)?proj.*|[qkv]|query|key|value|w?qkv(_proj)?|query_key_value|"
    r"kv_[ab]_proj.*|c_attn|to_(?:[qkv]|out)|w[qkvo]",
    re.ASCII,
)
_MLP = re.compile(
    r"mlp|.*ffn.*|ff|feed_?forward.*|fc_?[0-9]*|(gate|up|down|gate_up)_proj|w[0-9]|c_fc|wi(_[0-9])?|intermediate|"
    r"dense_(h_to_4h|4h_to_h)|densereludense|lin[12]|linear_?[12]|block_sparse_moe|.*moe.*",
    re.ASCII,
)
_EMBEDDING = re.compile(
    r".*embed.*|wte|wpe|wpm|shared|.*_emb|pos_emb.*|cls_token|mask_token|class_embedding", re.ASCII
)
_HEAD = re.compile(
    r".*lm_head|head|embed_out|score|classifier|pooler|predictions|seq_relationship|qa_outputs|v_head|.*_head|cls",
    re.ASCII,
)
# Ends that say nothing about the module they belong to.
_ENDS = frozenset(
    {"weight", "bias", "scales", "qweight", "qzeros", "g_idx", "weight_scale", "weight_scale_inv"}
)


@dataclass(frozen=True, slots=True)
class Role:
    """A tensor's place in its model.

    `stack` is the name up to the layer's number (`model.layers`, `encoder.block`), empty outside layers. `kind` is
    one of `KINDS`; `expert` the expert's number in a mixture where the tensor is one expert's.
    """

    kind: str
    stack: str = ""
    layer: int | None = None
    expert: int | None = None


def role_of(name: str) -> Role:
    """The role that a tensor's name tells."""
    parts = re.split(r"[./]", name)
    stack, layer, expert = "", None, None
    inside = parts
    for place, part in enumerate(parts):
        glued = _GLUED.fullmatch(part.lower())
        number = int(part) if _NUMBER.fullmatch(part) else int(glued["number"]) if glued else None
        if number is None:
            continue
        if place and glued is None and _EXPERT.fullmatch(parts[place - 1].lower()):
            expert = number if expert is None else expert
        elif layer is None:
            layer, inside = number, parts[place + 1 :]
            stack = ".".join([*parts[:place], glued["stack"]] if glued else parts[:place])
    return Role(_kind([part.lower() for part in inside], layer is not None), stack, layer, expert)


def _kind(parts: list[str], in_layer: bool) -> str:
    words = [part for part in parts if part not in _ENDS and not part.isdigit()] or parts
    if not words:
        return "other"
    # The nearest module's name decides about norms: one inside attention is still a norm.
    if _NORM.fullmatch(words[-1]):
        return "norm"
    if any(_ROUTER.fullmatch(word) for word in words) or (
        words[-1] == "gate" and len(words) > 1 and words[-2] not in {"expert", "experts"}
    ):
        return "router"
    if any(_EXPERT.fullmatch(word) for word in words):
        return "experts"
    if not in_layer:
        if any(_HEAD.fullmatch(word) for word in words) or words == ["output"]:
            return "head"
        if any(_EMBEDDING.fullmatch(word) for word in words):
            return "embedding"
    for kind, pattern in (("ssm", _SSM), ("attention", _ATTENTION), ("mlp", _MLP), ("embedding", _EMBEDDING)):
        if any(pattern.fullmatch(word) for word in words):
            return kind
    if in_layer and words[0] == "output":  # BERT's second half of the MLP
        return "mlp"
    return "other"
