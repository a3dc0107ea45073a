//! Asking the gate about a learner's last proposal, which nobody is served by yet.
//!
//! What is asked, and when a version is held, is [`crate::gate`]'s; here the proposal is put where it can be asked. Versions
//! are named to the gate by the steps behind them: a line that is derived again has other numbers and must get the same draws.

use rl::{AdapterName, Learner, Policy, PolicyVersion, Weights, candidate_of};

use crate::{
    gate::{Contest, GateConfig, GateMemory, examine},
    line::Line,
    records::GateRecord,
};

/// Everything that an examination needs.
pub(crate) struct Asked {
    pub(crate) config: GateConfig,
    pub(crate) adapter: AdapterName,
    pub(crate) memory: GateMemory,
    /// Optimizer steps behind the weights that the step started from.
    pub(crate) steps: u64,
}

impl Asked {
    /// Examines the learner's last proposal: whether it may be served, and what was found.
    ///
    /// # Errors
    /// A policy that cannot answer now. One that never will holds the version instead: what was not examined is not served.
    pub(crate) fn examine(
        mut self,
        learner: &mut dyn Learner,
        policy: &dyn Policy,
    ) -> rl::Result<(bool, serde_json::Value)> {
        learner.stage()?;
        let live = match self.steps {
            0 => Weights::Base,
            _ => Weights::Adapter(self.adapter.clone()),
        };
        let contest = Contest {
            adapter: &self.adapter,
            candidate: &Weights::Adapter(candidate_of(&self.adapter)),
            version: PolicyVersion::new(self.steps + 1),
            live: &live,
            live_version: PolicyVersion::new(self.steps),
        };
        let examined = examine(&self.config, policy, &contest, &mut self.memory);
        learner.unstage();
        match examined {
            Ok(examination) => {
                if let Some(why) = examination.why() {
                    tracing::warn!(%why, "the gate holds a version");
                }
                let value = serde_json::to_value(&examination).unwrap_or_default();
                Ok((examination.passed, value))
            }
            Err(error) if error.is_retryable() => Err(error),
            Err(error) => {
                tracing::error!(%error, "the gate could not examine a version, and holds it");
                let memory = serde_json::to_value(&self.memory).unwrap_or_default();
                let value = serde_json::json!({ "error": error.to_string(), "memory": memory });
                Ok((ledger::mutant::on("gate-error-passes"), value))
            }
        }
    }
}

/// What the gate remembers on this line: what it wrote down when it last examined a version.
pub(crate) fn memory(line: &Line) -> GateMemory {
    line.last_gate().map(remembered).unwrap_or_default()
}

/// What an examination left for the next.
pub(crate) fn remembered(gate: &GateRecord) -> GateMemory {
    serde_json::from_value(gate.examination["memory"].clone()).unwrap_or_default()
}
