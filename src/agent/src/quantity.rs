//! Amounts of resources as plain numbers, rounded up.

use barque_api::quantity::Quantity;

/// The amount in thousandths of a unit; `None` when the text is no quantity.
pub(crate) fn parse(text: &str) -> Option<i128> {
    milli(text).map(i128::from)
}

/// The amount in whole units.
pub(crate) fn units(text: &str) -> Option<i64> {
    Quantity::parse(text).ok().map(Quantity::value)
}

/// The amount in thousandths.
pub(crate) fn milli(text: &str) -> Option<i64> {
    Quantity::parse(text).ok().map(Quantity::milli_value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_rounded_up() {
        assert_eq!((milli("100m"), milli("1.5"), milli("x")), (Some(100), Some(1500), None));
        assert_eq!((units("1500m"), units("64Mi")), (Some(2), Some(64 << 20)));
    }
}
