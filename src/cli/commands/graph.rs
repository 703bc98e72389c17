//! `ww graph`.

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCandidates;
use serde_json::json;

use crate::cli::error::Failure;
use crate::cli::{complete, exit_code, project, ui};
use crate::escape;
use crate::ops::{self, EdgeKind, Graph, Node};

/// Show which guests and images use which
///
/// As a tree, whose roots are those that nothing uses; what was shown before is not unfolded again. Or for programs: as DOT,
/// the language of Graphviz, or as JSON. Nothing is built.
#[derive(Debug, Args)]
pub(in crate::cli) struct GraphArgs {
    /// Guests and images to show, with what they use; all of them where there is no name
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::targets))]
    names: Vec<String>,

    /// How to show it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,

    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Dot,
    Json,
}

/// Shows.
pub(in crate::cli) fn run(args: &GraphArgs) -> Result<(), Failure> {
    let format = if args.json { Format::Json } else { args.format };
    let project = project::load(format == Format::Json)?;
    let graph = ops::graph(&project, &args.names)?;
    let lines = match format {
        Format::Text => text(&graph),
        Format::Dot => dot(&graph),
        Format::Json => vec![escape::json(&as_json(&graph).to_string())],
    };
    for line in lines {
        ui::result_line(&line).map_err(|error| Failure::new(exit_code::FAILURE, &error))?;
    }
    Ok(())
}

/// Names have nothing in them that would have to be escaped anywhere.
fn shown(node: &Node) -> String {
    match node {
        Node::Image(name) => format!("image {name}"),
        Node::Guest(name) => format!("guest {name}"),
    }
}

fn text(graph: &Graph) -> Vec<String> {
    let mut lines = Vec::new();
    let mut unfolded = BTreeSet::new();
    for root in graph.roots() {
        // No stack of the machine's, however long a way is: each entry has the lines before it and itself.
        let mut pending = vec![(root, String::new(), String::new())];
        while let Some((node, first, rest)) = pending.pop() {
            let used = &graph.nodes[node];
            let is_new = unfolded.insert(node);
            let more = if is_new || used.is_empty() { "" } else { " (see above)" };
            lines.push(format!("{first}{}{more}", shown(node)));
            if is_new {
                for (at, (below, _)) in used.iter().enumerate().rev() {
                    let (branch, trunk) =
                        if at + 1 == used.len() { ("└── ", "    ") } else { ("├── ", "│   ") };
                    pending.push((below, format!("{rest}{branch}"), format!("{rest}{trunk}")));
                }
            }
        }
    }
    lines
}

fn dot(graph: &Graph) -> Vec<String> {
    let mut lines = vec!["digraph {".to_owned()];
    for node in graph.nodes.keys() {
        let shape = match node {
            Node::Image(_) => "box",
            Node::Guest(_) => "ellipse",
        };
        lines.push(format!("    \"{}\" [shape={shape}];", shown(node)));
    }
    for (node, used) in &graph.nodes {
        lines.extend(used.iter().map(|(below, kind)| {
            format!("    \"{}\" -> \"{}\" [label=\"{}\"];", shown(node), shown(below), kind_text(*kind))
        }));
    }
    lines.push("}".to_owned());
    lines
}

/// Documented in `docs/build.md`.
fn as_json(graph: &Graph) -> serde_json::Value {
    let node = |node: &Node| match node {
        Node::Image(name) => json!({ "kind": "image", "name": name.as_str() }),
        Node::Guest(name) => json!({ "kind": "guest", "name": name.as_str() }),
    };
    let nodes: Vec<_> = graph.nodes.keys().map(node).collect();
    let edges = graph.nodes.iter().flat_map(|(from, used)| used.iter().map(move |(to, kind)| (from, to, kind)));
    let edges = edges.map(|(from, to, kind)| json!({ "from": node(from), "to": node(to), "kind": kind_text(*kind) }));
    json!({ "nodes": nodes, "edges": edges.collect::<Vec<_>>() })
}

fn kind_text(kind: EdgeKind) -> &'static str {
    match kind {
        EdgeKind::Embeds => "embeds",
        EdgeKind::Needs => "needs",
        EdgeKind::File => "file",
        EdgeKind::Base => "base",
    }
}
