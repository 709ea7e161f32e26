//! Sets of indexes of a Job, as text: `1,3-5,7`.

/// A set of indexes: ranges in ascending order, both ends included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Indexes(Vec<(i64, i64)>);

impl Indexes {
    /// Reads a set of indexes below `completions`.
    pub(crate) fn parse(text: &str, completions: i64) -> Result<Self, String> {
        let mut ranges: Vec<(i64, i64)> = Vec::new();
        if text.is_empty() {
            return Ok(Self::default());
        }
        for interval in text.split(',') {
            let (first, last) = parse_interval(interval, completions)?;
            if let Some((_, before)) = ranges.last()
                && *before >= first
            {
                return Err(format!("non-increasing order, previous: {before}, current: {first}"));
            }
            ranges.push((first, last));
        }
        Ok(Self(ranges))
    }

    /// How many indexes there are.
    pub(crate) fn count(&self) -> i64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }
}

/// The least index that is in both sets.
pub(crate) fn overlap(a: &Indexes, b: &Indexes) -> Option<i64> {
    let (mut left, mut right) = (a.0.iter().peekable(), b.0.iter().peekable());
    while let (Some((a_first, a_last)), Some((b_first, b_last))) = (left.peek(), right.peek()) {
        let common = (*a_first).max(*b_first);
        if common <= (*a_last).min(*b_last) {
            return Some(common);
        }
        if a_last < b_last {
            left.next()
        } else {
            right.next()
        };
    }
    None
}

fn parse_interval(interval: &str, completions: i64) -> Result<(i64, i64), String> {
    let parts: Vec<&str> = interval.split('-').collect();
    if parts.len() > 2 {
        return Err(format!(
            "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        ));
    }
    let number = |text: &str| {
        let whole = text.parse::<i64>().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if whole >= completions { Err(format!("too large index: {text:?}")) } else { Ok(whole) }
    };
    let first = number(parts[0])?;
    let Some(last) = parts.get(1) else { return Ok((first, first)) };
    let last = number(last)?;
    if first >= last {
        return Err(format!("non-increasing order, previous: {first}, current: {last}"));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sets_are_read() {
        let count = |text: &str| Indexes::parse(text, 10).map(|set| set.count());
        assert_eq!(count(""), Ok(0));
        assert_eq!(count("1,3-5,7"), Ok(5));
        for wrong in ["10", "3-1", "5,4", "1-2-3", "a", "1,,2", "3-3"] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
    }

    /// A set as text and as what it means.
    fn set() -> impl Strategy<Value = (String, BTreeSet<i64>)> {
        proptest::collection::btree_set(0_i64..40, 0..20).prop_map(|set| {
            let mut ranges: Vec<(i64, i64)> = Vec::new();
            for index in &set {
                match ranges.last_mut() {
                    Some((_, last)) if *last + 1 == *index => *last = *index,
                    _ => ranges.push((*index, *index)),
                }
            }
            let text: Vec<String> =
                ranges.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
            (text.join(","), set)
        })
    }

    proptest! {
        #[test]
        fn sets_behave_like_sets((a, a_set) in set(), (b, b_set) in set()) {
            let (a, b) = (Indexes::parse(&a, 40).expect("valid"), Indexes::parse(&b, 40).expect("valid"));
            prop_assert_eq!(a.count(), i64::try_from(a_set.len()).expect("small"));
            prop_assert_eq!(overlap(&a, &b), a_set.intersection(&b_set).next().copied());
        }
    }
}
