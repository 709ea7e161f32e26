//! Request bodies in protobuf: what is written can be read.
#![no_main]

use barque_apiserver::{decode_protobuf, encode_protobuf};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(object) = decode_protobuf(bytes)
        && let Ok(written) = encode_protobuf(&object)
    {
        decode_protobuf(&written).expect("what was written can be read");
    }
});
