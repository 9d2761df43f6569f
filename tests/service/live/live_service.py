"""A service with what a test says of it, as a process of its own; run by the fixture `serve`.

Argument: a JSON object of fields of ServiceConfig. Prints the address once it listens.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from textnlp_fast.service.app import create_app
from textnlp_fast.service.config import ServiceConfig
from textnlp_fast.service.serving import serve
from textnlp_fast.storage import TransferOptions


def main(fields: dict[str, Any]) -> None:
    fields["allowed_paths"] = tuple(Path(path) for path in fields.get("allowed_paths", ()))
    if "tokens" in fields:
        fields["tokens"] = Path(fields["tokens"])
    config = ServiceConfig(port=0, **fields)
    app = create_app(config, options=TransferOptions(threads=2))

    def ready(address: str) -> None:
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()

    serve(app, config, ready=ready)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
