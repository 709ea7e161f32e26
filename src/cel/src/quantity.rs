//! Amounts with a suffix, as the quantity library computes with them: exactly,
//! in nanos of 128 bits.
//!
//! Source: `k8s.io/apimachinery/pkg/api/resource`, `k8s.io/apiserver/pkg/cel/library/quantity.go`.

use std::cmp::Ordering;
use std::fmt;

const NANO: i128 = 1_000_000_000;
const LIMIT: i128 = (i64::MAX as i128) * NANO;
/// Digits that a number may have.
const MAX_DIGITS: usize = 64;

/// The suffix family in which an amount is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

/// An amount.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.nanos.cmp(&other.nanos))
    }
}

const DECIMAL: &[(&str, i32)] =
    &[("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: &[(&str, u32)] = &[("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

impl Quantity {
    /// Reads an amount.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        const FORMAT: &str =
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let negative = text.starts_with('-');
        let length = unsigned.len() - unsigned.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (number, suffix) = unsigned.split_at(length);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if number.len() > MAX_DIGITS || fraction.contains('.') || whole.len() + fraction.len() == 0 {
            return Err(FORMAT);
        }
        let (format, numerator, ten) = if let Some((_, bits)) = BINARY.iter().find(|(name, _)| *name == suffix) {
            (Format::Binary, 1i128 << bits, 0)
        } else if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
            (Format::Decimal, 1, *power)
        } else if let Some(exponent) = suffix.strip_prefix(['e', 'E']) {
            let power: i32 = exponent.parse().map_err(|_| "unable to parse quantity's suffix")?;
            (Format::Exponent, 1, power.clamp(-100, 100))
        } else {
            let known = suffix.chars().all(|c| "eEinumkKMGTP+-0123456789".contains(c));
            return Err(if known { "unable to parse quantity's suffix" } else { FORMAT });
        };
        // digits × numerator × 10^(ten + 9 - digits behind the point), rounded up.
        let mut nanos = 0i128;
        let mut saturated = false;
        for digit in whole.chars().chain(fraction.chars()) {
            let digit = i128::from(digit.to_digit(10).unwrap_or(0));
            match nanos.checked_mul(10).and_then(|n| n.checked_add(digit)) {
                Some(next) => nanos = next,
                None => saturated = true,
            }
        }
        let mut power = ten + 9 - fraction.len() as i32;
        match nanos.checked_mul(numerator) {
            Some(next) => nanos = next,
            None => saturated = true,
        }
        while power > 0 && !saturated {
            match nanos.checked_mul(10) {
                Some(next) => nanos = next,
                None => saturated = true,
            }
            power -= 1;
        }
        let mut rest = false;
        while power < 0 {
            rest |= nanos % 10 != 0;
            nanos /= 10;
            power += 1;
        }
        nanos += i128::from(rest);
        if saturated || nanos > LIMIT {
            nanos = LIMIT;
        }
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }

    pub(crate) fn sign(self) -> i64 {
        self.nanos.signum() as i64
    }

    pub(crate) fn as_integer(self) -> Option<i64> {
        if self.nanos % NANO != 0 {
            return None;
        }
        i64::try_from(self.nanos / NANO).ok()
    }

    pub(crate) fn as_float(self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos).clamp(-LIMIT, LIMIT), format }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        self.plus(Self { nanos: -other.nanos, format: other.format })
    }

    pub(crate) fn plus_int(self, other: i64, sign: i128) -> Self {
        self.plus(Self { nanos: i128::from(other) * NANO * sign, format: self.format })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos % NANO == 0;
        if self.format == Format::Binary && whole && (self.nanos / NANO).abs() >= 1024 {
            let units = self.nanos / NANO;
            let (suffix, bits) = BINARY.iter().rev().find(|(_, bits)| units % (1i128 << bits) == 0).unwrap_or(&("", 0));
            return write!(f, "{}{suffix}", units >> bits);
        }
        let mut mantissa = self.nanos;
        let mut power = -9;
        while power < 18 && mantissa % 1000 == 0 {
            mantissa /= 1000;
            power += 3;
        }
        if self.format == Format::Exponent {
            return if power == 0 { write!(f, "{mantissa}") } else { write!(f, "{mantissa}e{power}") };
        }
        let suffix = DECIMAL.iter().find(|(_, p)| *p == power).map_or("", |(name, _)| name);
        write!(f, "{mantissa}{suffix}")
    }
}
