//! One worker process, as the host sees it: started, called, and gone.

use std::{
    io::{self, BufReader, Read as _, Write as _},
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
use plugin::{Error, Limits, LoadProblem, compiled::ForWorkers, outside::Refusal};
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

use crate::{
    answers,
    calls::{Calls, Routed},
    config::{Config, Program},
    log::pass_on,
    things::Things,
    timed::Until,
    wire::{
        Ask, Call, FROM_WORKER, FromWorker, Keeping, Loaded, TO_WORKER, ToWorker, decode, frame,
        receive,
    },
};

/// A worker that does not even take what it is sent is not well.
const TAKE: Duration = Duration::from_secs(10);

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
    /// Where its compiled code is kept, unless it is not.
    pub(crate) kept: Option<ForWorkers>,
}

/// A worker that has loaded its plugin.
struct Ready {
    ours: UnixStream,
    shared: Arc<Shared>,
    loaded: Loaded,
}

impl Launch {
    /// Starts a worker and waits until its plugin is loaded. `on_end` is called when it ends.
    ///
    /// # Errors
    /// [`Error::Load`] by the plugin's own fault, [`Error::Start`] by the machine's.
    pub(crate) fn start(&self, on_end: impl FnOnce() + Send + 'static) -> Result<Process, Error> {
        let ready = match self.kept.as_ref().and_then(ForWorkers::find) {
            None => self.load(None),
            // Attack: a worker that handed out code which ends every later one. What is kept is no reason for a plugin not to start.
            Some(code) => self.load(Some(&code)).or_else(|error| {
                let (plugin, error) = (&*self.plugin, format!("{error:#}"));
                tracing::warn!(plugin, error, "a worker did not come up with compiled code from the cache; the next one compiles");
                self.load(None)
            }),
        };
        let Ready {
            ours,
            shared,
            loaded,
        } = ready?;
        if let Err(error) = shared.listen(&ours, on_end) {
            shared.reap();
            return Err(self.failed("listen to it", &error));
        }
        Ok(Process {
            plugin: Arc::clone(&self.plugin),
            config: self.config.clone(),
            limits: self.limits.clone(),
            socket: Mutex::new(ours),
            shared,
            loaded,
        })
    }

    fn failed(&self, doing: &str, error: &io::Error) -> Error {
        Error::Start {
            problem: format!(
                "a worker process for plugin {}: {doing}: {error}",
                self.plugin
            ),
        }
    }

    /// Starts a worker, with its plugin's code or without.
    fn load(&self, code: Option<&[u8]>) -> Result<Ready, Error> {
        let start = |doing: &str, error: io::Error| self.failed(doing, &error);
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
        let log = child.stderr.take();
        let shared = Arc::new(Shared {
            calls: Calls::default(),
            child: Mutex::new(child),
            hung_up: AtomicBool::new(false),
            ended: Mutex::new(None),
        });
        let begun = self.listen(log).and_then(|()| self.begin(&ours, code));
        let failed = match begun {
            Ok((Ok(loaded), compiled)) => {
                if let (Some(kept), Some(compiled)) = (&self.kept, compiled) {
                    kept.keep(&compiled);
                }
                return Ok(Ready {
                    ours,
                    shared,
                    loaded,
                });
            }
            Ok((Err(problem), _)) => Error::Load {
                plugin: self.plugin.to_string(),
                problem: answers::problem(problem),
            },
            Err(error) if is_late(&error) => {
                let load = self.config.load;
                start(
                    &format!("it was not ready after {load:?} and was killed"),
                    error,
                )
            }
            Err(error) => {
                let ended = shared.reap();
                start(&format!("it ended before it was ready ({ended})"), error)
            }
        };
        shared.reap();
        Err(failed)
    }

    fn listen(&self, log: Option<ChildStderr>) -> io::Result<()> {
        let Some(log) = log else { return Ok(()) };
        let plugin = Arc::clone(&self.plugin);
        spawn("worker-log", move || pass_on(&plugin, log))
    }

    /// Tells it its plugin, and takes what it compiled. The socket then waits for the worker as long as it takes.
    fn begin(&self, socket: &UnixStream, code: Option<&[u8]>) -> io::Result<Begun> {
        let keeping = match &self.kept {
            None => Keeping::Nothing,
            Some(kept) => Keeping::Takes {
                has: code.map(|code| code.len() as u64),
                most: kept.most_bytes(),
            },
        };
        let mut to = Until::within(socket, TAKE);
        to.write_all(&self.begin)?;
        to.write_all(&frame(&keeping, TO_WORKER)?)?;
        to.write_all(code.unwrap_or_default())?;
        let mut from = Until::within(socket, self.config.load);
        let mut said = receive(&mut from, FROM_WORKER)?;
        let mut compiled = None;
        // Attack: a guest of a worker that was handed code runs before anything is due, and could say that it was compiled.
        let due = self.kept.as_ref().filter(|_| code.is_none());
        if let (FromWorker::Compiled(bytes), Some(kept)) = (&said, due) {
            compiled = Some(take(&mut from, *bytes, kept.most_bytes())?);
            said = receive(&mut from, FROM_WORKER)?;
        }
        let FromWorker::Loaded(loaded) = said else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it did not say whether its plugin is loaded",
            ));
        };
        socket.set_read_timeout(None)?;
        Ok((loaded, compiled))
    }
}

