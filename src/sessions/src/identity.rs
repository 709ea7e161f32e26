//! Who speaks, by the certificate of the connection.

use tonic::{Request, Status};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Group that every agent's certificate carries.
const NODES_GROUP: &str = "system:nodes";
/// Common name of one node's agent, in front of the node's name.
const NODE_PREFIX: &str = "system:node:";
/// Common name of a process that poses as several nodes.
const GROUP_PREFIX: &str = "system:node-group:";

/// Who an agent is. A server that terminates TLS itself puts this into the
/// request's extensions; otherwise it is read from tonic's peer certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The agent of the node of this name.
    Node(String),
    /// May pose as the nodes `<prefix>-<number>`.
    NodeGroup(String),
}

impl Identity {
    /// From the subject of a certificate.
    #[must_use]
    pub fn from_subject(common_name: &str, organizations: &[&str]) -> Option<Self> {
        if !organizations.contains(&NODES_GROUP) {
            return None;
        }
        if let Some(prefix) = common_name.strip_prefix(GROUP_PREFIX) {
            return (!prefix.is_empty()).then(|| Self::NodeGroup(prefix.to_owned()));
        }
        let name = common_name.strip_prefix(NODE_PREFIX).filter(|name| !name.is_empty())?;
        Some(Self::Node(name.to_owned()))
    }

    /// From a DER certificate (which the TLS layer has verified).
    #[must_use]
    pub fn from_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let common_name = subject.iter_common_name().next()?.as_str().ok()?;
        let organizations: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
        Self::from_subject(common_name, &organizations)
    }

    /// From a request.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        if let Some(identity) = request.extensions().get::<Self>() {
            return Ok(identity.clone());
        }
        let certificates =
            request.peer_certs().ok_or_else(|| Status::unauthenticated("a session needs a client certificate"))?;
        certificates
            .first()
            .and_then(|certificate| Self::from_certificate(certificate))
            .ok_or_else(|| Status::permission_denied("the certificate is not that of a node's agent"))
    }

    /// Whether it may open the session of a node.
    #[must_use]
    pub fn may_open(&self, node: &str) -> bool {
        match self {
            Self::Node(name) => name == node,
            Self::NodeGroup(prefix) => node
                .strip_prefix(prefix.as_str())
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_opens_its_own_nodes_only() {
        let node = Identity::from_subject("system:node:a", &["system:nodes"]).unwrap();
        assert!(node.may_open("a") && !node.may_open("b"));
        let group = Identity::from_subject("system:node-group:sim", &["x", "system:nodes"]).unwrap();
        assert!(group.may_open("sim-0") && group.may_open("sim-4711"));
        for other in ["sim", "sim-", "sim-a", "sim-1-2", "simx-1", "a"] {
            assert!(!group.may_open(other), "{other}");
        }
        assert_eq!(Identity::from_subject("system:node:a", &["system:masters"]), None);
        assert_eq!(Identity::from_subject("barque-admin", &["system:nodes"]), None);
        assert_eq!(Identity::from_subject("system:node:", &["system:nodes"]), None);
    }

    #[test]
    fn the_subject_is_read_from_the_certificate() {
        let mut params = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:a");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        assert_eq!(Identity::from_certificate(certificate.der()), Some(Identity::Node("a".to_owned())));
        assert_eq!(Identity::from_certificate(b"nonsense"), None);
    }
}
