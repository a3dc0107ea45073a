//! What is answered: one variant a request, as it travels over the API and as `--json` prints it.

use std::collections::BTreeMap;

use ledger::lineage::{RefKind, RefRecord, VersionRecord};
use loops::guard::Ended;
use serde::{Deserialize, Serialize};

use super::request::{BlameMethod, Hex, Probe};

/// How far a request is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub what: String,
    /// So many are done.
    pub done: u64,
    /// Of so many; 0 when nobody knows.
    pub total: u64,
}

/// Hears how far a request is. An error ends what computes nothing that stays: nobody waits for the answer any more. What was ordered
/// (revert, forget, import) is done all the same.
pub type Tell<'a> = dyn FnMut(Progress) -> anyhow::Result<()> + 'a;

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// It goes on.
    Progress(Progress),
    /// It is done.
    Done(Box<Response>),
    /// It failed.
    Error(Failure),
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The error and its causes, as a person reads them.
    pub message: String,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// To `log`.
    Log(Log),
    /// To `show`.
    Show(Show),
    /// To `diff`.
    Diff(Diff),
    /// To `revert`, `promote` and `import`: the new version.
    Version(Moved),
    /// To `names`, `name` and `unname`.
    Names(Vec<RefRecord>),
    /// To `replay`.
    Replay(Replay),
    /// To `blame`.
    Blame(Blame),
    /// To `bisect`.
    Bisect(Bisect),
    /// To `forget`, when only the plan was asked for.
    Plan(Plan),
    /// To `forget`.
    Forgotten(Forgotten),
    /// To `export`.
    Export(Export),
    /// To `verify`.
    Verify(Verify),
    /// To `repair`.
    Repair(Repaired),
    /// To `episodes`.
    Episodes(Vec<EpisodeRow>),
    /// To `episode`.
    Episode(Told),
}

/// A hosted episode in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpisodeRow {
    /// Its id.
    pub id: String,
    /// The environment's name and version.
    pub environment: String,
    /// The task.
    pub task: String,
    /// Turns.
    pub turns: usize,
    /// Why it ended; none when it was cut by the host's own limit.
    pub done: Option<rl::Done>,
    /// The oracle's word; none where nobody knows.
    pub outcome: Option<rl::Outcome>,
    /// When its end was recorded, in milliseconds since 1970. For people; nothing is ordered by it.
    pub at_ms: i64,
}

/// An episode or a conversation, turn by turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The session.
    pub session: String,
    /// The hosted episode; none for a conversation with others, or one that is not over.
    pub episode: Option<EpisodeRow>,
    /// The attempts that it was compared with; none when it was paid alone, or not yet.
    pub group: Option<String>,
    /// Its turns, in order.
    pub turns: Vec<ToldTurn>,
}

/// One turn of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToldTurn {
    /// What became of it: whose it is, its verdict, votes, hints, reward. Its texts are `seen`, `reply` and `next`.
    pub sample: Sample,
    /// What the policy was shown that it had not been shown in the turn before.
    pub seen: Vec<rl::Message>,
    /// Whether the request went on from another past than the turn before: edited, retried or compacted.
    pub forked: bool,
    /// What it did; none where it was erased.
    pub reply: Option<rl::Message>,
    /// Whether the reply was cut by its limit of tokens.
    pub cut: bool,
    /// Tokens of the reply.
    pub tokens: usize,
    /// What came back; none while nobody knows.
    pub next: Option<rl::NextState>,
    /// What the turn was worth beside those of its group.
    pub advantage: Option<f32>,
    /// The version that it was trained into.
    pub trained: Option<u64>,
    /// Why it was not.
    pub not_trainable: Option<rl::NotTrainable>,
    /// What failed on the way or counted less than in full, in words.
    pub notes: Vec<String>,
}

/// The versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// The adapter that they are versions of.
    pub adapter: String,
    /// Newest first.
    pub versions: Vec<Row>,
    /// Whether the base model answers.
    pub base_is_live: bool,
    /// Names of the base model.
    pub base_names: Vec<RefRecord>,
}

/// One version in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its record.
    pub record: VersionRecord,
    /// Its content hash.
    pub hash: String,
    /// The version it was made from; none for the base model.
    pub parent: Option<u64>,
    /// Whether it answers.
    pub live: bool,
    /// The share of the sessions that it answers while it is on trial.
    pub trial: Option<f64>,
    /// How its trial ended; none when there was none, or it goes on.
    #[serde(default)]
    pub tried: Option<Ended>,
    /// Why it was made live, when it was not by training.
    #[serde(default)]
    pub why: Option<String>,
    /// Its names.
    pub names: Vec<RefRecord>,
    /// What the gate found; none when it was not asked.
    pub gate: Option<Gate>,
    /// Whether its weights were erased.
    pub erased: bool,
    /// When it was recorded, in milliseconds since 1970. For people; nothing is ordered by it.
    pub at_ms: i64,
}

