"""Reads requests of OTLP with the official definitions, one file each, and prints what they say as JSON: an independent reader of what the
program writes. Usage: otlp_decode.py traces|metrics FILE..."""

import json
import sys

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def value(any_value):
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value(one) for one in any_value.array_value.values]
    return None if kind is None else getattr(any_value, kind)


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def span(one):
    return {
        "name": one.name,
        "trace": one.trace_id.hex(),
        "span": one.span_id.hex(),
        "parent": one.parent_span_id.hex(),
        "state": one.trace_state,
        "kind": one.kind,
        "began": one.start_time_unix_nano,
        "ended": one.end_time_unix_nano,
        "attributes": attributes(one.attributes),
        "links": [{"trace": link.trace_id.hex(), "span": link.span_id.hex()} for link in one.links],
        "status": one.status.code,
        "flags": one.flags,
    }


def point(one):
    told = {"attributes": attributes(one.attributes), "began": one.start_time_unix_nano, "at": one.time_unix_nano}
    if hasattr(one, "bucket_counts"):
        told |= {"count": one.count, "sum": one.sum, "counts": list(one.bucket_counts), "bounds": list(one.explicit_bounds)}
    else:
        told["value"] = getattr(one, one.WhichOneof("value"))
    return told


def metric(one):
    kind = one.WhichOneof("data")
    data = getattr(one, kind)
    told = {"name": one.name, "unit": one.unit, "kind": kind, "points": [point(p) for p in data.data_points]}
    if kind != "gauge":
        told["temporality"] = data.aggregation_temporality
    if kind == "sum":
        told["monotonic"] = data.is_monotonic
    return told


def main():
    told = []
    for name in sys.argv[2:]:
        with open(name, "rb") as file:
            body = file.read()
        if sys.argv[1] == "traces":
            for of in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = attributes(of.resource.attributes)
                told += [{"resource": resource, **span(s)} for scope in of.scope_spans for s in scope.spans]
        else:
            for of in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                resource = attributes(of.resource.attributes)
                told += [{"resource": resource, **metric(m)} for scope in of.scope_metrics for m in scope.metrics]
    json.dump(told, sys.stdout)


main()
