//! Timestamps: RFC 3339, written back in UTC as Kubernetes stores them.

use k8s_openapi::jiff::Timestamp;

/// Checks a `Time` (or with `micro` a `MicroTime`) and gives its canonical
/// text where that differs.
///
/// # Errors
/// The message of Go's `time.Parse`.
pub(super) fn canonical(text: &str, micro: bool) -> Result<Option<String>, String> {
    let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
    let fault =
        |rest: &str, part: &str| format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {part:?}");
    let mut rest = text;
    // Fixed-width parts first, so that the message names the one at fault.
    for (width, part) in [
        (4, "2006"),
        (0, "-"),
        (2, "01"),
        (0, "-"),
        (2, "02"),
        (0, "T"),
        (2, "15"),
        (0, ":"),
        (2, "04"),
        (0, ":"),
        (2, "05"),
    ] {
        if width == 0 {
            rest = rest.strip_prefix(part).ok_or_else(|| fault(rest, part))?;
        } else {
            let digits = rest.get(..width).filter(|head| head.bytes().all(|b| b.is_ascii_digit()));
            digits.ok_or_else(|| fault(rest, part))?;
            rest = &rest[width..];
        }
    }
    if !micro && rest == "Z" || micro && rest.len() == 8 && rest.starts_with('.') && rest.ends_with('Z') {
        return match text.parse::<Timestamp>() {
            Ok(_) => Ok(None),
            Err(_) => Err(format!("parsing time {text:?}: day out of range")),
        };
    }
    let zone = rest.trim_start_matches('.').trim_start_matches(|c: char| c.is_ascii_digit());
    if !matches!(zone.as_bytes(), [b'Z'] | [b'+' | b'-', _, _, b':', _, _]) {
        return Err(fault(zone, "Z07:00"));
    }
    let time: Timestamp = text.parse().map_err(|_| format!("parsing time {text:?}: day out of range"))?;
    Ok(Some(if micro { micro_time(time) } else { second_time(time) }))
}

/// A `Time` as Kubernetes writes it.
pub(crate) fn second_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn canonical_form_and_errors() {
        assert_eq!(canonical("2026-11-24T01:02:03Z", false), Ok(None));
        assert_eq!(canonical("2026-11-24T01:02:03.5+01:00", false), Ok(Some("2026-11-24T00:02:03Z".to_owned())));
        assert_eq!(canonical("2026-11-24T01:02:03.123456Z", true), Ok(None));
        assert_eq!(canonical("2026-11-24T01:02:03Z", true), Ok(Some("2026-11-24T01:02:03.000000Z".to_owned())));
        assert_eq!(
            canonical("soon", false).unwrap_err(),
            r#"parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006""#
        );
        assert!(canonical("2026-02-30T01:02:03Z", false).unwrap_err().contains("out of range"));
        assert!(canonical("2026-02-03T01:02:03", false).unwrap_err().contains(r#"cannot parse "" as "Z07:00""#));
    }
}
