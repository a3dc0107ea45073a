//! The episodes that clients have open: how many there may be, and who plays which.
//!
//! An episode belongs to a session, or it has a name and belongs to whoever knows it. A named one that nobody asks for is given up.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rl::{Action, Done, Environment, Episode, Error, Observation, Outcome, Seed, TaskId};
use serde_json::Value;

use super::protocol::{Failure, Reset, Standing, observed, state};

/// How much clients may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Episodes open at once.
    pub episodes: usize,
    /// Largest request or message, in bytes.
    pub body_bytes: usize,
    /// A session or a named episode that nothing is asked of for so long is given up.
    pub idle: Duration,
    /// How long a client may take to send a request, and to take the answer.
    pub request: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            episodes: 64,
            body_bytes: 1 << 20,
            idle: Duration::from_secs(600),
            request: Duration::from_secs(10),
        }
    }
}

/// All of a server's.
pub(super) struct Episodes {
    environment: Arc<dyn Environment>,
    pub(super) limits: Limits,
    open: Arc<AtomicUsize>,
    begun: AtomicU64,
    named: Mutex<HashMap<String, Arc<Mutex<Running>>>>,
}

impl std::fmt::Debug for Episodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Episodes")
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

/// One of so many; given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An episode that a client plays.
pub(super) struct Running {
    id: String,
    task: TaskId,
    episode: Box<dyn Episode>,
    steps: u32,
    done: Option<Done>,
    outcome: Option<Outcome>,
    used: Instant,
    _place: Place,
}

fn failure(error: &Error) -> Failure {
    match error {
        Error::Refused { why, .. } => Failure::Missing(why.clone()),
        Error::Unavailable { .. } => Failure::Full(error.to_string()),
        other => Failure::Failed(other.to_string()),
    }
}

impl Running {
    fn standing(&self) -> Standing<'_> {
        Standing {
            episode: &self.id,
            task: self.task.as_str(),
            steps: self.steps,
            done: self.done,
            outcome: self.outcome.as_ref(),
        }
    }

    /// The answer to a reset.
    pub(super) fn begin(&mut self) -> Result<Value, Failure> {
        let first = self.episode.observe().map_err(|error| failure(&error))?;
        Ok(observed(&first, &self.standing()))
    }

    /// The answer to a step.
    pub(super) fn step(&mut self, action: &Action) -> Result<Value, Failure> {
        self.used = Instant::now();
        if self.done.is_some() {
            return Err(Failure::Over("the episode is over: reset".into()));
        }
        let step = self.episode.act(action).map_err(|error| failure(&error))?;
        self.steps += 1;
        self.done = step.done;
        self.outcome = self.episode.outcome().map_err(|error| failure(&error))?;
        let seen: &Observation = &step.observation;
        Ok(observed(seen, &self.standing()))
    }

    /// The answer to a question for its state.
    pub(super) fn state(&self) -> Value {
        state(&self.standing())
    }
}

impl Episodes {
    pub(super) fn new(environment: Arc<dyn Environment>, limits: Limits) -> Self {
        Self {
            environment,
            limits,
            open: Arc::default(),
            begun: AtomicU64::new(0),
            named: Mutex::default(),
        }
    }

    pub(super) fn environment(&self) -> &dyn Environment {
        self.environment.as_ref()
    }

    fn place(&self) -> Result<Place, Failure> {
        let most = self.limits.episodes;
        let taken = self
            .open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
                (open < most).then_some(open + 1)
            });
        match taken {
            Ok(_) => Ok(Place(Arc::clone(&self.open))),
            Err(open) => Err(Failure::Full(format!(
                "{open} of {most} episodes are open; close one, or ask again later"
            ))),
        }
    }

    /// Starts an episode; its first observation comes from [`Running::begin`].
    pub(super) fn start(&self, wanted: Reset) -> Result<Running, Failure> {
        self.give_up_idle();
        let place = self.place()?;
        let count = self.begun.fetch_add(1, Ordering::Relaxed);
        let seed = wanted.seed.unwrap_or(count);
        let task = match wanted.task {
            Some(task) => TaskId::new(task),
            None => self.nth_task(wanted.split.as_deref().unwrap_or("train"), seed)?,
        };
        let started = self.environment.start(&task, Seed::new(seed));
        Ok(Running {
            id: wanted.episode.unwrap_or_else(|| format!("episode-{count}")),
            task,
            episode: started.map_err(|error| failure(&error))?,
            steps: 0,
            done: None,
            outcome: None,
            used: Instant::now(),
            _place: place,
        })
    }

    fn nth_task(&self, split: &str, seed: u64) -> Result<TaskId, Failure> {
        let tasks = self.tasks(split)?;
        let count = u64::try_from(tasks.len()).unwrap_or(u64::MAX);
        let index = seed
            .checked_rem(count)
            .and_then(|index| usize::try_from(index).ok());
        index
            .and_then(|index| tasks.get(index).cloned())
            .ok_or_else(|| Failure::Missing(format!("the split `{split}` has no task")))
    }

    pub(super) fn tasks(&self, split: &str) -> Result<Vec<TaskId>, Failure> {
        self.environment
            .tasks(split)
            .map_err(|error| failure(&error))
    }

    /// Keeps an episode by its name; one of the same name is given up.
    pub(super) fn keep(&self, running: Running) {
        let id = running.id.clone();
        let before = self.named.lock().insert(id, Arc::new(Mutex::new(running)));
        // Not under the lock: an episode may take a while to end.
        drop(before);
    }

    /// The episode of this name; without one, the only one there is.
    pub(super) fn named(&self, id: Option<&str>) -> Result<Arc<Mutex<Running>>, Failure> {
        let named = self.named.lock();
        let found = match id {
            Some(id) => named.get(id),
            None if named.len() == 1 => named.values().next(),
            None => {
                return Err(Failure::Invalid(format!(
                    "`episode_id` is missing, and {} episodes are open; a reset's metadata has it",
                    named.len()
                )));
            }
        };
        found
            .cloned()
            .ok_or_else(|| Failure::Missing("there is no open episode of this name: reset".into()))
    }

    /// Lets go of an episode that is over.
    pub(super) fn release(&self, id: &str) {
        let gone = self.named.lock().remove(id);
        drop(gone);
    }

    /// Attack: a client that resets under ever new names and never plays.
    fn give_up_idle(&self) {
        let idle = self.limits.idle;
        let mut gone = Vec::new();
        self.named.lock().retain(|_, running| {
            // One that is locked is being played.
            let stale = running
                .try_lock()
                .is_some_and(|running| running.used.elapsed() > idle);
            if stale {
                gone.push(Arc::clone(running));
            }
            !stale
        });
        drop(gone);
    }
}

impl Running {
    /// Its name.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Whether it takes no further action.
    pub(super) fn is_over(&self) -> bool {
        self.done.is_some()
    }
}
