//! The seams: the traits between the loops. Each has two real implementations from the first day, and one
//! conformance suite that every implementation runs.
//!
//! | seam | one side | the other side | implementations |
//! |---|---|---|---|
//! | [`Policy`] | judge, rollout | the model | the engine (`serving`), the model called directly (`policy`) |
//! | [`Environment`] | serve, rollout | a modality | a guest (`plugin`), [`crate::seam::Transcript`] |
//! | [`Judge`] | judge | PRM prompts | a guest (`plugin`), [`crate::seam::WordJudge`] |
//! | [`RewardRule`] | judge | a reward scheme | a guest (`plugin`), [`crate::seam::MajorityRule`] |
//! | [`Learner`] | train | the optimizer | LoRA (`trainer`), frozen (`trainer`) |
//! | [`Shelf`] | train, serve | what is served | the engine's slot (`policy`), [`crate::seam::MemoryShelf`] |
//! | [`TurnSink`] | the gateway | serve | the ledger (`loops`), [`crate::seam::MemorySink`] |
//! | [`Agent`] | rollout | the policy as a user meets it | in process, and over HTTP (`app`) |
//! | [`Archive`] | an environment | where what its plugin stores is kept | the ledger (`loops`), [`Nowhere`] |
//!
//! All but [`TurnSink`] are synchronous: a loop calls them from a blocking thread, with its own time limit.

mod agent;
mod archive;
pub mod conformance;
mod environment;
mod judge;
mod learner;
mod native;
mod policy;
mod reward;
mod shelf;
mod sink;

pub use agent::{Agent, AgentReply, AgentRequest};
pub use archive::{Archive, Nowhere};
pub use environment::{
    Action, Classification, Done, Environment, Episode, ModalityCard, Observation, Outcome,
    RequestView, Step,
};
pub use judge::{Answer, AnswerForm, Choice, Judge, JudgePrompt, Question};
pub use learner::{Learner, Proposal, candidate_of, is_candidate};
pub use native::{
    MajorityRule, MemoryShelf, MemorySink, NoJudge, StepwiseRule, Transcript, WordJudge,
};
pub use policy::{
    Completion, FinishReason, Policy, PolicyCard, SampleRequest, SampledToken, ScoreRequest,
    TokenFlow, Weights,
};
pub use reward::{JudgedTurn, RewardRule, Sees, TokenStreams, TurnReward};
pub use shelf::{Shelf, Stored};
pub use sink::{BoxFuture, Feedback, Served, Ticket, TurnRequest, TurnSink};