/// What the gate found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// Whether it may be served.
    pub passed: bool,
    /// Why not, in one line; none when it may.
    pub why: Option<String>,
    /// The guards' numbers by name.
    pub metrics: BTreeMap<String, f64>,
}

/// One version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Show {
    /// Its place in the list.
    pub row: Row,
    /// Its samples, in the order in which they were used.
    pub samples: Vec<Sample>,
    /// The metrics of the version it was made from.
    pub before: BTreeMap<String, f64>,
    /// Replies of its parent and of it.
    pub behaviour: Option<Vec<Replies>>,
}

/// A sample and where it came from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The sample.
    pub id: String,
    /// Whether its text was erased: then only the ids are left.
    pub erased: bool,
    /// The turn.
    pub turn: String,
    /// Whose.
    pub tenant: String,
    /// Which user of theirs.
    pub user: String,
    /// Which conversation.
    pub session: String,
    /// The version that answered.
    pub version: u64,
    /// What the user said last before the reply.
    pub prompt: String,
    /// The reply.
    pub reply: String,
    /// What came back.
    pub reaction: String,
    /// What was decided, and by whom.
    pub verdict: Option<rl::Verdict>,
    /// Votes of the judge.
    pub votes: Votes,
    /// A person's feedback.
    pub feedback: Option<String>,
    /// The hints that were used.
    pub hints: Vec<String>,
    /// The reward.
    pub reward: Option<f32>,
    /// What its tokens were worth.
    pub advantages: Advantages,
}

/// Votes of the judge, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Votes {
    /// For the reply.
    pub positive: u32,
    /// Against it.
    pub negative: u32,
    /// Neither.
    pub ambiguous: u32,
    /// Not there: failed, too late or unreadable.
    pub absent: u32,
}

/// The advantages of a sample's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Advantages {
    /// Tokens that count.
    pub tokens: usize,
    /// The smallest.
    pub min: f32,
    /// The mean.
    pub mean: f32,
    /// The largest.
    pub max: f32,
}

/// Two versions' replies to one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replies {
    /// What the user says.
    pub prompt: String,
    /// The one's reply, greedy.
    pub a: String,
    /// The other's.
    pub b: String,
    /// How far b is from a.
    pub divergence: Option<Divergence>,
}

/// How far two versions' distributions are apart on the tokens of the first one's reply. Exact: over the whole vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Mean over the tokens of KL(a ‖ b), in nats.
    pub mean_kl: f64,
    /// The largest of them.
    pub max_kl: f64,
    /// Mean log-prob of a's reply under b, minus that under a.
    pub logprob_drift: f64,
}

/// Two versions compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diff {
    /// The one, `v3` or `base`.
    pub a: String,
    /// The other.
    pub b: String,
    /// The weights.
    pub weights: Weights,
    /// Metrics that either has: of a, of b.
    pub metrics: BTreeMap<String, (Option<f64>, Option<f64>)>,
    /// Samples between the two, when b descends from a.
    pub samples_between: Option<usize>,
    /// Replies side by side.
    pub behaviour: Option<Vec<Replies>>,
}

/// Two adapters' updates of the base weights (α/r·B·A) compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// All layers together.
    pub all: Delta,
    /// Each layer.
    pub layers: Vec<Delta>,
}

/// Two updates compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// The 2-norm of a's update.
    pub norm_a: f64,
    /// The 2-norm of b's.
    pub norm_b: f64,
    /// The 2-norm of their difference.
    pub difference: f64,
    /// The cosine between them; none when either is 0.
    pub cosine: Option<f64>,
}

/// A version that was made by a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// The new version.
    pub record: VersionRecord,
    /// Whether it answers now.
    pub live: bool,
    /// A branch that points to it.
    pub branch: Option<String>,
}

/// What a replay gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// Every step, in order.
    pub steps: Vec<ReplayedStep>,
    /// Steps that the learner refused, as it did before.
    pub refused: u64,
    /// Whether every step gave what the ledger holds, bit for bit.
    pub exact: bool,
}

/// A step that was computed again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayedStep {
    /// The recorded version of the same inputs; none when the ledger holds no such step.
    pub version: Option<u64>,
    /// Its samples.
    pub samples: usize,
    /// Whether the adapter's bytes are the recorded ones.
    pub adapter: bool,
    /// Whether the optimizer's bytes are the recorded ones.
    pub optimizer: bool,
}

