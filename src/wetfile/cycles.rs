//! Cycles of a directed graph, and where to cut them. It knows nodes and edges, nothing of guests or files.

use super::graph;

/// Most steps that are spent on the search for the one edge that cuts all cycles, in edges looked at. A component of people
/// has some dozens of edges, and takes some thousands of steps.
const STEPS_MAX: usize = 5_000_000;

/// Most edges of a cut that is made smaller one by one.
const PRUNED_MAX: usize = 32;

/// Nodes that all reach each other, and the edges among them: every cycle through any of them is made of these.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tangle {
    /// All edges among the nodes, as indices into the edges of the graph, ascending.
    pub(super) edges: Vec<usize>,
    /// One cycle, in its order: each edge ends where the next one begins, and the last where the first one does.
    pub(super) cycle: Vec<usize>,
    /// Edges without which there is no cycle left: one, if one is enough, and the last of [`Tangle::cycle`] of which that
    /// holds; otherwise several, of which none can be left in.
    pub(super) cut: Vec<usize>,
}

/// Finds all cycles of a graph with the nodes `0..nodes`: one [`Tangle`] for all cycles that hang together, ordered by
/// their smallest nodes. An edge from a node to itself is none of its business.
///
/// Time grows with nodes and edges, and up to a bound with their product; no stack is taken per node.
pub(super) fn tangles(nodes: usize, edges: &[(usize, usize)]) -> Vec<Tangle> {
    let component = components(nodes, edges);
    let mut inside = vec![Vec::new(); nodes];
    for (index, (from, to)) in edges.iter().enumerate() {
        if from != to && component[*from] == component[*to] {
            inside[component[*from]].push(index);
        }
    }
    inside.retain(|edges| !edges.is_empty());
    let mut tangles: Vec<Tangle> = inside.into_iter().map(|inside| tangle(nodes, edges, inside)).collect();
    tangles.sort_by_key(|tangle| tangle.edges.iter().map(|edge| edges[*edge].0).min());
    tangles
}

/// A number for each node, which is the same for two nodes that reach each other (Kosaraju's algorithm).
fn components(nodes: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let (mut forward, mut backward) = (vec![Vec::new(); nodes], vec![Vec::new(); nodes]);
    for (from, to) in edges {
        forward[*from].push(*to);
        backward[*to].push(*from);
    }
    let finished = graph::order(0..nodes, |node| forward[node].clone());
    let mut component = vec![usize::MAX; nodes];
    for root in finished.into_iter().rev() {
        let mut open = vec![root];
        while let Some(node) = open.pop() {
            if component[node] == usize::MAX {
                component[node] = root;
                open.extend(&backward[node]);
            }
        }
    }
    component
}

fn tangle(nodes: usize, edges: &[(usize, usize)], inside: Vec<usize>) -> Tangle {
    let (cycle, back) = walk(nodes, edges, &inside);
    let tries = STEPS_MAX / inside.len();
    let is_enough = |cut: &usize| is_acyclic(nodes, edges, inside.iter().copied().filter(|edge| edge != cut));
    // An edge that lies on every cycle lies on this one.
    let cut = match cycle.iter().copied().rev().take(tries).find(is_enough) {
        Some(edge) => vec![edge],
        None => pruned(nodes, edges, &inside, back),
    };
    Tangle { edges: inside, cycle, cut }
}

/// Walks depth first through a component. Gives the first cycle that is met, and all edges that close one: without these
/// there is none.
fn walk(nodes: usize, edges: &[(usize, usize)], inside: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut outgoing = vec![Vec::new(); nodes];
    inside.iter().for_each(|edge| outgoing[edges[*edge].0].push(*edge));
    let (mut cycle, mut back) = (Vec::new(), Vec::new());
    let (mut is_seen, mut is_on_path) = (vec![false; nodes], vec![false; nodes]);
    let root = inside.iter().map(|edge| edges[*edge].0).min().unwrap_or_default();
    // The edges that were taken, and for each node on the path which of its edges comes next.
    let (mut taken, mut path) = (Vec::new(), vec![(root, 0)]);
    (is_seen[root], is_on_path[root]) = (true, true);
    while let Some((node, next)) = path.last_mut() {
        let node = *node;
        let Some(edge) = outgoing[node].get(*next).copied() else {
            is_on_path[node] = false;
            path.pop();
            taken.pop();
            continue;
        };
        *next += 1;
        let to = edges[edge].1;
        if is_on_path[to] {
            back.push(edge);
            if cycle.is_empty() {
                cycle = taken.iter().copied().skip_while(|edge: &usize| edges[*edge].0 != to).collect();
                cycle.push(edge);
            }
        } else if !is_seen[to] {
            (is_seen[to], is_on_path[to]) = (true, true);
            taken.push(edge);
            path.push((to, 0));
        }
    }
    (cycle, back)
}

/// A cut without the edges that it does not need.
fn pruned(nodes: usize, edges: &[(usize, usize)], inside: &[usize], mut cut: Vec<usize>) -> Vec<usize> {
    if cut.len() > PRUNED_MAX {
        return cut;
    }
    for edge in cut.clone() {
        let others: Vec<usize> = cut.iter().copied().filter(|other| *other != edge).collect();
        if is_acyclic(nodes, edges, inside.iter().copied().filter(|edge| !others.contains(edge))) {
            cut = others;
        }
    }
    cut
}

