"""The messages of `externalscaler.proto`, built when this is imported.

Code that protoc generates runs only with protobuf versions near the generator's, and everybody's environment pins
another one. Descriptors and the classes made from them are public interface since protobuf 4.22, and stay.
They live in a pool of their own: another package that brings the same file is not disturbed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["CLASSES", "HEALTH_CLASSES", "HEALTH_SERVICE", "SERVICE", "file_descriptor"]

PACKAGE: Final = "externalscaler"
SERVICE: Final = "externalscaler.ExternalScaler"
HEALTH_SERVICE: Final = "grpc.health.v1.Health"

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final[Mapping[str, Any]] = {
    "string": _Field.TYPE_STRING,
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "double": _Field.TYPE_DOUBLE,
}
_METRIC: Final = (("metricName", "string"),)
#: Message -> its fields, numbered from 1 as they stand: name and type; `*` repeats it, `map` is map<string, string>.
_MESSAGES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "ScaledObjectRef": (("name", "string"), ("namespace", "string"), ("scalerMetadata", "map")),
    "IsActiveResponse": (("result", "bool"),),
    "GetMetricSpecResponse": (("metricSpecs", "*MetricSpec"),),
    "MetricSpec": (*_METRIC, ("targetSize", "int64"), ("targetSizeFloat", "double")),
    "GetMetricsRequest": (("scaledObjectRef", "ScaledObjectRef"), ("metricName", "string")),
    "GetMetricsResponse": (("metricValues", "*MetricValue"),),
    "MetricValue": (*_METRIC, ("metricValue", "int64"), ("metricValueFloat", "double")),
}
#: grpc.health.v1, as far as a probe of Kubernetes goes. `status` is an enum there: the same bytes as an int32.
_HEALTH: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "HealthCheckRequest": (("service", "string"),),
    "HealthCheckResponse": (("status", "int32"),),
}


def file_descriptor(
    package: str = PACKAGE, messages: Mapping[str, tuple[tuple[str, str], ...]] = _MESSAGES
) -> Any:
    """The FileDescriptorProto of these messages."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"textnlp_fast/{package}.proto", package=package, syntax="proto3"
    )
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for number, (field_name, written) in enumerate(fields, 1):
            repeated = written.startswith("*") or written == "map"
            field = message.field.add(
                name=field_name,
                number=number,
                json_name=field_name,
                label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL,
            )
            kind = written.removeprefix("*")
            if written == "map":
                kind = f"{name}.{field_name[0].upper()}{field_name[1:]}Entry"
                entry = message.nested_type.add(name=kind.rsplit(".", 1)[1])
                entry.options.map_entry = True
                for entry_number, entry_name in enumerate(("key", "value"), 1):
                    entry.field.add(
                        name=entry_name,
                        number=entry_number,
                        json_name=entry_name,
                        label=_Field.LABEL_OPTIONAL,
                        type=_Field.TYPE_STRING,
                    )
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".{package}.{kind}"
    return file


def _classes(package: str, messages: Mapping[str, tuple[tuple[str, str], ...]]) -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file_descriptor(package, messages).SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in messages
    }


CLASSES: Final[Mapping[str, Any]] = _classes(PACKAGE, _MESSAGES)
HEALTH_CLASSES: Final[Mapping[str, Any]] = _classes("grpc.health.v1", _HEALTH)
