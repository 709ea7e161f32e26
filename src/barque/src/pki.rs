//! The cluster's own certificate authority: who is a master, a node, an
//! administrator is what a certificate of this authority says.
//!
//! | subject | organization | is |
//! |---|---|---|
//! | `barque:master:<id>` | `system:masters` | a master, towards peers, agents and clients |
//! | `system:node:<name>` | `system:nodes` | the agent of one node |
//! | `system:node-group:<prefix>` | `system:nodes` | a process that poses as the nodes `<prefix>-<n>` |
//! | `barque-admin` | `system:masters` | an administrator's kubeconfig |

use std::path::{Path, PathBuf};

use barque_api::k8s_openapi::jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use sha2::{Digest, Sha256};

use crate::files;

/// Name of the key that signs tokens of service accounts, next to the
/// authority's certificate.
pub const SERVICE_ACCOUNT_KEY: &str = "service-accounts.key";
/// Years for which the authority's certificate is valid.
const CA_YEARS: i32 = 10;
/// Days for which other certificates are valid.
const LEAF_DAYS: i32 = 365;
/// The name under which every master answers on its cluster port, whatever
/// its address.
pub const MASTER_SERVER_NAME: &str = "barque-master";

/// Name on the certificate that masters show to extension API servers.
pub const FRONT_PROXY: &str = "front-proxy-client";

/// Why certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// Making or parsing a certificate failed.
    #[error("certificate for {subject:?}")]
    Certificate {
        /// Whose certificate.
        subject: String,
        /// What went wrong.
        #[source]
        source: rcgen::Error,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] files::FileError),
}

/// Where a certificate and its key lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificatePaths {
    /// PEM chain.
    pub certificate: PathBuf,
    /// PEM key, readable by its owner only.
    pub key: PathBuf,
}

impl CertificatePaths {
    /// `<dir>/<stem>.crt` and `<dir>/<stem>.key`.
    #[must_use]
    pub fn new(directory: &Path, stem: &str) -> Self {
        Self { certificate: directory.join(format!("{stem}.crt")), key: directory.join(format!("{stem}.key")) }
    }
}

/// What a certificate shall say.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Common name: the user.
    pub name: String,
    /// Organization: the group.
    pub group: &'static str,
    /// DNS names and IP addresses under which it serves.
    pub alternative_names: Vec<String>,
}

impl Subject {
    /// A master that is reached under the given names and addresses.
    #[must_use]
    pub fn master(id: u64, alternative_names: &[String]) -> Self {
        let mut names = vec![MASTER_SERVER_NAME.to_owned(), "kubernetes".into(), "kubernetes.default.svc".into()];
        names.extend_from_slice(alternative_names);
        Self { name: format!("barque:master:{id}"), group: "system:masters", alternative_names: names }
    }

    /// The agent of one node.
    #[must_use]
    pub fn node(name: &str, alternative_names: &[String]) -> Self {
        let mut names = vec![name.to_owned()];
        names.extend_from_slice(alternative_names);
        Self { name: format!("system:node:{name}"), group: "system:nodes", alternative_names: names }
    }

    /// A process that poses as the nodes `<prefix>-<n>`.
    #[must_use]
    pub fn node_group(prefix: &str, alternative_names: &[String]) -> Self {
        Self {
            name: format!("system:node-group:{prefix}"),
            group: "system:nodes",
            alternative_names: alternative_names.to_vec(),
        }
    }

    /// A master towards extension API servers.
    #[must_use]
    pub fn front_proxy() -> Self {
        Self { name: FRONT_PROXY.into(), group: "system:masters", alternative_names: Vec::new() }
    }

    /// An administrator.
    #[must_use]
    pub fn administrator() -> Self {
        Self { name: "barque-admin".into(), group: "system:masters", alternative_names: Vec::new() }
    }
}

/// The cluster's id. The authority is what all members have in common before
/// they have met, so the id is made from its certificate.
#[must_use]
pub fn cluster_id(authority_pem: &str) -> String {
    let digest = Sha256::digest(authority_pem.trim());
    let head = u64::from_be_bytes(digest[..8].try_into().expect("a SHA-256 digest has 32 bytes"));
    format!("{head:016x}")
}

/// The authority, able to sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate as PEM.
    pub certificate_pem: String,
}

