//! The bodies of the ledger's records, as JSON, and the names they are found by.
//!
//! | kind | subject | key | written by |
//! |---|---|---|---|
//! | `turn` | turn | `turn/<turn>` | serve, before the reply is acknowledged |
//! | `closed` | turn | `closed/<turn>` | serve, when something came back, or never will |
//! | `feedback` | turn | none | serve |
//! | `judged` | turn | `judged/<turn>/<revision>` | judge |
//! | `version` | adapter:number | see [`ledger::lineage`] | train |
//! | `spent` | turn | `spent/<sample>` | train, in one group with the version; a sample is spent once |
//! | `step-refused` | adapter | none | train |
//! | `run` | adapter | none | train, at a start with other settings than before |
//! | `gate` | adapter:number | none | train, in one group with the version |
//! | `head`, `ref` | adapter | none | train, operators; see [`ledger::lineage`] |
//! | `forget` | adapter | `forget/<id>` | an operator's request to forget, before anything is erased |
//! | `forgotten` | adapter | `forgotten/<id>` | the end of it, in one group with the new head |
//! | `action` | episode | `action/<episode>/<index>` | rollout |
//! | `episode` | episode | `episode/<episode>` | rollout, when it is over |
//! | `group` | group | `group/<group>` | rollout, when no attempt of it is left to play, for rules that see more than a turn |
//! | `store-opened` | group | `store-opened/<episode>` | rollout, when a plugin that stores something begins an episode: the group's first says what all of it see |
//! | `stored` | episode or turn | `stored/<subject>` | rollout and serve, in one group with the end of the episode or the turn's closing |
//! | `paid` | group | `paid/<group>` | judge, in one group with what its turns got |
//! | `checkpoint` | `checkpoint/<blob>` | none | a host, now and then: where a start may begin to read |
//!
//! What holds somebody's text (`turn`, `closed`, `feedback`, `judged`, `action`, `stored`, the replies in `gate`, and the key of what a `checkpoint` keeps) is sealed under the
//! key of its subject, so that it can be erased.
//!
//! Fields are only ever added, with a default: an old ledger stays readable. Nothing here writes to the ledger.

use std::sync::Arc;

use ledger::{BlobKey, Digest, Entry, Record, Seq};
use rl::{
    AdapterName, Done, EpisodeId, Feedback, Message, NextState, NotTrainable, Outcome,
    PolicyVersion, Sample, SampleId, Seed, SessionId, StepMetrics, TaskId, TenantId, Turn, TurnId,
    TurnReward, Verdict, Vote,
    algorithm::{HintTeacher, Method, Settings},
    store::Write,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Error, Result,
    guard::Ended,
    schedule::{Place, Rules},
};

/// Kind of [`TurnRecord`].
pub const TURN: &str = "turn";
/// Kind of [`ClosedRecord`].
pub const CLOSED: &str = "closed";
/// Kind of [`rl::Feedback`].
pub const FEEDBACK: &str = "feedback";
/// Kind of [`JudgedRecord`].
pub const JUDGED: &str = "judged";
/// Kind of [`SpentRecord`].
pub const SPENT: &str = "spent";
/// Kind of [`StepRefusedRecord`].
pub const STEP_REFUSED: &str = "step-refused";
/// Kind of [`ActionRecord`].
pub const ACTION: &str = "action";
/// Kind of [`EpisodeRecord`].
pub const EPISODE: &str = "episode";
/// Kind of [`GroupRecord`].
pub const GROUP: &str = "group";
/// Kind of [`PaidRecord`].
pub const PAID: &str = "paid";
/// Kind of [`OpenedRecord`].
pub const OPENED: &str = "store-opened";
/// Kind of [`StoredRecord`].
pub const STORED: &str = "stored";
/// Kind of [`RunRecord`].
pub const RUN: &str = "run";
/// Kind of [`GateRecord`].
pub const GATE: &str = "gate";
/// Kind of [`TrialRecord`].
pub const TRIAL: &str = "trial";
/// Kind of [`ForgetRecord`].
pub const FORGET: &str = "forget";
/// Kind of [`ForgottenRecord`].
pub const FORGOTTEN: &str = "forgotten";

/// Kind of [`CheckpointRecord`].
pub const CHECKPOINT: &str = "checkpoint";

