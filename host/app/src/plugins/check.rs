//! `nextstate plugin check`: what a host would find when it loads the plugin, and whether it answers the same twice.

use anyhow::{Context as _, ensure};
use indicatif::HumanBytes;
use plugin::Plugin;

use super::drive::{self, Answer, Call};
use super::source::{Source, section};
use super::{Language, Which};
use crate::{compiled, outside::for_authors};

/// The end of what is known of a guest that broke and had logged nothing.
const SILENT: &str = "wasm `unreachable` instruction executed";

pub(super) fn run(args: &Which) -> anyhow::Result<()> {
    let source = Source::find(&args.plugin)?;
    source.warn_when_stale();
    let section = section(&args.set)?;
    // Compiled once: what a language's runtime takes to compile is most of this command's time.
    let host = compiled::host(for_authors())?;
    let grants = source.wishes()?;
    let plugin = source.load(&host, &grants, &section)?;
    let again = source.load(&host, &grants, &section)?;
    println!(
        "component   {}, sha256 {}",
        HumanBytes(source.component.len() as u64),
        plugin.digest()
    );
    println!(
        "world       {} (it exports what the world demands)",
        plugin.manifest().world.as_str()
    );
    println!("imports     {}", imports(&plugin));
    println!("asks for    {}", capabilities(&plugin));
    let calls = drive::drive(&plugin, 1).context("failed to start the plugin")?;
    // In other instances, and after calls before: neither which of them answers nor what it remembers may show.
    let others = drive::drive(&again, 2).context("failed to start the plugin again")?;
    let failed = calls.iter().filter(|call| call.is_failure()).count();
    println!("answers     {} calls, {failed} failed", calls.len());
    for call in calls.iter().filter(|call| call.is_failure()) {
        println!("  {}", line(call));
    }
    if let Some(explained) = silence(&source, &calls) {
        println!("  {explained}");
    }
    let differ: Vec<_> = calls
        .iter()
        .zip(&others)
        .filter(|(one, other)| one != other)
        .collect();
    for (one, other) in differ.iter().take(3) {
        println!("  {}\n  and then {}", line(one), line(other));
    }
    ensure!(
        differ.is_empty() && calls.len() == others.len(),
        "{} answered the same calls differently: a replay of its host could not give the same versions. \
         Take randomness and time from the capabilities `random` and `clock`, and keep nothing between calls",
        plugin.name()
    );
    println!("replays     the same calls gave the same answers in other instances");
    ensure!(
        failed == 0,
        "{} failed in {failed} of {} calls, see above",
        plugin.name(),
        calls.len()
    );
    println!("{} is sound", plugin.name());
    Ok(())
}

/// What an author is told where a guest broke without a word, as some languages' guests do.
pub(super) fn silence(source: &Source, calls: &[Call]) -> Option<&'static str> {
    let is_silent =
        |call: &Call| matches!(&call.answer, Answer::Failed(why) if why.ends_with(SILENT));
    let language = source.folder.as_deref().and_then(Language::of)?;
    language
        .of_silence()
        .filter(|_| calls.iter().any(is_silent))
}

/// What a component imports, without the package's name.
pub(super) fn imports(plugin: &Plugin) -> String {
    let names = plugin.imports().iter().map(|import| short(import));
    // Plain data: nothing to call.
    let names: Vec<&str> = names.filter(|name| *name != "types").collect();
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    }
}

pub(super) fn short(import: &str) -> &str {
    let name = import.rsplit('/').next().unwrap_or(import);
    name.split('@').next().unwrap_or(name)
}

pub(super) fn capabilities(plugin: &Plugin) -> String {
    let names: Vec<&str> = plugin
        .manifest()
        .capabilities
        .iter()
        .map(|capability| capability.as_str())
        .collect();
    if names.is_empty() {
        "nothing beyond log and metric".to_owned()
    } else {
        names.join(", ")
    }
}

/// A call in one line.
pub(super) fn line(call: &Call) -> String {
    let answer = match &call.answer {
        Answer::Said(said) => said.clone(),
        Answer::Refused(why) => format!("refused: {why}"),
        Answer::Failed(why) => format!("FAILED: {why}"),
    };
    format!("{}({}) → {answer}", call.function, call.given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_in_javascript_that_broke_without_a_word_is_explained_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let explained = |file: &str, why: &str| {
            let folder = dir.path().join(file);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(file), "").unwrap();
            let source = Source {
                manifest: String::new(),
                component: Vec::new(),
                folder: Some(folder),
                grants: Vec::new(),
            };
            let call = Call {
                function: "evaluate",
                given: String::new(),
                answer: Answer::Failed(why.to_owned()),
            };
            silence(&source, &[call])
        };
        let mute = "plugin p broke in evaluate: wasm trap: wasm `unreachable` instruction executed";
        assert!(
            explained("plugin.js", mute)
                .unwrap()
                .contains("misspelt tag")
        );
        assert_eq!(explained("Cargo.toml", mute), None);
        let logged = format!("{mute}; its last log lines:\nTypeError");
        assert_eq!(explained("plugin.js", &logged), None);
    }
}
