//! One worker process, as the host sees it: started, called, and gone.

use std::{
    io::{self, BufRead as _, BufReader, Read as _},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::RecvTimeoutError;
use parking_lot::Mutex;
use plugin::{Error, Limits, LoadProblem};
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

use crate::{
    calls::{Calls, Routed},
    config::{Config, Program},
    things::Things,
    wire::{
        Ask, Call, FROM_WORKER, FromWorker, Loaded, TO_WORKER, ToWorker, decode, receive, send,
    },
};

/// A worker that does not even take what it is sent is not well.
const TAKE: Duration = Duration::from_secs(10);

/// Longest line of a worker's log that is passed on, in bytes.
const LINE_BYTES: u64 = 4_096;

/// What a call gets from its worker.
enum Said {
    Ask(Ask),
    Answer(rl::Result<ByteBuf>),
}

/// A worker process. Dropping it hangs up, which ends it.
pub(crate) struct Process {
    plugin: Arc<str>,
    config: Config,
    limits: Limits,
    socket: Mutex<UnixStream>,
    shared: Arc<Shared>,
    loaded: Loaded,
}

struct Shared {
    calls: Calls<Said>,
    child: Mutex<Child>,
    /// It takes no more calls, though how it ended may not be known yet.
    hung_up: AtomicBool,
    /// How it ended.
    ended: Mutex<Option<String>>,
}

/// A call that was not answered.
pub(crate) struct Failed {
    pub(crate) why: rl::Error,
    /// By the end of the worker, which may be another call's doing.
    pub(crate) ended: bool,
}

/// Everything that starting one takes, again and again.
pub(crate) struct Launch {
    pub(crate) plugin: Arc<str>,
    pub(crate) program: Program,
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    /// The first frame.
    pub(crate) begin: Vec<u8>,
}

impl Launch {
    /// Starts a worker and waits until its plugin is loaded. `on_end` is called when it ends.
    ///
    /// # Errors
    /// [`Error::Load`] by the plugin's own fault, [`Error::Start`] by the machine's.
    pub(crate) fn start(&self, on_end: impl FnOnce() + Send + 'static) -> Result<Process, Error> {
        let start = |doing: &str, error: io::Error| Error::Start {
            problem: format!(
                "a worker process for plugin {}: {doing}: {error}",
                self.plugin
            ),
        };
        let (ours, theirs) = UnixStream::pair().map_err(|error| start("make a socket", error))?;
        let mut child = Command::new(&self.program.path)
            .args(&self.program.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| start("start the program", error))?;
        if let Some(log) = child.stderr.take() {
            let plugin = Arc::clone(&self.plugin);
            spawn("worker-log", move || pass_on(&plugin, log))
                .map_err(|error| start("start a thread", error))?;
        }
        let shared = Arc::new(Shared {
            calls: Calls::default(),
            child: Mutex::new(child),
            hung_up: AtomicBool::new(false),
            ended: Mutex::new(None),
        });
        match self.begin(&ours) {
            Ok(Ok(loaded)) => {
                let from = ours
                    .try_clone()
                    .map_err(|error| start("use its socket", error))?;
                let reading = Arc::clone(&shared);
                spawn("worker-reader", move || {
                    reading.read(from);
                    on_end();
                })
                .map_err(|error| start("start a thread", error))?;
                Ok(Process {
                    plugin: Arc::clone(&self.plugin),
                    config: self.config.clone(),
                    limits: self.limits.clone(),
                    socket: Mutex::new(ours),
                    shared,
                    loaded,
                })
            }
            Ok(Err(problem)) => {
                shared.reap();
                Err(Error::Load {
                    plugin: self.plugin.to_string(),
                    problem,
                })
            }
            Err(error) => {
                let ended = shared.reap();
                let late = matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                );
                let doing = if late {
                    format!(
                        "it was not ready after {:?} and was killed",
                        self.config.load
                    )
                } else {
                    format!("it ended before it was ready ({ended})")
                };
                Err(start(&doing, error))
            }
        }
    }

    /// Tells it its plugin. The socket then waits for the worker as long as it takes.
    fn begin(&self, socket: &UnixStream) -> io::Result<Result<Loaded, LoadProblem>> {
        use std::io::Write as _;
        socket.set_write_timeout(Some(TAKE))?;
        socket.set_read_timeout(Some(self.config.load))?;
        (&*socket).write_all(&self.begin)?;
        match receive(socket, FROM_WORKER)? {
            FromWorker::Loaded(loaded) => {
                socket.set_read_timeout(None)?;
                Ok(loaded)
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it did not say whether its plugin is loaded",
            )),
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map(drop)
}

impl Shared {
    /// Takes what the worker says until it ends.
    fn read(&self, from: UnixStream) {
        let mut from = BufReader::new(from);
        let why = loop {
            let routed = match receive(&mut from, FROM_WORKER) {
                Ok(FromWorker::Ask { id, ask }) => self.calls.route(id, Said::Ask(ask)),
                Ok(FromWorker::Answer { id, answer }) => self.calls.route(id, Said::Answer(answer)),
                Ok(FromWorker::Loaded(_)) => Routed::Flood,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    break Some(format!("it said what makes no sense: {error}"));
                }
                Err(_) => break None,
            };
            // Attack: a worker in its guest's hands that says more than it was asked fills the host's memory.
            if routed == Routed::Flood {
                break Some("it said more than it was asked".to_owned());
            }
        };
        self.hung_up.store(true, Ordering::Release);
        let status = self.reap();
        *self.ended.lock() = Some(why.unwrap_or(status));
        self.calls.close();
    }

    /// Ends the process, if it runs, and says how it ended.
    fn reap(&self) -> String {
        let mut child = self.child.lock();
        // A process that hung up ends by itself in a moment, and says by what: killed at once, it could not.
        let patience = Instant::now() + Duration::from_millis(20);
        while Instant::now() < patience {
            match child.try_wait() {
                Ok(None) => thread::park_timeout(Duration::from_millis(1)),
                _ => break,
            }
        }
        let _ = child.kill();
        match child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }
}

