//! Order of a directed graph. It knows nodes and edges, nothing of guests or files.

use std::collections::BTreeSet;

/// Every node that is reachable from the roots, once, each after all nodes that its edges lead to. Edges that close a cycle
/// are left out; see [`cycles`](super::cycles).
///
/// Walks depth first from `roots` in the given order, taking the edges of each node in the given order, so the result depends
/// on those two orders alone. It takes no stack space per node and time in proportion to nodes and edges, times the logarithm
/// of the number of nodes.
pub(super) fn order<N: Copy + Ord>(roots: impl IntoIterator<Item = N>, edges: impl Fn(N) -> Vec<N>) -> Vec<N> {
    let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
    for root in roots {
        if !seen.insert(root) {
            continue;
        }
        let mut path = vec![(root, edges(root).into_iter())];
        while let Some((node, rest)) = path.last_mut() {
            let node = *node;
            match rest.next() {
                Some(next) if seen.insert(next) => path.push((next, edges(next).into_iter())),
                Some(_) => {}
                None => {
                    order.push(node);
                    path.pop();
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Edges = BTreeSet<(usize, usize)>;

    fn targets(edges: &Edges, node: usize) -> Vec<usize> {
        edges.range((node, 0)..(node + 1, 0)).map(|(_, to)| *to).collect()
    }

    #[test]
    fn a_diamond_is_walked_once() {
        let edges = Edges::from([(0, 1), (0, 2), (1, 3), (2, 3)]);
        assert_eq!(order([0], |node| targets(&edges, node)), [3, 1, 2, 0]);
    }

    #[test]
    fn only_what_the_roots_need_is_walked() {
        let edges = Edges::from([(0, 1), (2, 1)]);
        assert_eq!(order([2, 2], |node| targets(&edges, node)), [1, 2]);
    }

    #[test]
    fn a_long_path_takes_no_stack() {
        let edges: Edges = (0..100_000).map(|node| (node, node + 1)).collect();
        assert_eq!(order(0..100_001, |node| targets(&edges, node)).len(), 100_001);
    }

    proptest! {
        #[test]
        fn acyclic_graphs_come_out_dependencies_first(
            (nodes, edges) in (2..24_usize).prop_flat_map(|nodes| {
                let edges = prop::collection::btree_set((0..nodes, 0..nodes), 0..nodes * 2);
                (Just(nodes), edges.prop_map(|edges| edges.into_iter().filter(|(from, to)| from > to).collect::<Edges>()))
            }),
        ) {
            let found = order(0..nodes, |node| targets(&edges, node));
            let place: BTreeMap<usize, usize> = found.iter().enumerate().map(|(at, node)| (*node, at)).collect();
            prop_assert_eq!((place.len(), found.len()), (nodes, nodes));
            for (from, to) in &edges {
                prop_assert!(place[to] < place[from]);
            }
        }
    }
}
