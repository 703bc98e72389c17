//! The message in the data of a UnixFS node.

use super::super::pb::LINKS_MAX;
use super::super::protobuf::{
    Fields, ProtobufError, Value, bytes_field_len, put_bytes_field, put_bytes_head, put_varint, put_varint_field,
    varint, varint_len,
};

const TYPE: u8 = 1;
const DATA: u8 = 2;
const FILE_SIZE: u8 = 3;
const BLOCK_SIZES: u8 = 4;
const HASH_TYPE: u8 = 5;
const FANOUT: u8 = 6;
const MODE: u8 = 7;
const MTIME: u8 = 8;
const MTIME_SECONDS: u8 = 1;
const MTIME_NANOSECONDS: u8 = 2;

/// The bits of a mode that mean something: permissions, set-user-id, set-group-id, sticky.
const MODE_MASK: u32 = 0o7777;

/// Why bytes are not this message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// The bytes are no protobuf.
    #[error("malformed protobuf")]
    Protobuf(#[from] ProtobufError),
    /// A field of the message has another type.
    #[error("field {0} has an unexpected type")]
    FieldType(u64),
    /// The message does not say what the node is.
    #[error("the type of the node is missing")]
    MissingType,
    /// The node is of a type that UnixFS does not have.
    #[error("type {0} is unknown")]
    UnknownType(u64),
    /// There are more sizes than a node can have links.
    #[error("more than {LINKS_MAX} block sizes")]
    TooManyBlockSizes,
    /// The nanoseconds are a second or more.
    #[error("{0} nanoseconds are more than a second")]
    Nanoseconds(u32),
}

/// What a node is (`DataType` of the specification).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A piece of a file, as old versions wrote it.
    Raw,
    /// A directory.
    Directory,
    /// A file or a piece of one.
    File,
    /// Metadata of the only link; nobody writes it.
    Metadata,
    /// A symbolic link.
    Symlink,
    /// A directory, or a part of one, as a hash array mapped trie.
    HamtShard,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Raw, Self::Directory, Self::File, Self::Metadata, Self::Symlink, Self::HamtShard];
}

/// When a file was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtime {
    /// Seconds since 1970, which may be negative.
    pub seconds: i64,
    /// Nanoseconds since then; less than a second.
    pub nanoseconds: u32,
}

/// The message in the data of a UnixFS node, borrowed from the bytes it was decoded from or is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data<'a> {
    /// What the node is.
    pub kind: Kind,
    /// A file's bytes, a symbolic link's target or a HAMT's bit field.
    pub data: Option<&'a [u8]>,
    /// The length of a file's content below and in this node, in bytes.
    pub file_size: Option<u64>,
    /// For each link of a file's node, the length of the content below it.
    pub block_sizes: Vec<u64>,
    /// The multihash code of a HAMT's hash function.
    pub hash_type: Option<u64>,
    /// The number of a HAMT's buckets.
    pub fanout: Option<u64>,
    /// Permissions.
    pub mode: Option<u32>,
    /// Time of the last change.
    pub mtime: Option<Mtime>,
}

