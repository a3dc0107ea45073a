//! Going back further when the gate holds a version: what answers may be nearly as bad.
//!
//! A slide of which no step shows much (an attractor that gains a little at each) ends at the gate with the first version that shows
//! it, and would leave the one before it to answer everybody. But weights that are nearly alike say nearly the same: when a version's
//! replies are bad and their KL to what answers is small, what answers is bad as well, only its few probes did not show it.
//! So an older version answers again, the newest that is further away than such replies can hide. A version that fails far from
//! what answers fails by itself alone. A function of records; it asks nobody and moves nothing. Start at [`retreat`].

use ledger::lineage::{Origin, VersionRecord};
use rl::PolicyVersion;

use crate::{gate::Examination, line::Line, records::GateRecord};

/// Guards of what replies are like. The others say how far a version went, which is no fault of where it came from.
const CONTENT: [&str; 5] = ["repetition", "errors", "off-topic", "score", "tolerance"];

/// The version whose weights should answer instead of the live ones, and why; none when the version that was examined last
/// passed, was not made from what answers, or is `nats` a reply or more away from it.
pub(crate) fn retreat(line: &Line, nats: f64) -> Option<(PolicyVersion, String)> {
    let gate = line.last_gate().filter(|gate| !gate.passed)?;
    let held = line
        .lineage()
        .get(line.adapter().as_str(), gate.version.get())?;
    // What is derived after somebody was forgotten is what would have been, to the last bit: nothing is added to it.
    let ours = held.parent == line.head().map(VersionRecord::hash);
    if held.origin != Origin::Trained || !ours || ledger::mutant::on("held-and-stays") {
        return None;
    }
    let seen = examination(gate)?;
    let mut failed = seen.guards.iter().filter(|finding| !finding.passed);
    let first = failed.find(|finding| CONTENT.contains(&finding.name.as_str()))?;
    let mut away = distance(&seen)?;
    let computed = line.computed();
    let mut to = None;
    for (at, version) in computed.iter().enumerate() {
        if away >= nats {
            break;
        }
        // One that was not examined came from an operator, who trusts it.
        let Some(seen) = line.gate(*version).and_then(examination) else {
            break;
        };
        away += distance(&seen).unwrap_or(f64::INFINITY);
        to = Some(at + 1);
    }
    let mut older = computed.iter().skip(to?);
    let to = older.find(|version| line.whole(**version).is_ok());
    let why = format!(
        "retreat: the gate held {}, and what it was made from says nearly the same: {}",
        gate.version, first.why
    );
    Some((to.copied().unwrap_or(PolicyVersion::BASE), why))
}

/// None when the version could not be examined.
fn examination(gate: &GateRecord) -> Option<Examination> {
    serde_json::from_value(gate.examination.clone()).ok()
}

/// How far a version is from the one that it was made from, in nats a reply: KL a token times tokens. None when it is no number.
fn distance(seen: &Examination) -> Option<f64> {
    let token = seen.metrics.get("kl-live")?.max(0.0);
    let tokens: u64 = seen.replies.iter().map(|reply| reply.tokens).sum();
    Some(token * tokens as f64 / seen.replies.len().max(1) as f64)
}
