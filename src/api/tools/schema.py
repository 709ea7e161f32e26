#!/usr/bin/env python3
"""Writes data/schema.txt from a published Kubernetes swagger.json.

Run by hand when the API level changes:  tools/schema.py path/to/swagger.json

Only facts are taken over (names, types, list and patch rules), no
descriptions. The format is read by src/schema/load.rs:

    = <type> [<group>/<version>/<Kind> ...] [atomic]
    <field> <token> [attribute ...]

Tokens: s string, i integer, i32, i64, b boolean, n number, q quantity,
t time, T microtime, x bytes, I int-or-string, * anything, o free object,
@type reference, []token list, {}token map.
Attributes: ! required, v a Go struct by value (always present), l=a|s|m:keys
list type, m=a|g map type, p=strategy[:key] patch strategy, d=json default.
"""

import json
import pathlib
import sys

PREFIXES = [
    ("io.k8s.apimachinery.pkg.apis.meta.", "meta."),
    ("io.k8s.apiextensions-apiserver.pkg.apis.", "x."),
    ("io.k8s.kube-aggregator.pkg.apis.", "agg."),
    ("io.k8s.api.", "~"),
]
ALIASES = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "q",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "t",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "T",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "I",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "o",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch": "o",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "o",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON": "*",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray": "*",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool": "*",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray": "*",
}
# Structs held by value although the schema does not say so.
VALUES = {
    "DeploymentSpec.strategy", "DaemonSetSpec.updateStrategy", "StatefulSetSpec.updateStrategy",
    "ReplicaSetSpec.template", "Container.resources", "EphemeralContainer.resources",
    "PersistentVolumeClaimSpec.resources", "ServiceStatus.loadBalancer", "IngressStatus.loadBalancer",
    "NodeStatus.daemonEndpoints", "NodeStatus.nodeInfo", "NodeDaemonEndpoints.kubeletEndpoint",
    "ContainerStatus.state", "ContainerStatus.lastState", "Event.source", "Event.deprecatedSource",
    "Event.regarding", "IngressServiceBackend.port", "NetworkPolicySpec.podSelector",
    "PodTemplateSpec.spec", "JobTemplateSpec.spec", "PodTemplate.template", "TokenReviewStatus.user",
}
# Key fields of associative lists that may be left out.
DEFAULTS = {"ContainerPort.protocol": "TCP", "ServicePort.protocol": "TCP"}


def short(name):
    for long, brief in PREFIXES:
        if name.startswith(long):
            return brief + name[len(long):]
    return name


def token(schema):
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/definitions/")
        return ALIASES.get(name) or "@" + short(name)
    kind, form = schema.get("type"), schema.get("format")
    if kind == "array":
        return "[]" + token(schema["items"])
    if kind == "object":
        more = schema.get("additionalProperties")
        return "{}" + token(more) if isinstance(more, dict) else "o"
    simple = {
        ("string", None): "s", ("string", "byte"): "x", ("integer", None): "i",
        ("integer", "int32"): "i32", ("integer", "int64"): "i64", ("boolean", None): "b",
        ("number", "double"): "n", ("number", None): "n",
    }
    if kind is None:
        return "*"
    return simple[(kind, form)]


def attributes(owner, gvks, field, schema, required):
    out = []
    name = owner.rsplit(".", 1)[1]
    ref = schema.get("$ref", "").removeprefix("#/definitions/")
    struct = bool(ref) and ref not in ALIASES
    if field in required:
        out.append("!")
    meta = ref.endswith((".ObjectMeta", ".ListMeta"))
    by_value = meta or (gvks and field in ("spec", "status")) or f"{name}.{field}" in VALUES
    if struct and (by_value or (field in required and not ref.endswith(".LabelSelector"))):
        out.append("v")
    # Base64 text is a list of bytes to Go; here it is text.
    kind = schema.get("x-kubernetes-list-type") if schema.get("type") == "array" else None
    if kind == "map":
        out.append("l=m:" + ",".join(schema["x-kubernetes-list-map-keys"]))
    elif kind:
        out.append("l=" + kind[0])
    if "x-kubernetes-map-type" in schema:
        out.append("m=" + schema["x-kubernetes-map-type"][0])
    if "x-kubernetes-patch-strategy" in schema:
        key = schema.get("x-kubernetes-patch-merge-key")
        out.append("p=" + schema["x-kubernetes-patch-strategy"] + (":" + key if key else ""))
    if f"{name}.{field}" in DEFAULTS:
        out.append("d=" + json.dumps(DEFAULTS[f"{name}.{field}"]))
    return out


def main():
    swagger = json.loads(pathlib.Path(sys.argv[1]).read_text())
    lines = ["# Written by tools/schema.py. Facts of the Kubernetes v1.36 API; see there for the format."]
    for name, schema in sorted(swagger["definitions"].items()):
        if name in ALIASES:
            continue
        gvks = schema.get("x-kubernetes-group-version-kind", [])
        head = ["=", short(name)] + [f"{g['group']}/{g['version']}/{g['kind']}" for g in gvks]
        if schema.get("x-kubernetes-map-type") == "atomic":
            head.append("atomic")
        lines.append(" ".join(head))
        required = schema.get("required", [])
        for field, inner in sorted(schema.get("properties", {}).items()):
            lines.append(" ".join([field, token(inner)] + attributes(name, gvks, field, inner, required)))
    target = pathlib.Path(__file__).parent.parent / "data" / "schema.txt"
    target.write_text("\n".join(lines) + "\n")


main()
