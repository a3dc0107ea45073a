//! A sample's way back: from its id to the turn, the votes, the hints and whom it came from.

use ledger::Ledger;
use loops::records::{
    self, CLOSED, ClosedRecord, Closing, FEEDBACK, JUDGED, JudgedRecord, TURN, TurnRecord,
};
use rl::{Feedback, Rating, Role, VoteValue};

use super::response::{Advantages, Sample, Votes};

/// The turn that a sample was made from.
pub(crate) fn turn_of(sample: &str) -> &str {
    sample.strip_prefix("sample-").unwrap_or(sample)
}

/// The sample as it was trained; none when its text was erased.
pub(crate) fn trained(ledger: &Ledger, id: &str) -> anyhow::Result<Option<rl::Sample>> {
    let mut found = None;
    for record in ledger.by_subject(turn_of(id)) {
        let record = record?;
        if record.kind == JUDGED && !is_erased(&record) {
            let judged: JudgedRecord = records::decode(&record)?;
            let sample = judged.sample.filter(|sample| sample.id.as_str() == id);
            // A later revision stands for the sample only while it is not trained; the first ones never lose it.
            found = sample.or(found);
        }
    }
    Ok(found)
}

/// Everything that is known about a sample.
pub(crate) fn describe(ledger: &Ledger, id: &str) -> anyhow::Result<Sample> {
    let mut sample = Sample {
        id: id.to_owned(),
        turn: turn_of(id).to_owned(),
        ..Sample::default()
    };
    let mut there = false;
    for record in ledger.by_subject(turn_of(id)) {
        let record = record?;
        if is_erased(&record) {
            continue;
        }
        match record.kind.as_str() {
            TURN => {
                there = true;
                from_turn(&mut sample, records::decode(&record)?);
            }
            CLOSED => {
                let closed: ClosedRecord = records::decode(&record)?;
                if let Closing::Next(next) = closed.closing {
                    sample.reaction = next.text;
                }
            }
            FEEDBACK => {
                let feedback: Feedback = records::decode(&record)?;
                sample.feedback = Some(in_words(&feedback));
            }
            JUDGED => from_judged(&mut sample, id, &records::decode(&record)?),
            _ => {}
        }
    }
    sample.erased = !there;
    Ok(sample)
}

fn is_erased(record: &ledger::Record) -> bool {
    record.erased
}

fn from_turn(sample: &mut Sample, record: TurnRecord) {
    let turn = record.turn;
    let mut said = turn.messages.iter().rev();
    let said = said.find(|m| matches!(m.role, Role::User | Role::Tool));
    sample.prompt = said.map(|m| m.content.clone()).unwrap_or_default();
    sample.tenant = turn.tenant.to_string();
    sample.user = turn.user.unwrap_or(record.key);
    sample.session = turn.session.to_string();
    sample.version = turn.version.get();
    sample.reply = turn.reply.content;
}

fn in_words(feedback: &Feedback) -> String {
    let rating = match feedback.rating {
        Some(Rating::Up) => "👍",
        Some(Rating::Down) => "👎",
        None => "",
    };
    let correction = feedback.correction.as_deref().unwrap_or_default();
    format!("{rating} {correction}").trim().to_owned()
}

fn from_judged(sample: &mut Sample, id: &str, judged: &JudgedRecord) {
    sample.verdict = judged.verdict;
    sample.reward = judged.reward.and_then(|reward| reward.reward);
    sample.hints = judged
        .teachers
        .iter()
        .map(|teacher| teacher.hint.text.clone())
        .collect();
    sample.votes = Votes::default();
    for vote in &judged.votes {
        let count = match vote.value {
            Some(VoteValue::Positive) => &mut sample.votes.positive,
            Some(VoteValue::Negative) => &mut sample.votes.negative,
            Some(VoteValue::Ambiguous) => &mut sample.votes.ambiguous,
            None => &mut sample.votes.absent,
        };
        *count += 1;
    }
    if let Some(trained) = judged.sample.as_ref().filter(|s| s.id.as_str() == id) {
        sample.advantages = advantages(trained);
    }
}

fn advantages(sample: &rl::Sample) -> Advantages {
    let pairs = sample.advantage.iter().zip(&sample.weight);
    let counted: Vec<f32> = pairs.filter(|(_, w)| **w > 0.0).map(|(a, _)| *a).collect();
    if counted.is_empty() {
        return Advantages::default();
    }
    Advantages {
        tokens: counted.len(),
        min: counted.iter().copied().fold(f32::INFINITY, f32::min),
        mean: counted.iter().sum::<f32>() / counted.len() as f32,
        max: counted.iter().copied().fold(f32::NEG_INFINITY, f32::max),
    }
}
