//! Amounts with a suffix (`100m`, `1.5Gi`, `2e3`): parsing, arithmetic and
//! the canonical form in which Kubernetes writes them.
//!
//! An amount is held exactly, as a whole number of nanos in 128 bits. That is
//! wider than Kubernetes itself, which rounds up to nanos and caps at 2^63-1.
//!
//! Source: `k8s.io/apimachinery/pkg/api/resource`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Nanos in one.
const NANO: i128 = 1_000_000_000;
/// Greatest amount, in nanos: 2^63-1, as in Kubernetes.
const LIMIT: i128 = (i64::MAX as i128) * NANO;

/// The suffix family an amount is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// `m`, ``, `k`, `M`...
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`...
    BinarySi,
    /// `e3`, `E6`...
    DecimalExponent,
}

/// An amount of a resource.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is not an amount; the texts are Kubernetes'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a number with a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The suffix is none that exists.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// The number before the suffix is broken.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
}

impl Quantity {
    /// A whole amount in decimal notation.
    #[must_use]
    pub fn from_units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANO, format: Format::DecimalSi }
    }

    /// A number of thousandths in decimal notation.
    #[must_use]
    pub fn from_milli(milli: i64) -> Self {
        Self { nanos: i128::from(milli) * 1_000_000, format: Format::DecimalSi }
    }

    /// A whole amount in binary notation (`1Gi`).
    #[must_use]
    pub fn from_bytes(bytes: i64) -> Self {
        Self { nanos: i128::from(bytes) * NANO, format: Format::BinarySi }
    }

    /// Parses an amount.
    ///
    /// # Errors
    /// When the text does not have the form of an amount.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse(text)
    }

    /// Reads an amount from JSON, where numbers stand for themselves.
    ///
    /// # Errors
    /// As [`Quantity::parse`].
    pub fn from_json(value: &serde_json::Value) -> Result<Self, ParseError> {
        match value {
            serde_json::Value::String(text) => parse(text),
            serde_json::Value::Number(number) => parse(&number.to_string()),
            serde_json::Value::Null => Ok(Self::default()),
            _ => Err(ParseError::Format),
        }
    }

    /// The notation it was written in.
    #[must_use]
    pub fn format(self) -> Format {
        self.format
    }

    /// The amount in whole units, fractions rounded away from zero, capped at
    /// what fits.
    #[must_use]
    pub fn value(self) -> i64 {
        self.scaled(NANO)
    }

    /// The amount in thousandths, smaller fractions rounded away from zero,
    /// capped at what fits.
    #[must_use]
    pub fn milli_value(self) -> i64 {
        self.scaled(1_000_000)
    }

    fn scaled(self, unit: i128) -> i64 {
        let rounded = round_away(self.nanos, unit);
        i64::try_from(rounded).unwrap_or(if rounded > 0 { i64::MAX } else { i64::MIN })
    }

    /// The amount with fractions below a thousandth rounded up, as Kubernetes
    /// stores the resources of Pods.
    #[must_use]
    pub fn rounded_to_milli(self) -> Self {
        Self { nanos: round_away(self.nanos, 1_000_000) * 1_000_000, ..self }
    }

    /// Whether the amount is a whole number.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }

    /// -1, 0 or 1.
    #[must_use]
    pub fn signum(self) -> i32 {
        self.nanos.signum() as i32
    }

    /// Whether the amount is nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// The sum; the notation is this one's unless it is zero.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }

    /// The difference; the notation is this one's unless it is zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_sub(other.nanos), format }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse(text)
    }
}

fn round_away(value: i128, unit: i128) -> i128 {
    let whole = value / unit;
    if value % unit == 0 { whole } else { whole + value.signum() }
}

fn parse(text: &str) -> Result<Quantity, ParseError> {
    let bytes = text.as_bytes();
    let (negative, start) = match bytes.first() {
        None => return Err(ParseError::Format),
        Some(b'-') => (true, 1),
        Some(b'+') => (false, 1),
        Some(_) => (false, 0),
    };
    let digits = |from: usize| from + bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let whole_end = digits(start);
    let (fraction, end) = if bytes.get(whole_end) == Some(&b'.') {
        let end = digits(whole_end + 1);
        (&text[whole_end + 1..end], end)
    } else {
        ("", whole_end)
    };
    let whole = &text[start..whole_end];
    if whole.is_empty() && fraction.is_empty() {
        return Err(if bytes[start..].iter().all(|b| b"0123456789.".contains(b)) && start < bytes.len() {
            ParseError::Numeric
        } else {
            ParseError::Format
        });
    }
    let suffix = &text[end..];
    let suffix_fits = {
        let letters = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
        let number = letters.strip_prefix(['+', '-']).unwrap_or(letters);
        number.bytes().all(|b| b.is_ascii_digit())
    };
    if !suffix_fits {
        return Err(ParseError::Format);
    }
    let (base, exponent, format) = suffix_of(suffix).ok_or(ParseError::Suffix)?;
    Ok(Quantity { nanos: scale(whole, fraction, negative, base, exponent), format })
}

/// Base, exponent and family of a suffix.
fn suffix_of(suffix: &str) -> Option<(u32, i32, Format)> {
    let fixed = match suffix {
        "n" => (10, -9, Format::DecimalSi),
        "u" => (10, -6, Format::DecimalSi),
        "m" => (10, -3, Format::DecimalSi),
        "" => (10, 0, Format::DecimalSi),
        "k" => (10, 3, Format::DecimalSi),
        "M" => (10, 6, Format::DecimalSi),
        "G" => (10, 9, Format::DecimalSi),
        "T" => (10, 12, Format::DecimalSi),
        "P" => (10, 15, Format::DecimalSi),
        "E" => (10, 18, Format::DecimalSi),
        "Ki" => (2, 10, Format::BinarySi),
        "Mi" => (2, 20, Format::BinarySi),
        "Gi" => (2, 30, Format::BinarySi),
        "Ti" => (2, 40, Format::BinarySi),
        "Pi" => (2, 50, Format::BinarySi),
        "Ei" => (2, 60, Format::BinarySi),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            return exponent.parse::<i32>().ok().map(|e| (10, e, Format::DecimalExponent));
        }
    };
    Some(fixed)
}

/// `whole.fraction * base^exponent` in nanos, rounded away from zero and capped.
fn scale(whole: &str, fraction: &str, negative: bool, base: u32, exponent: i32) -> i128 {
    // The number is digits * 10^-shift * base^exponent. Digits beyond 38 are
    // far below a nano or far above the cap; only their presence counts.
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').collect();
    let first = digits.iter().position(|d| *d != 0);
    let Some(first) = first else { return 0 };
    let significant = &digits[first..];
    let kept = significant.len().min(30);
    let mantissa = significant[..kept].iter().fold(0i128, |sum, digit| sum * 10 + i128::from(*digit));
    let lost = significant[kept..].iter().any(|d| *d != 0);
    let dropped = i64::try_from(significant.len() - kept).unwrap_or(i64::MAX);
    let mut power = dropped.saturating_sub(i64::try_from(fraction.len()).unwrap_or(i64::MAX)).saturating_add(9);
    let mut value = mantissa;
    let mut inexact = lost;
    let mut capped = false;
    if base == 2 {
        match value.checked_mul(1i128 << exponent.clamp(0, 60)) {
            Some(product) => value = product,
            None => {
                // Only with more than 20 significant digits: give up the last ones.
                let (short, rest) = (value / 1_000_000_000_000, value % 1_000_000_000_000);
                inexact |= rest != 0;
                power = power.saturating_add(12);
                value = short.saturating_mul(1i128 << exponent.clamp(0, 60));
            }
        }
    } else {
        power = power.saturating_add(i64::from(exponent));
    }
    while power > 0 && !capped {
        value = value.saturating_mul(10);
        capped = value > LIMIT;
        power -= 1;
    }
    while power < 0 && value != 0 {
        inexact |= value % 10 != 0;
        value /= 10;
        power += 1;
    }
    if inexact {
        value = value.saturating_add(1);
    }
    value = value.min(LIMIT);
    if negative { -value } else { value }
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the greatest suffix that loses nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let mut format = self.format;
        // Binary notation has no fractions, and small amounts are written plainly.
        if format == Format::BinarySi && (self.nanos.abs() < 1024 * NANO || self.nanos % NANO != 0) {
            format = Format::DecimalSi;
        }
        match format {
            Format::BinarySi => {
                let mut value = self.nanos / NANO;
                let mut steps = 0;
                while steps < 6 && value % 1024 == 0 {
                    value /= 1024;
                    steps += 1;
                }
                write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][steps])
            }
            Format::DecimalSi | Format::DecimalExponent => {
                let mut value = self.nanos;
                let mut steps = 0;
                while steps < 9 && value % 1000 == 0 {
                    value /= 1000;
                    steps += 1;
                }
                if format == Format::DecimalSi {
                    write!(f, "{value}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][steps])
                } else if steps == 3 {
                    write!(f, "{value}")
                } else {
                    write!(f, "{value}e{}", steps as i32 * 3 - 9)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        Quantity::parse(text).map_or_else(|e| e.to_string(), |q| q.to_string())
    }

    #[test]
    fn canonical_forms() {
        for (text, canonical) in [
            ("0", "0"),
            ("0Mi", "0"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1.5", "1500m"),
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1Ki", "1Ki"),
            ("1000k", "1M"),
            ("1e3", "1e3"),
            ("1000e0", "1e3"),
            ("1E6", "1e6"),
            ("1E", "1E"),
            ("-1.5", "-1500m"),
            ("+5", "5"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.1n", "1n"),
            ("1n", "1n"),
            ("123456789", "123456789"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("129M", "129M"),
            ("123Mi", "123Mi"),
            ("100Ei", "9223372036854775807"),
            ("1.1Ki", "1126400m"),
        ] {
            assert_eq!(show(text), canonical, "{text}");
        }
    }

    #[test]
    fn bad_texts() {
        for text in ["", "a", "1 Gi", "1.5.5", "1gi", "--1", "1é"] {
            assert_eq!(Quantity::parse(text), Err(ParseError::Format), "{text}");
        }
        for text in ["1Kii", "1mm", "1i", "1e", "1e5m"] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
        assert_eq!(Quantity::parse("1mm"), Err(ParseError::Suffix));
    }

    #[test]
    fn values_round_up() {
        let quantity = |text: &str| Quantity::parse(text).expect("valid");
        assert_eq!(quantity("100m").value(), 1);
        assert_eq!(quantity("1500m").value(), 2);
        assert_eq!(quantity("1.0001").milli_value(), 1001);
        assert_eq!(quantity("-100m").value(), -1);
        assert_eq!(quantity("2Gi").value(), 2 << 30);
        assert_eq!(quantity("9E").milli_value(), i64::MAX);
        assert_eq!(quantity("100u").rounded_to_milli().to_string(), "1m");
    }

    #[test]
    fn arithmetic_and_order() {
        let quantity = |text: &str| Quantity::parse(text).expect("valid");
        assert_eq!(quantity("1Gi"), quantity("1024Mi"));
        assert!(quantity("1Gi") > quantity("1G"));
        assert_eq!(quantity("500m").plus(quantity("1500m")).to_string(), "2");
        assert_eq!(quantity("1Gi").minus(quantity("512Mi")).to_string(), "512Mi");
        assert_eq!(Quantity::default().plus(quantity("1Gi")).to_string(), "1Gi");
    }

    proptest::proptest! {
        #[test]
        fn canonical_text_is_the_same_amount(text in "[+-]?[0-9]{1,12}(\\.[0-9]{0,9})?(m|k|M|G|Ki|Mi|Gi|e2|)") {
            let quantity = Quantity::parse(&text).expect("valid");
            let again = Quantity::parse(&quantity.to_string()).expect("canonical form parses");
            proptest::prop_assert_eq!(quantity, again);
            proptest::prop_assert_eq!(quantity.to_string(), again.to_string());
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = Quantity::parse(&text).map(|q| q.to_string());
        }
    }
}
