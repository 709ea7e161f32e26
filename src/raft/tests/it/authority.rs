//! A certificate authority for one test.

use barque_raft::{MASTER_PREFIX, MASTERS_GROUP, PeerTls};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub fn master(&self, id: u64) -> PeerTls {
        self.issue(&format!("{MASTER_PREFIX}{id}"), Some(MASTERS_GROUP))
    }

    pub fn issue(&self, name: &str, group: Option<&str>) -> PeerTls {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        PeerTls::from_pem(self.pem.as_bytes(), certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }
}
