//! Reading an archive into a store.

use std::io::{self, Read};

use crate::blockstore::{Blockstore, Pin, PinName, StoreError};
use crate::dag::BlockError;
use crate::dag::Cid;
use crate::dag::car::{CarError, Decoder, Item};

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// Under what name the roots of an archive are pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CarPin {
    /// Each under the text of its CID.
    OfRoots,
    /// Its only root under this name.
    Name(PinName),
}

/// What was brought in.
#[derive(Debug)]
pub struct CarImported {
    /// The roots that the archive names, in its order.
    pub roots: Vec<Cid>,
    /// The blocks in the archive.
    pub blocks: u64,
    /// Those that the store did not have.
    pub new_blocks: u64,
    /// The length of these, in bytes.
    pub new_bytes: u64,
    /// The pins that hold the roots now.
    pub pins: Vec<Pin>,
    /// Roots of which not everything is in the store, or can be told to be; with the reason. None if they were pinned.
    pub incomplete: Vec<(Cid, StoreError)>,
}

/// Why an archive was not brought in. The store is then as before, unless only the check of its roots failed.
#[derive(Debug, thiserror::Error)]
pub enum ImportCarError {
    /// The archive cannot be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// It is no archive.
    #[error("malformed archive")]
    Car(#[from] CarError),
    /// A block in it is not what its name says.
    #[error("bad block in the archive")]
    Block(#[from] BlockError),
    /// The store refused.
    #[error("cannot keep its blocks")]
    Store(#[source] StoreError),
    /// Its roots cannot be pinned.
    #[error("cannot pin its root")]
    Pin(#[source] StoreError),
    /// There is nothing to pin.
    #[error("the archive names no root to be pinned")]
    NoRoots,
    /// One name for several roots.
    #[error("the archive names {roots} roots, and one name is for one pin")]
    SeveralRoots {
        /// How many.
        roots: usize,
    },
}

/// Reads an archive, CARv1 or CARv2, and keeps all its blocks, each checked; or on an error none of them. Holds no more of
/// the archive than a block and a piece.
///
/// Nothing is collected for the size limit; see [`Blockstore::trim`]. Without `pin`, archives whose roots are not all there are taken as well: they may be parts of something. `progress` is
/// told the bytes read since its last call.
///
/// # Errors
/// If the archive is malformed, ends too early, or has a block with another hash; if its roots cannot be pinned;
/// [`StoreError::Cancelled`] when `cancel` says so, which is asked between pieces.
pub fn import_car(
    store: &dyn Blockstore,
    archive: &mut dyn Read,
    pin: Option<&CarPin>,
    progress: &mut dyn FnMut(u64),
    cancel: &dyn Fn() -> bool,
) -> Result<CarImported, ImportCarError> {
    // From here on nothing is collected, so that it can be said of each root whether it is complete.
    let hold = store.hold().map_err(ImportCarError::Store)?;
    let mut writer = store.writer().map_err(ImportCarError::Store)?;
    let mut decoder = Decoder::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut roots, mut blocks) = (Vec::new(), 0);
    loop {
        if cancel() {
            return Err(ImportCarError::Store(StoreError::Cancelled));
        }
        while let Some(item) = decoder.next_item()? {
            match item {
                Item::Header(header) => {
                    check_pin(pin, &header.roots)?;
                    roots = header.roots;
                }
                Item::Section(section) => {
                    writer.put(&section.into_block()?).map_err(ImportCarError::Store)?;
                    blocks += 1;
                }
            }
        }
        let length = read(archive, &mut buffer).map_err(ImportCarError::Read)?;
        if length == 0 {
            break;
        }
        progress(length as u64);
        decoder.push(&buffer[..length]);
    }
    decoder.finish()?;
    let pins = pins(pin, &roots);
    let committed =
        writer.commit(&pins).map_err(if pins.is_empty() { ImportCarError::Store } else { ImportCarError::Pin })?;
    let incomplete =
        if pins.is_empty() { store.incomplete(&roots).map_err(ImportCarError::Store)? } else { Vec::new() };
    drop(hold);
    Ok(CarImported {
        roots,
        blocks,
        new_blocks: committed.blocks,
        new_bytes: committed.bytes,
        pins: pins.into_iter().map(|(name, root)| Pin { name, root }).collect(),
        incomplete,
    })
}

fn read(archive: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match archive.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether roots can be pinned as wanted: before the rest of the archive is read.
fn check_pin(pin: Option<&CarPin>, roots: &[Cid]) -> Result<(), ImportCarError> {
    match (pin, roots) {
        (Some(_), []) => Err(ImportCarError::NoRoots),
        (Some(CarPin::Name(_)), [_, _, ..]) => Err(ImportCarError::SeveralRoots { roots: roots.len() }),
        _ => Ok(()),
    }
}

fn pins(pin: Option<&CarPin>, roots: &[Cid]) -> Vec<(PinName, Cid)> {
    let name = |root: &Cid| match pin? {
        CarPin::OfRoots => Some(PinName::of_root(root)),
        CarPin::Name(name) => Some(name.clone()),
    };
    roots.iter().filter_map(|root| Some((name(root)?, *root))).collect()
}
