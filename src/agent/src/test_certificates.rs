//! A certificate authority for tests.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::options::Tls;

/// An authority, a master's certificate, and an agent's in files.
pub(crate) struct Certificates {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) ca: String,
    pub(crate) server: (String, String),
}

/// Fresh ones.
pub(crate) fn certificates() -> Certificates {
    let dir = tempfile::tempdir().expect("a directory");
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::<String>::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "test CA");
    let pem = ca.self_signed(&ca_key).expect("signs").pem();
    let server = (String::new(), String::new());
    let mut made = Certificates { dir, issuer: Issuer::new(ca, ca_key), ca: pem, server };
    made.server = made.issue("master", "system:masters", "barque-master");
    let agent = made.issue("system:node:n", "system:nodes", "n");
    for (name, text) in [("ca.crt", &made.ca), ("agent.crt", &agent.0), ("agent.key", &agent.1)] {
        std::fs::write(made.dir.path().join(name), text).expect("written");
    }
    made
}

impl Certificates {
    /// A certificate and its key.
    pub(crate) fn issue(&self, name: &str, organization: &str, san: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![san.to_owned()]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, organization);
        let cert = params.signed_by(&key, &self.issuer).expect("signs");
        (cert.pem(), key.serialize_pem())
    }

    /// The agent's options.
    pub(crate) fn tls(&self) -> Tls {
        let path = |name: &str| self.dir.path().join(name);
        Tls { ca: path("ca.crt"), cert: path("agent.crt"), key: path("agent.key"), ..Tls::default() }
    }
}
