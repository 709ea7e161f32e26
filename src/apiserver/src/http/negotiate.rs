//! Content negotiation: in which form a client wants its answer, and in which
//! form it sends its body.

use barque_api::{Reason, Resource, StatusError};
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};

use super::protobuf;
use super::query::Query;

/// Media types understood in bodies, as messages list them.
const BODY_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
/// Media types of watches, as messages list them.
const WATCH_TYPES: &str = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
/// Of what has no protobuf form, and of watches of it.
const CUSTOM_TYPES: &str = "application/json, application/yaml";
const CUSTOM_WATCH_TYPES: &str = "application/json;stream=watch";

/// The OpenAPI v2 document in protobuf, as answers name it.
pub(super) const GNOSTIC_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// And as clients may name it: most still use the older name, which is no
/// valid media type (hence never in answers).
const GNOSTIC_TYPES: &[&str] = &[GNOSTIC_TYPE, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"];

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Yaml,
    Protobuf,
}

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFormat {
    Json,
    Yaml,
    Protobuf,
}

impl Format {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => protobuf::MEDIA_TYPE,
        }
    }
}

/// Another shape of the answer than the object's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// The objects themselves.
    Own,
    /// `meta.k8s.io` Table, of this version.
    Table(String),
    /// `meta.k8s.io` PartialObjectMetadata, of this version.
    Metadata(String),
}

/// What the client accepts and prefers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Accepted {
    pub format: Format,
    pub shape: Shape,
    pub pretty: bool,
    pub gzip: bool,
}

/// One media range of an `Accept` header.
#[derive(Debug, Clone, PartialEq)]
struct Range<'a> {
    media: String,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Range<'_> {
    fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }
}

fn ranges(header: &str) -> Vec<Range<'_>> {
    let mut list: Vec<Range<'_>> = header
        .split(',')
        .filter_map(|part| {
            let mut pieces = part.split(';').map(str::trim);
            let media = pieces.next().filter(|m| !m.is_empty())?.to_ascii_lowercase();
            let parameters: Vec<_> = pieces
                .filter_map(|piece| piece.split_once('='))
                .map(|(key, value)| (key.trim(), value.trim().trim_matches('"')))
                .collect();
            let quality =
                parameters.iter().find(|(key, _)| *key == "q").and_then(|(_, q)| q.parse().ok()).unwrap_or(1.0);
            Some(Range { media, parameters, quality })
        })
        .collect();
    // Stable: equal ones stay in the client's order.
    list.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    list
}

/// The forms a request may be answered in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// Objects, tables, metadata, in any form.
    Objects,
    /// As `Objects`, but the objects themselves have no protobuf form.
    Custom,
    /// As `Objects`, in a stream, of which YAML has none.
    Watch,
    /// As `Watch`, of what has no protobuf form.
    CustomWatch,
    /// Documents in any form, no other shapes.
    Documents,
    /// JSON, whatever else the client would like: settled before.
    Any,
}

impl Offer {
    /// The forms of objects of a kind.
    pub(super) fn of(row: &Resource, watch: bool) -> Self {
        match (protobuf::knows(&row.api_version(), &row.kind), watch) {
            (true, false) => Self::Objects,
            (false, false) => Self::Custom,
            (true, true) => Self::Watch,
            (false, true) => Self::CustomWatch,
        }
    }

    fn is_watch(self) -> bool {
        matches!(self, Self::Watch | Self::CustomWatch)
    }

    fn types(self) -> &'static str {
        match self {
            Self::Objects | Self::Documents | Self::Any => BODY_TYPES,
            Self::Custom => CUSTOM_TYPES,
            Self::Watch => WATCH_TYPES,
            Self::CustomWatch => CUSTOM_WATCH_TYPES,
        }
    }
}

fn not_acceptable(offer: Offer) -> StatusError {
    let types = offer.types();
    StatusError::new(Reason::NotAcceptable, format!("only the following media types are accepted: {types}"))
}

