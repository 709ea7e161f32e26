#!/usr/bin/env python3
"""Writes data/protobuf.txt: the field numbers of Kubernetes' protobuf messages.

Run by hand when the API level changes:

    tools/protobuf.py path/to/k8s-pb/src path/to/api/data/schema.txt

k8s-pb (a crate) has the numbers, schema.txt the JSON names; what Go holds by
pointer stands below. Only facts are taken over. The format is read by
src/http/protobuf/table.rs, one message a line:

    <type> <json field>=<number>[!][+<form>] ... ^<number>=<type of an inlined struct> ...

`!` marks fields that Go holds by pointer: they are written when they are set,
zeros included. All others are always written, and a zero there means "not
set". Lists, maps and bytes need no mark. Forms that the schema does not tell:
`+list` a list wrapped in a message of its own; `+OrArray`, `+OrBool` and
`+OrStrings` the unions of JSON schemas.
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
# Scalars that Go holds by pointer, by type and JSON field. Structs are held by
# pointer unless the schema marks them (v).
POINTERS = set("""
AllocatedDeviceStatus:data,shareID AllocationResult:allocationTimestamp
AppArmorProfile:localhostProfile AzureDiskVolumeSource:cachingMode,fsType,kind,readOnly
AzureFilePersistentVolumeSource:secretNamespace BasicDevice:allNodes,allowMultipleAllocations,bindsToNode,nodeName
CSIDriverSpec:attachRequired,fsGroupPolicy,nodeAllocatableUpdatePeriodSeconds,podInfoOnMount
CSIDriverSpec:preventPodSchedulingIfMissing,requiresRepublish,seLinuxMount,serviceAccountTokenInSecrets,storageCapacity
CSIStorageCapacity:capacity,maximumVolumeSize CSIVolumeSource:fsType,readOnly
CapacityRequestPolicy:default CapacityRequestPolicyRange:max,min,step CertificateSigningRequestSpec:expirationSeconds
ClientIPConfig:timeoutSeconds ClusterTrustBundleProjection:name,optional,signerName ConfigMap:immutable
ConfigMapEnvSource:optional ConfigMapKeySelector:optional ConfigMapProjection:optional
ConfigMapVolumeSource:defaultMode,optional Container:restartPolicy EphemeralContainerCommon:restartPolicy
ContainerStatus:started,stopSignal CronJobSpec:failedJobsHistoryLimit,startingDeadlineSeconds
CronJobSpec:successfulJobsHistoryLimit,suspend,timeZone CronJobStatus:lastScheduleTime,lastSuccessfulTime
CustomResourceDefinitionVersion:deprecationWarning CustomResourceSubresourceScale:labelSelectorPath
DaemonSetSpec:revisionHistoryLimit DaemonSetStatus:collisionCount
DeleteOptions:gracePeriodSeconds,ignoreStoreReadErrorWithClusterBreakingPotential,orphanDependents,propagationPolicy
DeploymentSpec:progressDeadlineSeconds,replicas,revisionHistoryLimit
DeploymentStatus:collisionCount,terminatingReplicas Device:allNodes,allowMultipleAllocations,bindsToNode,nodeName
DeviceAttribute:bool,int,string,version DeviceClassSpec:extendedResourceName
DeviceConstraint:distinctAttribute,matchAttribute DeviceRequestAllocationResult:adminAccess,shareID
DeviceTaint:timeAdded DeviceTaintSelector:device,driver,pool DeviceToleration:tolerationSeconds
DownwardAPIVolumeFile:mode DownwardAPIVolumeSource:defaultMode EmptyDirVolumeSource:sizeLimit
Endpoint:hostname,nodeName,zone EndpointAddress:nodeName EndpointConditions:ready,serving,terminating
EndpointPort:appProtocol,name,port,protocol ExactDeviceRequest:adminAccess
ExemptPriorityLevelConfiguration:lendablePercent,nominalConcurrencyShares FCVolumeSource:lun FileKeySelector:optional
GRPCAction:service GlusterfsPersistentVolumeSource:endpointsNamespace
HPAScalingRules:selectPolicy,stabilizationWindowSeconds,tolerance HTTPIngressPath:pathType
HorizontalPodAutoscalerSpec:minReplicas,targetCPUUtilizationPercentage
HorizontalPodAutoscalerStatus:currentCPUUtilizationPercentage,lastScaleTime,observedGeneration
HostPathVolumeSource:type ISCSIPersistentVolumeSource:initiatorName ISCSIVolumeSource:initiatorName
IngressClassParametersReference:apiGroup,namespace,scope IngressPortStatus:error IngressSpec:ingressClassName
JSONSchemaProps:$ref,additionalItems,additionalProperties,default,example,items,maxItems,maxLength,maxProperties
JSONSchemaProps:maximum,minItems,minLength,minProperties,minimum,multipleOf,x-kubernetes-list-type
JSONSchemaProps:x-kubernetes-map-type,x-kubernetes-preserve-unknown-fields
JobSpec:activeDeadlineSeconds,backoffLimit,backoffLimitPerIndex,completionMode,completions,managedBy,manualSelector
JobSpec:maxFailedIndexes,parallelism,podReplacementPolicy,suspend,ttlSecondsAfterFinished
JobStatus:completionTime,failedIndexes,ready,startTime,terminating KeyToPath:mode LeaseCandidateSpec:pingTime,renewTime
LeaseSpec:acquireTime,holderIdentity,leaseDurationSeconds,leaseTransitions,preferredHolder,renewTime,strategy
Lifecycle:stopSignal LimitedPriorityLevelConfiguration:borrowingLimitPercent,lendablePercent,nominalConcurrencyShares
ListMeta:remainingItemCount LoadBalancerIngress:ipMode LocalVolumeSource:fsType ManagedFieldsEntry:fieldsV1,time
MatchResources:matchPolicy MetricTarget:averageUtilization,averageValue,value
MetricValueStatus:averageUtilization,averageValue,value MutatingAdmissionPolicySpec:failurePolicy
MutatingWebhook:failurePolicy,matchPolicy,reinvocationPolicy,sideEffects,timeoutSeconds
NetworkPolicyPort:endPort,port,protocol NodeFeatures:supplementalGroupsPolicy
NodeAllocatableResourceMapping:allocationMultiplier,capacityKey
NodeRuntimeHandlerFeatures:recursiveReadOnlyMounts,userNamespaces NodeSwapStatus:capacity
ObjectMeta:deletionGracePeriodSeconds,deletionTimestamp OwnerReference:blockOwnerDeletion,controller
ParamRef:parameterNotFoundAction PersistentVolumeClaimSpec:storageClassName,volumeAttributesClassName,volumeMode
PersistentVolumeClaimStatus:currentVolumeAttributesClassName PersistentVolumeSpec:volumeAttributesClassName,volumeMode
PersistentVolumeStatus:lastPhaseTransitionTime PodCertificateProjection:maxExpirationSeconds
PodCertificateRequestSpec:maxExpirationSeconds PodCertificateRequestStatus:beginRefreshAt,notAfter,notBefore
PodDNSConfigOption:value PodDisruptionBudgetSpec:maxUnavailable,minAvailable
PodDisruptionBudgetSpec:unhealthyPodEvictionPolicy PodFailurePolicyOnExitCodesRequirement:containerName
PodResourceClaim:resourceClaimName,resourceClaimTemplateName PodResourceClaimStatus:resourceClaimName
PodSchedulingGroup:podGroupName
PodSecurityContext:fsGroup,fsGroupChangePolicy,runAsGroup,runAsNonRoot,runAsUser,seLinuxChangePolicy
PodSecurityContext:supplementalGroupsPolicy PodSpec:activeDeadlineSeconds,automountServiceAccountToken
PodSpec:enableServiceLinks,hostUsers,hostnameOverride,preemptionPolicy,priority,runtimeClassName,setHostnameAsFQDN
PodSpec:shareProcessNamespace,terminationGracePeriodSeconds PodStatus:startTime PortStatus:error
Preconditions:resourceVersion,uid PriorityClass:preemptionPolicy Probe:terminationGracePeriodSeconds
ProjectedVolumeSource:defaultMode ReplicaSetSpec:replicas ReplicaSetStatus:terminatingReplicas
ReplicationControllerSpec:replicas ResourceHealth:message
ResourceSliceSpec:allNodes,nodeName,perDeviceNodeSelection
RollingUpdateDaemonSet:maxSurge,maxUnavailable RollingUpdateDeployment:maxSurge,maxUnavailable
RollingUpdateStatefulSetStrategy:maxUnavailable,partition Rule:scope SeccompProfile:localhostProfile Secret:immutable
SecretEnvSource:optional SecretKeySelector:optional SecretProjection:optional
SecretVolumeSource:defaultMode,optional
SecurityContext:allowPrivilegeEscalation,privileged,procMount,readOnlyRootFilesystem,runAsGroup,runAsNonRoot,runAsUser
ServiceAccount:automountServiceAccountToken ServiceAccountTokenProjection:expirationSeconds ServicePort:appProtocol
ServiceReference:path,port ServiceSpec:allocateLoadBalancerNodePorts,internalTrafficPolicy,ipFamilyPolicy
ServiceSpec:loadBalancerClass,trafficDistribution StatefulSetSpec:replicas,revisionHistoryLimit
StatefulSetStatus:collisionCount StorageClass:allowVolumeExpansion,reclaimPolicy,volumeBindingMode
SuccessPolicyRule:succeededCount,succeededIndexes Taint:timeAdded TokenRequestSpec:expirationSeconds
TokenRequest:expirationSeconds Toleration:tolerationSeconds
TopologySpreadConstraint:minDomains,nodeAffinityPolicy,nodeTaintsPolicy TypedLocalObjectReference:apiGroup
TypedObjectReference:apiGroup,namespace ValidatingAdmissionPolicySpec:failurePolicy
ValidatingWebhook:failurePolicy,matchPolicy,sideEffects,timeoutSeconds Validation:reason
ValidationRule:optionalOldSelf,reason VolumeAttachmentSource:persistentVolumeName VolumeError:errorCode
VolumeMount:mountPropagation,recursiveReadOnly VolumeMountStatus:recursiveReadOnly VolumeNodeResources:count
WebhookClientConfig:url WindowsSecurityContextOptions:gmsaCredentialSpec,gmsaCredentialSpecName,hostProcess,runAsUserName
""".split())
POINTERS = {f"{t}.{f}" for t, _, fs in (entry.partition(":") for entry in POINTERS) for f in fs.split(",")}
# Structs that the schema marks wrongly.
STRUCT_POINTERS = {"ScaleIOVolumeSource.secretRef", "ScaleIOPersistentVolumeSource.secretRef", "IPAddressSpec.parentRef"}
STRUCT_VALUES = {
    "SelfSubjectReviewStatus.userInfo", "Endpoint.conditions", "LimitedPriorityLevelConfiguration.limitResponse",
    "AllocationResult.devices", "ResourceClaimSpec.devices", "CustomResourceDefinitionStatus.acceptedNames",
    "APIGroup.preferredVersion",
}
FORMS = {
    "APIResource.verbs": "list", "JSONSchemaProps.items": "OrArray", "JSONSchemaProps.additionalItems": "OrBool",
    "JSONSchemaProps.additionalProperties": "OrBool", "JSONSchemaProps.dependencies": "OrStrings",
}
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
    "CSIDriverSpec": {"preventPodSchedulingIfMissing": 11},
    "DeviceAttribute": {"ints": 6, "bools": 7, "strings": 8, "versions": 9},
    "Device": {"nodeAllocatableResourceMappings": 13},
    "NodeAllocatableResourceMapping": {"capacityKey": 1, "allocationMultiplier": 2},
    "CustomResourceSubresourceStatus": {},
    "ListMeta": {"shardInfo": 5},
    "ShardInfo": {"selector": 1},
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
    # What became stable after the crate was made has the numbers of its beta.
    for module, found in messages.items():
        for beta in ("v1beta2", "v1beta1"):
            if module.endswith("/v1"):
                for name, message in messages.get(module[:-2] + beta, {}).items():
                    found.setdefault(name, message)
    return messages


def plain(name):
    return re.sub(r"[_$-]", "", name).lower()


def main():
    source, schema = map(pathlib.Path, sys.argv[1:3])
    messages = read_messages(source)
    # full type -> {plain field: (field, token, whether a struct by value)}
    types, current = {}, None
    for line in schema.read_text().splitlines():
        if line.startswith("= "):
            short = line.split()[1]
            full = next((PREFIXES[p] + short[len(p):] for p in PREFIXES if short.startswith(p)), short)
            current = types.setdefault(full, {})
        elif current is not None and line and not line.startswith("#"):
            field, token, *marks = line.split()
            current[plain(field)] = (field, token, "v" in marks)

    lines, missing, inlined, unused = {}, [], {}, set(POINTERS | STRUCT_POINTERS | STRUCT_VALUES | set(FORMS))

    def word(full, json, token, by_value, number):
        struct = full.rsplit(".", 1)[1]
        name = f"{struct}.{json}"
        unused.discard(name)
        if token.startswith("@"):
            pointer = name in STRUCT_POINTERS or not (by_value or name in STRUCT_VALUES)
        elif token[0] in "[{" or token == "x":
            pointer = False
        else:
            pointer = name in POINTERS
            # The older EndpointPort has fewer pointers than the newer.
            if full == "io.k8s.api.core.v1.EndpointPort":
                pointer = json == "appProtocol"
        form = "+" + FORMS[name] if name in FORMS else ""
        return f"{json}={number}{'!' if pointer else ''}{form}"

    def emit(full, fields, module, struct):
        out, seen = [], set()
        for rust, number, is_message, rust_type in messages[module].get(struct.lower(), (struct, []))[1]:
            json = fields.get(plain(rust))
            if json is None and plain(rust) == "rtype":
                json = fields.get("type")
            if json:
                seen.add(json[0])
                out.append(word(full, *json, number))
            elif is_message and (m := re.search(r"Option<\s*(?:super::)*(?:\w+::)*(\w+),?\s*>", rust_type)):
                inner = f"{full.rsplit('.', 1)[0]}.{m.group(1)}"
                names = messages[module].get(m.group(1).lower(), ("", []))[1]
                if inner not in types and not any(plain(name) in fields for name, *_ in names):
                    continue  # a field that the newer API has dropped
                seen |= emit_inlined(inner, fields, module, m.group(1))
                out.append(f"^{number}={inner}")
        for json, number in NEWER.get(struct, {}).items():
            if plain(json) in fields:
                out.append(word(full, *fields[plain(json)], number))
                seen.add(json)
        lines[full] = " ".join([full, *out])
        return seen

    def emit_inlined(inner, fields, module, struct):
        if inner in types:
            return {field for field, *_ in types[inner].values()}
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
        for json, *_ in fields.values():
            if json not in seen and json not in ("apiVersion", "kind"):
                missing.append(f"{full}.{json}")
    print("without a number:", *missing, sep="\n  ", file=sys.stderr)
    print("named here, not found:", *sorted(unused), sep="\n  ", file=sys.stderr)
    header = "# Written by tools/protobuf.py. Field numbers of Kubernetes' protobuf messages; see there for the format.\n"
    out = pathlib.Path(__file__).parent.parent / "data/protobuf.txt"
    out.write_text(header + "".join(lines[name] + "\n" for name in sorted(lines)))


main()
