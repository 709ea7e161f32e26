//! Headings of the tables.

use std::borrow::Cow;

use crate::resource::Column;

/// Text about the age column.
const AGE: &str = "How long ago the object was created.";
/// Text about the name column.
const NAME: &str = "Name of the object, unique among its kind in its namespace.";

pub(super) fn column(name: &'static str, kind: &'static str, priority: i32, description: &'static str) -> Column {
    Column {
        name: Cow::Borrowed(name),
        kind: Cow::Borrowed(kind),
        format: Cow::Borrowed(if name == "Name" { "name" } else { "" }),
        description: Cow::Borrowed(description),
        priority,
    }
}

pub(super) fn name() -> Column {
    column("Name", "string", 0, NAME)
}

pub(super) fn age() -> Column {
    column("Age", "string", 0, AGE)
}

pub(super) fn text(name: &'static str, description: &'static str) -> Column {
    column(name, "string", 0, description)
}

pub(super) fn wide(name: &'static str, description: &'static str) -> Column {
    column(name, "string", 1, description)
}

pub(super) fn number(name: &'static str, description: &'static str) -> Column {
    column(name, "integer", 0, description)
}

pub(crate) fn default_columns() -> Vec<Column> {
    vec![name(), column("Created At", "date", 0, "When the object was created.")]
}

pub(crate) fn config_map() -> Vec<Column> {
    vec![name(), text("Data", "Number of entries, binary ones included."), age()]
}

pub(crate) fn secret() -> Vec<Column> {
    vec![name(), text("Type", "What the secret is for."), text("Data", "Number of entries."), age()]
}

pub(crate) fn service_account() -> Vec<Column> {
    vec![name(), text("Secrets", "Number of secrets that the account may use."), age()]
}

pub(crate) fn namespace() -> Vec<Column> {
    vec![name(), text("Status", "Whether the namespace is in use or going away."), age()]
}

pub(crate) fn endpoints() -> Vec<Column> {
    vec![name(), text("Endpoints", "Addresses and ports, the first few."), age()]
}

pub(crate) fn endpoint_slice() -> Vec<Column> {
    vec![
        name(),
        text("AddressType", "Family of the addresses."),
        text("Ports", "Ports, the first few."),
        text("Endpoints", "Addresses, the first few."),
        age(),
    ]
}

pub(crate) fn lease() -> Vec<Column> {
    vec![name(), text("Holder", "Who holds the lease."), age()]
}

pub(crate) fn controller_revision() -> Vec<Column> {
    vec![name(), text("Controller", "Who owns the revision."), text("Revision", "Number of the revision."), age()]
}

pub(crate) fn priority_class() -> Vec<Column> {
    vec![
        name(),
        number("Value", "The priority of Pods of this class."),
        column("Global-Default", "boolean", 0, "Whether Pods that name no class are of this one."),
        age(),
        text("PreemptionPolicy", "Whether Pods of this class may displace others."),
    ]
}

pub(crate) fn budget() -> Vec<Column> {
    vec![
        name(),
        text("Min Available", "Pods that must stay available."),
        text("Max Unavailable", "Pods that may be unavailable."),
        number("Allowed Disruptions", "Pods that may be disrupted now."),
        age(),
    ]
}

pub(crate) fn node() -> Vec<Column> {
    vec![
        name(),
        text("Status", "Whether the node is ready and takes new Pods."),
        text("Roles", "Roles by the node's labels."),
        age(),
        text("Version", "Version of the node's agent."),
        wide("Internal-IP", "First address inside the cluster."),
        wide("External-IP", "First address outside the cluster."),
        wide("OS-Image", "Operating system."),
        wide("Kernel-Version", "Kernel."),
        wide("Container-Runtime", "What runs the containers."),
    ]
}

pub(crate) fn pod() -> Vec<Column> {
    vec![
        name(),
        text("Ready", "Containers that are ready, of all."),
        text("Status", "What the Pod is doing, in one word."),
        text("Restarts", "How often containers were restarted, and when the last time."),
        age(),
        wide("IP", "Address of the Pod."),
        wide("Node", "Where the Pod runs."),
        wide("Nominated Node", "Where room is being made for the Pod."),
        wide("Readiness Gates", "Readiness gates that are open, of all."),
    ]
}

pub(crate) fn pod_template() -> Vec<Column> {
    vec![
        name(),
        text("Containers", "Names of the template's containers."),
        text("Images", "Images of the template's containers."),
        text("Pod Labels", "Labels of the template."),
    ]
}

pub(super) fn template() -> [Column; 3] {
    [
        wide("Containers", "Names of the template's containers."),
        wide("Images", "Images of the template's containers."),
        wide("Selector", "Which Pods belong to the object."),
    ]
}

pub(crate) fn replica_set() -> Vec<Column> {
    let mut columns = vec![
        name(),
        number("Desired", "Pods that there should be."),
        number("Current", "Pods that there are."),
        number("Ready", "Pods that are ready."),
        age(),
    ];
    columns.extend(template());
    columns
}

pub(crate) fn deployment() -> Vec<Column> {
    let mut columns = vec![
        name(),
        text("Ready", "Pods that are ready, of those that there should be."),
        number("Up-to-date", "Pods of the newest template."),
        number("Available", "Pods that have been ready long enough."),
        age(),
    ];
    columns.extend(template());
    columns
}

pub(crate) fn service() -> Vec<Column> {
    vec![
        name(),
        text("Type", "How the Service is exposed."),
        text("Cluster-IP", "Address inside the cluster."),
        text("External-IP", "Addresses outside the cluster."),
        text("Port(s)", "Ports, node ports and protocols."),
        age(),
        wide("Selector", "Which Pods get the traffic."),
    ]
}

pub(crate) fn event() -> Vec<Column> {
    vec![
        text("Last Seen", "How long ago it happened the last time."),
        text("Type", "Normal or Warning."),
        text("Reason", "What happened, in one word."),
        text("Object", "What it happened to."),
        wide("Subobject", "Which part of the object."),
        wide("Source", "Who says so."),
        text("Message", "What happened."),
        wide("First Seen", "How long ago it happened the first time."),
        wide("Count", "How often it happened."),
        Column { format: Cow::Borrowed("name"), ..wide("Name", NAME) },
    ]
}
