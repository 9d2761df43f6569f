"""`textnlp-fast reshard`: the same as `shard`, under the name that one looks for."""

from __future__ import annotations

from textnlp_fast.cli.arguments import StorageVerb
from textnlp_fast.cli.shard import command as shard

__all__ = ["command"]

EPILOG = """\b
Examples:
  textnlp-fast reshard ranks-8/ ranks-4/ --strategy tensor_parallel --ranks 4
  textnlp-fast reshard shards/ layers/ --strategy layer_based
"""

command = StorageVerb(
    name="reshard",
    params=shard.params,
    callback=shard.callback,
    epilog=EPILOG,
    help="Make OUTPUT other shards of what MODEL holds: of ranks, layers, stages or files made before.\n\n"
    "Nothing is merged on the way, and only ranges of bytes move.",
)
