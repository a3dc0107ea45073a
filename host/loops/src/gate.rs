//! TEMPORARY: replaced by the gate's own branch.
#![expect(missing_docs, reason = "temporary")]
use rl::{AdapterName, Policy, PolicyVersion};
use serde::{Deserialize, Serialize};
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    pub enabled: bool,
}
impl Config {
    pub fn off() -> Self {
        Self::default()
    }
    pub(crate) fn validate(&self) -> crate::Result<()> {
        Ok(())
    }
}
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GateMemory {}
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Examination {
    pub passed: bool,
}
pub fn examine(
    _: &Config,
    _: &dyn Policy,
    _: &AdapterName,
    _: PolicyVersion,
    _: &mut GateMemory,
) -> rl::Result<Examination> {
    Ok(Examination { passed: true })
}
