//! `blame` and `bisect`: from a behaviour back to samples.

use std::fmt::Write as _;

use super::super::request::{BlameMethod, Test};
use super::super::response::{Bisect, Blame, Finding};
use super::{line, log, show};

pub(super) fn blame(blame: &Blame) -> String {
    let mut out = format!(
        "> {}\n{}  {}\n",
        line(&blame.prompt, 200),
        blame.version,
        line(&blame.reply, 200)
    );
    let _ = writeln!(
        out,
        "mean log-prob of its tokens: {:.6} under the base, {:.6} under {} ({:+.6})",
        blame.logprob_base,
        blame.logprob,
        blame.version,
        blame.logprob - blame.logprob_base
    );
    let method = match blame.method {
        BlameMethod::Gradient => {
            "method: gradient — dot products of gradients summed over the steps (TracIn), a first-order estimate"
        }
        BlameMethod::Replay => {
            "method: replay — the training run again without each sample: the exact difference"
        }
    };
    let _ = writeln!(out, "{method}\n{} samples looked at", blame.looked_at);
    if blame.erased > 0 {
        let _ = writeln!(out, "{} more could not be: they are erased", blame.erased);
    }
    for (at, blamed) in blame.samples.iter().enumerate() {
        let exact = blamed
            .replay
            .map_or_else(String::new, |x| format!(" · replay {x:+.6}"));
        let _ = writeln!(
            out,
            "\n{}. gradient {:+.6}{exact} · trained into v{}",
            at + 1,
            blamed.gradient,
            blamed.version
        );
        out.push_str(&show::one(&blamed.sample, "   "));
    }
    out
}

pub(super) fn bisect(found: &Bisect) -> String {
    let mut out = format!("> {}\n", line(&found.probe.prompt, 200));
    let asked = match &found.probe.test {
        Test::Expect(text) => format!("the greedy reply must contain {text:?}"),
        Test::Forbid(text) => format!("the greedy reply must not contain {text:?}"),
        Test::Likely { reply, min_logprob } => {
            format!("the log-prob of {reply:?} must be at least {min_logprob}")
        }
    };
    let _ = writeln!(out, "{asked}\n");
    for asked in &found.asked {
        let sign = if asked.passes { "good" } else { "BAD " };
        let _ = writeln!(
            out,
            "  {:<6} {sign}  {}",
            asked.version,
            line(&asked.answer, 120)
        );
    }
    let bad = &found.bad.record;
    let _ = writeln!(
        out,
        "\nv{} is the first bad version ({} is good): {}, {} samples",
        bad.version,
        found.good,
        log::origin(&bad.origin),
        bad.samples.len()
    );
    match &found.finding {
        Finding::Samples(culprits) => {
            for culprit in culprits {
                let _ = writeln!(
                    out,
                    "\nwithout this sample alone its step stays good: {}",
                    line(&culprit.answer, 120)
                );
                out.push_str(&show::one(&culprit.sample, "  "));
            }
        }
        Finding::NoneAlone { tried } => {
            let _ = writeln!(
                out,
                "no sample alone: each of its {tried} was left out once, and the step was bad all the same"
            );
        }
        Finding::NotAStep => {
            out.push_str("it was no step: nothing was trained, the weights came as they are\n");
        }
        Finding::Erased => {
            out.push_str("its step cannot be taken again: texts or weights are erased\n");
        }
    }
    out
}
