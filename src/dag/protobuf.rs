//! The part of protobuf's wire format that dag-pb and UnixFS use.
//!
//! <https://protobuf.dev/programming-guides/encoding/>. Which fields a message has, how often and in which order, is for
//! the caller to decide.

/// Why bytes are not a sequence of protobuf fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The bytes end within a field.
    #[error("truncated field")]
    Truncated,
    /// A varint has more than 64 bits.
    #[error("varint of more than 64 bits")]
    VarintTooLong,
    /// The field has a number that protobuf does not allow.
    #[error("field number {0} is out of range")]
    FieldNumber(u64),
    /// The field has a wire type that is no longer in use (groups) or never was.
    #[error("wire type {0} is not supported")]
    WireType(u8),
}

/// A field's value, as the wire has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of a message, in the order in which they stand.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field's number and value; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, ProtobufError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = key >> 3;
        // The highest number is 2^29 - 1.
        if number == 0 || number >= 1 << 29 {
            return Err(ProtobufError::FieldNumber(number));
        }
        let value = match (key & 7) as u8 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(usize::try_from(length).map_err(|_| ProtobufError::Truncated)?)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32(u32::from_le_bytes(bytes.try_into().expect("four bytes were taken")))
            }
            wire_type => return Err(ProtobufError::WireType(wire_type)),
        };
        Ok(Some((number, value)))
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let (value, rest) = varint(self.rest)?;
        self.rest = rest;
        Ok(value)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ProtobufError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// Reads the varint at the start of `bytes`; gives it and what follows. Encodings longer than needed are allowed, as
/// protobuf does.
pub(super) fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), ProtobufError> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate() {
        // The tenth byte has room for the 64th bit only.
        if index == 9 && *byte > 1 {
            return Err(ProtobufError::VarintTooLong);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    Err(ProtobufError::Truncated)
}

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field that is a varint.
pub(super) fn put_varint_field(out: &mut Vec<u8>, number: u8, value: u64) {
    out.push(number << 3);
    put_varint(out, value);
}

/// Appends a field that is bytes, text or a message.
pub(super) fn put_bytes_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    put_bytes_head(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends what stands before the `length` bytes of such a field.
pub(super) fn put_bytes_head(out: &mut Vec<u8>, number: u8, length: usize) {
    out.push(number << 3 | 2);
    put_varint(out, length as u64);
}

/// The length of a varint, in bytes.
pub(super) fn varint_len(value: u64) -> usize {
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// The length of a field of `length` bytes, with its head.
pub(super) fn bytes_field_len(length: usize) -> usize {
    1 + varint_len(length as u64) + length
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(message: &[u8]) -> Result<Vec<(u64, Value<'_>)>, ProtobufError> {
        let mut fields = Fields::new(message);
        let mut found = Vec::new();
        while let Some(field) = fields.next()? {
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn fields_of_every_wire_type() {
        let message = [0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x1d, 1, 0, 0, 0, 0x21, 0, 0, 0, 0, 0, 0, 0, 0];
        let expected =
            vec![(1, Value::Varint(150)), (2, Value::Bytes(b"hi")), (3, Value::Fixed32(1)), (4, Value::Fixed64)];
        assert_eq!(all(&message), Ok(expected));
        assert_eq!(all(&[]), Ok(vec![]));
    }

    #[test]
    fn malformed_fields() {
        assert_eq!(all(&[0x08]), Err(ProtobufError::Truncated));
        assert_eq!(all(&[0x12, 3, 1, 2]), Err(ProtobufError::Truncated));
        assert_eq!(
            all(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            Err(ProtobufError::Truncated)
        );
        assert_eq!(all(&[0x0b]), Err(ProtobufError::WireType(3)));
        assert_eq!(all(&[0x00, 0]), Err(ProtobufError::FieldNumber(0)));
        let long = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert_eq!(all(&long), Err(ProtobufError::VarintTooLong));
    }

    proptest! {
        #[test]
        fn varints_come_back(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), varint_len(value));
            prop_assert_eq!(varint(&bytes), Ok((value, &[][..])));
        }
    }
}