impl Process {
    pub(crate) fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    pub(crate) fn pid(&self) -> u32 {
        self.shared.child.lock().id()
    }

    pub(crate) fn is_alive(&self) -> bool {
        !self.shared.hung_up.load(Ordering::Acquire)
    }

    /// A number for an episode.
    pub(crate) fn number(&self) -> u64 {
        self.shared.calls.number()
    }

    /// An episode is over.
    pub(crate) fn over(&self, episode: u64) {
        let _ = self.send(&ToWorker::Over(episode));
    }

    /// Calls the worker, and does for its guest meanwhile what it asks for.
    pub(crate) fn call<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        things: &mut Things,
    ) -> Result<T, Failed> {
        let function = call.function();
        let Some(open) = self.shared.calls.open() else {
            return Err(self.gone(function));
        };
        let id = open.id;
        if let Err(error) = self.send(&ToWorker::Call {
            id,
            call: call.clone(),
        }) {
            return Err(self.killed(function, &format!("it could not be called: {error}")));
        }
        let mut left = self.config.answer;
        let mut outside = Duration::from_millis(self.limits.outside_ms);
        let mut asks = self.limits.host_calls;
        loop {
            let waiting = Instant::now();
            match open.messages.recv_timeout(left) {
                Ok(Said::Answer(answer)) => {
                    let answer = answer.map_err(|why| Failed { why, ended: false })?;
                    return decode(&answer).map_err(|error| {
                        self.killed(function, &format!("it said what makes no sense: {error}"))
                    });
                }
                Ok(Said::Ask(ask)) => {
                    left = left.saturating_sub(waiting.elapsed());
                    // The worker counts both, too. Attack: one that does not.
                    if asks == 0 || outside.is_zero() {
                        return Err(self.killed(function, "it asked for more than it may"));
                    }
                    asks -= 1;
                    let begun = Instant::now();
                    let got = things.answer(ask);
                    outside = outside.saturating_sub(begun.elapsed());
                    if let Err(error) = self.send(&ToWorker::Got { id, got }) {
                        return Err(self.killed(function, &error.to_string()));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.gone(function)),
                Err(RecvTimeoutError::Timeout) => {
                    let why = format!("it did not answer for {:?}", self.config.answer);
                    return Err(self.killed(function, &why));
                }
            }
        }
    }

    fn send(&self, message: &ToWorker<'_>) -> io::Result<()> {
        send(&*self.socket.lock(), message, TO_WORKER)
    }

    /// Kills the worker, and says why.
    fn killed(&self, function: &str, why: &str) -> Failed {
        self.shared.hung_up.store(true, Ordering::Release);
        let _ = self.shared.child.lock().kill();
        self.guilty(function, &format!("its worker process was killed: {why}"))
    }

    fn gone(&self, function: &str) -> Failed {
        let ended = self.shared.ended.lock().clone();
        let ended = ended.unwrap_or_else(|| "it hung up".into());
        self.guilty(function, &format!("its worker process ended ({ended})"))
    }

    fn guilty(&self, function: &str, why: &str) -> Failed {
        let why = rl::Error::Guest {
            plugin: self.plugin.to_string(),
            function: function.to_owned(),
            why: why.to_owned(),
        };
        Failed { why, ended: true }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.socket.lock().shutdown(Shutdown::Both);
    }
}

/// Passes a worker's log on to the host's.
fn pass_on(plugin: &str, log: ChildStderr) {
    let mut log = BufReader::new(log);
    let mut line = Vec::new();
    loop {
        line.clear();
        match log.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        // Attack: control characters that rewrite an operator's terminal, or forge further lines.
        let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        let text = String::from_utf8_lossy(&line);
        let text: String = text.trim().chars().map(visible).collect();
        match text.split_once(' ') {
            Some(("ERROR", line)) => tracing::error!(plugin, line, "worker"),
            Some(("WARN", line)) => tracing::warn!(plugin, line, "worker"),
            Some(("INFO", line)) => tracing::info!(plugin, line, "worker"),
            _ => tracing::debug!(plugin, line = text, "worker"),
        }
    }
}