/// Chooses the form of the answer.
pub(super) fn accepted(headers: &HeaderMap, query: &Query, offer: Offer) -> Result<Accepted, StatusError> {
    let header = headers.get(ACCEPT).map(|value| value.to_str().unwrap_or_default()).unwrap_or_default();
    let (format, shape, indented) = if header.trim().is_empty() || offer == Offer::Any {
        (Format::Json, Shape::Own, false)
    } else {
        choose(&ranges(header), offer).ok_or_else(|| not_acceptable(offer))?
    };
    let agent = headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let for_people = ["curl/", "Wget/", "Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix));
    let pretty = query.flag("pretty")?.unwrap_or(for_people || indented);
    let gzip = headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(|encodings| {
        ranges(encodings).iter().any(|r| r.quality > 0.0 && (r.media == "gzip" || r.media == "*"))
    });
    Ok(Accepted { format, shape, pretty, gzip })
}

/// The version of the aggregated discovery document that the client would
/// rather have than the separate ones, if any.
pub(super) fn accepts_aggregated(headers: &HeaderMap) -> Option<&'static str> {
    let header = headers.get(ACCEPT)?.to_str().ok()?;
    ranges(header).iter().filter(|r| r.quality > 0.0 && r.media == "application/json").find_map(|range| {
        match (range.parameter("as"), range.parameter("g"), range.parameter("v")) {
            ("", ..) => Some(None),
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Some(Some("v2")),
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => Some(Some("v2beta1")),
            _ => None,
        }
    })?
}

/// Whether the client would rather have the OpenAPI v2 document in protobuf
/// than as JSON or YAML.
pub(super) fn accepts_gnostic(headers: &HeaderMap) -> bool {
    let header = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ranges(header)
        .iter()
        .filter(|r| r.quality > 0.0)
        .find_map(|r| {
            let gnostic = GNOSTIC_TYPES.contains(&r.media.as_str());
            let other = matches!(serve(r, Offer::Documents), Some((Format::Json | Format::Yaml, _)));
            (gnostic || other).then_some(gnostic)
        })
        .unwrap_or(false)
}