impl<'a> Data<'a> {
    /// A message that only says what the node is.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            data: None,
            file_size: None,
            block_sizes: Vec::new(),
            hash_type: None,
            fanout: None,
            mode: None,
            mtime: None,
        }
    }

    /// The message as Kubo writes it: fields in the order of their numbers, block sizes not packed.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.put(&mut out);
        out
    }

    /// The length of [`Data::encode`]'s result, in bytes.
    pub fn encoded_len(&self) -> usize {
        let data_len = self.data.map_or(0, |data| bytes_field_len(data.len()));
        let numbers_len: usize = self.numbers().map(|(_, value)| 1 + varint_len(value)).sum();
        let mtime_len = self.mtime.map_or(0, |mtime| bytes_field_len(encode_mtime(mtime).len()));
        1 + varint_len(self.kind as u64) + data_len + numbers_len + mtime_len
    }

    /// Appends what [`Data::encode`] gives.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        self.put_before_data(out);
        if let Some(data) = self.data {
            put_bytes_field(out, DATA, data);
        }
        self.put_after_data(out);
    }

    /// Appends what stands before [`Data::data`].
    fn put_before_data(&self, out: &mut Vec<u8>) {
        put_varint_field(out, TYPE, self.kind as u64);
    }

    /// Appends what stands after [`Data::data`].
    fn put_after_data(&self, out: &mut Vec<u8>) {
        for (number, value) in self.numbers() {
            put_varint_field(out, number, value);
        }
        if let Some(mtime) = self.mtime {
            put_bytes_field(out, MTIME, &encode_mtime(mtime));
        }
    }

    /// What stands before and after `data_len` bytes of data, which must not be in the message itself.
    pub(super) fn around(&self, data_len: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        self.put_before_data(&mut before);
        put_bytes_head(&mut before, DATA, data_len);
        self.put_after_data(&mut after);
        (before, after)
    }

    /// The fields between data and time, all of which are numbers.
    fn numbers(&self) -> impl Iterator<Item = (u8, u64)> {
        let sizes = self.block_sizes.iter().map(|size| (BLOCK_SIZES, Some(*size)));
        let others = [(HASH_TYPE, self.hash_type), (FANOUT, self.fanout), (MODE, self.mode.map(u64::from))];
        let all = [(FILE_SIZE, self.file_size)].into_iter().chain(sizes).chain(others);
        all.filter_map(|(number, value)| Some((number, value?)))
    }

    /// Reads a message. As protobuf has it, the fields may stand in any order, of a repeated one the last counts, and
    /// unknown ones are skipped; block sizes may be packed.
    ///
    /// # Errors
    /// If the bytes are no protobuf, or a field has another type or an impossible value.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DataError> {
        let mut kind = None;
        let mut message = Self::new(Kind::Raw);
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Varint(value)) => kind = Some(decode_kind(value)?),
                (2, Value::Bytes(data)) => message.data = Some(data),
                (3, Value::Varint(size)) => message.file_size = Some(size),
                (4, Value::Varint(size)) => message.push_block_size(size)?,
                (4, Value::Bytes(packed)) => message.push_packed_block_sizes(packed)?,
                (5, Value::Varint(hash_type)) => message.hash_type = Some(hash_type),
                (6, Value::Varint(fanout)) => message.fanout = Some(fanout),
                (7, Value::Varint(mode)) => message.mode = Some(mode as u32 & MODE_MASK),
                (8, Value::Bytes(mtime)) => message.mtime = Some(decode_mtime(mtime)?),
                (1..=8, _) => return Err(DataError::FieldType(number)),
                _ => {}
            }
        }
        message.kind = kind.ok_or(DataError::MissingType)?;
        Ok(message)
    }

    fn push_block_size(&mut self, size: u64) -> Result<(), DataError> {
        if self.block_sizes.len() == LINKS_MAX {
            return Err(DataError::TooManyBlockSizes);
        }
        self.block_sizes.push(size);
        Ok(())
    }

    fn push_packed_block_sizes(&mut self, mut packed: &[u8]) -> Result<(), DataError> {
        while !packed.is_empty() {
            let (size, rest) = varint(packed)?;
            self.push_block_size(size)?;
            packed = rest;
        }
        Ok(())
    }
}

fn decode_kind(value: u64) -> Result<Kind, DataError> {
    let known = usize::try_from(value).ok().and_then(|index| Kind::ALL.get(index));
    known.copied().ok_or(DataError::UnknownType(value))
}

fn encode_mtime(mtime: Mtime) -> Vec<u8> {
    let mut out = vec![MTIME_SECONDS << 3];
    put_varint(&mut out, mtime.seconds as u64);
    if mtime.nanoseconds > 0 {
        out.push(MTIME_NANOSECONDS << 3 | 5);
        out.extend_from_slice(&mtime.nanoseconds.to_le_bytes());
    }
    out
}

