//! `show`: a version and what it was made from.

use std::fmt::Write as _;

use loops::guard::Ended;

use super::super::response::{Replies, Sample, Show};
use super::{line, log, names};
use crate::visible;

/// Characters of a text that are shown.
const TEXT: usize = 160;

pub(super) fn page(show: &Show) -> String {
    let row = &show.row;
    let record = &row.record;
    let mut out = String::new();
    let names = names(&row.names, row.live, row.trial);
    let head = format!("version v{} {names}", record.version);
    let _ = writeln!(out, "{}", head.trim_end());
    let _ = writeln!(out, "hash    {}", row.hash);
    let parent = row
        .parent
        .map_or_else(|| "base".to_owned(), |v| format!("v{v}"));
    let _ = writeln!(out, "parent  {parent} · {}", log::origin(&record.origin));
    if let Ok(at) = jiff::Timestamp::from_millisecond(row.at_ms) {
        let _ = writeln!(out, "written {at:.0}");
    }
    if row.erased {
        out.push_str("its weights are erased: it had learned from something that was forgotten\n");
    }
    if let Some(gate) = &row.gate {
        let verdict = if gate.passed { "passed" } else { "HELD" };
        let why = gate.why.as_deref().unwrap_or_default();
        let _ = writeln!(out, "{}", format!("gate    {verdict} {why}").trim_end());
        for (name, value) in &gate.metrics {
            let _ = writeln!(out, "          {name:<24} {value:.5}");
        }
    }
    if let Some(why) = &row.why {
        let _ = writeln!(out, "why     {why}");
    }
    if let Some(tried) = &row.tried {
        out.push_str(&trial(tried));
    }
    if !record.metrics.is_empty() {
        out.push_str("\nmetrics             this       parent\n");
    }
    for (name, value) in &record.metrics {
        let before = show.before.get(name);
        let before = before.map_or_else(|| "–".to_owned(), |x| format!("{x:.5}"));
        let _ = writeln!(out, "  {name:<12} {value:>12.5} {before:>12}");
    }
    for (at, sample) in show.samples.iter().enumerate() {
        let _ = writeln!(out, "\nsample {} of {}", at + 1, show.samples.len());
        out.push_str(&one(sample, "  "));
    }
    if let Some(behaviour) = &show.behaviour {
        let _ = writeln!(out, "\nbehaviour: {parent} and v{}", record.version);
        out.push_str(&replies(
            behaviour,
            &parent,
            &format!("v{}", record.version),
        ));
    }
    out
}

/// A trial that is over: both sides.
fn trial(ended: &Ended) -> String {
    let outcome = if ended.promoted {
        "promoted"
    } else {
        "NOT PROMOTED"
    };
    let mut out = format!("trial   {outcome}: {}\n", ended.why);
    let (new, old) = (&ended.candidate, &ended.live);
    let names = (
        format!("v{}", ended.version.get()),
        format!("v{}", ended.against.get()),
    );
    let _ = writeln!(out, "          {:<18} {:>9} {:>9}", "", names.0, names.1);
    let mut row = |name: &str, a: f64, b: f64, decimals: usize| {
        let _ = writeln!(
            out,
            "          {name:<18} {a:>9.decimals$} {b:>9.decimals$}"
        );
    };
    row("replies", new.replies as f64, old.replies as f64, 0);
    row("broken", new.broken as f64, old.broken as f64, 0);
    row("cut off", new.cut_off as f64, old.cut_off as f64, 0);
    row("tokens a reply", new.tokens, old.tokens, 1);
    row("repeated phrases", new.repetition, old.repetition, 3);
    row("verdicts", new.verdicts as f64, old.verdicts as f64, 0);
    row("negative", new.negative as f64, old.negative as f64, 0);
    out
}

/// A sample and where it came from.
pub(super) fn one(sample: &Sample, indent: &str) -> String {
    let mut out = format!("{indent}{}\n", sample.id);
    if sample.erased {
        let _ = writeln!(out, "{indent}its text is erased");
        return out;
    }
    let mut put = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(out, "{indent}{name:<9} {}", visible::word(&value));
        }
    };
    let Sample {
        tenant,
        user,
        session,
        version,
        votes,
        advantages,
        ..
    } = sample;
    put(
        "from",
        format!("tenant {tenant} · user {user} · session {session} · answered by v{version}"),
    );
    put("prompt", line(&sample.prompt, TEXT));
    put("reply", line(&sample.reply, TEXT));
    put("reaction", line(&sample.reaction, TEXT));
    let verdict = sample.verdict.map_or_else(
        || "none".to_owned(),
        |verdict| format!("{:?} by {:?}", verdict.value, verdict.by).to_lowercase(),
    );
    put(
        "verdict",
        format!(
            "{verdict} · votes {} for, {} against, {} neither, {} absent",
            votes.positive, votes.negative, votes.ambiguous, votes.absent
        ),
    );
    put("feedback", sample.feedback.clone().unwrap_or_default());
    for hint in &sample.hints {
        put("hint", line(hint, TEXT));
    }
    let reward = sample
        .reward
        .map_or_else(|| "–".to_owned(), |x| format!("{x:+.3}"));
    put(
        "advantage",
        format!(
            "reward {reward} · {} tokens, from {:+.4} to {:+.4}, mean {:+.4}",
            advantages.tokens, advantages.min, advantages.max, advantages.mean
        ),
    );
    out
}

/// Two versions' replies, prompt by prompt.
pub(super) fn replies(all: &[Replies], a: &str, b: &str) -> String {
    let mut out = String::new();
    let wide = a.len().max(b.len());
    for one in all {
        let _ = writeln!(out, "\n  > {}", line(&one.prompt, TEXT));
        if one.a == one.b {
            let _ = writeln!(out, "    both say: {}", line(&one.a, TEXT));
        } else {
            let _ = writeln!(out, "    {a:<wide$}  {}", line(&one.a, TEXT));
            let _ = writeln!(out, "    {b:<wide$}  {}", line(&one.b, TEXT));
        }
        if let Some(d) = &one.divergence {
            let _ = writeln!(
                out,
                "    KL a token {:.6} (most {:.4}) · log-prob drift {:+.6}",
                d.mean_kl, d.max_kl, d.logprob_drift
            );
        }
    }
    out
}
