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

/// Judge: reads people's reactions with a small model.
pub const REACTION_JUDGE: Bundled = bundled!("reaction-judge");

/// Reward: the majority of the votes.
pub const BINARY_REWARD: Bundled = bundled!("binary-reward");

/// Reward: the majority of the votes, and distillation from hints.
pub const COMBINED_REWARD: Bundled = bundled!("combined-reward");

/// Every guest that is shipped.
pub const ALL: [Bundled; 4] = [CONVERSATION, REACTION_JUDGE, BINARY_REWARD, COMBINED_REWARD];

/// The shipped guest of this name.
///
/// ```
/// assert_eq!(bundled::find("binary-reward").map(|guest| guest.name), Some("binary-reward"));
/// assert!(bundled::find("faulty").is_none());
/// ```
pub fn find(name: &str) -> Option<Bundled> {
    ALL.into_iter().find(|guest| guest.name == name)
}
