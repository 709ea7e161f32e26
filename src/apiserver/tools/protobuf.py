#!/usr/bin/env python3
"""Writes data/protobuf.txt: the field numbers of Kubernetes' protobuf messages.

Run by hand when the API level changes:

    tools/protobuf.py path/to/k8s-pb/src path/to/api/data/schema.txt

k8s-pb (a crate) has the numbers, schema.txt the JSON names. Only facts are
taken over. The format is read by src/http/protobuf/table.rs, one message a line:

    <type> <json field>=<number>[!] ... ^<number>=<type of an inlined struct> ...

`!` marks scalars that Go holds by pointer: there a zero means something,
elsewhere it is what Go writes for "not set".
"""

import pathlib
import re
import sys

PREFIXES = {
    "~": "io.k8s.api.",
    "meta.": "io.k8s.apimachinery.pkg.apis.meta.",
    "x.": "io.k8s.apiextensions-apiserver.pkg.apis.",
    "agg.": "io.k8s.kube-aggregator.pkg.apis.",
}
FOLDERS = [
    ("io.k8s.apimachinery.pkg.apis.", "apimachinery/pkg/apis/"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.", "apiextensions_apiserver/pkg/apis/"),
    ("io.k8s.kube-aggregator.pkg.apis.", "kube_aggregator/pkg/apis/"),
    ("io.k8s.api.", "api/"),
]
# Scalars by pointer in Go, by JSON name (a mark too many is harmless).
POINTERS = set("""
activeDeadlineSeconds allocateLoadBalancerNodePorts allowPrivilegeEscalation allowVolumeExpansion appProtocol
automountServiceAccountToken backoffLimit backoffLimitPerIndex blockOwnerDeletion collisionCount completionMode
completions controller defaultMode deletionGracePeriodSeconds enableServiceLinks endPort expirationSeconds
failedJobsHistoryLimit fsGroup fsGroupChangePolicy gracePeriodSeconds holderIdentity hostUsers immutable
ingressClassName internalTrafficPolicy ipMode leaseDurationSeconds leaseTransitions loadBalancerClass manualSelector
maxFailedIndexes maxSurge maxUnavailable minAvailable minDomains minReplicas mode mountPropagation nodeAffinityPolicy
nodeTaintsPolicy optional orphanDependents parallelism partition preemptionPolicy preferredHolder priority privileged
progressDeadlineSeconds readOnlyRootFilesystem ready recursiveReadOnly remainingItemCount replicas
revisionHistoryLimit runAsGroup runAsNonRoot runAsUser runtimeClassName serving setHostnameAsFQDN
shareProcessNamespace started startingDeadlineSeconds storageClassName successfulJobsHistoryLimit suspend
terminating terminatingReplicas terminationGracePeriodSeconds timeZone timeoutSeconds tolerationSeconds
trafficDistribution ttlSecondsAfterFinished volumeAttributesClassName volumeMode hostname zone nodeName
""".split())
# Not by pointer, although a field of the same name elsewhere is.
VALUES = {"PodSpec.nodeName", "PodSpec.hostname", "ContainerStatus.ready", "Probe.timeoutSeconds",
          "ObjectReference.name"}
# Newer than the crate: type -> fields.
NEWER = {
    "PodSpec": {"schedulingGroup": 43},
    "PodSchedulingGroup": {"podGroupName": 1},
    "PodStatus": {"nodeAllocatableResourceClaimStatuses": 21},
    "NodeAllocatableResourceClaimStatus": {"resourceClaimName": 1, "containers": 2, "resources": 3},
    "ResourceHealth": {"message": 6},
    "VolumeMountStatus": {"volumeStatus": 5},
    "VolumeStatus": {"image": 1},
    "ImageVolumeStatus": {"imageRef": 1},
}


def read_messages(folder):
    """folder of the crate -> {struct in lower case: (struct, [(field, number, is message, type)])}"""
    messages = {}
    for path in folder.rglob("mod.rs"):
        found = {}
        text = re.sub(r"^\s*///.*\n", "", path.read_text(), flags=re.M)
        for struct, body in re.findall(r"pub struct (\w+) \{\n(.*?)\n\}", text, flags=re.S):
            fields = []
            for attributes, name, kind in re.findall(
                r"#\[prost\((.*?)\)\]\s*pub (?:r#)?(\w+):\s*(.*?),\s*(?=#\[prost|$)", body, flags=re.S
            ):
                number = re.search(r'tag\s*=\s*"(\d+)"', attributes).group(1)
                fields.append((name, number, attributes.startswith("message"), kind))
            found[struct.lower()] = (struct, fields)
        messages[path.parent.relative_to(folder).as_posix()] = found
    return messages


def plain(name):
    return name.replace("_", "").lower()


def main():
    source, schema = map(pathlib.Path, sys.argv[1:3])
    messages = read_messages(source)
    types, current = {}, None
    for line in schema.read_text().splitlines():
        if line.startswith("= "):
            short = line.split()[1]
            full = next((PREFIXES[p] + short[len(p):] for p in PREFIXES if short.startswith(p)), short)
            current = types.setdefault(full, {})
        elif current is not None and line and not line.startswith("#"):
            current[plain(line.split()[0])] = line.split()[0]

    lines, missing, inlined = {}, [], {}

    def emit(full, fields, module, struct):
        out, seen = [], set()
        for rust, number, is_message, rust_type in messages[module].get(struct.lower(), (struct, []))[1]:
            json = fields.get(plain(rust))
            if json is None and plain(rust).endswith("type"):
                json = fields.get("type") if plain(rust) in ("type", "rtype") else None
            if json:
                seen.add(json)
                pointer = json in POINTERS and f"{struct}.{json}" not in VALUES
                out.append(f"{json}={number}{'!' if pointer else ''}")
            elif is_message and (m := re.search(r"Option<\s*(?:super::)*(?:\w+::)*(\w+),?\s*>", rust_type)):
                inner = f"{full.rsplit('.', 1)[0]}.{m.group(1)}"
                names = messages[module].get(m.group(1).lower(), ("", []))[1]
                if inner not in types and not any(plain(name) in fields for name, *_ in names):
                    continue  # a field that the newer API has dropped
                seen |= emit_inlined(inner, fields, module, m.group(1))
                out.append(f"^{number}={inner}")
        for json, number in NEWER.get(struct, {}).items():
            out.append(f"{json}={number}")
            seen.add(json)
        lines[full] = " ".join([full, *out])
        return seen

    def emit_inlined(inner, fields, module, struct):
        if inner in types:
            return set(types[inner].values())
        merged = inlined.setdefault(inner, {})
        merged.update(fields)
        return emit(inner, merged, module, struct)

    for full, fields in types.items():
        for prefix, folder in FOLDERS:
            if full.startswith(prefix):
                *package, struct = full[len(prefix):].split(".")
                module = folder + "/".join(package)
                break
        else:
            continue
        if struct.lower() not in messages.get(module, {}) and struct not in NEWER:
            missing.append(full)
            continue
        seen = emit(full, fields, module, struct)
        for json in fields.values():
            if json not in seen and json not in ("apiVersion", "kind"):
                missing.append(f"{full}.{json}")
    print("\n".join(missing), file=sys.stderr)
    header = "# Written by tools/protobuf.py. Field numbers of Kubernetes' protobuf messages; see there for the format.\n"
    out = pathlib.Path(__file__).parent.parent / "data/protobuf.txt"
    out.write_text(header + "".join(lines[name] + "\n" for name in sorted(lines)))


main()
