//! How much of a DAG.

use std::fmt;
use std::str::FromStr;

use super::Block;
use super::block::Cid;
use super::pb;
use super::unixfs::{Node, NodeError, ShardTarget};

/// How much of a DAG below a block is meant, as trustless gateways have it (`dag-scope`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    #[default]
    All,
    /// A file whole; of a directory its own blocks, without what its entries stand for.
    Entity,
    /// Only the block itself.
    Block,
}

impl Scope {
    /// As it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Entity => "entity",
            Self::Block => "block",
        }
    }

    /// The blocks that a block in this scope brings into it, in order and as often as it links to them.
    ///
    /// # Errors
    /// If the block's links cannot be read; in the scope of an entity also if it is not UnixFS.
    pub fn links(self, block: &Block) -> Result<Vec<Cid>, NodeError> {
        match self {
            Self::All => Ok(pb::links(block)?),
            Self::Block => Ok(Vec::new()),
            Self::Entity => Ok(match Node::decode(block)? {
                Node::File(file) => file.children.iter().map(|child| child.cid).collect(),
                Node::Shard(shard) => {
                    let shards = shard.children.iter().filter_map(|child| match &child.target {
                        ShardTarget::Shard(cid) => Some(*cid),
                        ShardTarget::Entry(..) => None,
                    });
                    shards.collect()
                }
                Node::Directory(_) | Node::Symlink(_) => Vec::new(),
            }),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A text that is no [`Scope`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope is `all`, `entity` or `block`")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        [Self::All, Self::Entity, Self::Block].into_iter().find(|scope| scope.as_str() == text).ok_or(UnknownScope)
    }
}
