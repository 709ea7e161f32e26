//! Protobuf's wire format: fields of a message, nothing of their meaning.

/// A field's value as it stands in the bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads the fields of a message one by one.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (index, byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.0 = &self.0[index + 1..];
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    /// The next field's number and value.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Wire<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Malformed)?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| Malformed)?)),
            _ => return Err(Malformed),
        };
        if tag >> 3 == 0 {
            return Err(Malformed);
        }
        Ok(Some((tag >> 3, value)))
    }
}

/// Wire types.
pub(super) const VARINT: u64 = 0;
pub(super) const FIXED64: u64 = 1;
pub(super) const BYTES: u64 = 2;

/// Longest varint, in bytes.
const MAX_VARINT: usize = 10;

/// Writes a message from its end to its beginning.
#[derive(Debug, Default)]
pub(super) struct Backwards(Vec<u8>);

impl Backwards {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes.iter().rev());
    }

    pub(super) fn varint(&mut self, value: u64) {
        let mut groups = [0; MAX_VARINT];
        let length = varint(value, &mut groups);
        self.bytes(&groups[..length]);
    }

    pub(super) fn tag(&mut self, number: u64, wire: u64) {
        self.varint(number << 3 | wire);
    }

    /// A field of bytes or text.
    pub(super) fn field(&mut self, number: u64, content: &[u8]) {
        self.bytes(content);
        self.varint(content.len() as u64);
        self.tag(number, BYTES);
    }

    /// A field that is a whole number.
    pub(super) fn number(&mut self, number: u64, value: i64) {
        self.varint(value as u64);
        self.tag(number, VARINT);
    }

    /// A field that is a message.
    pub(super) fn message<E>(
        &mut self,
        number: u64,
        content: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let behind = self.0.len();
        content(self)?;
        self.varint((self.0.len() - behind) as u64);
        self.tag(number, BYTES);
        Ok(())
    }

    /// The bytes in their order.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.reverse();
        self.0
    }
}

/// Writes a varint to the beginning of a buffer and gives its length.
fn varint(mut value: u64, buffer: &mut [u8; MAX_VARINT]) -> usize {
    let mut length = 0;
    loop {
        let more = value >= 0x80;
        buffer[length] = (value as u8 & 0x7f) | if more { 0x80 } else { 0 };
        length += 1;
        if !more {
            return length;
        }
        value >>= 7;
    }
}

/// A field's tag and length in front of bytes that follow.
pub(super) fn heading(number: u64, length: usize, out: &mut Vec<u8>) {
    let mut groups = [0; MAX_VARINT];
    for value in [number << 3 | BYTES, length as u64] {
        let written = varint(value, &mut groups);
        out.extend_from_slice(&groups[..written]);
    }
}
