//! Naming roots that are to stay, and taking names away.

use crate::blockstore::{Blockstore, Pin, PinName, StoreError};
use crate::dag::Cid;

/// Why a pin was not set or removed.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The store refused.
    #[error("cannot pin {root}")]
    Set {
        /// What was to be pinned.
        root: Box<Cid>,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// There are no pins of these names. Nothing was removed.
    #[error("there is no pin {}", list(.0))]
    Unknown(Vec<PinName>),
    /// The store refused.
    #[error("cannot change the pins")]
    Store(#[from] StoreError),
}

fn list(names: &[PinName]) -> String {
    names.iter().map(PinName::as_str).collect::<Vec<_>>().join(", ")
}

/// Pins a root under a name, or else under the text of its CID. Gives the pin.
///
/// # Errors
/// If not all of the DAG is in the store.
pub fn pin(store: &dyn Blockstore, root: Cid, name: Option<PinName>) -> Result<Pin, PinError> {
    let name = name.unwrap_or_else(|| PinName::of_root(&root));
    store.set_pin(&name, &root).map_err(|source| PinError::Set { root: Box::new(root), source })?;
    Ok(Pin { name, root })
}

/// Removes pins; none of them if there is one that does not exist. Gives the pins.
///
/// # Errors
/// [`PinError::Unknown`]; or if the store cannot be changed.
pub fn unpin(store: &dyn Blockstore, names: &[PinName]) -> Result<Vec<Pin>, PinError> {
    let pins = store.pins()?;
    let is_unknown = |name: &&PinName| !pins.iter().any(|pin| pin.name == **name);
    let unknown: Vec<_> = names.iter().filter(is_unknown).cloned().collect();
    if !unknown.is_empty() {
        return Err(PinError::Unknown(unknown));
    }
    Ok(store.remove_pins(names)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blockstore::MemoryBlockstore;

    #[test]
    fn pins_come_and_go() {
        let store = MemoryBlockstore::new();
        let root: Cid = "bafkqaaa".parse().unwrap();
        let named = PinName::new("named").unwrap();
        assert_eq!(pin(&store, root, None).unwrap().name.as_str(), "bafkqaaa");
        pin(&store, root, Some(named.clone())).unwrap();
        let error = unpin(&store, &[named.clone(), PinName::new("x").unwrap()]).unwrap_err();
        assert_eq!(error.to_string(), "there is no pin x");
        assert_eq!(store.pins().unwrap().len(), 2);
        assert_eq!(unpin(&store, &[named.clone(), named.clone()]).unwrap(), [Pin { name: named, root }]);
        assert_eq!(store.pins().unwrap().len(), 1);
    }
}
