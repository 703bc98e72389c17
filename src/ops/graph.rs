//! `ww graph`: what uses what.

use std::collections::{BTreeMap, BTreeSet};

use super::Error;
use super::build::Targets;
use crate::wetfile::{GuestName, ImageName, Project};

/// A guest or an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// An image.
    Image(ImageName),
    /// A guest.
    Guest(GuestName),
}

/// Why one has to be built before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EdgeKind {
    /// It is among its `embeds`.
    Embeds,
    /// It is among its `needs`.
    Needs,
    /// It is among its files.
    File,
    /// It is its base.
    Base,
}

/// What uses what; without cycles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// What each uses, by why; those that use nothing are in it as well.
    pub nodes: BTreeMap<Node, BTreeSet<(Node, EdgeKind)>>,
}

impl Graph {
    /// Those that nothing uses.
    pub fn roots(&self) -> Vec<&Node> {
        let used: BTreeSet<&Node> = self.nodes.values().flatten().map(|(node, _)| node).collect();
        self.nodes.keys().filter(|node| !used.contains(node)).collect()
    }
}

/// The graph of these guests and images, with what they need; of the whole project if there are no names.
///
/// # Errors
///
/// [`Error::UnknownTarget`].
pub fn graph(project: &Project, names: &[String]) -> Result<Graph, Error> {
    let targets = Targets::of(project, names)?;
    let mut graph = Graph::default();
    for name in project.build_order(targets.guests.iter().copied()) {
        let guest = &project.guests[name];
        let embeds = guest.embeds.iter().map(|embedded| (Node::Guest(embedded.clone()), EdgeKind::Embeds));
        let needs = guest.needs.iter().map(|needed| (Node::Guest(needed.clone()), EdgeKind::Needs));
        graph.nodes.insert(Node::Guest(name.clone()), embeds.chain(needs).collect());
    }
    for image in &targets.images {
        let guests = image.guests().into_iter().map(|guest| (Node::Guest(guest.clone()), EdgeKind::File));
        let base = project.base_of(image).map(|base| (Node::Image(base.name.clone()), EdgeKind::Base));
        graph.nodes.insert(Node::Image(image.name.clone()), guests.chain(base).collect());
    }
    Ok(graph)
}
