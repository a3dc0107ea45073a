//! A turn, exactly as it was served, and what came back after it (algorithms §1).

use serde::{Deserialize, Serialize};

use crate::{
    AdapterName, FinishReason, Message, PolicyVersion, Sampling, SessionId, TenantId, TokenId,
    ToolSpec, TurnId,
};

/// Whether a turn belongs to the main line of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TurnKind {
    /// A reply to the user, or a call inside its tool loop: can be trained.
    Main,
    /// Memory, titles, heartbeats, cron: served and recorded, never trained.
    Side,
    /// Nothing could decide. Counted, shown, not trained.
    Unclassified,
}

/// Why a turn does not become a sample. Always one of these, always counted: nothing is skipped in silence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NotTrainable {
    /// A side turn.
    Side,
    /// Neither a header nor the environment plugin could classify it.
    Unclassified,
    /// Served by the base weights: the client did not ask for an adapter that is being trained.
    BaseWeights,
    /// Served by an adapter that no trainer owns.
    StaticAdapter,
    /// The session ended, or timed out, before anything came back.
    NoNextState,
    /// The client edited, retried, branched or compacted the history, so that nothing reacts to this reply.
    Orphaned,
    /// The reply was cut off before it was complete: the client went away.
    Cancelled,
    /// No token was sampled.
    Empty,
    /// The fingerprint of the weights that answered is not the one that the ledger has for their version.
    OtherWeights,
    /// Every vote was absent, no hint was accepted.
    NoVerdict,
    /// The verdict is 0 (ambiguous) and no hint was accepted.
    Ambiguous,
    /// The reward rule or its numbers were refused.
    RewardRefused,
    /// Older than `max-lag` versions when its batch was formed.
    Stale,
    /// The optimizer refused the step that it was in: a loss, gradient or ratio was not finite.
    StepRefused,
    /// It is longer than the samples that the host's memory was planned for when its batch was formed.
    TooLong,
    /// It is in a version that the gate held: nobody is served by it, and nothing is trained from it.
    Held,
    /// Its reward rule pays an episode or a group as a whole, and that is not over yet.
    AwaitsGroup,
    /// Its group taught nothing about it: every attempt did equally well, or it was the only one.
    NoAdvantage,
}

impl NotTrainable {
    /// What an operator reads, and what to do about it.
    pub fn explain(self) -> &'static str {
        match self {
            Self::Side => "a side turn (title, memory, heartbeat): served, never trained",
            Self::Unclassified => {
                "neither `x-turn-type` nor the environment plugin could say whether it is main or side"
            }
            Self::BaseWeights => {
                "the client asked for the base model; ask for `<base>:<adapter>` to train"
            }
            Self::StaticAdapter => "the adapter is served but not trained on this host",
            Self::NoNextState => "the session ended or went idle before anybody reacted",
            Self::Orphaned => "the client edited, retried or compacted the conversation",
            Self::Cancelled => "the client went away before the reply was complete",
            Self::Empty => "the reply holds no sampled token",
            Self::OtherWeights => {
                "other weights answered than the ledger has for their version; see the log for both fingerprints"
            }
            Self::NoVerdict => "every vote of the judge was absent and no hint was accepted",
            Self::Ambiguous => "the votes cancel out (verdict 0) and no hint was accepted",
            Self::RewardRefused => "the reward rule failed or gave numbers that the host refuses",
            Self::StepRefused => {
                "the optimizer refused the step that it was in (see the log of refused steps)"
            }
            Self::TooLong => {
                "longer than this host's memory is planned for: a larger `[engine] context`, with a `memory` that fits, trains such turns"
            }
            Self::Held => {
                "the gate held the version that it was trained into (see `nextstate log`)"
            }
            Self::AwaitsGroup => {
                "it is paid with its hosted episode or group, which is not over yet"
            }
            Self::NoAdvantage => {
                "the attempts of its group did equally well here, so that there is nothing to prefer"
            }
            Self::Stale => "too many versions were published since it was served (`max-lag`)",
        }
    }
}

/// One model call, exactly as it was served.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Turn {
    /// Also the reply id that the client saw.
    pub id: TurnId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The conversation it belongs to.
    pub session: SessionId,
    /// Whom the client says that it serves (`user` of the OpenAI API).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The turn that this one continues, when its history holds that turn's reply.
    pub parent: Option<TurnId>,
    /// Main line, side, or undecided.
    pub kind: TurnKind,
    /// The adapter that served it; none for the base weights.
    pub adapter: Option<AdapterName>,
    /// The version that served it.
    pub version: PolicyVersion,
    /// The digest of the adapter that was actually used; empty for the base weights.
    pub adapter_digest: String,
    /// The request's messages.
    pub messages: Vec<Message>,
    /// The functions that the policy could call.
    pub tools: Vec<ToolSpec>,
    /// The rendered prompt, as token ids.
    pub prompt: Vec<TokenId>,
    /// The sampled ids, the stop token included if it was sampled.
    pub response: Vec<TokenId>,
    /// The behaviour log-prob of each response token, at the sampling temperature, natural logarithm.
    pub logprobs: Vec<f32>,
    /// How tokens were drawn.
    pub sampling: Sampling,
    /// The reply as the client saw it.
    pub reply: Message,
    /// Why it ended.
    pub finish: FinishReason,
}

/// Everything that followed a turn before the next model call of its session.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NextState {
    /// All tool results, or the user's reply; synthetic messages stripped.
    pub messages: Vec<Message>,
    /// What the environment says in words, ready for a judge: all of it, joined.
    pub text: String,
    /// Numbers that the environment vouches for, by name: `exit-code`, `error`, `repeated`, `changed`, ….
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<(String, f64)>,
}

impl NextState {
    /// Messages, and their texts joined by lines; no evidence.
    pub fn of(messages: Vec<Message>) -> Self {
        let texts: Vec<_> = messages.iter().map(|m| m.content.as_str()).collect();
        Self {
            text: texts.join("\n"),
            messages,
            evidence: Vec::new(),
        }
    }
}
