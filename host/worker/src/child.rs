//! What a worker process does: it is told its plugin, seals itself, loads it, and answers calls until the host hangs up.

use std::{
    collections::HashMap,
    io::{self, BufReader, Write as _},
    os::{fd::AsFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use parking_lot::Mutex;
use plugin::{
    GuestEnvironment, GuestJudge, GuestReward, LoadProblem, PluginHost, World, compiled::Artefact,
};
use rl::{Environment as _, Episode, Judge as _, RequestView, RewardRule as _, TokenStreams};
use serde::Serialize;
use serde_bytes::ByteBuf;

use crate::{
    calls::Calls,
    remote::{self, Current, Got},
    seal::seal,
    threads::Threads,
    wire::{
        Begin, Call, FROM_WORKER, FromWorker, Keeping, Loaded, TO_WORKER, ToWorker, encode,
        receive, send,
    },
};

/// Most calls at once; instances end before that.
const CALLS: usize = 512;

/// The way to the host.
pub(crate) struct Link(Mutex<UnixStream>);

impl Link {
    pub(crate) fn send(&self, message: &FromWorker) -> io::Result<()> {
        send(&*self.0.lock(), message, FROM_WORKER)
    }

    fn send_code(&self, code: &[u8]) -> io::Result<()> {
        let mut socket = self.0.lock();
        let announced = FromWorker::Compiled(code.len() as u64);
        send(&*socket, &announced, FROM_WORKER)?;
        socket.write_all(code)
    }
}

/// A worker process's main: its standard input is the socket to the host. Ends when the host hangs up.
///
/// What it and its guest log goes to standard error, a line each with its level first, where the host reads it.
///
/// # Errors
/// It cannot seal itself, or the host says what makes no sense.
pub fn run() -> io::Result<()> {
    let _already_started = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .with_max_level(tracing::Level::INFO)
        .try_init();
    match work() {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        ended => ended,
    }
}

fn work() -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Without a buffer, which would take some of what follows a frame.
    let begin: Begin = receive(&socket, TO_WORKER)?;
    let keeping: Keeping = receive(&socket, TO_WORKER)?;
    let (has, most) = match keeping {
        Keeping::Takes { has, most } => (has, most),
        Keeping::Nothing => (None, 0),
    };
    let handed = has.map(handed_over).transpose()?;
    let mut host = BufReader::new(socket.try_clone()?);
    let link = Arc::new(Link(Mutex::new(socket)));
    let started = PluginHost::with(begin.limits.clone(), remote::outside(&begin.offers));
    let plugins = started.map_err(|error| io::Error::other(error.to_string()))?;
    seal(begin.memory_bytes)?;
    let hand_over = |code: &[u8]| {
        if code.len() as u64 > most {
            return Ok(());
        }
        link.send_code(code)
    };
    let guest = match load(&plugins, &begin, handed, hand_over)? {
        Ok(guest) => Arc::new(guest),
        Err(problem) => return link.send(&FromWorker::Loaded(Err(problem))),
    };
    let card = match &guest.kind {
        Kind::Environment(environment) => Some(environment.card()),
        _ => None,
    };
    link.send(&FromWorker::Loaded(Ok(Loaded { card })))?;
    let calls = Arc::new(Calls::<Got>::default());
    let threads = Threads::new(CALLS);
    loop {
        match receive(&mut host, TO_WORKER)? {
            ToWorker::Call { id, call } => take(&threads, &calls, &link, &guest, id, call)?,
            ToWorker::Got { id, got } => {
                calls.route(id, got);
            }
            ToWorker::Over(episode) => {
                guest.episodes.lock().remove(&episode);
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the worker process: its standard input is its host"
)]
fn handed_over(bytes: u64) -> io::Result<Artefact> {
    Artefact::handed_over(bytes)
}

/// Hands a call to a thread.
fn take(
    threads: &Threads,
    calls: &Arc<Calls<Got>>,
    link: &Arc<Link>,
    guest: &Arc<Guest>,
    id: u64,
    call: Call<'static>,
) -> io::Result<()> {
    let function = call.function();
    let (all, to_host, guest) = (Arc::clone(calls), Arc::clone(link), Arc::clone(guest));
    let job = move || {
        let Some(open) = all.open_as(id) else { return };
        remote::set(Some(Current {
            link: Arc::clone(&to_host),
            id,
            got: open.messages.clone(),
        }));
        // The host waits for an answer; without one it would wait until its patience ends.
        let answer = catch_unwind(AssertUnwindSafe(|| guest.answer(call)))
            .unwrap_or_else(|_| Err(failed(function, "the worker panicked")));
        remote::set(None);
        let answered = to_host.send(&FromWorker::Answer { id, answer });
        if let Err(error) = answered {
            let answer = Err(failed(function, &error.to_string()));
            let _ = to_host.send(&FromWorker::Answer { id, answer });
        }
    };
    threads.run(Box::new(job)).or_else(|error| {
        let answer = Err(rl::Error::Unavailable {
            what: format!("a worker process, asked for {function}"),
            why: error.to_string(),
        });
        link.send(&FromWorker::Answer { id, answer })
    })
}

fn failed(what: &str, why: &str) -> rl::Error {
    rl::Error::Failed {
        what: what.to_owned(),
        why: why.to_owned(),
    }
}

enum Kind {
    Environment(GuestEnvironment),
    Judge(GuestJudge),
    Reward(GuestReward),
}

type Shared = Arc<Mutex<Box<dyn Episode>>>;

struct Guest {
    kind: Kind,
    episodes: Mutex<HashMap<u64, Shared>>,
}

/// Loads the plugin. What had to be compiled is handed over before any of the guest's code runs: from then on nothing that this process says about
/// code is to be believed.
fn load(
    host: &PluginHost,
    begin: &Begin,
    handed: Option<Artefact>,
    hand_over: impl FnOnce(&[u8]) -> io::Result<()>,
) -> io::Result<Result<Guest, LoadProblem>> {
    let section: Result<toml::Table, _> = begin.section.parse();
    let section = match section {
        Ok(section) => section,
        Err(error) => {
            let problem = error.to_string();
            let key = "(all)".into();
            return Ok(Err(LoadProblem::Config { key, problem }));
        }
    };
    let (manifest, component) = (&begin.manifest, &begin.component);
    let loaded = host.load_handed(manifest, component, &begin.grants, &section, handed);
    let (plugin, code) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return Ok(Err(problem(error))),
    };
    if let Some(code) = code {
        hand_over(&code)?;
    }
    let kind = match plugin.manifest().world {
        World::EnvironmentPlugin => {
            GuestEnvironment::new(&plugin, begin.run).map(Kind::Environment)
        }
        World::JudgePlugin => GuestJudge::new(&plugin).map(Kind::Judge),
        World::RewardPlugin => GuestReward::new(&plugin).map(Kind::Reward),
    };
    let guest = kind.map(|kind| Guest {
        kind,
        episodes: Mutex::default(),
    });
    Ok(guest.map_err(problem))
}

fn problem(error: plugin::Error) -> LoadProblem {
    match error {
        plugin::Error::Load { problem, .. } => problem,
        other => LoadProblem::Invalid(other.to_string()),
    }
}

fn answered(value: &impl Serialize) -> rl::Result<ByteBuf> {
    let bytes = encode(value).map_err(|error| failed("encode an answer", &error.to_string()));
    Ok(ByteBuf::from(bytes?))
}

impl Guest {
    fn answer(&self, call: Call<'_>) -> rl::Result<ByteBuf> {
        match &self.kind {
            Kind::Environment(environment) => self.of_environment(environment, call),
            Kind::Judge(judge) => of_judge(judge, call),
            Kind::Reward(rule) => of_rule(rule, call),
        }
    }

    fn of_environment(&self, it: &GuestEnvironment, call: Call<'_>) -> rl::Result<ByteBuf> {
        match call {
            Call::Classify(messages, tools) => answered(&it.classify(RequestView {
                messages: &messages,
                tools: &tools,
            })?),
            Call::NextState(turn, new) => answered(&it.next_state(&turn, &new)?),
            Call::SessionEnds(messages) => answered(&it.session_ends(&messages)?),
            Call::Tasks(split) => answered(&it.tasks(&split)?),
            Call::Start {
                episode,
                task,
                seed,
            } => {
                let started = it.start(&task, seed)?;
                let shared = Arc::new(Mutex::new(started));
                self.episodes.lock().insert(episode, shared);
                answered(&())
            }
            Call::Observe(episode) => answered(&self.episode(episode)?.lock().observe()?),
            Call::Act(episode, action) => answered(&self.episode(episode)?.lock().act(&action)?),
            Call::Outcome(episode) => answered(&self.episode(episode)?.lock().outcome()?),
            Call::Snapshot(episode) => {
                let bytes = self.episode(episode)?.lock().snapshot()?;
                answered(&bytes.map(ByteBuf::from))
            }
            other => Err(misdirected(&other)),
        }
    }

    fn episode(&self, number: u64) -> rl::Result<Shared> {
        let found = self.episodes.lock().get(&number).cloned();
        found.ok_or_else(|| failed("find an episode", "this worker has none of that number"))
    }
}

fn of_judge(it: &GuestJudge, call: Call<'_>) -> rl::Result<ByteBuf> {
    match call {
        Call::Evaluate(turn, next, seed) => answered(&it.evaluate(&turn, &next, seed)?),
        Call::ReadVote(turn, next, answer) => answered(&it.read_vote(&turn, &next, &answer)?),
        Call::AskHint(turn, next, seed) => answered(&it.ask_hint(&turn, &next, seed)?),
        Call::ReadHint(turn, next, answer) => answered(&it.read_hint(&turn, &next, &answer)?),
        Call::PlaceHint(messages, hint) => answered(&it.place_hint(&messages, &hint)?),
        other => Err(misdirected(&other)),
    }
}

fn of_rule(it: &GuestReward, call: Call<'_>) -> rl::Result<ByteBuf> {
    match call {
        Call::Verdict(votes) => answered(&it.verdict(&votes)?),
        Call::TurnRewards(turns, outcome) => answered(&it.turn_rewards(&turns, outcome)?),
        Call::Advantages(rewards_gt) => answered(&it.advantages(&rewards_gt)?),
        Call::TokenAdvantages {
            advantage,
            behaviour,
            teachers,
        } => answered(&it.token_advantages(&TokenStreams {
            advantage,
            behaviour: &behaviour,
            teachers: teachers.iter().map(Vec::as_slice).collect(),
        })?),
        other => Err(misdirected(&other)),
    }
}

fn misdirected(call: &Call<'_>) -> rl::Error {
    failed(call.function(), "this worker's plugin is of another kind")
}
