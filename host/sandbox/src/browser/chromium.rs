//! One chromium process: started, listened to, and killed.
//!
//! Everything that it is goes when it goes: its processes, because the jail is a process namespace, or else because each of them ends
//! when its pipe to the first does; and its profile's folder.

use std::{
    fs,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::json;

use crate::{Error, Result};

use super::{
    Config,
    connection::{Connection, Deadline, Trouble},
    frames::Frames,
    launch::{self, Way},
};

/// Longest time from the start to the first answer. Usually one second; a machine that is busy takes longer.
const START: Duration = Duration::from_secs(30);

/// Longest time that a process that was killed is waited for.
const END: Duration = Duration::from_secs(5);

/// What was attempted, or why it failed: a part of an error.
type Attempt<T> = std::result::Result<T, String>;

/// A running chromium. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Chromium {
    pub(super) connection: Arc<Connection>,
    child: Arc<Mutex<Child>>,
    ended: Mutex<Receiver<()>>,
}

/// Starts chromium in the first of these ways that works, and says which.
pub(super) fn start(
    config: &Config,
    binary: &Path,
    folder: &Path,
    ways: &[Way],
) -> Result<(Chromium, Way)> {
    let mut why = "no way to start it is allowed".to_owned();
    let deadline = Deadline::after(START);
    for &way in ways {
        // A way that is not allowed here fails at once. One that hangs says nothing about the others, which would hang too.
        if deadline.left().is_zero() {
            break;
        }
        match Chromium::start(config, binary, folder, way, deadline) {
            Ok(chromium) => return Ok((chromium, way)),
            Err(error) => {
                tracing::debug!(?way, %error, "chromium did not start");
                why = error;
            }
        }
    }
    Err(Error::Unavailable {
        capability: "browser",
        why: format!("{} does not start: {why}", binary.display()),
    })
}

impl Chromium {
    fn start(
        config: &Config,
        binary: &Path,
        folder: &Path,
        way: Way,
        deadline: Deadline,
    ) -> Attempt<Self> {
        let profile = tempfile::Builder::new()
            .prefix(PROFILES)
            .tempdir_in(folder)
            .map_err(|error| format!("no folder in {}: {error}", folder.display()))?
            .keep();
        let command = launch::command(config, binary, &profile, way);
        let (tell, told) = channel();
        let (finish, ended) = channel();
        // The thread that starts it must live as long as it: the kernel kills a jail whose parent thread is gone.
        spawn("browser", move || own(command, &profile, &tell, &finish))?;
        let started = told.recv().map_err(|error| error.to_string())?;
        let (child, connection) = started?;
        let chromium = Self {
            connection,
            child,
            ended: Mutex::new(ended),
        };
        chromium
            .connection
            .call(None, "Browser.getVersion", json!({}), deadline)
            .map_err(|trouble| match trouble {
                Trouble::Gone(why) => why,
                other => format!("no answer within {START:?}: {other:?}"),
            })?;
        let discover = json!({ "discover": true, "filter": [{ "type": "page" }] });
        chromium
            .connection
            .post(None, "Target.setDiscoverTargets", discover);
        Ok(chromium)
    }

    /// Kills it; everybody who waits for it is told.
    pub(super) fn kill(&self) {
        // An error means that it has ended by itself.
        self.child.lock().kill().ok();
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        self.kill();
        if self.ended.lock().recv_timeout(END) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("chromium was killed, and parts of it are still there");
        }
    }
}

/// What the folders of profiles begin with.
pub(super) const PROFILES: &str = "profile-";

type Started = Attempt<(Arc<Mutex<Child>>, Arc<Connection>)>;

/// The life of a chromium, on a thread of its own: started, read until its pipe closes, cleaned up.
fn own(command: Command, profile: &Path, tell: &Sender<Started>, finish: &Sender<()>) {
    match begin(command) {
        Err(why) => {
            clean(profile);
            tell.send(Err(why)).ok();
        }
        Ok((mut child, pipe, last_words)) => {
            let Some(input) = child.stdin.take() else {
                return;
            };
            let (outgoing, messages) = channel();
            let connection = Arc::new(Connection::new(outgoing));
            let child = Arc::new(Mutex::new(child));
            let written = spawn("browser-write", move || write(input, &messages));
            let started = written.map(|()| (child.clone(), connection.clone()));
            tell.send(started).ok();
            listen(pipe, &connection);
            let mut child = child.lock();
            child.kill().ok();
            let status = child.wait();
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            let words = last_words.lock();
            connection.end(&format!("chromium ended ({status}){words}"));
            clean(profile);
        }
    }
    finish.send(()).ok();
}

type Begun = (Child, ChildStdout, Arc<Mutex<String>>);

fn begin(mut command: Command) -> Attempt<Begun> {
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("it has no pipes".to_owned());
    };
    let words = Arc::new(Mutex::new(String::new()));
    let kept = words.clone();
    let read = spawn("browser-errors", move || keep_last_words(errors, &kept));
    if let Err(why) = read {
        child.kill().and_then(|()| child.wait()).ok();
        return Err(why);
    }
    Ok((child, output, words))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Attempt<()> {
    let builder = thread::Builder::new().name(name.to_owned());
    match builder.spawn(work) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("no thread: {error}")),
    }
}

fn write(mut input: ChildStdin, messages: &Receiver<Vec<u8>>) {
    for message in messages {
        if input.write_all(&message).is_err() {
            // Chromium is gone; the reader sees it too.
            return;
        }
    }
}

fn listen(pipe: ChildStdout, connection: &Connection) {
    let mut frames = Frames::new(pipe);
    loop {
        match frames.next() {
            Ok(Some(frame)) => connection.dispatch(frame),
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "the pipe of chromium broke");
                return;
            }
        }
    }
}

/// What chromium wrote last, for the error that says how it ended.
fn keep_last_words(mut errors: ChildStderr, words: &Mutex<String>) {
    let mut chunk = [0; 4_096];
    while let Ok(read @ 1..) = errors.read(&mut chunk) {
        let mut words = words.lock();
        if words.is_empty() {
            words.push_str("; its last words: ");
        }
        let new = String::from_utf8_lossy(&chunk[..read]);
        words.push_str(&new);
        let excess = words.len().saturating_sub(2_000);
        let cut = words.ceil_char_boundary(excess);
        words.drain(..cut);
    }
}

/// Removes a profile's folder. Processes that were killed may still write for a moment.
fn clean(profile: &Path) {
    let mut outcome = Ok(());
    for _ in 0..100 {
        outcome = fs::remove_dir_all(profile);
        match &outcome {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(_) => thread::park_timeout(Duration::from_millis(20)),
        }
    }
    if let Err(error) = outcome {
        tracing::warn!(folder = %profile.display(), %error, "a profile could not be removed");
    }
}

/// Removes what a host left that did not end as it should. The folder must be locked.
pub(super) fn clean_leftovers(folder: &Path) -> io::Result<()> {
    let theirs = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(PROFILES.as_bytes()))
    };
    fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(theirs)
        .for_each(|profile| clean(&profile));
    Ok(())
}