/// Which samples moved a reply's log-prob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blame {
    /// What the user says.
    pub prompt: String,
    /// The reply.
    pub reply: String,
    /// The version.
    pub version: String,
    /// How it was measured.
    pub method: BlameMethod,
    /// The mean log-prob of a token of the reply under the base model.
    pub logprob_base: f64,
    /// The same under the version.
    pub logprob: f64,
    /// Samples that were looked at.
    pub looked_at: usize,
    /// Samples that could not be: their text or the weights of their step were erased.
    pub erased: usize,
    /// The samples that moved it most, the largest first.
    pub samples: Vec<Blamed>,
}

/// A sample and what it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blamed {
    /// The version that it was trained into.
    pub version: u64,
    /// First-order estimate of what it did to the reply's mean log-prob.
    pub gradient: f64,
    /// The exact difference: the mean log-prob as it is, minus that of a training without it.
    pub replay: Option<f64>,
    /// The sample.
    pub sample: Sample,
}

/// What broke a behaviour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bisect {
    /// The behaviour.
    pub probe: Probe,
    /// Every version that was asked, in the order in which it was.
    pub asked: Vec<Asked>,
    /// The last version that has it.
    pub good: String,
    /// The first that does not.
    pub bad: Row,
    /// What was found in its batch.
    pub finding: Finding,
}

/// A version that was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The version.
    pub version: String,
    /// Whether it has the behaviour.
    pub passes: bool,
    /// Its greedy reply, or the log-prob of the given one.
    pub answer: String,
}

/// What a first bad version's batch says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// Without any one of these alone the step keeps the behaviour.
    Samples(Vec<Culprit>),
    /// No sample alone: the step breaks it without any one of them, too.
    NoneAlone {
        /// So many were left out, one after the other.
        tried: usize,
    },
    /// It was no step: a revert, a promotion or an import.
    NotAStep,
    /// The step cannot be taken again: texts or weights are erased.
    Erased,
}

/// A sample without which the behaviour is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Culprit {
    /// The sample.
    pub sample: Sample,
    /// What the step without it answers.
    pub answer: String,
}

/// What forgetting would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Turns whose text would be erased.
    pub turns: usize,
    /// Hosted episodes that go with them.
    pub episodes: usize,
    /// Their samples that some version was trained on.
    pub trained: usize,
    /// Versions whose weights know them.
    pub versions: Vec<u64>,
    /// At most so many steps are computed again.
    pub steps: u64,
    /// How long that took the first time.
    pub seconds: f64,
}

/// What was forgotten.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forgotten {
    /// The request's id in the ledger: its manifest is there.
    pub id: String,
    /// The commitment to what was asked for.
    pub commitment: String,
    /// Turns whose text is erased.
    pub turns: usize,
    /// Keys that were destroyed.
    pub keys: u64,
    /// Adapters and optimizer states that were erased.
    pub blobs: u64,
    /// The version that answered before.
    pub before: u64,
    /// The version that answers now.
    pub after: u64,
    /// Versions whose weights are erased.
    pub erased: Vec<u64>,
    /// Steps that were computed.
    pub computed: u64,
}

/// An adapter on its way out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Export {
    /// The version.
    pub version: u64,
    /// The base model, as the host was told it.
    pub model: String,
    /// The text of `adapter_config.json`.
    pub config: String,
    /// The bytes of `adapter_model.safetensors`.
    pub weights: Hex,
}

/// What a check of the ledger found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verify {
    /// Whether everything is as it was written.
    pub sound: bool,
    /// Records whose hash was checked.
    pub records: u64,
    /// Blobs whose bytes were checked.
    pub blobs: u64,
    /// Versions that were checked.
    pub versions: u64,
    /// The hash of the last record: it names the whole ledger.
    pub hash: Option<String>,
    /// Each piece of damage: where, and what.
    pub damage: Vec<(String, String)>,
    /// Invariants that were looked at: name, how many cases, and the violations.
    pub invariants: Vec<Invariant>,
    /// The replay.
    pub replay: Option<Replay>,
}

/// An invariant over the ledger's records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invariant {
    /// Its name: `I7`.
    pub name: String,
    /// What it says.
    pub says: String,
    /// Cases that were looked at.
    pub cases: u64,
    /// Where it does not hold.
    pub violated: u64,
    /// The first of these, in words.
    pub broken: Vec<String>,
}

/// What a repair kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repaired {
    /// The new folder.
    pub to: String,
    /// Records that were copied.
    pub records: u64,
    /// Blobs that were copied.
    pub blobs: u64,
    /// What was lost: where, and why.
    pub lost: Vec<(String, String)>,
}

/// What a kind of name is called.
pub(crate) fn kind_name(kind: RefKind) -> &'static str {
    match kind {
        RefKind::Tag => "tag",
        RefKind::Branch => "branch",
    }
}