/// Where the loops stood at a place, folded from the records up to there; the fold itself is in a blob, which the record's subject
/// names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// The adapter whose line was folded.
    pub adapter: AdapterName,
    /// Which program's fold it is; another one's says nothing.
    pub fold: u32,
    /// The rules that the fold began with.
    pub rules: Rules,
    /// The last record that was read.
    pub through: Seq,
    /// Its hash: of another chain nothing is believed.
    pub hash: Digest,
    /// What the blob is sealed under.
    pub key: BlobKey,
}

/// A trial that is over. A trial begins with a head that has a share; the next whole head ends it, with or without this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialRecord {
    /// The adapter.
    pub adapter: String,
    /// What was decided, and what both versions had shown.
    #[serde(flatten)]
    pub ended: Ended,
}

/// The settings that training goes by from here on. Written when they differ from those before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The adapter.
    pub adapter: String,
    /// The base model, by name.
    pub model: String,
    /// Every random choice of training is derived from it: a fresh adapter's numbers are.
    pub seed: Seed,
    /// When a batch is due.
    pub rules: Rules,
    /// The learner's settings, as it writes them.
    pub learner: serde_json::Value,
    /// The last judged record that the fold had read.
    pub through: Seq,
}

/// What the gate found about a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateRecord {
    /// The adapter.
    pub adapter: String,
    /// The version.
    pub version: PolicyVersion,
    /// Whether it may be served.
    pub passed: bool,
    /// Why not, or what was looked at: the examination as the gate writes it.
    pub examination: serde_json::Value,
    /// When it was held: so many versions before what answered then were taken back with it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub back: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Somebody asked that these turns be forgotten. From this record on they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetRecord {
    /// The request's id.
    pub id: String,
    /// The adapter.
    pub adapter: String,
    /// What was asked for: `user`, `session`, `sample` or `tenant`.
    pub selector: String,
    /// SHA-256 of `<id>/<selector>/<tenant>/<name>`: whoever knows the name can check that it was meant; nobody can read it here.
    pub commitment: String,
    /// The turns, in the order of their records.
    pub turns: Vec<TurnId>,
    /// Other subjects whose text goes with them: hosted episodes.
    pub subjects: Vec<String>,
}

/// The end of a request to forget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgottenRecord {
    /// The request's id.
    pub id: String,
    /// The adapter.
    pub adapter: String,
    /// The version that answered before.
    pub before: PolicyVersion,
    /// The version that answers now.
    pub after: PolicyVersion,
    /// Versions that knew the forgotten turns: their weights are erased.
    pub erased: Vec<PolicyVersion>,
    /// The versions of the new line, in order.
    pub line: Vec<PolicyVersion>,
    /// Steps that were computed again; the others of the line were found.
    pub computed: u64,
    /// Where the fold stands on the new line.
    pub place: Place,
}

/// A turn as it was served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TurnRecord {
    /// The turn.
    pub turn: Turn,
    /// The public name of the API key; part of a derived session's identity.
    pub key: String,
    /// Whether the session id was derived from the conversation, not sent by the client.
    pub derived: bool,
    /// Why it can never become a sample, when that is known already.
    pub not_trainable: Option<NotTrainable>,
}

/// What became of a turn's next state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Closing {
    /// It came.
    Next(NextState),
    /// It never will.
    Without(NotTrainable),
}

/// The end of a turn's wait for its next state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClosedRecord {
    /// The turn.
    pub turn: TurnId,
    /// What came.
    pub closing: Closing,
    /// The turn whose request brought it.
    pub by: Option<TurnId>,
}

/// One question for a hint, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HintAsk {
    /// The seed of its prompt.
    pub seed: Seed,
    /// The hint that the judge gave.
    pub hint: Option<String>,
    /// Why it is not used.
    pub refused: Option<String>,
}

