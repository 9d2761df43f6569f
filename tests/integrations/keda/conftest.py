from __future__ import annotations

import pytest

pytest.importorskip("grpc", reason="needs grpcio: pip install 'textnlp-fast[keda]'")
