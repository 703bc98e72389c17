//! Order and cycles of a directed graph. It knows nodes and edges, nothing of guests or files.

use std::collections::BTreeMap;

/// Most cycles that one walk lists. Past this, more of them help nobody, and listing them all would cost the number
/// of edges times the length of a path.
pub(super) const CYCLES_MAX: usize = 16;

/// What a walk over a graph found.
pub(super) struct Walk<N> {
    /// Every node that is reachable from the roots, once, each after all nodes that its edges lead to (edges that
    /// close a cycle aside).
    pub(super) order: Vec<N>,
    /// Cycles: in `[a, b, c]` the edges are a → b, b → c and c → a. The graph without the last edge of each is free
    /// of cycles, unless there are [`CYCLES_MAX`] of them.
    pub(super) cycles: Vec<Vec<N>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    OnPath,
    Done,
}

/// Walks depth first from `roots` in the given order, taking the edges of each node in the given order.
///
/// The result depends on those two orders alone. It takes no stack space per node and time in proportion to nodes
/// and edges, times the logarithm of the number of nodes.
pub(super) fn walk<N: Copy + Ord>(roots: impl IntoIterator<Item = N>, edges: impl Fn(N) -> Vec<N>) -> Walk<N> {
    let mut found = Walk { order: Vec::new(), cycles: Vec::new() };
    let mut states = BTreeMap::new();
    for root in roots {
        if states.contains_key(&root) {
            continue;
        }
        states.insert(root, State::OnPath);
        let mut path = vec![(root, edges(root).into_iter())];
        while let Some((node, rest)) = path.last_mut() {
            let node = *node;
            let Some(next) = rest.next() else {
                states.insert(node, State::Done);
                found.order.push(node);
                path.pop();
                continue;
            };
            match states.get(&next) {
                None => {
                    states.insert(next, State::OnPath);
                    path.push((next, edges(next).into_iter()));
                }
                Some(State::OnPath) if found.cycles.len() < CYCLES_MAX => {
                    let nodes = path.iter().map(|(node, _)| *node);
                    found.cycles.push(nodes.skip_while(|node| *node != next).collect());
                }
                Some(_) => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    type Edges = BTreeSet<(usize, usize)>;

    fn walk_all(nodes: usize, edges: &Edges) -> Walk<usize> {
        walk(0..nodes, |node| targets(edges, node))
    }

    fn targets(edges: &Edges, node: usize) -> Vec<usize> {
        edges.range((node, 0)..(node + 1, 0)).map(|(_, to)| *to).collect()
    }

    #[test]
    fn a_diamond_is_walked_once() {
        let edges = Edges::from([(0, 1), (0, 2), (1, 3), (2, 3)]);
        let found = walk([0], |node| targets(&edges, node));
        assert_eq!(found.order, [3, 1, 2, 0]);
        assert!(found.cycles.is_empty());
    }

    #[test]
    fn only_what_the_roots_need_is_walked() {
        let edges = Edges::from([(0, 1), (2, 1)]);
        assert_eq!(walk([2, 2], |node| targets(&edges, node)).order, [1, 2]);
    }

    #[test]
    fn a_cycle_lists_its_nodes_and_no_others() {
        let edges = Edges::from([(0, 1), (1, 2), (2, 3), (3, 1), (4, 0)]);
        assert_eq!(walk_all(5, &edges).cycles, [[1, 2, 3]]);
    }

    #[test]
    fn two_cycles_through_one_node_are_both_found() {
        let edges = Edges::from([(0, 1), (1, 0), (1, 2), (2, 1)]);
        assert_eq!(walk_all(3, &edges).cycles, [vec![0, 1], vec![1, 2]]);
    }

    #[test]
    fn a_long_path_takes_no_stack() {
        let edges: Edges = (0..100_000).map(|node| (node, node + 1)).collect();
        assert_eq!(walk_all(100_001, &edges).order.len(), 100_001);
    }

    #[test]
    fn the_number_of_cycles_is_bounded() {
        let edges: Edges = (0..60).flat_map(|from| (0..60).map(move |to| (from, to))).collect();
        assert_eq!(walk_all(60, &edges).cycles.len(), CYCLES_MAX);
    }

    fn graph(acyclic: bool) -> impl Strategy<Value = (usize, Edges)> {
        (2..24_usize).prop_flat_map(move |nodes| {
            let edges = prop::collection::btree_set((0..nodes, 0..nodes), 0..nodes * 2);
            edges.prop_map(move |edges| {
                let kept = edges.into_iter().filter(|(from, to)| if acyclic { from > to } else { from != to });
                (nodes, kept.collect())
            })
        })
    }

    /// Whether a graph has a cycle, by Kahn's algorithm: an independent way to the answer.
    fn has_cycle(nodes: usize, mut edges: Edges) -> bool {
        let mut left: BTreeSet<usize> = (0..nodes).collect();
        while let Some(leaf) = left.iter().copied().find(|node| targets(&edges, *node).is_empty()) {
            left.remove(&leaf);
            edges.retain(|(_, to)| *to != leaf);
        }
        !left.is_empty()
    }

    proptest! {
        #[test]
        fn acyclic_graphs_come_out_dependencies_first((nodes, edges) in graph(true)) {
            let found = walk_all(nodes, &edges);
            prop_assert!(found.cycles.is_empty());
            let place: BTreeMap<usize, usize> = found.order.iter().enumerate().map(|(at, node)| (*node, at)).collect();
            prop_assert_eq!(place.len(), nodes);
            prop_assert_eq!(found.order.len(), nodes);
            for (from, to) in &edges {
                prop_assert!(place[to] < place[from]);
            }
        }

        #[test]
        fn cycles_are_found_and_are_cycles((nodes, edges) in graph(false)) {
            let found = walk_all(nodes, &edges);
            prop_assert_eq!(!found.cycles.is_empty(), has_cycle(nodes, edges.clone()));
            let mut cut = edges.clone();
            for cycle in &found.cycles {
                for (at, from) in cycle.iter().enumerate() {
                    let to = cycle[(at + 1) % cycle.len()];
                    prop_assert!(edges.contains(&(*from, to)));
                }
                cut.remove(&(*cycle.last().unwrap(), cycle[0]));
            }
            prop_assert!(found.cycles.len() == CYCLES_MAX || !has_cycle(nodes, cut));
        }
    }
}
