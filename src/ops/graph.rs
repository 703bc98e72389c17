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
    /// It is among its files.
    File,
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
        let embeds = project.guests[name].embeds.iter();
        let embeds = embeds.map(|embedded| (Node::Guest(embedded.clone()), EdgeKind::Embeds));
        graph.nodes.insert(Node::Guest(name.clone()), embeds.collect());
    }
    for image in &targets.images {
        let guests = image.guests().into_iter().map(|guest| (Node::Guest(guest.clone()), EdgeKind::File));
        graph.nodes.insert(Node::Image(image.name.clone()), guests.collect());
    }
    Ok(graph)
}