/// Whether the plugin is loaded, and what the worker compiled for it.
type Begun = (Result<Loaded, LoadProblem>, Option<Vec<u8>>);

/// Takes so many bytes; memory is taken for them as they arrive.
fn take(from: &mut Until<'_>, bytes: u64, most: u64) -> io::Result<Vec<u8>> {
    if bytes > most {
        let problem = format!("compiled code of {bytes} bytes, and {most} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    let mut code = Vec::new();
    from.take(bytes).read_to_end(&mut code)?;
    if code.len() as u64 != bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(code)
}

fn is_late(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map(drop)
}

impl Shared {
    /// Has a thread take what the worker says.
    fn listen(
        self: &Arc<Self>,
        socket: &UnixStream,
        on_end: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let (shared, from) = (Arc::clone(self), socket.try_clone()?);
        spawn("worker-reader", move || {
            shared.read(from);
            on_end();
        })
    }

    /// Takes what the worker says until it ends.
    fn read(&self, from: UnixStream) {
        let mut from = BufReader::new(from);
        let why = loop {
            let routed = match receive(&mut from, FROM_WORKER) {
                Ok(FromWorker::Ask { id, ask }) => self.calls.route(id, Said::Ask(ask)),
                Ok(FromWorker::Answer { id, answer }) => self.calls.route(id, Said::Answer(answer)),
                Ok(FromWorker::Loaded(_) | FromWorker::Compiled(_)) => Routed::Flood,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    break Some(format!("it said what makes no sense: {error}"));
                }
                Err(_) => break None,
            };
            // Attack: a worker in its guest's hands that says more than it was asked, or says it to nobody, fills the host's memory or
            // keeps it busy. A call is over only by its answer or by the worker's end, so one that is well never does.
            if routed != Routed::Delivered {
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
        if let Ok(frame) = frame(&ToWorker::Over(episode), TO_WORKER) {
            let _ = self.send(&frame);
        }
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
        let call = call.clone();
        let asked = frame(&ToWorker::Call { id, call }, TO_WORKER);
        let asked = asked.map_err(|error| Failed {
            why: self.guilty(function, &error.to_string()),
            ended: false,
        })?;
        if let Err(error) = self.send(&asked) {
            return Err(self.unsent(function, &error));
        }
        let mut left = self.config.answer;
        let mut outside = self.limits.outside(function);
        let mut asks = self.limits.host_calls;
        loop {
            let waiting = Instant::now();
            match open.messages.recv_timeout(left) {
                Ok(Said::Answer(answer)) => {
                    let answer = answer.map_err(|why| Failed {
                        why: answers::error(why, &self.plugin, function),
                        ended: false,
                    })?;
                    return decode(&answer).map_err(|error| {
                        self.killed(function, &format!("it said what makes no sense: {error}"))
                    });
                }
                Ok(Said::Ask(ask)) => {
                    left = left.saturating_sub(waiting.elapsed());
                    // The worker counts both, too. Attack: one that does not. Giving back costs nothing: a guest that met its limit
                    // lets go of what it holds.
                    let free = things.frees(&ask);
                    if !free && (asks == 0 || outside.is_zero()) {
                        return Err(self.killed(function, "it asked for more than it may"));
                    }
                    asks = asks.saturating_sub(u64::from(!free));
                    let begun = Instant::now();
                    let got = things.answer(ask);
                    outside = outside.saturating_sub(begun.elapsed());
                    let answer = frame(&ToWorker::Got { id, got }, TO_WORKER).or_else(|error| {
                        let got = Err(Refusal::Failed(error.to_string()));
                        frame(&ToWorker::Got { id, got }, TO_WORKER)
                    });
                    if let Err(error) = answer.and_then(|answer| self.send(&answer)) {
                        return Err(self.unsent(function, &error));
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

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        let socket = self.socket.try_lock_for(TAKE);
        let socket = socket.ok_or(io::ErrorKind::TimedOut)?;
        Until::within(&socket, TAKE).write_all(frame)
    }

    /// Kills the worker, and says why: this call's doing, so that no other worker is asked.
    fn killed(&self, function: &str, why: &str) -> Failed {
        self.shared.hung_up.store(true, Ordering::Release);
        let _ = self.shared.child.lock().kill();
        Failed {
            why: self.guilty(function, &format!("its worker process was killed: {why}")),
            ended: false,
        }
    }

    /// The worker is gone, or takes nothing.
    fn unsent(&self, function: &str, error: &io::Error) -> Failed {
        if is_late(error) {
            return self.killed(function, "it took nothing that it was sent");
        }
        // Its end is known here before the thread that listens to it knows: the next call must not find it again.
        self.shared.hung_up.store(true, Ordering::Release);
        self.gone(function)
    }

    fn gone(&self, function: &str) -> Failed {
        let ended = self.shared.ended.lock().clone();
        let ended = ended.unwrap_or_else(|| "it hung up".into());
        Failed {
            why: self.guilty(function, &format!("its worker process ended ({ended})")),
            ended: true,
        }
    }

    fn guilty(&self, function: &str, why: &str) -> rl::Error {
        rl::Error::Guest {
            plugin: self.plugin.to_string(),
            function: function.to_owned(),
            why: why.to_owned(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.socket.lock().shutdown(Shutdown::Both);
    }
}
