//! dag-pb: nodes with links to other blocks and bytes of their own.
//!
//! <https://ipld.io/specs/codecs/dag-pb/spec/>. A node is the protobuf message
//!
//! ```text
//! message PBLink { optional bytes Hash = 1; optional string Name = 2; optional uint64 Tsize = 3; }
//! message PBNode { repeated PBLink Links = 2; optional bytes Data = 1; }
//! ```
//!
//! It is written with all links first and the data after them, and the fields of a link in the order of their numbers.
//! Read are both orders of links and data, since profiles that write the data first are on their way (draft IPIP-550);
//! everything else that is not in canonical order is refused, as the specification requires.

use super::block::{Block, BlockError, CODEC_DAG_PB, CODEC_RAW, Cid, parse_cid};
use super::protobuf::{
    Fields, ProtobufError, Value, bytes_field_len, put_bytes_field, put_bytes_head, put_varint_field, varint_len,
};

/// The most links that a node may have. A block of 2 MiB has room for 47,662 links with SHA2-256 and no name; only links
/// with identity CIDs are shorter.
pub const LINKS_MAX: usize = 65_536;

const NODE_DATA: u8 = 1;
const NODE_LINKS: u8 = 2;
const LINK_HASH: u8 = 1;
const LINK_NAME: u8 = 2;
const LINK_TSIZE: u8 = 3;

/// Why bytes are not a dag-pb node.
#[derive(Debug, thiserror::Error)]
pub enum PbError {
    /// The bytes are no protobuf.
    #[error("malformed protobuf")]
    Protobuf(#[from] ProtobufError),
    /// A field that dag-pb does not have, or one with another type.
    #[error("unexpected field {number} in a {message}")]
    UnexpectedField {
        /// `node` or `link`.
        message: &'static str,
        /// The field's number.
        number: u64,
    },
    /// A field twice or in the wrong order; or data between links.
    #[error("field {number} of a {message} is repeated or out of order")]
    FieldOrder {
        /// `node` or `link`.
        message: &'static str,
        /// The field's number.
        number: u64,
    },
    /// A link without a CID.
    #[error("link without a CID")]
    MissingCid,
    /// A link with a malformed CID.
    #[error("malformed CID in a link")]
    LinkCid(#[source] BlockError),
    /// A link's name is not UTF-8.
    #[error("name of a link is not UTF-8: {}", name.escape_ascii())]
    NameNotUtf8 {
        /// The name.
        name: Vec<u8>,
    },
    /// A block is neither raw nor dag-pb, so what it links to is not known.
    #[error("codec 0x{0:x} is neither raw nor dag-pb")]
    Codec(u64),
    /// More than [`LINKS_MAX`] links.
    #[error("node has more than {LINKS_MAX} links")]
    TooManyLinks,
}

/// A link to another block.
///
/// UnixFS as Kubo writes it always has name and size, if need be empty and zero; other writers leave them out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// The block.
    pub cid: Cid,
    /// The link's name; not unique, and in a directory the entry's name.
    pub name: Option<&'a str>,
    /// The size of the whole DAG under the link in bytes, as its writer claims. Nothing may rely on it.
    pub tsize: Option<u64>,
}

impl Link<'_> {
    /// Its length in a node's encoding, in bytes.
    pub fn encoded_len(&self) -> usize {
        bytes_field_len(self.message_len())
    }

    fn message_len(&self) -> usize {
        message_len(self.cid.encoded_len(), self.name.map(str::len), self.tsize)
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_bytes_head(out, NODE_LINKS, self.message_len());
        put_bytes_field(out, LINK_HASH, &self.cid.to_bytes());
        if let Some(name) = self.name {
            put_bytes_field(out, LINK_NAME, name.as_bytes());
        }
        if let Some(tsize) = self.tsize {
            put_varint_field(out, LINK_TSIZE, tsize);
        }
    }
}

fn message_len(cid_len: usize, name_len: Option<usize>, tsize: Option<u64>) -> usize {
    let name_len = name_len.map_or(0, bytes_field_len);
    let tsize_len = tsize.map_or(0, |tsize| 1 + varint_len(tsize));
    bytes_field_len(cid_len) + name_len + tsize_len
}

/// As [`Link::encoded_len`], of a link with a CID and a name of these lengths in bytes.
pub(super) fn link_len(cid_len: usize, name_len: usize, tsize: u64) -> usize {
    bytes_field_len(message_len(cid_len, Some(name_len), Some(tsize)))
}

/// A dag-pb node, borrowed from the bytes it was decoded from or is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node<'a> {
    /// The links in the order in which they are written. Canonical is ascending by the bytes of the names, and the order
    /// of insertion among equal names; neither encoder nor decoder changes or requires that.
    pub links: Vec<Link<'a>>,
    /// The node's own bytes. Empty data is not the same as none.
    pub data: Option<&'a [u8]>,
}

