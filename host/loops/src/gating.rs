//! Asking the gate about a learner's last proposal, which nobody is served by yet.
//!
//! What is asked, and when a version is held, is [`crate::gate`]'s; here the proposal is put where it can be asked.

use rl::{AdapterName, Learner, Policy, PolicyVersion};

use crate::{gate, line::Line};

/// What the gate remembers from version to version.
pub(crate) type Memory = gate::GateMemory;

/// Everything that an examination needs.
pub(crate) struct Asked {
    pub(crate) config: gate::Config,
    pub(crate) adapter: AdapterName,
    pub(crate) memory: Memory,
    pub(crate) live: PolicyVersion,
}

impl Asked {
    /// Examines the learner's last proposal: whether it may be served, and what was found.
    pub(crate) fn examine(
        mut self,
        learner: &mut dyn Learner,
        policy: &dyn Policy,
    ) -> rl::Result<(bool, serde_json::Value)> {
        learner.stage()?;
        let examined = gate::examine(
            &self.config,
            policy,
            &self.adapter,
            self.live,
            &mut self.memory,
        );
        learner.unstage();
        let examination = examined?;
        let value = serde_json::to_value(&examination).unwrap_or_default();
        Ok((examination.passed, value))
    }
}

/// What the gate remembers on this line: what it wrote down when it last examined a version.
pub(crate) fn memory(line: &Line) -> Memory {
    let last = line.last_gate();
    last.and_then(|gate| serde_json::from_value(gate.examination["memory"].clone()).ok())
        .unwrap_or_default()
}
