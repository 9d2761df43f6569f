"""A checkpoint as a sharded model: `shards.json`, by which `merge`, `reshard` and `load` put whole tensors together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textnlp_fast.integrations.torch_dcp.layout import Layout, TensorLayout
from textnlp_fast.integrations.torch_dcp.regions import Box
from textnlp_fast.integrations.torch_dcp.writing import RankRecord
from textnlp_fast.storage.sharding.layout import build_header
from textnlp_fast.storage.sharding.model import (
    MAX_PARTS,
    FilePlan,
    Placement,
    ShardPlan,
    ShardSource,
    ShardTensor,
)
from textnlp_fast.storage.sharding.record import record_bytes
from textnlp_fast.tensors.parallel import Portion

__all__ = ["ranks_document"]


def ranks_document(model: str, layout: Layout, records: Sequence[RankRecord], ranks: int) -> bytes | None:
    """The document; None where it cannot say what there is: pieces along two axes, or pickles among the tensors.

    It is the same from save to save unless the layout changes, so that it is stored once.
    """
    if ranks > MAX_PARTS or layout.pickles or not layout.tensors:
        return None
    files: list[FilePlan] = []
    for record in records:
        if not record.pieces:
            continue
        placements: list[Placement] = []
        for piece in record.pieces:
            portion = None if piece.box is None else _portion(layout.tensors[piece.tensor], piece.box)
            if portion is None or piece.name != piece.tensor:
                return None
            tensor = ShardTensor(piece.tensor, piece.dtype, piece.shape, ())
            placements.append(Placement(tensor, portion[0]))
        header = build_header(placements, _metadata())
        files.append(FilePlan(record.path, header, tuple(placements), rank=record.rank))
    plan = ShardPlan("tensor_parallel", "as PyTorch's ranks held it", tuple(files), ranks)
    return record_bytes(plan, ShardSource(model, (), (), ()), model)


def _metadata() -> Mapping[str, str]:
    return {"format": "pt"}


def _portion(tensor: TensorLayout, box: Box) -> tuple[Portion | None] | None:
    """What a box is of its tensor, in a tuple; None if it is cut along more than one axis."""
    cut = [axis for axis, length in enumerate(tensor.shape) if box.sizes[axis] != length]
    if not cut:
        return (None,)
    if len(cut) > 1:
        return None
    axis = cut[0]
    begin = box.offsets[axis]
    return (Portion(axis, ((begin, begin + box.sizes[axis]),)),)