/// Whether a graph of these edges has no cycle (Kahn's algorithm).
fn is_acyclic(nodes: usize, edges: &[(usize, usize)], kept: impl Iterator<Item = usize>) -> bool {
    let (mut incoming, mut outgoing) = (vec![0_usize; nodes], vec![Vec::new(); nodes]);
    let mut count = 0;
    for edge in kept {
        let (from, to) = edges[edge];
        incoming[to] += 1;
        outgoing[from].push(to);
        count += 1;
    }
    let mut open: Vec<usize> = (0..nodes).filter(|node| incoming[*node] == 0).collect();
    while let Some(node) = open.pop() {
        for to in &outgoing[node] {
            count -= 1;
            incoming[*to] -= 1;
            if incoming[*to] == 0 {
                open.push(*to);
            }
        }
    }
    count == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[track_caller]
    fn check(nodes: usize, edges: &[(usize, usize)], expected: &[(&[usize], &[usize], &[usize])]) {
        let found = tangles(nodes, edges);
        let found: Vec<_> = found.iter().map(|tangle| (&*tangle.edges, &*tangle.cycle, &*tangle.cut)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_cycle_has_its_edges_and_no_others() {
        check(5, &[(0, 1), (1, 2), (2, 3), (3, 1), (4, 0)], &[(&[1, 2, 3], &[1, 2, 3], &[3])]);
        check(4, &[(0, 1), (0, 2), (1, 3), (2, 3)], &[]);
        check(2, &[(0, 0), (0, 1)], &[]);
    }

    #[test]
    fn cycles_that_share_a_node_are_one_tangle() {
        check(3, &[(0, 1), (1, 0), (1, 2), (2, 1)], &[(&[0, 1, 2, 3], &[0, 1], &[1, 3])]);
        check(4, &[(0, 1), (1, 0), (2, 3), (3, 2)], &[(&[0, 1], &[0, 1], &[1]), (&[2, 3], &[2, 3], &[3])]);
    }

    /// Two cycles through one edge, which is not the one that closes the first.
    #[test]
    fn one_edge_is_found_where_one_is_enough() {
        check(4, &[(0, 1), (1, 2), (1, 3), (2, 0), (3, 0)], &[(&[0, 1, 2, 3, 4], &[0, 1, 3], &[0])]);
    }

    #[test]
    fn large_graphs_are_no_trouble() {
        let line: Vec<_> = (0..50_000).map(|node| (node, (node + 1) % 50_000)).collect();
        let found = tangles(50_000, &line);
        assert_eq!((found.len(), found[0].cut.len()), (1, 1));
        let dense: Vec<_> = (0..300).flat_map(|from| (0..300).map(move |to| (from, to))).collect();
        let found = tangles(300, &dense);
        assert_eq!((found.len(), found[0].edges.len()), (1, 300 * 299));
    }

    fn graph() -> impl Strategy<Value = (usize, Vec<(usize, usize)>)> {
        (2..16_usize).prop_flat_map(|nodes| {
            let edges = prop::collection::btree_set((0..nodes, 0..nodes), 0..nodes * 2);
            (Just(nodes), edges.prop_map(|edges: BTreeSet<_>| edges.into_iter().collect()))
        })
    }

    /// Whether a node reaches another, by trying everything.
    fn reaches(edges: &[(usize, usize)], from: usize, to: usize) -> bool {
        let mut seen = BTreeSet::from([from]);
        while let Some((_, next)) = edges.iter().find(|(from, to)| seen.contains(from) && !seen.contains(to)) {
            seen.insert(*next);
        }
        seen.contains(&to)
    }

    proptest! {
        #[test]
        fn every_edge_of_every_cycle_is_found_and_the_cut_cuts((nodes, edges) in graph()) {
            let found = tangles(nodes, &edges);
            let listed: BTreeSet<usize> = found.iter().flat_map(|tangle| tangle.edges.iter().copied()).collect();
            for (index, (from, to)) in edges.iter().enumerate() {
                prop_assert_eq!(listed.contains(&index), from != to && reaches(&edges, *to, *from));
            }
            for tangle in &found {
                for (at, edge) in tangle.cycle.iter().enumerate() {
                    let next = tangle.cycle[(at + 1) % tangle.cycle.len()];
                    prop_assert!(tangle.edges.contains(edge));
                    prop_assert_eq!(edges[*edge].1, edges[next].0);
                }
                let without = |cut: &[usize]| {
                    let kept: Vec<_> = tangle.edges.iter().filter(|edge| !cut.contains(edge)).map(|edge| edges[*edge]).collect();
                    kept.iter().all(|(from, to)| !reaches(&kept, *to, *from))
                };
                prop_assert!(without(&tangle.cut));
                let one_is_enough = tangle.edges.iter().any(|edge| without(&[*edge]));
                prop_assert_eq!(tangle.cut.len() == 1, one_is_enough);
            }
        }
    }
}
