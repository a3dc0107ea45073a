//! Answers as a person reads them at a terminal. Changes nothing and asks nothing; `--json` prints answers as they are.

mod compare;
mod episode;
mod log;
mod show;
mod trace;

use std::fmt::Write as _;

use super::response::{Forgotten, Moved, Plan, Repaired, Replay, Response, Verify, kind_name};
use crate::visible;

pub use crate::transcript::Cut;
pub use episode::page as episode;
pub use log::{graph, table};

/// An answer as text, with a line break at its end.
pub fn text(response: &Response) -> String {
    match response {
        Response::Log(log) => log::table(log),
        Response::Show(show) => show::page(show),
        Response::Diff(diff) => compare::page(diff),
        Response::Version(moved) => version(moved),
        Response::Names(names) => {
            let line = |name: &ledger::lineage::RefRecord| {
                let version = match name.version {
                    Some(0) | None => "base".to_owned(),
                    Some(version) => format!("v{version}"),
                };
                format!("{:<24} {version}\n", name.name)
            };
            match names.as_slice() {
                [] => "no names\n".to_owned(),
                names => names.iter().map(line).collect(),
            }
        }
        Response::Replay(found) => replay(found),
        Response::Blame(blame) => trace::blame(blame),
        Response::Bisect(bisect) => trace::bisect(bisect),
        Response::Plan(found) => plan(found),
        Response::Forgotten(found) => forgotten(found),
        Response::Export(export) => {
            format!("v{}: {} bytes\n", export.version, export.weights.0.len())
        }
        Response::Verify(found) => verify(found),
        Response::Repair(found) => repaired(found),
        Response::Episodes(found) => episode::list(found),
        Response::Episode(told) => episode::page(told, Cut::default()),
    }
}

/// A foreign text in one line, cut at `most` characters.
pub(crate) fn line(text: &str, most: usize) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let flat = visible::word(&flat);
    if flat.chars().count() <= most {
        return flat;
    }
    let kept: String = flat.chars().take(most.saturating_sub(1)).collect();
    kept + "…"
}

/// `1 step`, `2 steps`.
pub(crate) fn count(n: impl TryInto<u64>, what: &str) -> String {
    let n = n.try_into().unwrap_or(u64::MAX);
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

fn version(moved: &Moved) -> String {
    let record = &moved.record;
    let state = if moved.live {
        "live: it answers from the next request on"
    } else {
        "kept, not live: `nextstate promote` makes it so"
    };
    let branch = match &moved.branch {
        Some(branch) => format!(" · branch {branch}"),
        None => String::new(),
    };
    format!(
        "v{} {}{branch}\n{state}\n",
        record.version,
        log::origin(&record.origin)
    )
}

fn replay(found: &Replay) -> String {
    let mut out = String::new();
    for step in &found.steps {
        let name = step
            .version
            .map_or_else(|| "not in the ledger".to_owned(), |v| format!("v{v}"));
        let same = match (step.adapter, step.optimizer) {
            (true, true) => "bit for bit the recorded one",
            (false, true) => "ANOTHER ADAPTER than the recorded one",
            (true, false) => "ANOTHER OPTIMIZER STATE than the recorded one",
            (false, false) => "ANOTHER adapter and optimizer state than the recorded ones",
        };
        let samples = count(step.samples, "sample");
        let _ = writeln!(out, "{name:<8} {samples}  {same}");
    }
    let steps = count(found.steps.len(), "step");
    let verdict = match found.exact {
        true => format!("{steps} computed again, every one bit for bit as recorded"),
        false => format!("{steps} computed again; NOT all are as recorded"),
    };
    let _ = writeln!(out, "{verdict}");
    if found.refused > 0 {
        let _ = writeln!(out, "{} steps refused, as they were", found.refused);
    }
    out
}

fn plan(found: &Plan) -> String {
    let versions = match found.versions.as_slice() {
        [] => "no version learned from it".to_owned(),
        [one] => format!("v{one} learned from it: its weights are erased"),
        [first, .., last] => format!(
            "{} versions learned from it, v{first} to v{last}: their weights are erased",
            found.versions.len()
        ),
    };
    let episodes = match found.episodes {
        0 => String::new(),
        n => format!(", and {}", count(n, "hosted episode")),
    };
    format!(
        "text to erase: {}{episodes}; trained into a version: {}\n{versions}\n\
         to compute again: at most {}, about {:.0} s\n",
        count(found.turns, "turn"),
        count(found.trained, "sample"),
        count(found.steps, "step"),
        found.seconds.ceil()
    )
}

fn forgotten(found: &Forgotten) -> String {
    let Forgotten {
        id,
        commitment,
        turns,
        keys,
        blobs,
        before,
        after,
        erased,
        computed,
    } = found;
    let head = if before == after {
        format!("v{after} answers as before: it never learned from it")
    } else {
        format!(
            "v{after} answers now instead of v{before}: what would have been, had it never been said"
        )
    };
    format!(
        "forgotten: {}; {} destroyed; the weights of {} erased ({})\n{head}\n\
         computed again: {}\nsigned manifest: forgotten/{id}.json in the data folder · commitment {commitment}\n",
        count(*turns, "turn"),
        count(*keys, "key"),
        count(erased.len(), "version"),
        count(*blobs, "file"),
        count(*computed, "step"),
    )
}

fn verify(found: &Verify) -> String {
    let mut out = format!(
        "{} records, {} blobs, {} versions checked\n",
        found.records, found.blobs, found.versions
    );
    if let Some(hash) = &found.hash {
        let _ = writeln!(out, "hash of the last record: {hash}");
    }
    for (place, what) in &found.damage {
        let _ = writeln!(out, "{place}: {what}");
    }
    for invariant in &found.invariants {
        let state = match invariant.violated {
            0 => "holds".to_owned(),
            count => format!("BROKEN {count} times"),
        };
        let _ = writeln!(
            out,
            "{:<4} {state:<8} {:>8} cases  {}",
            invariant.name, invariant.cases, invariant.says
        );
        for broken in &invariant.broken {
            let _ = writeln!(out, "     {broken}");
        }
    }
    if let Some(found) = &found.replay {
        out.push_str(&replay(found));
    }
    let verdict = match found.sound {
        true => "sound: everything is as it was written",
        false => "NOT SOUND",
    };
    let _ = writeln!(out, "{verdict}");
    out
}

fn repaired(found: &Repaired) -> String {
    let mut out = format!(
        "{} records and {} blobs copied to {}\n",
        found.records, found.blobs, found.to
    );
    for (place, why) in &found.lost {
        let _ = writeln!(out, "lost: {place}: {why}");
    }
    if found.lost.is_empty() {
        out.push_str("nothing was lost\n");
    }
    out
}

/// The names of a version in brackets, the head first; empty without any.
pub(crate) fn names(
    names: &[ledger::lineage::RefRecord],
    live: bool,
    trial: Option<f64>,
) -> String {
    let mut all = Vec::new();
    if live {
        all.push("head".to_owned());
    }
    if let Some(share) = trial {
        all.push(format!("on trial for {:.0} %", share * 100.0));
    }
    for name in names {
        all.push(format!("{} {}", kind_name(name.kind), name.name));
    }
    match all.is_empty() {
        true => String::new(),
        false => format!("({})", all.join(", ")),
    }
}
