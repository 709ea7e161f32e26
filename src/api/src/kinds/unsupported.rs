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
    ("hostPID", |s| s.host_pid == Some(true)),
    ("hostIPC", |s| s.host_ipc == Some(true)),
    ("hostUsers: false", |s| s.host_users == Some(false)),
    ("shareProcessNamespace", |s| s.share_process_namespace == Some(true)),
    ("runtimeClassName", |s| s.runtime_class_name.is_some()),
    ("resourceClaims", |s| is_some(s.resource_claims.as_ref())),
    ("ephemeralContainers", |s| is_some(s.ephemeral_containers.as_ref())),
    ("resources", |s| s.resources.as_ref().is_some_and(|r| r.limits.is_some() || r.requests.is_some())),
    ("dnsConfig", |s| s.dns_config.is_some()),
    ("hostAliases", |s| is_some(s.host_aliases.as_ref())),
    ("setHostnameAsFQDN", |s| s.set_hostname_as_fqdn == Some(true)),
    ("os.name: windows", |s| s.os.as_ref().is_some_and(|os| os.name == "windows")),
    ("securityContext.appArmorProfile", |s| context(s, |c| c.app_armor_profile.is_some())),
    ("securityContext.fsGroup", |s| context(s, |c| c.fs_group.is_some())),
    ("securityContext.runAsNonRoot", |s| context(s, |c| c.run_as_non_root == Some(true))),
    ("securityContext.seLinuxOptions", |s| context(s, |c| c.se_linux_options.is_some())),
    ("securityContext.seccompProfile", |s| {
        context(s, |c| c.seccomp_profile.as_ref().is_some_and(|p| p.type_ != "RuntimeDefault"))
    }),
    ("securityContext.supplementalGroups", |s| context(s, |c| is_some(c.supplemental_groups.as_ref()))),
    ("securityContext.sysctls", |s| context(s, |c| is_some(c.sysctls.as_ref()))),
    ("securityContext.windowsOptions", |s| context(s, |c| c.windows_options.is_some())),
];

const CONTAINER: &[ContainerFeature] = &[
    ("lifecycle.postStart", |c| c.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some())),
    ("lifecycle.preStop", |c| c.lifecycle.as_ref().is_some_and(|l| l.pre_stop.is_some())),
    ("lifecycle.stopSignal", |c| c.lifecycle.as_ref().is_some_and(|l| l.stop_signal.is_some())),
    ("livenessProbe.grpc", |c| is_grpc(c.liveness_probe.as_ref())),
    ("readinessProbe.grpc", |c| is_grpc(c.readiness_probe.as_ref())),
    ("startupProbe.grpc", |c| is_grpc(c.startup_probe.as_ref())),
    ("restartPolicyRules", |c| is_some(c.restart_policy_rules.as_ref())),
    ("volumeDevices", |c| is_some(c.volume_devices.as_ref())),
    ("volumeMounts.mountPropagation", |c| {
        c.volume_mounts.iter().flatten().any(|m| m.mount_propagation.as_deref().is_some_and(|p| p != "None"))
    }),
    ("volumeMounts.recursiveReadOnly", |c| {
        c.volume_mounts.iter().flatten().any(|m| m.recursive_read_only.as_deref() == Some("Enabled"))
    }),
    ("env.valueFrom.fileKeyRef", |c| {
        c.env.iter().flatten().any(|e| e.value_from.as_ref().is_some_and(|v| v.file_key_ref.is_some()))
    }),
    ("resources.claims", |c| c.resources.as_ref().is_some_and(|r| is_some(r.claims.as_ref()))),
    ("securityContext.allowPrivilegeEscalation: false", |c| {
        c.security_context.as_ref().is_some_and(|s| s.allow_privilege_escalation == Some(false))
    }),
    ("securityContext.appArmorProfile", |c| c.security_context.as_ref().is_some_and(|s| s.app_armor_profile.is_some())),
    ("securityContext.procMount", |c| {
        c.security_context.as_ref().is_some_and(|s| s.proc_mount.as_deref() == Some("Unmasked"))
    }),
    ("securityContext.runAsNonRoot", |c| c.security_context.as_ref().is_some_and(|s| s.run_as_non_root == Some(true))),
    ("securityContext.seLinuxOptions", |c| c.security_context.as_ref().is_some_and(|s| s.se_linux_options.is_some())),
    ("securityContext.seccompProfile", |c| {
        let profile = c.security_context.as_ref().and_then(|s| s.seccomp_profile.as_ref());
        profile.is_some_and(|p| p.type_ != "RuntimeDefault")
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
    ("hostPath", |v| v.host_path.is_some()),
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
    ("projected.serviceAccountToken", |v| projects(v, |p| p.service_account_token.is_some())),
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
            "hostNetwork": true, "hostname": "a", "securityContext": {"runAsUser": 1},
            "containers": [{
                "name": "c", "image": "i", "livenessProbe": {"exec": {"command": ["a"]}},
                "securityContext": {"privileged": true, "capabilities": {"add": ["NET_ADMIN"]}},
                "volumeMounts": [{"name": "a", "mountPath": "/a", "subPath": "x"}]
            }],
            "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "projected": {"sources": [{"configMap": {"name": "c"}}]}}]
        });
        assert_eq!(unsupported(spec), Vec::<String>::new());
    }

    #[test]
    fn what_does_not_work_is_named() {
        let spec = json!({
            "hostPID": true,
            "containers": [{"name": "c", "lifecycle": {"preStop": {"exec": {"command": ["a"]}}}}],
            "initContainers": [{"name": "i", "securityContext": {"runAsNonRoot": true}}],
            "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "hostPath": {"path": "/"}}]
        });
        assert_eq!(
            unsupported(spec),
            [
                "spec.hostPID",
                "spec.containers[0].lifecycle.preStop",
                "spec.initContainers[0].securityContext.runAsNonRoot",
                "spec.volumes[1].hostPath",
            ]
        );
    }
}