/// Everything that was decided about a turn, and from what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgedRecord {
    /// The turn.
    pub turn: TurnId,
    /// 0, and one more each time that feedback changed the decision before the sample was trained.
    pub revision: u32,
    /// The judge plugin's name and version.
    pub judge: String,
    /// The reward rule's name and version.
    pub rule: String,
    /// The method that made the sample.
    pub method: Method,
    /// Its settings.
    pub settings: Settings,
    /// Every vote, the absent ones included.
    pub votes: Vec<Vote>,
    /// Every question for a hint.
    pub asks: Vec<HintAsk>,
    /// The feedback that was known.
    pub feedback: Option<Feedback>,
    /// What was decided; none when nobody could.
    pub verdict: Option<Verdict>,
    /// What the reward rule made of it.
    pub reward: Option<TurnReward>,
    /// The accepted hints with the teacher's log-probs.
    pub teachers: Vec<HintTeacher>,
    /// The sample, exactly as it will be trained.
    pub sample: Option<Sample>,
    /// Why there is none.
    pub not_trainable: Option<NotTrainable>,
    /// What failed on the way or counted less than in full, in words.
    #[serde(default)]
    pub notes: Vec<String>,
    /// With whom the turn was paid, where the rule sees more than a turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paid: Option<Paid>,
}

/// How a turn of a hosted episode was paid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paid {
    /// Its group.
    pub group: String,
    /// The oracle's word on its episode.
    pub outcome: Option<f64>,
    /// What its reward is worth beside those of its group.
    pub advantage: Option<f32>,
}

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It is in this version.
    Trained(PolicyVersion),
    /// It was too old when its batch was formed.
    Stale {
        /// The newest version then.
        newest: PolicyVersion,
    },
    /// The learner refused the step that it was in.
    StepRefused,
    /// The gate held the version that it is in.
    Held(PolicyVersion),
    /// It is longer than the learner's memory was planned for, and was taken out of the batch that was due at this record. Whoever takes
    /// the steps again has perhaps more memory, and leaves it out all the same.
    TooLong {
        /// The last record that the batch had read.
        through: Seq,
    },
}

/// The end of a sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpentRecord {
    /// The sample.
    pub sample: SampleId,
    /// The turn that it was made from.
    pub turn: TurnId,
    /// What became of it.
    pub fate: Fate,
}

/// A step that the learner refused: the version did not move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRefusedRecord {
    /// The version that it started from.
    pub parent: PolicyVersion,
    /// Its samples.
    pub samples: Vec<SampleId>,
    /// The last judged record that its batch had read; `None` in ledgers of the first programs.
    #[serde(default)]
    pub through: Option<Seq>,
    /// Why.
    pub why: String,
    /// What it measured, when it came so far and every number is finite.
    pub metrics: Option<StepMetrics>,
}

/// One action of a hosted episode: enough to bring the episode back after a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// The episode.
    pub episode: EpisodeId,
    /// 0 for the first.
    pub index: u32,
    /// The turn that produced it.
    pub turn: TurnId,
    /// The reply.
    pub message: Message,
    /// Whether it was cut by the token limit.
    pub truncated: bool,
}

/// A hosted episode that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpisodeRecord {
    /// The episode.
    pub episode: EpisodeId,
    /// The environment's name and version.
    pub environment: String,
    /// The task.
    pub task: TaskId,
    /// The episode's seed.
    pub seed: Seed,
    /// Its conversation.
    pub session: SessionId,
    /// Its turns, in order.
    pub turns: Vec<TurnId>,
    /// Why it ended; none when it was cut by the host's own limit.
    pub done: Option<Done>,
    /// The oracle's last word.
    pub outcome: Option<Outcome>,
}

/// All attempts at one task that were played; none is left to play.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// The group.
    pub group: String,
    /// The attempts that came to an end; one that failed is not there.
    pub episodes: Vec<EpisodeId>,
}

/// A hosted episode whose plugin may read what it stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedRecord {
    /// Whose store.
    pub tenant: TenantId,
    /// Of which plugin.
    pub plugin: String,
    /// The episode.
    pub episode: EpisodeId,
    /// Its group.
    pub group: String,
}

/// What a hosted episode, or a turn of live traffic, left in its plugin's store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRecord {
    /// Whose store.
    pub tenant: TenantId,
    /// Of which plugin.
    pub plugin: String,
    /// The `stored` records whose values it read: what it wrote, and all that it showed, may hold something of them.
    pub read: Vec<Seq>,
    /// What it wrote, by key.
    pub writes: Vec<StoredWrite>,
}

/// One key's change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredWrite {
    /// The key.
    pub key: String,
    /// Its value; none when it was removed.
    pub value: Option<StoredValue>,
}

/// A value's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoredValue {
    /// They are UTF-8.
    Text(String),
    /// They are not; in hexadecimal.
    Hex(#[serde(with = "hexadecimal")] Vec<u8>),
}

mod hexadecimal {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        hex::decode(text).map_err(D::Error::custom)
    }
}