/// The first form that can be served, and whether it is to be indented. Of
/// forms that the client likes equally well JSON is preferred to protobuf:
/// that is how objects are stored.
fn choose(ranges: &[Range<'_>], offer: Offer) -> Option<(Format, Shape, bool)> {
    let mut servable = ranges
        .iter()
        .filter(|range| range.quality > 0.0)
        .filter_map(|range| serve(range, offer).map(|(format, shape)| (range, format, shape)));
    let (range, format, shape) = servable.next()?;
    let indented = range.parameter("pretty") == "1";
    let cheaper = format == Format::Protobuf
        && servable.any(|(other, format, other_shape)| {
            other.quality == range.quality && format == Format::Json && other_shape == shape
        });
    Some((if cheaper { Format::Json } else { format }, shape, indented))
}

/// The form of an error, which every client is told, whatever it accepts.
pub(super) fn error_format(headers: &HeaderMap) -> Format {
    let header = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    choose(&ranges(header), Offer::Objects).map_or(Format::Json, |(format, ..)| format)
}

fn serve(range: &Range<'_>, offer: Offer) -> Option<(Format, Shape)> {
    let format = match range.media.as_str() {
        "application/json" | "application/*" | "*/*" => Format::Json,
        "application/yaml" if !offer.is_watch() => Format::Yaml,
        protobuf::MEDIA_TYPE => Format::Protobuf,
        _ => return None,
    };
    let group = range.parameter("g");
    let version = range.parameter("v");
    let known = group == "meta.k8s.io" && matches!(version, "v1" | "v1beta1");
    let is_custom = matches!(offer, Offer::Custom | Offer::CustomWatch);
    let shape = match range.parameter("as") {
        "" if is_custom && format == Format::Protobuf => return None,
        "" => Shape::Own,
        _ if offer == Offer::Documents => return None,
        // Tables have no protobuf form.
        "Table" if known && format != Format::Protobuf => Shape::Table(version.to_owned()),
        "PartialObjectMetadata" | "PartialObjectMetadataList" if known => Shape::Metadata(version.to_owned()),
        _ => return None,
    };
    // Upstream ignores it on requests that are no watches.
    matches!(range.parameter("stream"), "" | "watch").then_some((format, shape))
}

/// The form of a request body.
pub(super) fn body_format(headers: &HeaderMap) -> Result<BodyFormat, StatusError> {
    match media_type(headers).as_str() {
        "" | "application/json" => Ok(BodyFormat::Json),
        "application/yaml" => Ok(BodyFormat::Yaml),
        protobuf::MEDIA_TYPE => Ok(BodyFormat::Protobuf),
        _ => Err(unsupported(BODY_TYPES)),
    }
}

/// The media type of a body, lower-case and without parameters.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let header = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?")).unwrap_or_default();
    header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// 415 in upstream's words.
pub(super) fn unsupported(accepted: &str) -> StatusError {
    StatusError::new(
        Reason::UnsupportedMediaType,
        format!("the body of the request was in an unknown format - accepted media types include: {accepted}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(accept: &str, offer: Offer) -> Result<(Format, Shape), u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        accepted(&headers, &Query::default(), offer).map(|a| (a.format, a.shape)).map_err(|e| e.code())
    }

    #[test]
    fn clients_get_what_they_prefer_of_what_there_is() {
        let table = Shape::Table("v1".to_owned());
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let client_go = "application/vnd.kubernetes.protobuf,application/json";
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        let only_metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        for (accept, offer, expected) in [
            ("*/*", Offer::Objects, Ok((Format::Json, Shape::Own))),
            ("application/yaml", Offer::Objects, Ok((Format::Yaml, Shape::Own))),
            ("application/json;q=0.5, application/yaml", Offer::Objects, Ok((Format::Yaml, Shape::Own))),
            (kubectl, Offer::Objects, Ok((Format::Json, table.clone()))),
            (kubectl, Offer::Watch, Ok((Format::Json, table))),
            (client_go, Offer::Objects, Ok((Format::Json, Shape::Own))),
            (metadata, Offer::Objects, Ok((Format::Json, Shape::Metadata("v1".to_owned())))),
            ("application/json;stream=watch", Offer::Watch, Ok((Format::Json, Shape::Own))),
            ("application/json;stream=watch", Offer::Objects, Ok((Format::Json, Shape::Own))),
            ("application/vnd.kubernetes.protobuf", Offer::Objects, Ok((Format::Protobuf, Shape::Own))),
            ("application/vnd.kubernetes.protobuf;stream=watch", Offer::Watch, Ok((Format::Protobuf, Shape::Own))),
            (
                "application/json;q=0.9,application/vnd.kubernetes.protobuf",
                Offer::Watch,
                Ok((Format::Protobuf, Shape::Own)),
            ),
            ("application/vnd.kubernetes.protobuf", Offer::Custom, Err(406)),
            ("application/vnd.kubernetes.protobuf", Offer::CustomWatch, Err(406)),
            (only_metadata, Offer::Custom, Ok((Format::Protobuf, Shape::Metadata("v1".to_owned())))),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", Offer::Objects, Err(406)),
            ("application/cbor", Offer::Objects, Err(406)),
            ("application/cbor, application/json", Offer::Objects, Ok((Format::Json, Shape::Own))),
            ("application/json;as=Table;v=v9;g=meta.k8s.io", Offer::Objects, Err(406)),
            ("text/html", Offer::Objects, Err(406)),
            ("application/yaml", Offer::Watch, Err(406)),
            ("application/json;q=0", Offer::Objects, Err(406)),
        ] {
            assert_eq!(ask(accept, offer), expected, "{accept}");
        }
    }

    #[test]
    fn openapi_v2_is_json_unless_protobuf_is_preferred() {
        let old = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
        for (accept, expected) in [
            (old.to_owned(), true),
            (GNOSTIC_TYPE.to_owned(), true),
            (format!("{old}, application/json"), true),
            (format!("application/json, {old}"), false),
            (format!("{old};q=0.5, application/json"), false),
            (format!("{old};q=0"), false),
            (format!("text/html, {old}"), true),
            ("*/*".to_owned(), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().expect("a header"));
            assert_eq!(accepts_gnostic(&headers), expected, "{accept}");
        }
        assert!(!accepts_gnostic(&HeaderMap::new()));
    }

    #[test]
    fn bodies_of_three_forms_are_understood() {
        let mut headers = HeaderMap::new();
        assert_eq!(body_format(&headers), Ok(BodyFormat::Json));
        for (media, expected) in [
            ("Application/YAML; charset=utf-8", BodyFormat::Yaml),
            ("application/json", BodyFormat::Json),
            ("application/vnd.kubernetes.protobuf", BodyFormat::Protobuf),
        ] {
            headers.insert(CONTENT_TYPE, media.parse().expect("a header"));
            assert_eq!(body_format(&headers), Ok(expected));
        }
        headers.insert(CONTENT_TYPE, "application/cbor".parse().expect("a header"));
        let error = body_format(&headers).expect_err("CBOR");
        assert_eq!(error.code(), 415);
        assert!(error.message.contains("application/json, application/yaml"), "{}", error.message);
    }
}