impl<'a> Node<'a> {
    /// The node's bytes: links first.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        for link in &self.links {
            link.put(&mut out);
        }
        if let Some(data) = self.data {
            put_bytes_field(&mut out, NODE_DATA, data);
        }
        out
    }

    /// The length of [`Node::encode`]'s result, in bytes.
    pub fn encoded_len(&self) -> usize {
        let links: usize = self.links.iter().map(Link::encoded_len).sum();
        links + self.data.map_or(0, |data| bytes_field_len(data.len()))
    }

    /// Reads a node, with links and data in either order.
    ///
    /// # Errors
    /// If the bytes are not strict dag-pb, a name is not UTF-8, or there are more than [`LINKS_MAX`] links.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, PbError> {
        let mut node = Self::default();
        let mut links_ended = false;
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(data)) if node.data.is_none() => {
                    node.data = Some(data);
                    links_ended = !node.links.is_empty();
                }
                (2, Value::Bytes(link)) if !links_ended => {
                    if node.links.len() == LINKS_MAX {
                        return Err(PbError::TooManyLinks);
                    }
                    node.links.push(decode_link(link)?);
                }
                (1 | 2, Value::Bytes(_)) => return Err(PbError::FieldOrder { message: "node", number }),
                _ => return Err(PbError::UnexpectedField { message: "node", number }),
            }
        }
        Ok(node)
    }
}

/// What stands before the data, of `data_len` bytes, in a node without links; nothing stands after it.
pub(super) fn leaf_head(data_len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes_head(&mut out, NODE_DATA, data_len);
    out
}

/// A node without links whose data, of `data_len` bytes, `put_data` appends: for large data that is made in place.
pub(super) fn encode_leaf(data_len: usize, put_data: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes_field_len(data_len));
    put_bytes_head(&mut out, NODE_DATA, data_len);
    put_data(&mut out);
    debug_assert_eq!(out.len(), bytes_field_len(data_len), "the data has another length than was said");
    out
}

/// The blocks that a block links to, in order and as often as it does; none for a raw block.
///
/// # Errors
/// If the block is not valid dag-pb, or of a codec that is not supported.
pub fn links(block: &Block) -> Result<Vec<Cid>, PbError> {
    match block.cid().codec() {
        CODEC_RAW => Ok(Vec::new()),
        CODEC_DAG_PB => Ok(Node::decode(block.data())?.links.iter().map(|link| link.cid).collect()),
        codec => Err(PbError::Codec(codec)),
    }
}

