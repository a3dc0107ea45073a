//! The first-party guests, compiled by this crate's build script and shipped inside the host's binary.
//!
//! Bytes only: it neither loads nor runs them, which is the host's business (`host/plugin`).

pub mod fixtures;
pub mod kit;

/// A guest: its manifest and its component.
#[derive(Clone, Copy, Debug)]
pub struct Bundled {
    /// The name in the manifest.
    pub name: &'static str,
    /// `plugin.toml`.
    pub manifest: &'static str,
    /// The component's bytes.
    pub component: &'static [u8],
}

macro_rules! bundled {
    ($name:literal) => {
        $crate::Bundled {
            name: $name,
            manifest: include_str!(concat!("../../", $name, "/plugin.toml")),
            component: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".wasm")),
        }
    };
}
pub(crate) use bundled;

/// Environment: live traffic of chat clients, and a scripted user with a hidden preference.
pub const CONVERSATION: Bundled = bundled!("conversation");

/// Environment: APIs with typed schemas, simulated in the guest.
pub const TOOL_CALL: Bundled = bundled!("tool-call");

/// Environment: a shell on a jailed machine.
pub const TERMINAL: Bundled = bundled!("terminal");

/// Environment: small repositories with a bug.
pub const SWE: Bundled = bundled!("swe");

/// Environment: tool-call tasks of BFCL and tau2-bench, and a code interpreter, on a jailed machine.
pub const TOOL_IMPORT: Bundled = bundled!("tool-import");

/// Environment: web pages.
pub const GUI: Bundled = bundled!("gui");

/// Judge: reads people's reactions with a small model.
pub const REACTION_JUDGE: Bundled = bundled!("reaction-judge");

/// Judge: one action of an agent, by what came back; by evidence alone where that is clear.
pub const STEP_JUDGE: Bundled = bundled!("step-judge");

/// Reward: the majority of the votes.
pub const BINARY_REWARD: Bundled = bundled!("binary-reward");

/// Reward: the majority of the votes, and distillation from hints.
pub const COMBINED_REWARD: Bundled = bundled!("combined-reward");

/// Reward: the outcome alone.
pub const OUTCOME_REWARD: Bundled = bundled!("outcome-reward");

/// Reward: outcome and process, standardised by turn index.
pub const STEP_WISE_REWARD: Bundled = bundled!("step-wise-reward");

/// Reward: group-relative (GRPO).
pub const GRPO_REWARD: Bundled = bundled!("grpo-reward");

/// Reward: group-relative without its biases (Dr. GRPO).
pub const DR_GRPO_REWARD: Bundled = bundled!("dr-grpo-reward");

/// Reward: leave one out (RLOO).
pub const RLOO_REWARD: Bundled = bundled!("rloo-reward");

/// Reward: with a guard against length.
pub const LENGTH_GUARDED_REWARD: Bundled = bundled!("length-guarded-reward");

/// Every guest that is shipped.
pub const ALL: [Bundled; 16] = [
    CONVERSATION,
    TOOL_CALL,
    TERMINAL,
    SWE,
    TOOL_IMPORT,
    GUI,
    REACTION_JUDGE,
    STEP_JUDGE,
    BINARY_REWARD,
    COMBINED_REWARD,
    OUTCOME_REWARD,
    STEP_WISE_REWARD,
    GRPO_REWARD,
    DR_GRPO_REWARD,
    RLOO_REWARD,
    LENGTH_GUARDED_REWARD,
];

/// The shipped guest of this name.
///
/// ```
/// assert_eq!(bundled::find("binary-reward").map(|guest| guest.name), Some("binary-reward"));
/// assert!(bundled::find("faulty").is_none());
/// ```
pub fn find(name: &str) -> Option<Bundled> {
    ALL.into_iter().find(|guest| guest.name == name)
}