fn decode_mtime(bytes: &[u8]) -> Result<Mtime, DataError> {
    let mut mtime = Mtime { seconds: 0, nanoseconds: 0 };
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Varint(seconds)) => mtime.seconds = seconds as i64,
            (2, Value::Fixed32(nanoseconds)) if nanoseconds < 1_000_000_000 => mtime.nanoseconds = nanoseconds,
            (2, Value::Fixed32(nanoseconds)) => return Err(DataError::Nanoseconds(nanoseconds)),
            (1 | 2, _) => return Err(DataError::FieldType(number)),
            _ => {}
        }
    }
    Ok(mtime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::testing::{hex, mutate};
    use proptest::prelude::*;

    /// Both ways, with messages that Kubo wrote.
    #[test]
    fn known_messages() {
        let check = |message: &str, expected: Data<'_>| {
            assert_eq!(Data::decode(&hex(message)), Ok(expected.clone()), "{message}");
            assert_eq!(expected.encode(), hex(message));
        };
        check("0801", Data::new(Kind::Directory));
        check("08021800", Data { file_size: Some(0), ..Data::new(Kind::File) });
        check("0802120568656c6c6f1805", Data { data: Some(b"hello"), file_size: Some(5), ..Data::new(Kind::File) });
        check("080412016 1".replace(' ', "").as_str(), Data { data: Some(b"a"), ..Data::new(Kind::Symlink) });
        check(
            "0802188180102080801020 01".replace(' ', "").as_str(),
            Data { file_size: Some(262_145), block_sizes: vec![262_144, 1], ..Data::new(Kind::File) },
        );
        let shard = Data { hash_type: Some(0x22), fanout: Some(256), ..Data::new(Kind::HamtShard) };
        check("08051201802822308002", Data { data: Some(&[0x80]), ..shard });
        // UnixFS 1.5.
        let mtime = Some(Mtime { seconds: -1, nanoseconds: 5 });
        check(
            "0801 38ed03 4210 08ffffffffffffffffff01 1505000000".replace(' ', "").as_str(),
            Data { mode: Some(0o755), mtime, ..Data::new(Kind::Directory) },
        );
    }

    #[test]
    fn protobuf_leaves_much_to_the_writer() {
        let expected = Data { block_sizes: vec![1, 300, 2], file_size: Some(303), ..Data::new(Kind::File) };
        // Packed sizes, the type last, an unknown field, the file's size twice.
        assert_eq!(
            Data::decode(&hex("1801 2203 01ac02 2002 7a00 18af02 0802".replace(' ', "").as_str())),
            Ok(expected)
        );
    }

    #[test]
    fn malformed_messages() {
        let check = |message: &str, expected| assert_eq!(Data::decode(&hex(message)), Err(expected), "{message}");
        check("", DataError::MissingType);
        check("0806", DataError::UnknownType(6));
        check("0a00", DataError::FieldType(1));
        check("08021001", DataError::FieldType(2));
        check("080222 0180".replace(' ', "").as_str(), DataError::Protobuf(ProtobufError::Truncated));
        check("08014205 15ffffffff".replace(' ', "").as_str(), DataError::Nanoseconds(u32::MAX));
        let sizes = [&[8, 2][..], &[0x20, 1].repeat(LINKS_MAX + 1)].concat();
        assert_eq!(Data::decode(&sizes), Err(DataError::TooManyBlockSizes));
    }

    proptest! {
        #[test]
        fn messages_come_back(
            kind in 0usize..6,
            data: Option<Vec<u8>>,
            numbers: (Option<u64>, Vec<u64>, Option<u64>, Option<u64>),
            mode in proptest::option::of(0u32..=MODE_MASK),
            mtime in proptest::option::of((any::<i64>(), 0u32..1_000_000_000)),
            places: Vec<(usize, u8)>,
        ) {
            let (file_size, block_sizes, hash_type, fanout) = numbers;
            let mtime = mtime.map(|(seconds, nanoseconds)| Mtime { seconds, nanoseconds });
            let kind = Kind::ALL[kind];
            let message = Data { kind, data: data.as_deref(), file_size, block_sizes, hash_type, fanout, mode, mtime };
            let encoded = message.encode();
            prop_assert_eq!(encoded.len(), message.encoded_len());
            let _ = Data::decode(&mutate(&encoded, &places));
            prop_assert_eq!(Data::decode(&encoded), Ok(message));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Data::decode(&bytes);
        }
    }
}