impl From<Write> for StoredWrite {
    fn from(write: Write) -> Self {
        let value = |bytes: Arc<[u8]>| match std::str::from_utf8(&bytes) {
            Ok(text) => StoredValue::Text(text.to_owned()),
            Err(_) => StoredValue::Hex(bytes.to_vec()),
        };
        Self {
            key: write.key,
            value: write.value.map(value),
        }
    }
}

impl StoredWrite {
    /// The change itself.
    pub fn into_write(self) -> Write {
        let bytes = |value| match value {
            StoredValue::Text(text) => text.into_bytes().into(),
            StoredValue::Hex(bytes) => bytes.into(),
        };
        Write {
            key: self.key,
            value: self.value.map(bytes),
        }
    }
}

/// One attempt of a group that was paid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The attempt.
    pub episode: EpisodeId,
    /// The oracle's word.
    pub outcome: Option<f64>,
    /// Its turns.
    pub turns: Vec<TurnId>,
    /// Their rewards; empty when the rule failed.
    pub rewards: Vec<Option<f32>>,
    /// Their advantages.
    pub advantages: Vec<Option<f32>>,
}

/// A group that was paid, or that its rule could not pay. Numbers and names only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PaidRecord {
    /// The group.
    pub group: String,
    /// The rule's name and version.
    pub rule: String,
    /// Its attempts.
    pub attempts: Vec<Attempt>,
    /// Why nothing was paid.
    pub why: Option<String>,
}

/// The key of an episode's action.
pub fn action_key(episode: &str, index: u32) -> String {
    format!("{ACTION}/{episode}/{index}")
}

/// The key of a group's record.
pub fn group_key(group: &str) -> String {
    format!("{GROUP}/{group}")
}

/// The key of a group's payment.
pub fn paid_key(group: &str) -> String {
    format!("{PAID}/{group}")
}

/// The key of a turn's record.
pub fn turn_key(turn: &TurnId) -> String {
    format!("{TURN}/{turn}")
}

/// The key of a turn's closing.
pub fn closed_key(turn: &TurnId) -> String {
    format!("{CLOSED}/{turn}")
}

/// The key of a sample's end: one for each thing that can become of it, since a sample may be on two lines.
pub fn spent_key(spent: &SpentRecord) -> String {
    let sample = &spent.sample;
    match spent.fate {
        Fate::Trained(version) | Fate::Held(version) => format!("{SPENT}/{sample}/{version}"),
        Fate::Stale { newest } => format!("{SPENT}/{sample}/stale/{newest}"),
        Fate::StepRefused => format!("{SPENT}/{sample}/refused"),
        Fate::TooLong { through } => format!("{SPENT}/{sample}/too-long/{through}"),
    }
}

/// The key of an episode's end.
pub fn episode_key(episode: &EpisodeId) -> String {
    format!("{EPISODE}/{episode}")
}

impl TurnRecord {
    /// The entry that records it.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn to_entry(&self) -> Result<Entry> {
        Ok(encode(TURN, self.turn.id.as_str(), self)?
            .sealed()
            .with_key(turn_key(&self.turn.id)))
    }
}

impl ClosedRecord {
    /// The entry that records it.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn to_entry(&self) -> Result<Entry> {
        let entry = encode(CLOSED, self.turn.as_str(), self)?.sealed();
        if ledger::mutant::on("closed-twice") {
            return Ok(entry);
        }
        Ok(entry.with_key(closed_key(&self.turn)))
    }
}

impl JudgedRecord {
    /// The entry that records it.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn to_entry(&self) -> Result<Entry> {
        let key = format!("{JUDGED}/{}/{}", self.turn, self.revision);
        Ok(encode(JUDGED, self.turn.as_str(), self)?
            .sealed()
            .with_key(key))
    }
}

impl SpentRecord {
    /// The entry that records it.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn to_entry(&self) -> Result<Entry> {
        Ok(encode(SPENT, self.turn.as_str(), self)?.with_key(spent_key(self)))
    }
}

impl ActionRecord {
    /// The entry that records it.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn to_entry(&self) -> Result<Entry> {
        let key = action_key(self.episode.as_str(), self.index);
        Ok(encode(ACTION, self.episode.as_str(), self)?
            .sealed()
            .with_key(key))
    }
}

