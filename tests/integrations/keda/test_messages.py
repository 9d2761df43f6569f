"""The descriptors that are built at import are those that protoc makes of `externalscaler.proto`."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.json_format import MessageToDict

from textnlp_fast.integrations.keda.messages import CLASSES, SERVICE, file_descriptor


def test_they_are_what_protoc_compiles(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="needs grpcio-tools")
    source = tmp_path / "externalscaler.proto"
    source.write_text((files("textnlp_fast.integrations.keda") / "externalscaler.proto").read_text())
    out = tmp_path / "set.bin"
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{tmp_path}",
        f"--descriptor_set_out={out}",
        str(source),
    ]
    subprocess.run(command, check=True, timeout=60)
    compiled = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]
    ours = MessageToDict(file_descriptor())
    theirs = MessageToDict(compiled)
    assert ours["messageType"] == theirs["messageType"]
    assert f"{compiled.package}.{compiled.service[0].name}" == SERVICE
    methods = {
        one.name: (one.input_type, one.output_type, one.server_streaming)
        for one in compiled.service[0].method
    }
    assert methods == {
        "IsActive": (".externalscaler.ScaledObjectRef", ".externalscaler.IsActiveResponse", False),
        "StreamIsActive": (".externalscaler.ScaledObjectRef", ".externalscaler.IsActiveResponse", True),
        "GetMetricSpec": (".externalscaler.ScaledObjectRef", ".externalscaler.GetMetricSpecResponse", False),
        "GetMetrics": (".externalscaler.GetMetricsRequest", ".externalscaler.GetMetricsResponse", False),
    }


def test_bytes_by_hand() -> None:
    """After the encoding that protobuf documents: field 1 a string, field 2 a varint, field 3 a double."""
    value = CLASSES["MetricValue"](metricName="ab", metricValue=300, metricValueFloat=300.0)
    assert value.SerializeToString() == b"\x0a\x02ab\x10\xac\x02\x19\x00\x00\x00\x00\x00\xc0r@"
    reference = CLASSES["ScaledObjectRef"].FromString(b"\x0a\x01n\x12\x01s\x1a\x06\x0a\x01k\x12\x01v")
    assert (reference.name, reference.namespace, dict(reference.scalerMetadata)) == ("n", "s", {"k": "v"})
