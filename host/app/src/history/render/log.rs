//! `log` as a table and as a graph.

use comfy_table::{CellAlignment, Table, presets};
use ledger::lineage::Origin;

use super::super::graph::{self, Node};
use super::super::response::{Log, Row};
use super::names;

/// Digits of a hash that are shown.
const HASH: usize = 10;

/// What an origin is called.
pub(crate) fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Trained => "trained".to_owned(),
        Origin::Rederived { forget } => format!("trained again for forget {forget}"),
        Origin::Reverted { to: 0 } => "the base model again".to_owned(),
        Origin::Reverted { to } => format!("reverted to v{to}"),
        Origin::Promoted { from } => format!("promoted from v{from}"),
        Origin::Imported { from } => format!("imported from {from}"),
        other => format!("{other:?}"),
    }
}

fn short(hash: &str) -> &str {
    hash.get(..HASH).unwrap_or(hash)
}

/// What is special about a version, in words.
fn remarks(row: &Row) -> Vec<String> {
    let mut all = Vec::new();
    if row.record.origin != Origin::Trained {
        all.push(origin(&row.record.origin));
    }
    all.extend(row.why.clone());
    match &row.gate {
        Some(gate) if !gate.passed => {
            let why = gate.why.as_deref().unwrap_or("it failed a guard");
            all.push(format!("HELD by the gate: {why}"));
        }
        Some(_) => all.push("passed the gate".to_owned()),
        None => {}
    }
    if let Some(tried) = &row.tried {
        let outcome = if tried.promoted {
            "promoted"
        } else {
            "NOT PROMOTED"
        };
        all.push(format!("{outcome} after its trial: {}", tried.why));
    }
    if row.erased {
        all.push("weights erased".to_owned());
    }
    all
}

/// The versions, one a line.
pub fn table(log: &Log) -> String {
    if log.versions.is_empty() {
        let names = names(&log.base_names, log.base_is_live, None);
        return format!("no version yet: the weights on disk (v0) answer {names}\n");
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "version",
        "parent",
        "samples",
        "tokens",
        "loss",
        "KL",
        "grad norm",
        "ratio max",
        "seconds",
        "hash",
        "",
    ]);
    for row in &log.versions {
        let record = &row.record;
        let metric = |name: &str, decimals: usize| {
            let metric = record.metrics.get(name);
            metric.map_or_else(|| "–".to_owned(), |x| format!("{x:.decimals$}"))
        };
        let mut notes = vec![names(&row.names, row.live, row.trial)];
        notes.extend(remarks(row));
        notes.retain(|note| !note.is_empty());
        table.add_row([
            format!("{}:v{}", record.adapter, record.version),
            row.parent
                .map_or_else(|| "base".to_owned(), |v| format!("v{v}")),
            record.samples.len().to_string(),
            metric("tokens", 0),
            metric("loss", 4),
            metric("kl", 4),
            metric("grad_norm", 3),
            metric("ratio_max", 3),
            metric("seconds", 1),
            short(&row.hash).to_owned(),
            notes.join(" · "),
        ]);
    }
    for column in table.column_iter_mut().skip(2).take(7) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

/// The versions as a graph, as `git log --graph` draws it.
pub fn graph(log: &Log) -> String {
    let mut nodes: Vec<Node> = log.versions.iter().map(node).collect();
    let whole = log.versions.iter().all(|row| {
        let there = |parent| log.versions.iter().any(|row| row.record.version == parent);
        row.parent.is_none_or(there)
    });
    if whole {
        let names = names(&log.base_names, log.base_is_live, None);
        nodes.push(Node {
            id: 0,
            parent: None,
            text: vec![format!("base {names}").trim_end().to_owned()],
        });
    }
    graph::draw(&nodes)
}

fn node(row: &Row) -> Node {
    let record = &row.record;
    let mut first = vec![format!("v{}", record.version), short(&row.hash).to_owned()];
    let names = names(&row.names, row.live, row.trial);
    if !names.is_empty() {
        first.push(names);
    }
    let mut second = Vec::new();
    if !record.samples.is_empty() {
        second.push(format!("{} samples", record.samples.len()));
    }
    for (name, label) in [("loss", "loss"), ("kl", "KL"), ("grad_norm", "grad norm")] {
        if let Some(value) = record.metrics.get(name) {
            second.push(format!("{label} {value:.4}"));
        }
    }
    second.extend(remarks(row));
    let parent = match (row.parent, &record.origin) {
        (None, Origin::Imported { .. }) => None,
        (parent, _) => Some(parent.unwrap_or(0)),
    };
    let mut text = vec![first.join(" ")];
    if !second.is_empty() {
        text.push(second.join(" · "));
    }
    Node {
        id: record.version,
        parent,
        text,
    }
}
