//! The segment that comes next: made and synced before it is needed, so that an append waits for one sync, and a disk that
//! fills up is noticed while there is still room to finish what is begun.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    Error, Result,
    disk::{Disk, Named},
    log::Log,
    segment::{self, Segment},
    shared::Shared,
};

/// While there is no space, it is looked for again no more often than this.
const RETRY: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
enum State {
    #[default]
    None,
    Ready(Named, u64),
    /// There was no space, at that time.
    Full(Instant),
}

/// The next segment, or why there is none.
#[derive(Debug)]
pub(crate) struct Spare {
    path: PathBuf,
    /// The longest that a segment is, unless one record needs more.
    limit: u64,
    max_bytes: Option<u64>,
    /// Bytes of all segments that have a name.
    used: AtomicU64,
    state: Mutex<State>,
    /// The number of the segment that is wanted next; 0 while there is enough room in the active one.
    wanted: AtomicU64,
}

impl Spare {
    pub(crate) fn new(folder: &std::path::Path, limit: u64, max: Option<u64>, used: u64) -> Self {
        Self {
            path: folder.join("spare"),
            limit,
            max_bytes: max,
            used: AtomicU64::new(used),
            state: Mutex::default(),
            wanted: AtomicU64::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(&self, disk: &dyn Disk, len: u64) -> Result<Named> {
        let used = self.used.load(Ordering::Relaxed);
        if self.max_bytes.is_some_and(|max| used + len > max) {
            return Err(Error::Full);
        }
        Segment::reserve(disk, &self.path, len)
    }

    /// The next segment's file, at least long enough for `need` bytes of groups; waits for one that is being made.
    pub(crate) fn take(&self, disk: &dyn Disk, number: u64, need: u64) -> Result<Named> {
        let need = (need + segment::FIRST_GROUP).next_multiple_of(4096);
        let mut state = self.state();
        if let State::Ready(file, len) = &*state
            && *len >= need
        {
            return Ok(file.clone());
        }
        let len = segment::size(number, self.limit).max(need);
        *state = State::None;
        match self.reserve(disk, len) {
            Ok(file) => {
                *state = State::Ready(file.clone(), len);
                Ok(file)
            }
            Err(error) => {
                if matches!(error, Error::Full) {
                    *state = State::Full(Instant::now());
                }
                Err(error)
            }
        }
    }

    /// The file has a name of its own now.
    pub(crate) fn taken(&self, len: u64) {
        self.used.fetch_add(len, Ordering::Relaxed);
        *self.state() = State::None;
    }

    /// Makes the next segment beside the caller, when that has not been tried yet.
    fn prepare(self: &Arc<Self>, log: &Arc<Log>, number: u64, shared: &Arc<Shared>) {
        let due = match self.state.try_lock() {
            Ok(state) => match &*state {
                State::None => true,
                State::Ready(..) => false,
                State::Full(at) => at.elapsed() >= RETRY,
            },
            Err(TryLockError::Poisoned(_)) => true,
            // It is being made.
            Err(TryLockError::WouldBlock) => false,
        };
        if !due {
            return;
        }
        let (spare, shared) = (self.clone(), shared.clone());
        log.beside(move |log| {
            let mut state = spare.state();
            if matches!(*state, State::Ready(..)) || shared.check().is_err() {
                return;
            }
            let len = segment::size(number, spare.limit);
            *state = match spare.reserve(&*log.disk, len) {
                Ok(file) => State::Ready(file, len),
                Err(Error::Full) => State::Full(Instant::now()),
                Err(error) => {
                    shared.poison(&error);
                    State::None
                }
            };
        });
    }

    /// Says that segment `number` is wanted, or with 0 that none is yet.
    pub(crate) fn want(self: &Arc<Self>, log: &Arc<Log>, number: u64, shared: &Arc<Shared>) {
        self.wanted.store(number, Ordering::Release);
        if number > 0 {
            self.prepare(log, number, shared);
        }
    }

    /// Whether the next segment is there, on its way, or not wanted yet; looks for space again when there was none.
    pub(crate) fn room(self: &Arc<Self>, log: &Arc<Log>, shared: &Arc<Shared>) -> Result<()> {
        shared.check()?;
        let number = self.wanted.load(Ordering::Acquire);
        if number == 0 {
            return Ok(());
        }
        self.prepare(log, number, shared);
        match self.state.try_lock() {
            Ok(state) if matches!(*state, State::Full(_)) => Err(Error::Full),
            _ => Ok(()),
        }
    }
}
