//! Request bodies in YAML, and what is made of them in answers.
#![no_main]

use barque_api::schema::Limits;
use barque_api::yaml::{decode_yaml, encode_yaml};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(decoded) = decode_yaml(bytes, Limits::default()) {
        let text = encode_yaml(&decoded.value);
        let again = decode_yaml(text.as_bytes(), Limits { max_bytes: usize::MAX, ..Limits::default() });
        assert_eq!(again.expect("what was written can be read").value, decoded.value);
    }
});
