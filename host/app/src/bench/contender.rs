//! Who takes part: each a process that answers one JSON object a line on its standard output.
//!
//! The peers' side is in `host/app/peers/`: small Python scripts that are part of this program and are given to the
//! environment's own interpreter.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::rows::Ask;

const LLAMA_CPP: &str = include_str!("../../peers/contend_llama_cpp.py");
const PYTORCH: &str = include_str!("../../peers/contend_pytorch.py");

/// Characters of a peer's last words that are shown.
const LAST_WORDS: usize = 600;

/// Who takes part, and in which mode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Contender {
    /// This program with bf16 weights.
    Ours,
    /// This program with weights of eight bits.
    OursQ8,
    /// This program with products of bf16 in pairs.
    OursPairs,
    /// llama.cpp with BF16 weights.
    LlamaBf16,
    /// llama.cpp with F32 weights.
    LlamaF32,
    /// llama.cpp with Q8_0 weights.
    LlamaQ8,
    /// PyTorch in f32.
    TorchF32,
}

impl Contender {
    /// Which of ours it is compared with; none for ours.
    pub(super) fn rival(self) -> Option<Self> {
        match self {
            Self::Ours | Self::OursQ8 | Self::OursPairs => None,
            // Weights of the same size.
            Self::LlamaQ8 => Some(Self::OursQ8),
            // It, too, rounds to bf16 what it multiplies with weights.
            Self::LlamaBf16 => Some(Self::OursPairs),
            _ => Some(Self::Ours),
        }
    }

    /// For tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursQ8 => "ours q8",
            Self::OursPairs => "ours bf16-pairs",
            Self::LlamaBf16 => "llama.cpp BF16",
            Self::LlamaF32 => "llama.cpp F32",
            Self::LlamaQ8 => "llama.cpp Q8_0",
            Self::TorchF32 => "PyTorch f32",
        }
    }
}

/// What a contender says of itself before its first run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct About {
    /// Versions.
    pub(super) version: String,
    /// Types of numbers, threads, what is switched on.
    pub(super) mode: String,
}

/// What it says of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Of the timed part.
    pub(super) seconds: f64,
    /// Tokens in that time.
    pub(super) tokens: u64,
    /// The first sequence's tokens, most likely ones.
    pub(super) first: Vec<u32>,
    /// Most memory that the process has held since it had loaded.
    pub(super) peak_bytes: u64,
    /// Where streams were measured: the distances between their tokens.
    #[serde(default)]
    pub(super) distances: Option<Distances>,
}

/// Milliseconds from one token of a stream to the next: median, 95th and 99th percentile.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Distances {
    /// With nothing beside.
    pub(super) idle: [f64; 3],
    /// While a learner steps.
    pub(super) training: [f64; 3],
    /// Tokens that it trains in a second meanwhile.
    pub(super) trained: f64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Answer(Answer),
    Failed { error: String },
}

/// Where contenders are found.
#[derive(Debug)]
pub(super) struct Peers {
    folder: PathBuf,
    python: PathBuf,
    model: PathBuf,
    threads: u16,
    has: Vec<&'static str>,
}

impl Peers {
    /// Looks which peers the folder holds.
    pub(super) fn find(folder: &Path, model: &Path, threads: u16) -> Self {
        let python = folder.join("bin/python");
        let imports = |module: &str| {
            Command::new(&python)
                .args(["-c", &format!("import importlib.util, sys; sys.exit(importlib.util.find_spec('{module}') is None)")])
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        let has = ["llama_cpp", "torch"].into_iter().filter(|m| imports(m));
        Self {
            has: has.collect(),
            folder: folder.to_path_buf(),
            python,
            model: model.to_path_buf(),
            threads,
        }
    }

    fn is_gguf(&self) -> bool {
        self.model.extension().is_some_and(|e| e == "gguf")
    }

    /// Who is missing, and what to do about it.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (module, name) in [("llama_cpp", "llama.cpp"), ("torch", "PyTorch")] {
            if !self.has.contains(&module) {
                notes.push(format!(
                    "{name} is not in {}: in the source of nextstate run `host/app/peers/install {}`, then this again",
                    self.folder.display(),
                    self.folder.display()
                ));
            }
        }
        if !self.is_gguf() && self.has.contains(&"llama_cpp") {
            notes.push("llama.cpp takes part with .gguf files only".into());
        }
        notes
    }

    /// Starts a contender; none when it is not there.
    ///
    /// # Errors
    /// When it is there and does not start.
    pub(super) fn start(&self, contender: Contender) -> anyhow::Result<Option<Running>> {
        let (needs, script) = match contender {
            Contender::Ours | Contender::OursQ8 | Contender::OursPairs => {
                let own = std::env::current_exe().context("find this program's own file")?;
                let mut command = Command::new(own);
                command.args(["bench", "--threads", &self.threads.to_string()]);
                command.arg("--contend").arg(match contender {
                    Contender::OursQ8 => "q8",
                    Contender::OursPairs => "bf16-pairs",
                    _ => "bf16",
                });
                command.arg("--model").arg(&self.model);
                return Running::start(command).map(Some);
            }
            Contender::TorchF32 => ("torch", PYTORCH),
            _ => ("llama_cpp", LLAMA_CPP),
        };
        if !self.has.contains(&needs) || needs == "llama_cpp" && !self.is_gguf() {
            return Ok(None);
        }
        let mut command = Command::new(&self.python);
        command.args(["-c", script]).arg(&self.model);
        command.arg(match contender {
            Contender::LlamaBf16 => "BF16",
            Contender::LlamaF32 => "F32",
            Contender::LlamaQ8 => "Q8_0",
            _ => "float32",
        });
        command.arg(self.threads.to_string());
        // A library that asks the environment is told the same.
        command.env("OMP_NUM_THREADS", self.threads.to_string());
        if needs == "llama_cpp" {
            command.arg(self.folder.join("models"));
        }
        Running::start(command).map(Some)
    }
}

