//! What a plugin's project needs of this repository, as text: the contract and the kit of its authors.
//!
//! Inside the host's binary, so that `nextstate plugin new` needs nothing but the binary, and a plugin is always written against
//! the contract that this host speaks.

/// A file of the kit.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Where it lies in the repository, and in the kit.
    pub path: &'static str,
    /// What is in it.
    pub text: &'static str,
}

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        [$(File { path: $path, text: include_str!(concat!("../../../", $path)) }),*]
    };
}

/// The contract, and the SDK's sources.
pub const FILES: [File; 25] = files![
    "wit/README.md",
    "wit/capabilities.wit",
    "wit/environment.wit",
    "wit/judge.wit",
    "wit/reward.wit",
    "wit/types.wit",
    "wit/worlds.wit",
    "plugins/sdk/src/answers.rs",
    "plugins/sdk/src/bindings.rs",
    "plugins/sdk/src/browser.rs",
    "plugins/sdk/src/config.rs",
    "plugins/sdk/src/environment.rs",
    "plugins/sdk/src/fault.rs",
    "plugins/sdk/src/groups.rs",
    "plugins/sdk/src/http.rs",
    "plugins/sdk/src/judge.rs",
    "plugins/sdk/src/lib.rs",
    "plugins/sdk/src/log.rs",
    "plugins/sdk/src/majority.rs",
    "plugins/sdk/src/model.rs",
    "plugins/sdk/src/native.rs",
    "plugins/sdk/src/random.rs",
    "plugins/sdk/src/reward.rs",
    "plugins/sdk/src/shell.rs",
    "plugins/sdk/src/store.rs",
];

/// `plugins/sdk/Cargo.toml` outside this workspace.
pub const SDK_MANIFEST: &str = r#"[package]
name = "sdk"
version = "0.1.0"
edition = "2024"
license = "Apache-2.0"
publish = false

[dependencies]
wit-bindgen = "0.63"
"#;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn no_file_of_the_contract_or_the_sdk_is_left_out() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut there = BTreeSet::new();
        for folder in ["wit", "plugins/sdk/src"] {
            for entry in fs::read_dir(root.join(folder)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                there.insert(format!("{folder}/{name}"));
            }
        }
        let kit: BTreeSet<String> = FILES.iter().map(|file| file.path.to_owned()).collect();
        assert_eq!(kit, there);
    }

    #[test]
    fn the_kit_says_the_workspace_s_own_versions() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let workspace = fs::read_to_string(root.join("Cargo.toml")).unwrap();
        for line in [
            "edition = \"2024\"",
            "license = \"Apache-2.0\"",
            "wit-bindgen = \"0.63\"",
        ] {
            assert!(
                workspace.contains(line) && SDK_MANIFEST.contains(line),
                "{line}"
            );
        }
    }
}
