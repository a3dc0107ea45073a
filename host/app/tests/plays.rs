//! The transcripts in the examples: what their commands print today, wherever this machine has what they need.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// Whether these programs are there. Where `NEXTSTATE_REQUIRE_SANDBOX` says that they have to be, as in CI, a test goes on and fails.
fn has(programs: &[&str]) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |program: &&str| std::env::split_paths(&folders).any(|dir| dir.join(program).is_file());
    let missing = programs.iter().find(|program| !is_there(program));
    if let Some(missing) = missing {
        eprintln!("skipped: {missing} is not on the path");
    }
    missing.is_none() || std::env::var_os("NEXTSTATE_REQUIRE_SANDBOX").is_some()
}

/// The example's command and the transcript that stands below it.
fn told(example: &str) -> (Vec<String>, Vec<String>) {
    let path = root().join("examples").join(example).join("README.md");
    let text = fs::read_to_string(path).unwrap();
    let command = text
        .lines()
        .find_map(|line| line.strip_prefix("cargo run --release -- plugin play "))
        .unwrap();
    let (command, replies) = command.split_once(" < ").unwrap();
    assert_eq!(replies, format!("examples/{example}/replies.txt"));
    let (_, transcript) = text.split_once("\n````text\n").unwrap();
    let (transcript, _) = transcript.split_once("\n````\n").unwrap();
    (
        command.split_whitespace().map(str::to_owned).collect(),
        transcript.lines().map(str::to_owned).collect(),
    )
}

/// Every line of the transcript is printed, in this order; nothing is left out but where it says so.
fn is_as_told(example: &str, needs: &[&str]) {
    if !has(needs) {
        return;
    }
    let (args, told) = told(example);
    let folder = tempfile::tempdir().unwrap();
    let args = args.iter().map(|arg| match arg.as_str() {
        "shots" => folder.path().join("shots").display().to_string(),
        arg => arg.to_owned(),
    });
    let replies = root().join("examples").join(example).join("replies.txt");
    let output = Command::new(env!("CARGO_BIN_EXE_nextstate"))
        .args(["plugin", "play"])
        .args(args)
        .current_dir(root())
        .stdin(Stdio::from(fs::File::open(replies).unwrap()))
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{example}: {error}");
    let printed: Vec<&str> = printed.lines().collect();
    let mut at = printed.iter().position(|line| **line == told[0]).unwrap();
    let mut may_skip = false;
    for line in &told {
        if line.trim() == "…" {
            may_skip = true;
            continue;
        }
        if may_skip {
            let left = printed[at..].iter().position(|one| one == line);
            at += left.unwrap_or(0);
        }
        let found = printed.get(at);
        assert_eq!(
            found,
            Some(&line.as_str()),
            "{example}\n{}",
            printed.join("\n")
        );
        (at, may_skip) = (at + 1, false);
    }
    assert_eq!(at, printed.len(), "{example}: there is more than is told");
    if example == "gui" {
        let pictures = fs::read_dir(folder.path().join("shots")).unwrap();
        let mut count = 0;
        for picture in pictures {
            count += 1;
            let bytes = fs::read(picture.unwrap().path()).unwrap();
            assert!(bytes.starts_with(b"\x89PNG"));
        }
        assert!(count > 0, "no picture was taken");
    }
}

#[test]
fn the_transcript_of_tool_call_is_what_its_command_prints() {
    is_as_told("tool-call", &[]);
}

#[test]
fn the_transcripts_of_jailed_machines_are_what_their_commands_print() {
    for example in ["terminal", "swe", "tool-import"] {
        is_as_told(example, &["bwrap", "python3", "git"]);
    }
}

#[test]
fn the_transcript_of_gui_is_what_its_command_prints_and_pictures_are_kept() {
    is_as_told("gui", &["chromium"]);
}
