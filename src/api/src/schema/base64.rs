//! Base64 as Go's decoder judges it, with the offset it names in its error.

/// The offset of the first wrong byte, or `None` when the text is valid
/// standard base64 (line breaks allowed).
pub(super) fn fault(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        let mut quantum = 0;
        while quantum < 4 {
            let Some(byte) = bytes.get(at) else {
                return if quantum == 0 { None } else { Some(at - quantum) };
            };
            at += 1;
            match byte {
                b'\r' | b'\n' => {}
                b'=' => return padding_fault(bytes, at, quantum),
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => quantum += 1,
                _ => return Some(at - 1),
            }
        }
    }
}

/// Judges what follows the first `=`, which stands just before `at` and after
/// `quantum` characters of its group.
fn padding_fault(bytes: &[u8], mut at: usize, quantum: usize) -> Option<usize> {
    let skip = |mut at: usize| {
        while matches!(bytes.get(at), Some(b'\r' | b'\n')) {
            at += 1;
        }
        at
    };
    match quantum {
        0 | 1 => return Some(at - 1),
        2 => {
            at = skip(at);
            match bytes.get(at) {
                None => return Some(bytes.len()),
                Some(b'=') => at += 1,
                Some(_) => return Some(at),
            }
        }
        _ => {}
    }
    at = skip(at);
    (at < bytes.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn offsets_are_those_of_go() {
        for good in ["", "aGVsbG8=", "aGk=", "YQ==", "aGVs\nbG8=", "YQ==\n"] {
            assert_eq!(fault(good), None, "{good:?}");
        }
        for (bad, at) in [("abc", 0), ("aGVsbG8", 4), ("aGV$bG8=", 3), ("=", 0), ("YQ=", 3), ("YQ==x", 4), ("a b", 1)] {
            assert_eq!(fault(bad), Some(at), "{bad:?}");
        }
    }
}
