//! A client of the RPC of a Kubo node: <https://docs.ipfs.tech/reference/kubo/rpc/>, of version 0.40 and later.
//!
//! On hyper, since an answer's trailers are needed and unix sockets are spoken. Only POST, HTTP/1.1, no proxies, no
//! redirects. Whoever may call the RPC is the node's administrator, so plain HTTP to other machines is refused unless it
//! is asked for, and a [`Token`] goes nowhere but to the address that the client was made for.
//!
//! Dropping the future of a call ends its connection.

mod address;
mod answer;
mod api_file;
mod connect;
mod request;
#[cfg(test)]
mod tests;
mod token;
mod upload;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::StreamExt;
use serde::Deserialize;

use self::answer::{LINE_BYTES_MAX, Lines};
use self::connect::Connector;
use self::request::Call;
use self::upload::Upload;
use super::{Blocks, BoxError, Cause, Deadlines, RemoteError, shown};
use crate::dag::{BLOCK_BYTES_MAX, Block, Cid};

pub use address::{Address, AddressError};
pub use api_file::{API_FILE, ApiFileError};
pub use token::{Token, TokenError};

/// Connections that a client keeps for its next requests: all those that somebody has who asks for 16 blocks and 4 DAGs at
/// once.
pub const CONNECTIONS_KEPT_MAX: usize = 20;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The secret to send.
    pub token: Option<Token>,
    /// Whether plain HTTP to other machines is allowed.
    pub allow_plain_http: bool,
    /// Deadlines of all calls.
    pub deadlines: Deadlines,
    /// In place of [`Deadlines::head`] for calls that pin: Kubo visits every block of the DAG before it answers.
    pub pin: Duration,
}

impl Options {
    /// Default of [`Self::pin`]: a million blocks, at the 2,000 a second of a slow disk.
    pub const PIN: Duration = Duration::from_secs(10 * 60);
}

impl Default for Options {
    fn default() -> Self {
        Self { token: None, allow_plain_http: false, deadlines: Deadlines::default(), pin: Self::PIN }
    }
}

/// Why there is no client for an address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Everybody on the way could read along, and give commands to the node with the token that they see.
    #[error("refused to speak plain HTTP to {address}, which is not on this machine")]
    Exposed {
        /// The address.
        address: Address,
    },
    /// The certificates that the system trusts could not be read.
    #[error("cannot set up TLS for {address}")]
    Tls {
        /// The address.
        address: Address,
        /// Why not.
        #[source]
        source: BoxError,
    },
}

/// A Kubo node. Clones are the same client, and share its connections.
///
/// Each method makes one call, and its errors are those of the call: [`RemoteError::cause`] says what went wrong.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    address: Address,
    options: Options,
    connector: Connector,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Version {
    /// Such as `0.43.1`. As it came.
    #[serde(rename = "Version")]
    pub version: String,
}

/// Who a node is. All of it as it came.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Id {
    /// The peer id in base58.
    #[serde(rename = "ID")]
    pub id: String,
    /// The multiaddrs that it listens on, each with its peer id.
    #[serde(rename = "Addresses", deserialize_with = "or_none")]
    pub addresses: Vec<String>,
    /// Such as `kubo/0.43.1`.
    #[serde(rename = "AgentVersion", default)]
    pub agent: String,
}

/// What a node did with a CAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Blocks that it read.
    pub blocks: u64,
    /// Their lengths together, in bytes.
    pub bytes: u64,
}

/// A recursive pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The root.
    pub root: Cid,
    /// The name, as it came; empty if the pin has none. Not unique.
    pub name: String,
}

impl Client {
    /// A client of the node at `address`. Nothing is sent yet.
    ///
    /// # Errors
    /// If the address is one of another machine without TLS, unless [`Options::allow_plain_http`] is set; or if the
    /// certificates that the system trusts cannot be read.
    pub fn new(address: Address, options: Options) -> Result<Self, ClientError> {
        if address.is_exposed() && !options.allow_plain_http {
            return Err(ClientError::Exposed { address });
        }
        match Connector::new(address.0.clone()) {
            Ok(connector) => Ok(Self(Arc::new(Shared { address, options, connector }))),
            Err(error) => Err(ClientError::Tls { address, source: error.into() }),
        }
    }

