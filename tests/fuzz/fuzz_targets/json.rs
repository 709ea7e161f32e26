//! Request bodies in JSON: any bytes are an object or an error.
#![no_main]

use barque_api::schema::{Limits, decode_json};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(decoded) = decode_json(bytes, Limits::default()) {
        let text = decoded.value.to_string();
        let again = decode_json(text.as_bytes(), Limits::default()).expect("what was written can be read");
        assert_eq!(again.value, decoded.value);
    }
});
