//! What goes wrong on the way to another server, worded as the clients of
//! other API servers know it: people search for these sentences.

use std::io;

use rustls::CertificateError;

/// Why there is no answer from another server.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The configuration does not name a server, or names it badly.
    #[error("{0}")]
    Config(String),
    /// A certificate or key of the configuration cannot be used.
    #[error("{what}: {problem}")]
    Certificate {
        /// Of which part of the configuration.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The Service that is named does not lead anywhere.
    #[error("{0}")]
    Service(String),
    /// The name of the host means nothing.
    #[error("dial tcp: lookup {host}: no such host")]
    NoSuchHost {
        /// The name.
        host: String,
    },
    /// Nobody answers there.
    #[error("dial tcp {address}: {}", go_io(source))]
    Dial {
        /// Address and port.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The other side cannot prove who it is, or does not speak TLS.
    #[error("{0}")]
    Tls(String),
    /// No answer in time.
    #[error("context deadline exceeded")]
    DeadlineExceeded,
    /// The answer is larger than allowed.
    #[error("the response is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The connection broke, or what came back is not HTTP.
    #[error("{0}")]
    Broken(String),
    /// An answer with a status that is no success.
    #[error("{}", of_code(*code, body))]
    Status {
        /// HTTP status.
        code: u16,
        /// The beginning of the body.
        body: String,
    },
}

impl OutboundError {
    /// Whether a call was given up because its time was over.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::DeadlineExceeded)
    }

    /// The same error once more, out of the grip of the HTTP client.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Dial { address, source } => {
                let source = io::Error::new(source.kind(), source.to_string());
                Self::Dial { address: address.clone(), source }
            }
            Self::Config(text) => Self::Config(text.clone()),
            Self::Service(text) => Self::Service(text.clone()),
            Self::Tls(text) => Self::Tls(text.clone()),
            Self::NoSuchHost { host } => Self::NoSuchHost { host: host.clone() },
            Self::DeadlineExceeded => Self::DeadlineExceeded,
            other => Self::Broken(other.to_string()),
        }
    }

    /// An error of the TLS layer while a connection is made.
    pub(super) fn handshake(error: &io::Error, host: &str) -> Self {
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return Self::Broken(match error.kind() {
                io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
                _ => go_io(error),
            });
        };
        let why = match tls {
            rustls::Error::InvalidCertificate(problem) => {
                format!("tls: failed to verify certificate: x509: {}", certificate_problem(problem, host))
            }
            rustls::Error::InvalidMessage(_) => "http: server gave HTTP response to HTTPS client".to_owned(),
            rustls::Error::AlertReceived(alert) => format!("remote error: tls: {alert:?}"),
            other => format!("tls: {other}"),
        };
        Self::Tls(why)
    }
}

fn certificate_problem(problem: &CertificateError, host: &str) -> String {
    match problem {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate has expired or is not yet valid: the certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "certificate has expired or is not yet valid: the certificate is not valid yet".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } if !presented.is_empty() => {
            let names: Vec<&str> = presented.iter().map(|name| bare_name(name)).collect();
            format!("certificate is valid for {}, not {host}", names.join(", "))
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("certificate is not valid for any names, but wanted to match {host}")
        }
        other => other.to_string(),
    }
}

/// `DnsName("a")` as `a`.
fn bare_name(name: &str) -> &str {
    name.split_once('(').map_or(name, |(_, rest)| rest.trim_end_matches(')')).trim_matches('"')
}

fn go_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "read: connection reset by peer".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

/// As client-go words an answer that is no success and no `Status`.
fn of_code(code: u16, body: &str) -> String {
    let text = match code {
        400 => "the server rejected our request for an unknown reason",
        401 => "the server has asked for the client to provide credentials",
        403 if !body.is_empty() => body,
        403 => "the server does not allow access to the requested resource",
        404 => "the server could not find the requested resource",
        405 => "the server does not allow this method on the requested resource",
        406 => "the server was unable to respond with a content type that the client supports",
        409 => "the server reported a conflict",
        415 => "the body of the request was in an unknown format",
        422 => "the server rejected our request due to an error in our request",
        429 => "the server has received too many requests and has asked us to try again later",
        503 => "the server is currently unable to handle the request",
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
        }
        500.. => return format!("an error on the server ({body:?}) has prevented the request from succeeding"),
        _ => return format!("the server responded with the status code {code} but did not return more information"),
    };
    text.to_owned()
}
