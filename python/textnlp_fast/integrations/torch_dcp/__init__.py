"""PyTorch's Distributed Checkpoint over a repository: each save is a version, most of it deltas.

    import torch.distributed.checkpoint as dcp
    from textnlp_fast.integrations.torch_dcp import RepositoryReader, RepositoryWriter

    writer = RepositoryWriter("s3://bucket/models", "my-model")
    dcp.save(state, storage_writer=writer, checkpoint_id="1.2.0")
    dcp.load(state, storage_reader=RepositoryReader("s3://bucket/models", "my-model@1.2.0"))

Every rank codes its own pieces of tensors against those of the version before and writes them to the bucket; the
coordinator publishes one manifest at the end. Until then nobody sees the version, after, all of it is there. Written
to torch 2.13; `docs/guide/dcp.md` is the guide.
"""

from textnlp_fast.errors import MissingPackageError

try:
    import torch.distributed.checkpoint  # noqa: F401  (asked for, so that the error below can say what is missing)
except ImportError as _error:
    raise MissingPackageError(
        f"a distributed checkpoint needs PyTorch, which is not installed ({_error})",
        hint="Run `pip install torch`.",
    ) from _error

from textnlp_fast.integrations.torch_dcp.publishing import SaveReport
from textnlp_fast.integrations.torch_dcp.reader import RepositoryReader
from textnlp_fast.integrations.torch_dcp.writer import RepositoryWriter

__all__ = ["RepositoryReader", "RepositoryWriter", "SaveReport"]