/// A contender's process. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Running {
    /// What it said of itself.
    pub(super) about: About,
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    words: File,
}

impl Running {
    fn start(mut command: Command) -> anyhow::Result<Self> {
        let words = tempfile::tempfile().context("make a file for a contender's messages")?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(words.try_clone().context("share a contender's messages")?)
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        let (Some(asks), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("a contender started without its pipes");
        };
        let mut running = Self {
            about: About {
                version: String::new(),
                mode: String::new(),
            },
            child,
            asks,
            answers: BufReader::new(answers),
            words,
        };
        running.about = running.read()?;
        Ok(running)
    }

    /// One run.
    ///
    /// # Errors
    /// When it says that it failed, or ends.
    pub(super) fn run(&mut self, ask: &Ask) -> anyhow::Result<Answer> {
        let line = serde_json::to_string(ask)? + "\n";
        let written = self.asks.write_all(line.as_bytes());
        written.with_context(|| format!("ask a contender; {}", self.last_words()))?;
        match self.read()? {
            Said::Answer(answer) => Ok(answer),
            Said::Failed { error } => bail!("{error}"),
        }
    }

    fn read<T: for<'de> Deserialize<'de>>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        if read.context("read a contender's answer")? == 0 {
            bail!("it ended; {}", self.last_words());
        }
        serde_json::from_str(&line).with_context(|| format!("read its answer {line:?}"))
    }

    fn last_words(&mut self) -> String {
        let mut said = String::new();
        let read = (self.words.rewind()).and_then(|()| self.words.read_to_string(&mut said));
        if read.is_err() || said.trim().is_empty() {
            return "it said nothing".into();
        }
        let characters: Vec<char> = said.trim().chars().collect();
        let from = characters.len().saturating_sub(LAST_WORDS);
        format!(
            "its last words: {}",
            characters[from..].iter().collect::<String>()
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> anyhow::Result<Running> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Running::start(command)
    }

    #[test]
    fn a_contender_says_what_it_is_answers_and_its_failures_are_told() {
        let script = r#"echo '{"name":"x","version":"1","mode":"m"}'; read a; echo "$a" >&2
            echo '{"seconds":0.5,"tokens":8,"first":[1,2],"peak_bytes":9}'; read b; echo '{"error":"no room"}'; read c; exit 3"#;
        let mut running = sh(script).unwrap();
        assert_eq!((&*running.about.version, &*running.about.mode), ("1", "m"));
        let ask = Ask::Prefill {
            prompts: vec![vec![1]],
        };
        let answer = running.run(&ask).unwrap();
        assert_eq!((answer.tokens, &answer.first[..]), (8, &[1, 2][..]));
        assert_eq!(running.run(&ask).unwrap_err().to_string(), "no room");
        let error = format!("{:#}", running.run(&ask).unwrap_err());
        assert!(
            error.contains("it ended") && error.contains("prefill"),
            "{error}"
        );
    }

    #[test]
    fn without_peers_it_is_said_how_to_install_them() {
        let folder = tempfile::tempdir().unwrap();
        let peers = Peers::find(folder.path(), Path::new("model.gguf"), 2);
        let notes = peers.notes();
        assert_eq!(notes.len(), 2);
        assert!(
            notes.iter().all(|n| n.contains("host/app/peers/install")),
            "{notes:?}"
        );
        assert!(peers.start(Contender::LlamaQ8).unwrap().is_none());
        assert!(peers.start(Contender::TorchF32).unwrap().is_none());
    }
}
