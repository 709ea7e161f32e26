//! Rules for CertificateSigningRequests, and for the three doors by which they
//! are changed.
//!
//! Source: `pkg/apis/certificates/validation`.

use std::collections::BTreeSet;

use base64::Engine as _;
use serde_json::Value;
use x509_parser::prelude::{FromDer as _, Pem, X509Certificate, X509CertificationRequest};

use super::{Fields, Path, Report};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

/// Shortest life that may be asked for.
const EXPIRATION_SECONDS_MIN: i64 = 600;
/// Most bytes of a signer's domain.
const SIGNER_DOMAIN_MAX: usize = 253;
/// Most bytes of a signer's path: a subdomain, a dot and a label.
const SIGNER_PATH_MAX: usize = 253 + 63 + 1;
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";
/// What a certificate may be for, in the order in which errors list it.
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

fn decoded(text: &str) -> Vec<u8> {
    // The schema has checked that it is base64.
    base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default()
}

/// Reads the request and checks that whoever made it has the key.
fn request_problem(text: &str) -> Option<String> {
    let bytes = decoded(text);
    let block = match Pem::iter_from_buffer(&bytes).next() {
        Some(Ok(block)) if block.label == "CERTIFICATE REQUEST" => block,
        _ => return Some("PEM block type must be CERTIFICATE REQUEST".to_owned()),
    };
    let request = match X509CertificationRequest::from_der(&block.contents) {
        Ok((rest, request)) if rest.is_empty() => request,
        Ok(_) => return Some("asn1: syntax error: trailing data".to_owned()),
        Err(error) => return Some(format!("asn1: structure error: {error}")),
    };
    request.verify_signature().err().map(|error| format!("the signature does not fit the public key: {error}"))
}

fn certificate_problem(text: &str) -> Option<String> {
    let bytes = decoded(text);
    if bytes.is_empty() {
        return None;
    }
    let mut blocks = 0;
    for block in Pem::iter_from_buffer(&bytes) {
        let Ok(block) = block else { break };
        if block.label != "CERTIFICATE" {
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        if let Err(error) = X509Certificate::from_der(&block.contents) {
            return Some(format!("x509: malformed certificate: {error}"));
        }
        blocks += 1;
    }
    (blocks == 0).then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

/// Rules for a request, new or changed.
pub(crate) fn validate(request: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let spec = request.at("spec");
    if let Some(problem) = request_problem(spec.text("request")) {
        report.invalid(&path.child("request"), spec.text("request"), &problem);
    }
    let at = path.child("usages");
    if spec.list("usages").is_empty() {
        report.required(&at, "");
    }
    let mut seen = BTreeSet::new();
    for (index, usage) in spec.texts("usages").enumerate() {
        if !USAGES.contains(&usage) {
            report.not_supported(&at.index(index), usage, USAGES);
        }
        if !seen.insert(usage) {
            report.duplicate(&at.index(index), usage);
        }
    }
    let signer = spec.text("signerName");
    let at = path.child("signerName");
    if signer == LEGACY_SIGNER {
        report.invalid(&at, signer, "the legacy signerName is not allowed via this API version");
    } else {
        signer_name(&mut report, signer, &at);
    }
    if let Some(seconds) = spec.int("expirationSeconds").filter(|seconds| *seconds < EXPIRATION_SECONDS_MIN) {
        let text = "may not specify a duration less than 600 seconds (10 minutes)";
        report.invalid(&path.child("expirationSeconds"), seconds, text);
    }
    status(&mut report, request);
    report.errors
}

/// `example.com/any.path`.
fn signer_name(report: &mut Report, name: &str, path: &Path) {
    if name.is_empty() {
        return report.required(path, "");
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let text = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return report.invalid(path, name, text);
    };
    if domain.len() > SIGNER_DOMAIN_MAX {
        report.too_long(path, SIGNER_DOMAIN_MAX);
    }
    let labels: Vec<&str> = domain.split('.').collect();
    for label in &labels {
        for text in names::dns_label(label) {
            report.invalid(path, domain, &format!("validating label {label:?}: {text}"));
        }
    }
    if labels.len() < 2 {
        report.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    for label in rest.split('.') {
        for text in names::dns_subdomain(label) {
            report.invalid(path, rest, &format!("validating label {label:?}: {text}"));
        }
    }
    if rest.len() > SIGNER_PATH_MAX {
        report.too_long(path, SIGNER_PATH_MAX);
    }
}

fn status(report: &mut Report, request: &Object) {
    let status = request.at("status");
    let path = Path::root("status");
    let at = path.child("conditions");
    let mut seen = BTreeSet::new();
    for (index, condition) in status.list("conditions").iter().enumerate() {
        let (kind, value) = (condition.text("type"), condition.text("status"));
        let item = at.index(index);
        if kind.is_empty() {
            report.required(&item.child("type"), "");
        }
        let allowed: &[&str] =
            if [APPROVED, DENIED, FAILED].contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        report.one_of(&item.child("status"), value, allowed);
        let other = match kind {
            APPROVED => DENIED,
            DENIED => APPROVED,
            _ => "",
        };
        if seen.contains(other) && !other.is_empty() {
            report.invalid(&at, kind, "Approved and Denied conditions are mutually exclusive");
        }
        if !seen.insert(kind) {
            report.duplicate(&item.child("type"), kind);
        }
    }
    if let Some(problem) = certificate_problem(status.text("certificate")) {
        report.invalid(&path.child("certificate"), "<certificate data>", &problem);
    }
}

fn conditions<'a>(object: &'a Object, kind: &str) -> Vec<&'a Value> {
    object.at("status").list("conditions").iter().filter(|condition| condition.text("type") == kind).collect()
}

/// What a change may do to conditions and certificate.
fn changes(new: &Object, old: &Object, approves: bool, issues: bool) -> Report {
    let mut report = Report::default();
    let path = Path::root("status");
    let at = path.child("conditions");
    for kind in [APPROVED, DENIED, FAILED] {
        let (after, before) = (conditions(new, kind), conditions(old, kind));
        if after.len() < before.len() {
            report.forbidden(&at, &format!("updates may not remove a condition of type {kind:?}"));
        } else if approves || kind == FAILED {
            continue;
        } else if after.len() > before.len() {
            report.forbidden(&at, &format!("updates may not add a condition of type {kind:?}"));
        } else if after != before {
            report.forbidden(&at, &format!("updates may not modify a condition of type {kind:?}"));
        }
    }
    let (after, before) = (new.at("status").text("certificate"), old.at("status").text("certificate"));
    if after != before {
        let at = path.child("certificate");
        if !issues {
            report.forbidden(&at, "updates may not set certificate content");
        } else if !before.is_empty() {
            report.forbidden(&at, "updates may not modify existing certificate content");
        }
    }
    report
}

/// Rules for a changed request.
pub(crate) fn validate_update(new: &Object, old: &Object) -> Vec<FieldError> {
    changes(new, old, false, false).errors
}

/// Rules for the door of the signer.
pub(crate) fn validate_status_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    status(&mut report, new);
    report.errors.extend(changes(new, old, false, true).errors);
    report.errors
}