impl EpisodeRecord {
    /// The entry that records it.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn to_entry(&self) -> Result<Entry> {
        Ok(encode(EPISODE, self.episode.as_str(), self)?.with_key(episode_key(&self.episode)))
    }
}

impl GroupRecord {
    /// The entry that records it.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn to_entry(&self) -> Result<Entry> {
        Ok(encode(GROUP, &self.group, self)?.with_key(group_key(&self.group)))
    }
}

impl OpenedRecord {
    /// The entry that records it.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn to_entry(&self) -> Result<Entry> {
        let key = format!("{OPENED}/{}", self.episode);
        Ok(encode(OPENED, &self.group, self)?.with_key(key))
    }
}

impl StoredRecord {
    /// The entry that records it, about its episode or turn.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn to_entry(&self, subject: &str) -> Result<Entry> {
        let key = format!("{STORED}/{subject}");
        Ok(encode(STORED, subject, self)?.sealed().with_key(key))
    }
}

impl PaidRecord {
    /// The entry that records it.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn to_entry(&self) -> Result<Entry> {
        Ok(encode(PAID, &self.group, self)?.with_key(paid_key(&self.group)))
    }
}

/// An entry of `kind` about `subject`, without a key.
///
/// # Errors
/// [`Error::Encode`].
pub fn encode(kind: &'static str, subject: &str, body: &impl Serialize) -> Result<Entry> {
    let body = serde_json::to_vec(body).map_err(|source| Error::Encode {
        kind,
        subject: subject.to_owned(),
        source: Arc::new(source),
    })?;
    Ok(Entry::new(kind, subject, body))
}

/// The body of a record.
///
/// # Errors
/// [`Error::Record`] naming the record.
pub fn decode<T: DeserializeOwned>(record: &Record) -> Result<T> {
    serde_json::from_slice(&record.body).map_err(|source| Error::Record {
        seq: record.seq,
        kind: record.kind.clone(),
        source: Arc::new(source),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rl::Seed;

    use super::*;

    fn record(body: Vec<u8>) -> Record {
        let seq = ledger::Seq::FIRST;
        let hash = ledger::Digest::of(&body);
        let (kind, subject) = (JUDGED.to_owned(), String::new());
        Record {
            erased: false,
            seq,
            at_ms: 0,
            kind,
            subject,
            key: None,
            body,
            hash,
        }
    }

    fn judged(numbers: &[f32], text: &str) -> JudgedRecord {
        let teacher = HintTeacher {
            hint: rl::Hint {
                text: text.to_owned(),
            },
            logprobs: numbers.to_vec(),
        };
        JudgedRecord {
            turn: TurnId::new(text),
            revision: 0,
            judge: String::new(),
            rule: String::new(),
            method: Method::Combined,
            settings: Settings::default(),
            votes: Vec::new(),
            asks: vec![HintAsk {
                seed: Seed::new(u64::MAX),
                hint: None,
                refused: None,
            }],
            feedback: None,
            verdict: None,
            reward: None,
            teachers: vec![teacher],
            sample: None,
            not_trainable: Some(NotTrainable::NoVerdict),
            notes: Vec::new(),
            paid: None,
        }
    }

    proptest! {
        #[test]
        fn every_number_and_text_survives_a_record_bit_for_bit(
            numbers in proptest::collection::vec(any::<f32>().prop_filter("finite", |x| x.is_finite()), 0..50),
            text in ".{0,40}",
        ) {
            let before = judged(&numbers, &text);
            let body = serde_json::to_vec(&before).unwrap();
            let after: JudgedRecord = decode(&record(body)).unwrap();
            let bits = |xs: &[f32]| xs.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&after.teachers[0].logprobs), bits(&numbers));
            prop_assert_eq!(after, before);
        }

        #[test]
        fn a_body_that_is_not_a_record_is_an_error_that_names_it(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let error = decode::<JudgedRecord>(&record(body)).unwrap_err().to_string();
            prop_assert!(error.contains("record 1") && error.contains("judged"), "{}", error);
        }
    }

    #[test]
    fn a_record_of_a_later_program_with_fields_that_we_do_not_know_can_be_read() {
        let body = br#"{"sample":"s","turn":"t","fate":"step-refused","because":"later"}"#;
        let spent: SpentRecord = decode(&record(body.to_vec())).unwrap();
        assert_eq!(spent.fate, Fate::StepRefused);
    }
}
