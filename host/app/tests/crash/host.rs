//! The program in a process of its own, and a client that writes down what it was told.
//!
//! A host may die at any call: everything asked of it can be answered by [`Stop::Gone`]. Judges nothing.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::strace::{self, Injection};

/// The program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_nextstate");
/// Longer than anything takes here, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
/// A process whose output has ended is gone after this, unless its tracer keeps it.
const GONE: Duration = Duration::from_secs(5);

/// Why a request was not answered as asked.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Nobody answered.
    Gone,
    /// The host said no.
    Refused(u16, String),
}

/// How a host ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) said: String,
}

/// A folder with a configuration, and the data folder in it.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/fixtures/tiny-llama");
        let text = format!(
            "data = {data:?}\n[model]\nname = {model:?}\ndtype = \"f32\"\nthreads = 1\n[gateway]\nlisten = \"127.0.0.1:0\"\n\
             [engine]\ncontext = 512\nkv-bytes = 67108864\n[plugins]\njudge = \"words\"\ncache = false\n\
             [loops.train]\nbatch-size = 2\n[loops.checkpoint]\nevery = 12\n[train]\nrank = 4\n",
            data = folder.data(),
        );
        std::fs::write(folder.0.path().join("host.toml"), text).unwrap();
        folder
    }

    /// The data folder, with its real name: a trace names files by it.
    pub(crate) fn data(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap().join("data")
    }

    /// The trace of the last traced host or act.
    pub(crate) fn log(&self) -> PathBuf {
        self.0.path().join("strace.log")
    }

    /// A copy to examine: opening a folder changes it.
    pub(crate) fn copy(&self) -> tempfile::TempDir {
        let to = tempfile::tempdir().unwrap();
        copy(&self.data(), &to.path().join("data"));
        to
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else if from.exists() {
        std::fs::copy(from, to).unwrap();
    }
}

/// A running host.
pub(crate) struct Host {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    agent: ureq::Agent,
    url: String,
}

impl Host {
    /// Starts it, traced when `trace` says so, and waits until it serves.
    pub(crate) fn start(folder: &Folder, trace: Option<Injection<'_>>) -> Result<Self, Ended> {
        let mut command = match trace {
            Some(injection) => strace::launch(&folder.log(), injection, PROGRAM),
            None => Command::new(PROGRAM),
        };
        let mut child = command
            .args(["serve", "--config"])
            .arg(folder.0.path().join("host.toml"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let said = Arc::new(Mutex::new(String::new()));
        let (lines, heard) = channel();
        let kept = Arc::clone(&said);
        let reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let url = line
                    .split_once(" at http")
                    .map(|(_, rest)| format!("http{rest}"));
                let mut said = kept.lock().unwrap();
                said.push_str(&line);
                said.push('\n');
                if let Some(url) = url {
                    let _ = lines.send(url.trim_end_matches("/v1").to_owned());
                }
            }
        });
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        let mut host = Self {
            child,
            said,
            reader: Some(reader),
            agent,
            url: String::new(),
        };
        match heard.recv_timeout(PATIENCE) {
            Ok(url) => {
                host.url = url;
                return Ok(host);
            }
            // It ends.
            Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => host.child.kill().unwrap(),
        }
        Err(host.ended())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn ended(&mut self) -> Ended {
        let status = match self.poll(GONE) {
            Some(status) => status,
            None => {
                strace::release(self.pid());
                self.child.wait().unwrap()
            }
        };
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        Ended {
            status,
            said: self.said(),
        }
    }

    fn poll(&mut self, patience: Duration) -> Option<ExitStatus> {
        for _ in 0..=patience.as_millis() / 10 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        None
    }

    /// Waits for it to end by itself.
    pub(crate) fn wait(mut self, patience: Duration) -> Result<Ended, Box<Self>> {
        match self.poll(patience) {
            Some(_) => Ok(self.ended()),
            None => Err(Box::new(self)),
        }
    }

    /// Kills it, if it still lives.
    pub(crate) fn kill(mut self) -> Ended {
        let _ = self.child.kill();
        self.ended()
    }

    pub(crate) fn ask_to_stop(&self) {
        let pid = self.pid().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(self) -> Result<Ended, Box<Self>> {
        self.ask_to_stop();
        self.wait(PATIENCE)
    }

    /// Posts; gives the status, the version in the header, and the body.
    pub(crate) fn post(
        &self,
        path: &str,
        session: &str,
        body: &Value,
    ) -> Result<(u16, Option<u64>, String), Stop> {
        let sent = self
            .agent
            .post(format!("{}{path}", self.url))
            .header("x-session-id", session)
            .send_json(body);
        let mut response = sent.map_err(|_| Stop::Gone)?;
        let version = response
            .headers()
            .get("x-policy-version")
            .and_then(|value| value.to_str().ok());
        let version = version.and_then(|text| text.trim_start_matches('v').parse().ok());
        let text = response
            .body_mut()
            .read_to_string()
            .map_err(|_| Stop::Gone)?;
        match response.status().as_u16() {
            200 => Ok((200, version, text)),
            status => Err(Stop::Refused(status, text)),
        }
    }

    pub(crate) fn status(&self) -> Result<Value, Stop> {
        let sent = self.agent.get(format!("{}/v1/status", self.url)).call();
        let mut response = sent.map_err(|_| Stop::Gone)?;
        response.body_mut().read_json().map_err(|_| Stop::Gone)
    }

    /// Asks until the host says so; bounded in tries.
    pub(crate) fn until(&self, what: &str, done: impl Fn(&Value) -> bool) -> Result<Value, Stop> {
        for _ in 0..6000 {
            let status = self.status()?;
            if done(&status) {
                return Ok(status);
            }
            if let Some(why) = status["ledger_error"].as_str() {
                return Err(Stop::Refused(0, why.to_owned()));
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Err(Stop::Refused(
            0,
            format!("{what} did not happen: {}", self.status()?),
        ))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
