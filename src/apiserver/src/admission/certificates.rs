//! Who may approve, sign and vouch for certificates of which signer, and whom
//! nobody may ask a certificate for.

use std::sync::Arc;

use barque_api::validation::Fields as _;
use barque_api::{Object, StatusError};
use base64::Engine as _;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::auth::{Attributes, Authorizer, Decision, MASTERS};
use crate::pipeline::{Admission, AdmissionRequest, Admitted, Operation};

const REQUESTS: &str = "certificatesigningrequests.certificates.k8s.io";
const BUNDLES: &str = "clustertrustbundles.certificates.k8s.io";
/// The signer of certificates with which users talk to the API.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Whether the user may do something in the name of a signer, by its whole
/// name or by its domain.
fn may(authorizer: &dyn Authorizer, request: &AdmissionRequest<'_>, verb: &str, signer: &str) -> bool {
    if request.context.trusted {
        return true;
    }
    let domain = signer.split_once('/').map(|(domain, _)| format!("{domain}/*"));
    std::iter::once(signer.to_owned()).chain(domain).any(|name| {
        let asked = Attributes {
            verb: verb.to_owned(),
            group: "certificates.k8s.io".to_owned(),
            resource: "signers".to_owned(),
            name,
            ..Attributes::default()
        };
        authorizer.authorize(&request.context.user, &asked, request.snapshot) == Decision::Allow
    })
}

/// Only who may `approve` for a signer approves or denies its requests.
pub(super) struct Approval(Arc<dyn Authorizer>);

impl Approval {
    pub(super) fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self(authorizer)
    }
}

impl Admission for Approval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let concerned = request.operation == Operation::Update
            && &*request.target.resource.storage == REQUESTS
            && request.subresource == "approval";
        let signer = object.text(&["spec", "signerName"]);
        if concerned && !may(&*self.0, request, "approve", signer) {
            let why = format!("user not permitted to approve requests with signerName {signer:?}");
            return Err(super::forbidden(request, object, why));
        }
        Ok(Admitted::default())
    }
}

/// Only who may `sign` for a signer issues its certificates, or fails to.
pub(super) struct Signing(Arc<dyn Authorizer>);

impl Signing {
    pub(super) fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self(authorizer)
    }
}

impl Admission for Signing {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let Some(old) = request.old else { return Ok(Admitted::default()) };
        let status = |object: &Object, field: &str| object.at("status").at(field).clone();
        let concerned = request.operation == Operation::Update
            && &*request.target.resource.storage == REQUESTS
            && request.subresource == "status"
            && (status(object, "certificate") != status(old, "certificate")
                || status(object, "conditions") != status(old, "conditions"));
        let signer = old.text(&["spec", "signerName"]);
        if concerned && !may(&*self.0, request, "sign", signer) {
            let why = format!("user not permitted to sign requests with signerName {signer:?}");
            return Err(super::forbidden(request, object, why));
        }
        Ok(Admitted::default())
    }
}

/// Only who may `attest` for a signer publishes its trust anchors.
pub(super) struct Attest(Arc<dyn Authorizer>);

impl Attest {
    pub(super) fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self(authorizer)
    }
}

impl Admission for Attest {
    fn name(&self) -> &'static str {
        "ClusterTrustBundleAttest"
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let concerned = matches!(request.operation, Operation::Create | Operation::Update)
            && &*request.target.resource.storage == BUNDLES
            && request.subresource.is_empty();
        let signer = object.text(&["spec", "signerName"]);
        let unchanged = request.old.is_some_and(|old| old.at("spec") == object.at("spec"));
        if concerned && !unchanged && !signer.is_empty() && !may(&*self.0, request, "attest", signer) {
            let why = format!("user not permitted to attest for signerName {signer:?}");
            return Err(super::forbidden(request, object, why));
        }
        Ok(Admitted::default())
    }
}

/// Nobody becomes a member of `system:masters` by way of a signing request.
pub(super) struct SubjectRestriction;

impl Admission for SubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let concerned = request.operation == Operation::Create
            && &*request.target.resource.storage == REQUESTS
            && request.subresource.is_empty()
            && object.text(&["spec", "signerName"]) == CLIENT_SIGNER;
        if !concerned {
            return Ok(Admitted::default());
        }
        let organizations = object.get(&["spec", "request"]).and_then(organizations).ok_or_else(|| {
            super::forbidden(request, object, "unable to parse CSR: PEM block type must be CERTIFICATE REQUEST")
        })?;
        if organizations.iter().any(|name| name == MASTERS) {
            let why = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
            return Err(super::forbidden(request, object, why));
        }
        Ok(Admitted::default())
    }
}

/// The organizations of the subject of a PKCS#10 request, given as base64 of
/// its PEM form; `None` if it cannot be read.
fn organizations(encoded: &Value) -> Option<Vec<String>> {
    let pem = base64::engine::general_purpose::STANDARD.decode(encoded.as_str()?).ok()?;
    let (_, block) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
    if block.label != "CERTIFICATE REQUEST" {
        return None;
    }
    let (_, parsed) = X509CertificationRequest::from_der(&block.contents).ok()?;
    let subject = &parsed.certification_request_info.subject;
    Some(subject.iter_organization().filter_map(|name| name.as_str().ok()).map(ToOwned::to_owned).collect())
}
