#!/usr/bin/env python3
"""Writes data/rbac.txt: the roles and bindings that every cluster starts with.

Run by hand when the API level changes:

    tools/rbac.py path/to/upstream/rbac/*.yaml

Only facts are taken over. The format is read by src/auth/rbac/defaults.rs;
lists are separated by commas, fields by blanks:

    role NAME [NAMESPACE/] [+LABEL ...] [<LABEL]    a role; +LABEL: it has the label, <LABEL: it gathers those that have it
      VERBS GROUPS RESOURCES [NAMES]                a rule of it; the group "" is written `core`
      VERBS url PATHS                               a rule about paths
    bind NAME [NAMESPACE/] ROLE SUBJECT ...         a binding; ROLE is Role/NAME or ClusterRole/NAME,
                                                    SUBJECT is User/NAME, Group/NAME or ServiceAccount/NAMESPACE/NAME
"""

import pathlib
import sys

import yaml

OUT = pathlib.Path(__file__).parent.parent / "data" / "rbac.txt"
PREFIX = "rbac.authorization.k8s.io/"
# In the files at hand, but of a distribution and not of upstream.
FOREIGN = ("openshift", "service-ca-cert-publisher")


def rule(r):
    verbs = ",".join(r["verbs"])
    if "nonResourceURLs" in r:
        return f"  {verbs} url {','.join(r['nonResourceURLs'])}"
    groups = ",".join(g or "core" for g in r["apiGroups"])
    names = " " + ",".join(r["resourceNames"]) if "resourceNames" in r else ""
    return f"  {verbs} {groups} {','.join(r['resources'])}{names}"


def entry(o):
    meta = o["metadata"]
    name = meta["name"] + (f" {meta['namespace']}/" if "namespace" in meta else "")
    if o["kind"].endswith("Binding"):
        subjects = [
            "/".join([s["kind"]] + ([s["namespace"]] if s["kind"] == "ServiceAccount" else []) + [s["name"]])
            for s in o.get("subjects") or []
        ]
        return [" ".join(["bind", name, f"{o['roleRef']['kind']}/{o['roleRef']['name']}"] + subjects)]
    words = ["role", name]
    words += ["+" + k.removeprefix(PREFIX) for k in sorted(meta["labels"]) if k.startswith(PREFIX)]
    for selector in (o.get("aggregationRule") or {}).get("clusterRoleSelectors", []):
        words += ["<" + k.removeprefix(PREFIX) for k in selector["matchLabels"]]
    return [" ".join(words)] + [rule(r) for r in o.get("rules") or []]


def main():
    lines = ["# Written by tools/rbac.py; see there for the format."]
    for path in sys.argv[1:]:
        for o in yaml.safe_load(open(path))["items"]:
            if not any(word in o["metadata"]["name"] for word in FOREIGN):
                lines += entry(o)
    OUT.write_text("\n".join(lines) + "\n")


main()
