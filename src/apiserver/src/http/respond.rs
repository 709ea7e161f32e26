//! Answers: JSON or YAML, indented for people, compressed when large; and
//! errors, which are always `Status` objects.

use std::io::Write;

use axum::body::Body;
use barque_api::StatusError;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY, WARNING};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::negotiate::{Accepted, Format};
use super::protobuf;
use crate::pipeline::encode_yaml;

/// Longest text of one `Warning` header, and of all of one answer, in bytes.
const MAX_WARNING_BYTES: usize = 256;
const MAX_WARNINGS_BYTES: usize = 4_096;

/// Compression level: speed matters more than the last percent.
pub(super) const GZIP_LEVEL: Compression = Compression::new(1);

/// An answer from finished JSON.
pub(super) fn json_response(
    code: StatusCode,
    accepted: &Accepted,
    gzip_threshold: usize,
    json: Bytes,
) -> Result<Response<Body>, StatusError> {
    let body = match accepted.format {
        Format::Yaml => Bytes::from(encode_yaml(&reparse(&json)?)?),
        Format::Protobuf => protobuf::encode(&reparse(&json)?)?,
        Format::Json if accepted.pretty => pretty(&json)?,
        Format::Json => json,
    };
    finished_response(code, accepted, accepted.format.content_type(), gzip_threshold, body)
}

/// An answer whose body needs nothing but to be compressed, if it is large.
pub(super) fn finished_response(
    code: StatusCode,
    accepted: &Accepted,
    content_type: &'static str,
    gzip_threshold: usize,
    body: Bytes,
) -> Result<Response<Body>, StatusError> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    let body = if accepted.gzip && body.len() >= gzip_threshold {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        gzip(&body)?
    } else {
        body
    };
    *response.body_mut() = Body::from(body);
    Ok(response)
}

pub(super) fn reparse(json: &[u8]) -> Result<Value, StatusError> {
    serde_json::from_slice(json).map_err(|error| StatusError::internal(format!("an answer is not JSON: {error}")))
}

fn pretty(json: &[u8]) -> Result<Bytes, StatusError> {
    let mut text =
        serde_json::to_vec_pretty(&reparse(json)?).map_err(|error| StatusError::internal(error.to_string()))?;
    text.push(b'\n');
    Ok(Bytes::from(text))
}

fn gzip(body: &[u8]) -> Result<Bytes, StatusError> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), GZIP_LEVEL);
    let compressed = encoder.write_all(body).and_then(|()| encoder.finish());
    compressed.map(Bytes::from).map_err(|error| StatusError::internal(error.to_string()))
}

/// Adds one `Warning` header per text, in upstream's form.
pub(super) fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    let mut total = 0;
    for warning in warnings {
        let mut text: String = warning
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .flat_map(|c| if c == '"' || c == '\\' { vec!['\\', c] } else { vec![c] })
            .collect();
        if text.len() > MAX_WARNING_BYTES {
            let mut end = MAX_WARNING_BYTES;
            while !text.is_char_boundary(end) || text.as_bytes()[end - 1] == b'\\' {
                end -= 1;
            }
            text.truncate(end);
        }
        total += text.len();
        if total > MAX_WARNINGS_BYTES {
            return;
        }
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// An error as its `Status`, in the form that the client understands.
pub(super) fn error_response(error: &StatusError, format: Format) -> Response<Body> {
    let status = error.to_value();
    let (format, body) = match format {
        Format::Protobuf => (format, protobuf::encode(&status).ok()),
        Format::Yaml => (format, encode_yaml(&status).ok().map(Bytes::from)),
        Format::Json => (format, None),
    };
    let (format, body) = match body {
        Some(body) => (format, body),
        None => (Format::Json, Bytes::from(format!("{status}\n"))),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    if let Some(seconds) = error.retry_after_seconds {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    add_warnings(&mut response, &error.warnings);
    response
}

/// An error after which the connection cannot be used further.
pub(super) fn closing(mut response: Response<Body>, http1: bool) -> Response<Body> {
    if http1 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Plain text.
pub(super) fn text_response(code: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// `Status` of something that went well.
pub(super) fn success(code: StatusCode, details: Option<Value>) -> Value {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    match details {
        Some(details) => status["details"] = details,
        None => status["code"] = json!(code.as_u16()),
    }
    status
}