impl Authority {
    /// Opens the authority in a directory, or founds a new one there.
    ///
    /// # Errors
    /// When files cannot be read or written, or hold something else.
    pub fn open_or_create(directory: &Path, now: Timestamp) -> Result<Self, PkiError> {
        let paths = CertificatePaths::new(directory, "ca");
        if !paths.certificate.exists() {
            files::create_dir(directory)?;
            let (certificate, key) = new_authority(now).map_err(|source| error("ca", source))?;
            files::write_secret(&paths.key, key.as_bytes())?;
            files::write(&paths.certificate, certificate.as_bytes())?;
        }
        let accounts = directory.join(SERVICE_ACCOUNT_KEY);
        if !accounts.exists() {
            let key = KeyPair::generate().map_err(|source| error("service accounts", source))?;
            files::write_secret(&accounts, key.serialize_pem().as_bytes())?;
        }
        let certificate_pem = files::read_text(&paths.certificate)?;
        let key = KeyPair::from_pem(&files::read_text(&paths.key)?).map_err(|source| error("ca", source))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(|source| error("ca", source))?;
        Ok(Self { issuer, certificate_pem })
    }

    /// Makes sure that a certificate for the subject lies at the paths.
    ///
    /// # Errors
    /// When it cannot be signed or written.
    pub fn ensure(&self, paths: &CertificatePaths, subject: &Subject, now: Timestamp) -> Result<(), PkiError> {
        if paths.certificate.exists() && paths.key.exists() {
            return Ok(());
        }
        let (certificate, key) = self.issue(subject, now).map_err(|source| error(&subject.name, source))?;
        if let Some(directory) = paths.key.parent() {
            files::create_dir(directory)?;
        }
        files::write_secret(&paths.key, key.as_bytes())?;
        files::write(&paths.certificate, certificate.as_bytes())?;
        Ok(())
    }

    fn issue(&self, subject: &Subject, now: Timestamp) -> Result<(String, String), rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(subject.alternative_names.clone())?;
        params.distinguished_name = distinguished_name(&subject.name, Some(subject.group));
        set_validity(&mut params, now, 0, LEAF_DAYS);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

fn new_authority(now: Timestamp) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name("barque-ca", None);
    set_validity(&mut params, now, CA_YEARS, 0);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn distinguished_name(name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    if let Some(organization) = organization {
        distinguished.push(DnType::OrganizationName, organization);
    }
    distinguished
}

/// From yesterday (clocks differ) until the given time from now.
fn set_validity(params: &mut CertificateParams, now: Timestamp, years: i32, days: i32) {
    let today = now.to_zoned(TimeZone::UTC).date();
    let from = today.saturating_sub(1.day());
    let until = today.saturating_add(years.years().days(days));
    let date = |d: barque_api::k8s_openapi::jiff::civil::Date| {
        rcgen::date_time_ymd(i32::from(d.year()), d.month().unsigned_abs(), d.day().unsigned_abs())
    };
    params.not_before = date(from);
    params.not_after = date(until);
}

fn error(subject: &str, source: rcgen::Error) -> PkiError {
    PkiError::Certificate { subject: subject.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use barque_api::world::World;
    use x509_parser::prelude::{FromDer, X509Certificate};

    #[test]
    fn an_authority_is_kept_and_its_certificates_say_who_is_who() {
        let directory = tempfile::tempdir().unwrap();
        let now = World::system().now();
        let first = Authority::open_or_create(directory.path(), now).unwrap();
        let second = Authority::open_or_create(directory.path(), now).unwrap();
        assert_eq!(first.certificate_pem, second.certificate_pem);

        let paths = CertificatePaths::new(directory.path(), "m1");
        second.ensure(&paths, &Subject::master(7, &["127.0.0.1".into()]), now).unwrap();
        let pem = std::fs::read(&paths.certificate).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        let (_, certificate) = X509Certificate::from_der(&pem.contents).unwrap();
        let subject = certificate.subject();
        assert_eq!(subject.iter_common_name().next().unwrap().as_str().unwrap(), "barque:master:7");
        assert_eq!(subject.iter_organization().next().unwrap().as_str().unwrap(), "system:masters");
        assert!(certificate.validity().is_valid());
    }
}
