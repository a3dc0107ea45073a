//! `nextstate plugin test`: the project's own tests, then made-up traffic with every answer shown.

use std::process::Command;

use anyhow::{Context as _, ensure};

use super::TestArgs;
use super::drive::{self, Answer};
use super::source::{Source, section};

pub(super) fn run(args: &TestArgs) -> anyhow::Result<()> {
    let source = Source::find(&args.which.plugin)?;
    let cargo = source
        .folder
        .as_ref()
        .map(|folder| folder.join("Cargo.toml"));
    if let Some(cargo) = cargo.filter(|cargo| cargo.is_file() && !args.no_unit) {
        let mut command = Command::new("cargo");
        command
            .args(["test", "--quiet", "--lib", "--manifest-path"])
            .arg(&cargo);
        builder::without_the_outer_build(&mut command);
        if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
            command.env("CARGO_TARGET_DIR", target);
        }
        // What is asked for with --json is the calls, and nothing else.
        if args.json {
            command.stdout(std::process::Stdio::null());
        }
        let status = command
            .status()
            .context("failed to start cargo for the plugin's own tests")?;
        ensure!(
            status.success(),
            "the plugin's own tests failed; see the messages above"
        );
    }
    let plugin = source.load_trusted(&section(&args.which.set)?)?;
    let calls = drive::drive(&plugin, 1).context("failed to start the plugin")?;
    let mut function = "";
    for call in &calls {
        if args.json {
            println!("{}", serde_json::to_string(call)?);
            continue;
        }
        if call.function != function {
            function = call.function;
            println!("{function}");
        }
        let (mark, said) = match &call.answer {
            Answer::Said(said) => ("→", said.as_str()),
            Answer::Refused(why) => ("→ refused:", why.as_str()),
            Answer::Failed(why) => ("→ FAILED:", why.as_str()),
        };
        println!("  {}\n      {mark} {said}", call.given);
    }
    let failed = calls.iter().filter(|call| call.is_failure()).count();
    ensure!(
        failed == 0,
        "{} failed in {failed} of {} calls, see above",
        plugin.name(),
        calls.len()
    );
    if !args.json {
        println!("{}: {} calls, none failed", plugin.name(), calls.len());
    }
    Ok(())
}
