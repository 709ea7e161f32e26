"""Kubernetes' Python client at its default settings against a cluster.

    PYTHONPATH=... KUBECONFIG=... python3 tests/clients/scenario.py NAMESPACE

The namespace exists. Ends with status 0 and the line `all good`, or with the
traceback of what was not as expected.
"""

import sys
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException

DEADLINE_SECONDS = 120


def eventually(what, condition):
    """Waits until the condition gives something true."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"never happened: {what}")
        time.sleep(0.05)


def refused(status, action):
    """Expects an action to be refused with a status."""
    try:
        action()
    except ApiException as error:
        assert error.status == status, error
        return error
    raise AssertionError(f"expected {status}")


def discovery():
    version = client.VersionApi().get_code()
    assert (version.major, version.minor) == ("1", "36"), version
    groups = {group.name for group in client.ApisApi().get_api_versions().groups}
    for wanted in ("apps", "batch", "autoscaling", "networking.k8s.io", "rbac.authorization.k8s.io", "storage.k8s.io"):
        assert wanted in groups, wanted


def core(namespace):
    api = client.CoreV1Api()
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="first", labels={"a": "b"}), data={"k": "v"})
    created = api.create_namespaced_config_map(namespace, body)
    assert created.metadata.uid and created.metadata.creation_timestamp
    assert refused(409, lambda: api.create_namespaced_config_map(namespace, body)).reason == "Conflict"
    created.data["k"] = "w"
    updated = api.replace_namespaced_config_map("first", namespace, created)
    refused(409, lambda: api.replace_namespaced_config_map("first", namespace, created))
    patched = api.patch_namespaced_config_map("first", namespace, {"data": {"l": "m"}})
    assert patched.data == {"k": "w", "l": "m"}, patched.data
    assert int(patched.metadata.resource_version) > int(updated.metadata.resource_version)
    selected = api.list_namespaced_config_map(namespace, label_selector="a=b", limit=1)
    assert [item.metadata.name for item in selected.items] == ["first"]
    refused(404, lambda: api.read_namespaced_config_map("missing", namespace))
    dry = api.create_namespaced_config_map(
        namespace, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="dry")), dry_run="All"
    )
    assert dry.metadata.name == "dry"
    refused(404, lambda: api.read_namespaced_config_map("dry", namespace))

    # Watch from the list, as informers do.
    start = api.list_namespaced_config_map(namespace).metadata.resource_version
    api.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="second")))
    api.delete_namespaced_config_map("second", namespace)
    seen = []
    stream = watch.Watch()
    for event in stream.stream(
        api.list_namespaced_config_map, namespace, resource_version=start, timeout_seconds=DEADLINE_SECONDS
    ):
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            stream.stop()
    assert seen == [("ADDED", "second"), ("DELETED", "second")], seen


def workloads(namespace):
    apps = client.AppsV1Api()
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"app": "web"}),
        spec=client.V1PodSpec(containers=[client.V1Container(name="web", image="barque-test/none:1")]),
    )
    spec = client.V1DeploymentSpec(
        replicas=2, selector=client.V1LabelSelector(match_labels={"app": "web"}), template=template
    )
    apps.create_namespaced_deployment(
        namespace, client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec)
    )
    eventually("the deployment is ready", lambda: apps.read_namespaced_deployment("web", namespace).status.ready_replicas == 2)
    scale = apps.read_namespaced_deployment_scale("web", namespace)
    scale.spec.replicas = 3
    apps.replace_namespaced_deployment_scale("web", namespace, scale)
    eventually("it is scaled", lambda: apps.read_namespaced_deployment("web", namespace).status.ready_replicas == 3)
    pods = client.CoreV1Api().list_namespaced_pod(namespace, label_selector="app=web").items
    assert len(pods) == 3 and all(pod.spec.node_name for pod in pods)
    # Other kinds are accepted and shown, whoever may work on them.
    client.BatchV1Api().create_namespaced_cron_job(
        namespace,
        client.V1CronJob(
            metadata=client.V1ObjectMeta(name="nightly"),
            spec=client.V1CronJobSpec(
                schedule="0 3 * * *",
                suspend=True,
                job_template=client.V1JobTemplateSpec(
                    spec=client.V1JobSpec(
                        template=client.V1PodTemplateSpec(
                            spec=client.V1PodSpec(
                                restart_policy="Never", containers=[client.V1Container(name="c", image="i")]
                            )
                        )
                    )
                ),
            ),
        ),
    )
    job = client.BatchV1Api().read_namespaced_cron_job("nightly", namespace)
    assert job.spec.concurrency_policy == "Allow" and job.spec.successful_jobs_history_limit == 3
    client.NetworkingV1Api().create_namespaced_ingress(
        namespace,
        client.V1Ingress(
            metadata=client.V1ObjectMeta(name="web"),
            spec=client.V1IngressSpec(
                default_backend=client.V1IngressBackend(
                    service=client.V1IngressServiceBackend(name="web", port=client.V1ServiceBackendPort(number=80))
                )
            ),
        ),
    )
    assert client.NetworkingV1Api().list_namespaced_ingress(namespace).items[0].metadata.name == "web"


def access(namespace):
    review = client.AuthorizationV1Api().create_self_subject_access_review(
        client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(
                resource_attributes=client.V1ResourceAttributes(namespace=namespace, verb="create", resource="pods")
            )
        )
    )
    assert review.status.allowed
    core_api = client.CoreV1Api()
    eventually(
        "the namespace has its account",
        lambda: any(a.metadata.name == "default" for a in core_api.list_namespaced_service_account(namespace).items),
    )
    token = core_api.create_namespaced_service_account_token(
        "default", namespace, client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
    )
    found = client.AuthenticationV1Api().create_token_review(
        client.V1TokenReview(spec=client.V1TokenReviewSpec(token=token.status.token))
    )
    assert found.status.authenticated, found.status
    assert found.status.user.username == f"system:serviceaccount:{namespace}:default"


def custom(namespace):
    extensions = client.ApiextensionsV1Api()
    name = f"crates.{namespace}.example.com"
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {"weight": {"type": "integer", "minimum": 1}, "label": {"type": "string", "default": "none"}},
            },
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    extensions.create_custom_resource_definition(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": name},
            "spec": {
                "group": f"{namespace}.example.com",
                "scope": "Namespaced",
                "names": {"plural": "crates", "singular": "crate", "kind": "Crate", "listKind": "CrateList"},
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "subresources": {"status": {}},
                        "schema": {"openAPIV3Schema": schema},
                    }
                ],
            },
        }
    )

    def established():
        conditions = extensions.read_custom_resource_definition(name).status.conditions or []
        return any(c.type == "Established" and c.status == "True" for c in conditions)

    eventually("the definition is established", established)
    crates = dynamic.DynamicClient(client.ApiClient()).resources.get(
        api_version=f"{namespace}.example.com/v1", kind="Crate"
    )
    body = {
        "apiVersion": f"{namespace}.example.com/v1",
        "kind": "Crate",
        "metadata": {"name": "c"},
        "spec": {"weight": 3, "dropped": True},
    }
    made = crates.create(body=body, namespace=namespace)
    assert made.spec.weight == 3 and made.spec.label == "none" and made.spec.dropped is None, made
    bad = dict(body, metadata={"name": "d"}, spec={"weight": 0})
    assert "spec.weight" in refused(422, lambda: crates.create(body=bad, namespace=namespace)).body
    crates.patch(
        name="c",
        namespace=namespace,
        body={"spec": {"weight": 4}},
        content_type="application/merge-patch+json",
    )
    assert crates.get(name="c", namespace=namespace).spec.weight == 4
    crates.delete(name="c", namespace=namespace)
    extensions.delete_custom_resource_definition(name)


def main():
    namespace = sys.argv[1]
    config.load_kube_config()
    discovery()
    core(namespace)
    workloads(namespace)
    access(namespace)
    custom(namespace)
    print("all good")


if __name__ == "__main__":
    main()
