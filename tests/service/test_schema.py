"""The OpenAPI document holds the server to it: schemathesis makes requests of it, good and bad."""

from __future__ import annotations

import os
from pathlib import Path
from traceback import format_exception_only
from typing import Any

import pytest

schemathesis = pytest.importorskip("schemathesis")

import httpx  # noqa: E402
from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from hypothesis.errors import Unsatisfiable  # noqa: E402

from textnlp_fast.service import ServiceConfig, create_app  # noqa: E402

_EXAMPLES = 25 if "TEXTNLP_FAST_NIGHTLY" in os.environ else 4
_QUICK = settings(
    max_examples=_EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_every_operation_says_who_may_and_what_may_go_wrong(filled: Path) -> None:
    document = create_app(ServiceConfig(repo=str(filled))).openapi()
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            if path in ("/healthz", "/readyz"):
                assert "security" not in operation, where
                continue
            assert operation["security"], where
            assert operation.get("description"), where
            for status in ("401", "403", "404", "409", "422", "429", "503"):
                content = operation["responses"][status]["content"]
                assert content["application/problem+json"]["schema"]["$ref"].endswith("/Problem"), where
            for status, response in operation["responses"].items():
                # Nothing is answered with "any JSON".
                for kind, media in response.get("content", {}).items():
                    assert media.get("schema") or "json" not in kind, (where, status)


def test_the_server_does_what_its_document_says(
    own: Any, start: Any, tokens: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "allowed"
    folder.mkdir()
    # Each answer is held against one to a token that is none: quicker than a server by itself lets anybody fail.
    service = start("--repo", str(tmp_path / "repository"), "--tokens", str(tokens["file"]),
                    "--allow-path", str(folder), "--failures-per-s", "1000")  # fmt: skip
    who = {"Authorization": f"Bearer {tokens['operator']}"}
    document = httpx.get(f"{service.address}/openapi.json", headers=who, timeout=60).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=service.address)
    # Parameters that are not known are not looked at; that tokens are is the matrix's to show.
    schema.config.generation.update(allow_extra_parameters=False, with_security_parameters=False)
    # What streams does not end; the live side's tests read it.
    schema = schema.exclude(path_regex=r"/events$")
    problems: dict[str, str] = {}
    asked = 0

    def ask(case: Any) -> None:
        nonlocal asked
        asked += 1
        # A name of the right form may name nothing: 404 is the answer to that, and 409 or 422 to others.
        skipped = [schemathesis.checks.positive_data_acceptance]
        case.call_and_validate(headers=who, timeout=120, excluded_checks=skipped)

    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            strategy = operation.as_strategy(generation_mode=mode)
            try:
                _QUICK(given(case=strategy)(ask))()
            except Unsatisfiable:
                continue  # what takes nothing can be given nothing that is wrong
            except Exception as error:  # noqa: BLE001 - each operation is tried, whatever the ones before did
                problems[f"{operation.label}, {mode.name}"] = "".join(format_exception_only(error))
    assert problems == {}, "\n".join(f"{where}: {what}" for where, what in problems.items())
    assert asked > 20 * _EXAMPLES
    assert httpx.get(f"{service.address}/readyz", timeout=60).status_code == 200
    assert "Traceback" not in service.log.read_text()