fn decode_link(bytes: &[u8]) -> Result<Link<'_>, PbError> {
    let (mut cid, mut name, mut tsize) = (None, None, None);
    let mut last_number = 0;
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1..=3, _) if number <= last_number => return Err(PbError::FieldOrder { message: "link", number }),
            (1, Value::Bytes(bytes)) => cid = Some(parse_cid(bytes).map_err(PbError::LinkCid)?),
            (2, Value::Bytes(bytes)) => {
                let text = std::str::from_utf8(bytes).map_err(|_| PbError::NameNotUtf8 { name: bytes.to_vec() })?;
                name = Some(text);
            }
            (3, Value::Varint(value)) => tsize = Some(value),
            _ => return Err(PbError::UnexpectedField { message: "link", number }),
        }
        last_number = number;
    }
    Ok(Link { cid: cid.ok_or(PbError::MissingCid)?, name, tsize })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::testing::{any_cid, hex, mutate};
    use proptest::prelude::*;

    const CID: &str = "QmWDtUQj38YLW8v3q4A6LwPn4vYKEbuKWpgSm6bjKW6Xfe";

    fn link(name: &str, tsize: u64) -> Link<'_> {
        Link { cid: CID.parse().unwrap(), name: Some(name), tsize: Some(tsize) }
    }

    #[test]
    fn empty_names_and_sizes_are_written() {
        let node = Node { links: vec![link("", 0)], data: None };
        let encoded = node.encode();
        assert_eq!(&encoded[..4], [0x12, 0x28, 0x0a, 0x22]);
        assert_eq!(&encoded[38..], [0x12, 0, 0x18, 0]);
        assert_eq!(Node::decode(&encoded).unwrap(), node);
    }

    #[test]
    fn empty_data_is_not_absent_data() {
        assert_eq!(Node::decode(&[]).unwrap(), Node::default());
        let node = Node { links: vec![], data: Some(b"") };
        assert_eq!(node.encode(), [0x0a, 0]);
        assert_eq!(Node::decode(&[0x0a, 0]).unwrap(), node);
    }

    #[test]
    fn data_may_come_first() {
        let node = Node { links: vec![link("b", 1), link("a", 2)], data: Some(b"data") };
        let links_first = node.encode();
        let data_at = links_first.len() - 6;
        let data_first = [&links_first[data_at..], &links_first[..data_at]].concat();
        assert_eq!(Node::decode(&data_first).unwrap(), node);
        // Data between the links.
        let middle = data_at / 2;
        let mixed = [&links_first[..middle], &links_first[data_at..], &links_first[middle..data_at]].concat();
        assert!(matches!(Node::decode(&mixed), Err(PbError::FieldOrder { number: 2, .. })));
        let twice = [&data_first[..], &links_first[data_at..]].concat();
        assert!(matches!(Node::decode(&twice), Err(PbError::FieldOrder { number: 1, .. })));
    }

    /// The negative fixtures of ipld/codec-fixtures, and more of their kind.
    #[test]
    fn malformed_nodes_are_refused() {
        let check = |message: &str, expected: &str| {
            let error = Node::decode(&hex(message)).expect_err(message);
            assert_eq!(error.to_string(), expected, "{message}");
        };
        for no_cid in ["1200", "12000a050001020304", "12021200", "120b1209736f6d65206e616d65", "12021800", "120318f207"]
        {
            check(no_cid, "link without a CID");
        }
        check("12020a00", "malformed CID in a link");
        let link = "12240a221220cf92fdefcdc34cac009c8b05eb662be0618db9de55ecd42785e9ec6712f8df65";
        check(&format!("{link}0a0408021806{link}"), "field 2 of a node is repeated or out of order");
        check("1800", "unexpected field 3 in a node");
        check("0801", "unexpected field 1 in a node");
        check("1001", "unexpected field 2 in a node");
        // A name before the CID, a CID twice, a fourth field, a CID with a byte too many.
        let hash = "0a221220cf92fdefcdc34cac009c8b05eb662be0618db9de55ecd42785e9ec6712f8df65";
        check(&format!("12261200{hash}"), "field 1 of a link is repeated or out of order");
        check(&format!("1248{hash}{hash}"), "field 1 of a link is repeated or out of order");
        check(&format!("1226{hash}2000"), "unexpected field 4 in a link");
        check(&format!("12250a23{}00", &hash[4..]), "malformed CID in a link");
        check(&format!("1228{hash}1202fffe"), "name of a link is not UTF-8: \\xff\\xfe");
        check(&format!("1225{hash}"), "malformed protobuf");
    }

    #[test]
    fn links_of_a_block() {
        let block = |codec, data: Vec<u8>| Block::seal(cid::Version::V1, codec, data.into()).unwrap();
        let node = Node { links: vec![link("a", 1), link("b", 2)], data: None };
        assert_eq!(links(&block(CODEC_DAG_PB, node.encode())).unwrap(), [CID.parse().unwrap(); 2]);
        assert!(links(&block(CODEC_RAW, node.encode())).unwrap().is_empty());
        assert!(matches!(links(&block(0x71, vec![0xa0])), Err(PbError::Codec(0x71))));
    }

    #[test]
    fn links_are_limited() {
        let link = [0x12, 6, 0x0a, 4, 1, 0x55, 0, 0];
        let most = link.repeat(LINKS_MAX);
        assert_eq!(Node::decode(&most).unwrap().links.len(), LINKS_MAX);
        let more = link.repeat(LINKS_MAX + 1);
        assert!(matches!(Node::decode(&more), Err(PbError::TooManyLinks)));
    }

    type AnyLink = (Cid, Option<String>, Option<u64>);

    fn node<'a>(links: &'a [AnyLink], data: Option<&'a [u8]>) -> Node<'a> {
        let links = links.iter().map(|(cid, name, tsize)| Link { cid: *cid, name: name.as_deref(), tsize: *tsize });
        Node { links: links.collect(), data }
    }

    proptest! {
        #[test]
        fn nodes_come_back(
            links: Vec<(any_cid::Seed, Option<String>, Option<u64>)>,
            data: Option<Vec<u8>>,
            places: Vec<(usize, u8)>,
        ) {
            let links: Vec<AnyLink> =
                links.into_iter().map(|(seed, name, tsize)| (any_cid::from_seed(seed), name, tsize)).collect();
            let node = node(&links, data.as_deref());
            let encoded = node.encode();
            prop_assert_eq!(encoded.len(), node.encoded_len());
            prop_assert_eq!(&Node::decode(&encoded).unwrap(), &node);
            let _ = Node::decode(&mutate(&encoded, &places));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(node) = Node::decode(&bytes) {
                let encoded = node.encode();
                prop_assert_eq!(Node::decode(&encoded).unwrap(), node);
            }
        }
    }
}