/// Rules for the door of the approver.
pub(crate) fn validate_approval(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    status(&mut report, new);
    report.errors.extend(changes(new, old, true, false).errors);
    report.errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A request for CN=a with a P-256 key, made with openssl.
    const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIR01HNENBUUF3RERFS01BZ0dBMVVFQXd3QllUQlpNQk1HQnlxR1NNNDlBZ0VHQ0NxR1NNNDlBd0VIQTBJQQpCT1crdVZGcHlHRFRWdDBtVmg3Nm5Mcy9YSnJhNFFLSFpPTmtxVnEzb0tmYVV1QnZucU9YWUh0THRHMlFEbEVVCmtzbXZQSitOOUwxSGpCZTZjbk15WXhLZ0FEQUtCZ2dxaGtqT1BRUURBZ05JQURCRkFpQVlNOExGdC9yQlhuV0oKSGpGU1dpOGIxaUMwNDFibzdhTTQvRko5K1ZGdHVBSWhBS3ZjZXM1d3NwTVFmbThVR2phdlpEZ29rV0pjV2dMagpkelNaQUozeHBhOGUKLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==";

    fn object(spec: Value, status: Value) -> Object {
        Object::from_value(json!({"spec": spec, "status": status})).expect("an object")
    }

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn requests() {
        let spec =
            |request: &str| json!({"request": request, "usages": ["client auth"], "signerName": "example.com/a"});
        assert_eq!(texts(&validate(&object(spec(REQUEST), json!({})))), Vec::<String>::new());
        // One letter of the subject, which the signature covers, is another.
        let mut forged = decoded(REQUEST);
        let at = forged.iter().position(|b| *b == b'\n').expect("a header line") + 29;
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let forged = base64::engine::general_purpose::STANDARD.encode(forged);
        assert_eq!(validate(&object(spec(&forged), json!({}))).len(), 1);
        assert_eq!(
            texts(&validate(&object(spec("AQ=="), json!({})))),
            ["spec.request: Invalid value: \"AQ==\": PEM block type must be CERTIFICATE REQUEST"]
        );
        let bad = json!({"request": REQUEST, "usages": ["x", "x"], "signerName": "a", "expirationSeconds": 1});
        let fields: Vec<String> = validate(&object(bad, json!({}))).into_iter().map(|e| e.field).collect();
        assert_eq!(
            fields,
            ["spec.usages[0]", "spec.usages[1]", "spec.usages[1]", "spec.signerName", "spec.expirationSeconds"]
        );
    }

    #[test]
    fn each_door_has_its_part() {
        let of = |conditions: Value, certificate: &str| {
            object(json!({}), json!({"conditions": conditions, "certificate": certificate}))
        };
        let approved = json!([{"type": "Approved", "status": "True"}]);
        let (blank, done) = (of(json!([]), ""), of(approved.clone(), ""));
        assert!(validate_approval(&done, &blank).is_empty());
        assert_eq!(
            texts(&validate_status_update(&done, &blank)),
            ["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""]
        );
        assert_eq!(
            texts(&validate_approval(&blank, &done)),
            ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
        );
        assert_eq!(
            texts(&validate_approval(&of(approved, "AQ=="), &done)),
            [
                "status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block",
                "status.certificate: Forbidden: updates may not set certificate content",
            ]
        );
        let both = json!([{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]);
        assert_eq!(
            texts(&validate_approval(&of(both, ""), &blank)),
            ["status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"]
        );
    }
}
