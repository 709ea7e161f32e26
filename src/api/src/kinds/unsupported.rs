//! What a Docker agent cannot honour. Such Pods are stored like any other, as
//! Kubernetes does; the agent that gets one refuses it with an event instead
//! of running something else than what was asked for.
//!
//! To teach the agent a feature, remove its line from a table here.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Probe, Volume};

/// A feature of a Pod as a whole and how to see that it is asked for.
type PodFeature = (&'static str, fn(&PodSpec) -> bool);
/// A feature of one container.
type ContainerFeature = (&'static str, fn(&Container) -> bool);
/// A source of volumes.
type VolumeFeature = (&'static str, fn(&Volume) -> bool);

const POD: &[PodFeature] = &[
    ("hostUsers: false", |s| s.host_users == Some(false)),
    ("runtimeClassName", |s| s.runtime_class_name.is_some()),
    ("resourceClaims", |s| is_some(s.resource_claims.as_ref())),
    ("ephemeralContainers", |s| is_some(s.ephemeral_containers.as_ref())),
    ("resources", |s| s.resources.as_ref().is_some_and(|r| r.limits.is_some() || r.requests.is_some())),
    ("imagePullSecrets", |s| is_some(s.image_pull_secrets.as_ref())),
    ("setHostnameAsFQDN", |s| s.set_hostname_as_fqdn == Some(true)),
    ("os.name: windows", |s| s.os.as_ref().is_some_and(|os| os.name == "windows")),
    ("securityContext.appArmorProfile: Localhost", |s| {
        context(s, |c| c.app_armor_profile.as_ref().is_some_and(|p| p.type_ == "Localhost"))
    }),
    ("securityContext.seLinuxOptions", |s| context(s, |c| c.se_linux_options.is_some())),
    ("securityContext.seccompProfile: Localhost", |s| {
        context(s, |c| c.seccomp_profile.as_ref().is_some_and(|p| p.type_ == "Localhost"))
    }),
    ("securityContext.windowsOptions", |s| context(s, |c| c.windows_options.is_some())),
];

const CONTAINER: &[ContainerFeature] = &[
    ("livenessProbe.grpc", |c| is_grpc(c.liveness_probe.as_ref())),
    ("readinessProbe.grpc", |c| is_grpc(c.readiness_probe.as_ref())),
    ("startupProbe.grpc", |c| is_grpc(c.startup_probe.as_ref())),
    ("livenessProbe.httpGet.scheme: HTTPS", |c| is_https(c.liveness_probe.as_ref())),
    ("readinessProbe.httpGet.scheme: HTTPS", |c| is_https(c.readiness_probe.as_ref())),
    ("startupProbe.httpGet.scheme: HTTPS", |c| is_https(c.startup_probe.as_ref())),
    ("lifecycle.httpGet.scheme: HTTPS", |c| {
        let handlers = c.lifecycle.iter().flat_map(|l| [l.post_start.as_ref(), l.pre_stop.as_ref()]).flatten();
        handlers.into_iter().any(|h| h.http_get.as_ref().is_some_and(|g| g.scheme.as_deref() == Some("HTTPS")))
    }),
    ("lifecycle.tcpSocket", |c| {
        let handlers = c.lifecycle.iter().flat_map(|l| [l.post_start.as_ref(), l.pre_stop.as_ref()]).flatten();
        handlers.into_iter().any(|h| h.tcp_socket.is_some())
    }),
    ("restartPolicyRules.action", |c| c.restart_policy_rules.iter().flatten().any(|r| r.action != "Restart")),
    ("resources other than cpu, memory, ephemeral-storage", |c| {
        let all = c.resources.iter().flat_map(|r| r.limits.iter().chain(&r.requests)).flat_map(|map| map.keys());
        all.into_iter().any(|name| !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage"))
    }),
    ("volumeDevices", |c| is_some(c.volume_devices.as_ref())),
    ("volumeMounts.recursiveReadOnly", |c| {
        c.volume_mounts.iter().flatten().any(|m| m.recursive_read_only.as_deref() == Some("Enabled"))
    }),
    ("env.valueFrom.fileKeyRef", |c| {
        c.env.iter().flatten().any(|e| e.value_from.as_ref().is_some_and(|v| v.file_key_ref.is_some()))
    }),
    ("resources.claims", |c| c.resources.as_ref().is_some_and(|r| is_some(r.claims.as_ref()))),
    ("securityContext.appArmorProfile: Localhost", |c| {
        let profile = c.security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref());
        profile.is_some_and(|p| p.type_ == "Localhost")
    }),
    ("securityContext.seLinuxOptions", |c| c.security_context.as_ref().is_some_and(|s| s.se_linux_options.is_some())),
    ("securityContext.seccompProfile: Localhost", |c| {
        let profile = c.security_context.as_ref().and_then(|s| s.seccomp_profile.as_ref());
        profile.is_some_and(|p| p.type_ == "Localhost")
    }),
    ("securityContext.windowsOptions", |c| c.security_context.as_ref().is_some_and(|s| s.windows_options.is_some())),
];

const VOLUME: &[VolumeFeature] = &[
    ("awsElasticBlockStore", |v| v.aws_elastic_block_store.is_some()),
    ("azureDisk", |v| v.azure_disk.is_some()),
    ("azureFile", |v| v.azure_file.is_some()),
    ("cephfs", |v| v.cephfs.is_some()),
    ("cinder", |v| v.cinder.is_some()),
    ("csi", |v| v.csi.is_some()),
    ("ephemeral", |v| v.ephemeral.is_some()),
    ("fc", |v| v.fc.is_some()),
    ("flexVolume", |v| v.flex_volume.is_some()),
    ("flocker", |v| v.flocker.is_some()),
    ("gcePersistentDisk", |v| v.gce_persistent_disk.is_some()),
    ("gitRepo", |v| v.git_repo.is_some()),
    ("glusterfs", |v| v.glusterfs.is_some()),
    ("image", |v| v.image.is_some()),
    ("iscsi", |v| v.iscsi.is_some()),
    ("nfs", |v| v.nfs.is_some()),
    ("persistentVolumeClaim", |v| v.persistent_volume_claim.is_some()),
    ("photonPersistentDisk", |v| v.photon_persistent_disk.is_some()),
    ("portworxVolume", |v| v.portworx_volume.is_some()),
    ("quobyte", |v| v.quobyte.is_some()),
    ("rbd", |v| v.rbd.is_some()),
    ("scaleIO", |v| v.scale_io.is_some()),
    ("storageos", |v| v.storageos.is_some()),
    ("vsphereVolume", |v| v.vsphere_volume.is_some()),
    ("projected.clusterTrustBundle", |v| projects(v, |p| p.cluster_trust_bundle.is_some())),
    ("projected.podCertificate", |v| projects(v, |p| p.pod_certificate.is_some())),
];

fn is_some<T>(list: Option<&Vec<T>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

fn context(spec: &PodSpec, holds: fn(&k8s_openapi::api::core::v1::PodSecurityContext) -> bool) -> bool {
    spec.security_context.as_ref().is_some_and(holds)
}

fn is_grpc(probe: Option<&Probe>) -> bool {
    probe.is_some_and(|probe| probe.grpc.is_some())
}

fn is_https(probe: Option<&Probe>) -> bool {
    probe.is_some_and(|probe| probe.http_get.as_ref().is_some_and(|get| get.scheme.as_deref() == Some("HTTPS")))
}

fn projects(volume: &Volume, holds: fn(&k8s_openapi::api::core::v1::VolumeProjection) -> bool) -> bool {
    volume.projected.as_ref().is_some_and(|p| p.sources.iter().flatten().any(holds))
}

/// Field paths of what a Pod asks for and a Docker agent cannot do; empty for
/// a Pod that it can run as asked.
#[must_use]
pub fn unsupported_by_docker_agent(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let mut found: Vec<String> =
        POD.iter().filter(|(_, asks)| asks(spec)).map(|(name, _)| format!("spec.{name}")).collect();
    let lists = [("containers", Some(&spec.containers)), ("initContainers", spec.init_containers.as_ref())];
    for (list, containers) in lists {
        for (at, container) in containers.into_iter().flatten().enumerate() {
            let asked = CONTAINER.iter().filter(|(_, asks)| asks(container));
            found.extend(asked.map(|(name, _)| format!("spec.{list}[{at}].{name}")));
        }
    }
    for (at, volume) in spec.volumes.iter().flatten().enumerate() {
        let asked = VOLUME.iter().filter(|(_, asks)| asks(volume));
        found.extend(asked.map(|(name, _)| format!("spec.volumes[{at}].{name}")));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn unsupported(spec: Value) -> Vec<String> {
        unsupported_by_docker_agent(&serde_json::from_value(json!({"spec": spec})).expect("a Pod"))
    }

    #[test]
    fn what_works_is_not_listed() {
        let spec = json!({
            "hostNetwork": true, "hostPID": true, "hostname": "a", "securityContext": {"runAsUser": 1, "fsGroup": 2},
            "containers": [{
                "name": "c", "image": "i", "livenessProbe": {"exec": {"command": ["a"]}},
                "lifecycle": {"preStop": {"exec": {"command": ["a"]}}}, "resources": {"limits": {"cpu": "1"}},
                "securityContext": {"privileged": true, "capabilities": {"add": ["NET_ADMIN"]}},
                "volumeMounts": [{"name": "a", "mountPath": "/a", "subPath": "x"}]
            }],
            "volumes": [{"name": "a", "hostPath": {"path": "/"}}, {"name": "b", "projected": {"sources": [{"configMap": {"name": "c"}}]}}]
        });
        assert_eq!(unsupported(spec), Vec::<String>::new());
    }

    #[test]
    fn what_does_not_work_is_named() {
        let spec = json!({
            "hostUsers": false,
            "containers": [{"name": "c", "resources": {"limits": {"example.com/gpu": "1"}}}],
            "initContainers": [{"name": "i", "startupProbe": {"httpGet": {"port": 1, "scheme": "HTTPS"}}}],
            "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "nfs": {"server": "s", "path": "/"}}]
        });
        assert_eq!(
            unsupported(spec),
            [
                "spec.hostUsers: false",
                "spec.containers[0].resources other than cpu, memory, ephemeral-storage",
                "spec.initContainers[0].startupProbe.httpGet.scheme: HTTPS",
                "spec.volumes[1].nfs",
            ]
        );
    }
}
