//! `nextstate plugin test`: the project's own tests, then made-up traffic with every answer shown.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};

use super::check::silence;
use super::drive::{self, Answer};
use super::source::{Source, section};
use super::{Language, TestArgs};

pub(super) fn run(args: &TestArgs) -> anyhow::Result<()> {
    let source = Source::find(&args.which.plugin)?;
    source.warn_when_stale();
    if let Some(folder) = source.folder.as_ref().filter(|_| !args.no_unit)
        && let Some(language) = Language::of(folder)
    {
        unit_tests(language, folder, args.json)?;
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
    if let Some(explained) = silence(&source, &calls).filter(|_| !args.json) {
        println!("  {explained}");
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

/// The project's own tests, as its language has them.
fn unit_tests(language: Language, folder: &Path, is_json: bool) -> anyhow::Result<()> {
    let mut command = language.unit_tests(folder)?;
    // What is asked for with --json is the calls, and nothing else.
    if is_json {
        command.stdout(Stdio::null());
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("failed to start `{program}` for the plugin's own tests"))?;
    ensure!(
        status.success(),
        "the plugin's own tests failed; see the messages above"
    );
    Ok(())
}
