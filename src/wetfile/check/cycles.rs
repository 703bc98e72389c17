//! Cycles among guests and among images: one diagnostic for all that hang together, with every edge and where to cut.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::escape;
use crate::wetfile::cycles::{Tangle, tangles};
use crate::wetfile::diagnostic::{Code, Diagnostic, Label, Sink, quoted};

/// Most names that the message about a cycle spells out; the labels show every edge.
const NAMES_MAX: usize = 16;

/// Most edges that are labelled. People have a handful; the bound keeps hostile input cheap.
const LABELS_MAX: usize = 64;

/// Most edges of a cut that are named.
const CUT_NAMES_MAX: usize = 8;

/// What leads from one name to another.
pub(super) struct Edge<'e> {
    pub(super) from: &'e str,
    pub(super) to: &'e str,
    /// Where it is written.
    pub(super) span: &'e Range<usize>,
    /// The key that says so.
    pub(super) key: &'static str,
    /// What the one does with the other, such as `embeds`.
    pub(super) verb: &'static str,
}

/// Reports the cycles among `edges`, whose names are all among `names`; `what` says what goes in a cycle of these edges.
pub(super) fn report<'e>(
    names: impl Iterator<Item = &'e str>,
    edges: &[Edge<'e>],
    what: impl Fn(&[&Edge<'e>]) -> &'static str,
    sink: &mut Sink<'_>,
) {
    let index: BTreeMap<&str, usize> = names.enumerate().map(|(index, name)| (name, index)).collect();
    let pairs: Vec<(usize, usize)> = edges.iter().map(|edge| (index[edge.from], index[edge.to])).collect();
    for tangle in tangles(index.len(), &pairs) {
        if sink.is_full() {
            break;
        }
        report_tangle(edges, &tangle, &what, sink);
    }
}

fn report_tangle<'e>(
    edges: &[Edge<'e>],
    tangle: &Tangle,
    what: &impl Fn(&[&Edge<'e>]) -> &'static str,
    sink: &mut Sink<'_>,
) {
    let cycle: Vec<&Edge<'_>> = tangle.cycle.iter().map(|edge| &edges[*edge]).collect();
    let cut: Vec<&Edge<'_>> = tangle.cut.iter().map(|edge| &edges[*edge]).collect();
    let Some(primary) = cut.first() else { return };
    let all: Vec<&Edge<'_>> = tangle.edges.iter().map(|edge| &edges[*edge]).collect();
    let message = format!("{} in a cycle: {}", what(&all), chain(&cycle));
    let label = |edge: &Edge<'_>, sink: &Sink<'_>| -> Label {
        sink.label(edge.span, format!("{} {} {}", quoted(edge.from), edge.verb, quoted(edge.to)))
    };
    // First the cycle that the message names, then what makes others of it.
    let others = tangle.edges.iter().filter(|edge| !tangle.cycle.contains(edge));
    let shown = tangle.cycle.iter().chain(others).filter(|edge| **edge != tangle.cut[0]).take(LABELS_MAX);
    let labels: Vec<Label> = shown.map(|edge| label(&edges[*edge], sink)).collect();
    let hidden = tangle.edges.len() - labels.len() - 1;
    let mut diagnostic = Diagnostic::error(Code::Cycle, message, label(primary, sink), help(&cut, tangle, sink));
    if hidden > 0 {
        diagnostic = diagnostic.with_help(format!("{hidden} more edges among them are not shown"));
    }
    sink.push(diagnostic.with_secondary(labels));
}

/// Which edges have to go.
fn help(cut: &[&Edge<'_>], tangle: &Tangle, sink: &Sink<'_>) -> String {
    let named = |edge: &&Edge<'_>| {
        let line = sink.line(edge.span.start);
        format!("{} in the `{}` of {} (line {line})", quoted(edge.to), edge.key, quoted(edge.from))
    };
    match cut {
        [edge] if tangle.edges.len() == tangle.cycle.len() => {
            format!("one of these edges must go; without {} this cycle is cut", named(edge))
        }
        [edge] => format!("without {} all of these cycles are cut", named(edge)),
        several => {
            let mut names: Vec<String> = several.iter().take(CUT_NAMES_MAX).map(named).collect();
            if names.len() < several.len() {
                names.push(format!("{} more", several.len() - names.len()));
            }
            format!("no single edge is in all of these cycles; they are cut without {}", names.join(", and "))
        }
    }
}

/// `a -> b -> a`, with the middle of a long cycle left out.
fn chain(cycle: &[&Edge<'_>]) -> String {
    let mut names: Vec<&str> = cycle.iter().take(NAMES_MAX).map(|edge| edge.from).collect();
    if names.len() < cycle.len() {
        names.push("…");
    }
    names.extend(cycle.first().map(|edge| edge.from));
    let shown: Vec<String> = names.iter().map(|name| escape::text(name).into_owned()).collect();
    shown.join(" -> ")
}