    /// Where the node is.
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// The version of the node. Cheap, so that it tells whether there is a Kubo node.
    ///
    /// # Errors
    /// As for all calls.
    pub async fn version(&self) -> Result<Version, RemoteError> {
        let call = self.short("version");
        self.value(&call).await
    }

    /// Who the node is, and where peers find it.
    ///
    /// # Errors
    /// As for all calls.
    pub async fn id(&self) -> Result<Id, RemoteError> {
        let call = self.short("id");
        self.value(&call).await
    }

    /// Sends a CAR with the DAG under `root`, which it names in its header, and pins `root`.
    ///
    /// The CAR is sent while it comes, and is never in memory as a whole. If it ends with an error, the node takes the
    /// upload for broken; it may keep blocks that came before, without a pin. For blocks that are not in the CAR and that
    /// the node does not have, it asks its peers, and that for as long as [`Options::pin`] allows: see
    /// [`Client::dag_import_parts`].
    ///
    /// # Errors
    /// As for all calls; also if the node pinned something else or nothing, and [`Cause::Source`] with the error of the
    /// CAR.
    pub async fn dag_import<S, E>(&self, car: S, root: &Cid) -> Result<Imported, RemoteError>
    where
        S: Stream<Item = Result<bytes::Bytes, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.import(car, Some(root)).await
    }

    /// Sends a CAR with parts of a DAG, and pins nothing: the node may collect what it got. [`Client::has_dag`] tells
    /// whether it has all of the DAG then.
    ///
    /// # Errors
    /// As for [`Client::dag_import`].
    pub async fn dag_import_parts<S, E>(&self, car: S) -> Result<Imported, RemoteError>
    where
        S: Stream<Item = Result<bytes::Bytes, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.import(car, None).await
    }

    async fn import<S, E>(&self, car: S, pinned: Option<&Cid>) -> Result<Imported, RemoteError>
    where
        S: Stream<Item = Result<bytes::Bytes, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let call = Call { head: self.0.options.pin, total: self.deadlines().transfer, ..self.short("dag/import") };
        let call = call.with("pin-roots", pinned.is_some()).with("stats", true);
        let (upload, watch) = Upload::new(car.map(|piece| piece.map_err(Into::into)).boxed());
        let import = async {
            let answer = self.upload(&call, upload, &watch).await?;
            read_import(Lines::new(answer), pinned).await
        };
        import.await.map_err(|cause| self.error(&call, cause))
    }

    /// Pins `root` recursively under `name`, in place of its pin if it has one: there is one pin for each root. The node
    /// looks for blocks that it does not have at its peers, and that for as long as [`Options::pin`] allows.
    ///
    /// # Errors
    /// As for all calls; [`Cause::NotFound`] if it does not have the root.
    pub async fn pin_add(&self, root: &Cid, name: &str) -> Result<(), RemoteError> {
        let call = Call { head: self.0.options.pin, total: self.deadlines().transfer, ..self.short("pin/add") };
        // The old pin is removed first, so a search must not stand between. Kubo searches for what is below the root anyway.
        let call = call.with("arg", root).with("name", name).with("offline", true);
        let answer: PinAnswer = self.value(&call).await?;
        match &answer.pins[..] {
            [pinned] if is_same(pinned, root) => Ok(()),
            pins => Err(self.error(&call, other_root(root, pins.first().map_or("nothing", String::as_str)))),
        }
    }

    /// The recursive pin of `root`, if it has one. A root that is pinned so is there with all its blocks.
    ///
    /// # Errors
    /// As for all calls.
    pub async fn pin_of(&self, root: &Cid) -> Result<Option<Pin>, RemoteError> {
        let call = self.short("pin/ls");
        let call = call.with("type", "recursive").with("names", true).with("stream", true).with("arg", root);
        match self.value::<PinLine>(&call).await {
            Ok(pin) if is_same(&pin.cid, root) => Ok(Some(Pin { root: *root, name: pin.name })),
            Ok(pin) => Err(self.error(&call, other_root(root, &pin.cid))),
            // There is no code for it. The message of `pin/ls` in Kubo's core/commands/pin.
            Err(RemoteError { cause: Cause::Reported(message), .. }) if message.ends_with("is not pinned") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The block that `cid` names. The node looks for it at its peers.
    ///
    /// # Errors
    /// As for all calls; also if the block is not what the CID says.
    pub async fn block_get(&self, cid: &Cid) -> Result<Block, RemoteError> {
        let call = Call { bytes_max: BLOCK_BYTES_MAX as u64, ..self.short("block/get") }.with("arg", cid);
        let get = async {
            let data = self.send(&call).await?.all().await?;
            Block::new(*cid, data).map_err(Cause::Block)
        };
        get.await.map_err(|cause| self.error(&call, cause))
    }

    /// Whether the node has the block that `cid` names, without asking its peers. That says nothing of the blocks that it
    /// links to.
    ///
    /// # Errors
    /// As for all calls.
    pub async fn has_block(&self, cid: &Cid) -> Result<bool, RemoteError> {
        let call = self.short("block/stat").with("arg", cid).with("offline", true);
        match self.value::<BlockAnswer>(&call).await {
            Ok(answer) if is_same(&answer.key, cid) => Ok(true),
            Ok(answer) => Err(self.error(&call, other_root(cid, &answer.key))),
            Err(RemoteError { cause: Cause::NotFound { .. }, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the node has the block `root`, which must be UnixFS, and all that it links to, without asking its peers. It
    /// looks at each of them.
    ///
    /// # Errors
    /// As for all calls.
    pub async fn has_dag(&self, root: &Cid) -> Result<bool, RemoteError> {
        let call = Call { head: self.0.options.pin, total: self.deadlines().transfer, ..self.short("files/stat") };
        let call = call.with("arg", format!("/ipfs/{root}")).with("with-local", true).with("offline", true);
        match self.value::<StatAnswer>(&call).await {
            Ok(answer) if is_same(&answer.hash, root) => Ok(answer.is_local),
            Ok(answer) => Err(self.error(&call, other_root(root, &answer.hash))),
            Err(RemoteError { cause: Cause::NotFound { .. }, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The blocks of the DAG under `root`, each once, a node before what it links to; at most `bytes_max` bytes with what
    /// a CAR has around them. The node looks for blocks at its peers while it sends.
    ///
    /// An error ends the blocks, be it after the first.
    ///
    /// # Errors
    /// As for all calls.
    pub async fn dag_export(&self, root: &Cid, bytes_max: u64) -> Result<Blocks, RemoteError> {
        let call = Call { total: self.deadlines().transfer, bytes_max, ..self.short("dag/export") };
        let call = call.with("arg", root).with("progress", false);
        let answer = self.send(&call).await.map_err(|cause| self.error(&call, cause))?;
        Ok(Blocks::new(answer.into_stream(), bytes_max, self.address().to_string(), call.name))
    }

    /// Has the node connect to a peer, at a multiaddr that ends with `/p2p/ID`.
    ///
    /// # Errors
    /// As for all calls.
    pub async fn swarm_connect(&self, multiaddr: &str) -> Result<(), RemoteError> {
        let call = self.short("swarm/connect").with("arg", multiaddr);
        let answer: ConnectAnswer = self.value(&call).await?;
        match &answer.strings[..] {
            [line] if line.ends_with(" success") => Ok(()),
            lines => Err(self.error(&call, Cause::Reported(shown(&lines.join("; "))))),
        }
    }

    /// A call with a short answer.
    fn short(&self, name: &'static str) -> Call {
        let Deadlines { head, total, .. } = *self.deadlines();
        Call { name, query: Vec::new(), head, total, bytes_max: LINE_BYTES_MAX as u64 }
    }

    async fn value<T: serde::de::DeserializeOwned>(&self, call: &Call) -> Result<T, RemoteError> {
        let value = async { self.send(call).await?.value().await };
        value.await.map_err(|cause| self.error(call, cause))
    }

    fn error(&self, call: &Call, cause: Cause) -> RemoteError {
        RemoteError { remote: self.address().to_string(), request: call.name.to_owned(), cause }
    }

    fn deadlines(&self) -> &Deadlines {
        &self.0.options.deadlines
    }

    fn token(&self) -> Option<&Token> {
        self.0.options.token.as_ref()
    }

    fn connector(&self) -> &Connector {
        &self.0.connector
    }

    fn keep(&self, line: connect::Line) {
        self.0.connector.keep(line);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Client").field(&self.0.address).finish()
    }
}

/// A line of the answer of `dag/import`: one for each root, and then the numbers.
#[derive(Deserialize)]
struct ImportLine {
    #[serde(rename = "Root")]
    root: Option<ImportRoot>,
    #[serde(rename = "Stats")]
    stats: Option<ImportStats>,
}

#[derive(Deserialize)]
struct ImportRoot {
    #[serde(rename = "Cid")]
    cid: Link,
    #[serde(rename = "PinErrorMsg", default)]
    pin_error: String,
}

/// A CID as DAG-JSON has it.
#[derive(Deserialize)]
struct Link {
    #[serde(rename = "/")]
    cid: String,
}

#[derive(Deserialize)]
struct ImportStats {
    #[serde(rename = "BlockCount")]
    blocks: u64,
    #[serde(rename = "BlockBytesCount")]
    bytes: u64,
}

#[derive(Deserialize)]
struct PinAnswer {
    #[serde(rename = "Pins", deserialize_with = "or_none")]
    pins: Vec<String>,
}

#[derive(Deserialize)]
struct PinLine {
    #[serde(rename = "Cid")]
    cid: String,
    #[serde(rename = "Name", default)]
    name: String,
}

#[derive(Deserialize)]
struct BlockAnswer {
    #[serde(rename = "Key")]
    key: String,
}

#[derive(Deserialize)]
struct StatAnswer {
    #[serde(rename = "Hash")]
    hash: String,
    /// Left out where it is false.
    #[serde(rename = "Local", default)]
    is_local: bool,
}

#[derive(Deserialize)]
struct ConnectAnswer {
    #[serde(rename = "Strings", deserialize_with = "or_none")]
    strings: Vec<String>,
}

/// Go writes an empty list as `null` sometimes.
fn or_none<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads what became of a CAR whose root was to be pinned, if one was. A pin that failed is told with status 200.
async fn read_import(mut lines: Lines, pinned: Option<&Cid>) -> Result<Imported, Cause> {
    let (mut is_pinned, mut stats) = (false, None);
    let mut is_empty = true;
    while let Some(line) = lines.next::<ImportLine>().await? {
        is_empty = false;
        if let Some((found, root)) = line.root.zip(pinned) {
            if !is_same(&found.cid.cid, root) {
                return Err(other_root(root, &found.cid.cid));
            }
            if !found.pin_error.is_empty() {
                return Err(Cause::Reported(shown(&found.pin_error)));
            }
            is_pinned = true;
        }
        stats = line.stats.or(stats);
    }
    match stats {
        None if is_empty => Err(Cause::Empty),
        _ if pinned.is_some() && !is_pinned => Err(Cause::malformed("it does not say that it pinned the root")),
        None => Err(Cause::malformed("it does not say what it read, so it may have stopped half-way")),
        Some(stats) => Ok(Imported { blocks: stats.blocks, bytes: stats.bytes }),
    }
}

/// Whether `text` is this CID, be it in another base.
fn is_same(text: &str, cid: &Cid) -> bool {
    text.parse::<Cid>().is_ok_and(|found| found == *cid)
}

fn other_root(expected: &Cid, found: &str) -> Cause {
    Cause::Root { expected: Box::new(*expected), found: shown(found) }
}
