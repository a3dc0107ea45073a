//! What the handles and the writer both see, and the queue between them.
//!
//! Whoever waits for an append commits it himself when nobody else is committing, so that one writer alone pays for no
//! hand-off between threads. The ledger's own thread commits for those who await it in a task, who drop it, or who came
//! while another committed; an append that nobody has touched since it was made it finds when it next looks.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{Entry, Error, Result, Seq, pending::Completer, writer::Writer};

/// Appends that may wait for the disk before further ones are refused as [`Error::Busy`].
const WAITING: usize = 16_384;
/// Most entries in a group, and most bytes: a group's memory and its longest wait are bounded.
const GROUP_ENTRIES: usize = 4_096;
const GROUP_BYTES: usize = 32 << 20;
/// How often the thread looks while there is traffic; it goes to sleep when there was none for this long.
const IDLE: Duration = Duration::from_millis(50);

/// Entries that must become durable together, and who waits for them.
pub(crate) struct Request {
    pub(crate) entries: Vec<Entry>,
    pub(crate) done: Completer,
}

/// The state that everybody sees.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The acknowledged end: readers go no further.
    pub(crate) durable: AtomicU64,
    pub(crate) waiting: AtomicUsize,
    poisoned: OnceLock<Arc<str>>,
    /// Who waits for that.
    watching: Mutex<Vec<Waker>>,
}

impl Shared {
    pub(crate) fn poison(&self, error: &Error) -> Error {
        if let Error::Poisoned { .. } = error {
            return error.clone();
        }
        let reason = self.poisoned.get_or_init(|| {
            let reason = error.chain();
            tracing::error!(%reason, "the ledger stopped accepting");
            reason.into()
        });
        // After the reason is there: whoever looks under the lock from now on sees it.
        for waker in lock(&self.watching).drain(..) {
            waker.wake();
        }
        Error::Poisoned {
            reason: reason.clone(),
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        match self.poisoned.get() {
            Some(reason) => Err(Error::Poisoned {
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Ready when nothing more is accepted.
    pub(crate) fn poll_failed(&self, cx: &mut Context<'_>) -> Poll<Error> {
        let mut watching = lock(&self.watching);
        if let Err(error) = self.check() {
            return Poll::Ready(error);
        }
        if !watching.iter().any(|waker| waker.will_wake(cx.waker())) {
            watching.push(cx.waker().clone());
        }
        Poll::Pending
    }

    pub(crate) fn durable(&self) -> Seq {
        Seq::new(self.durable.load(Ordering::Acquire))
    }
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    closed: bool,
    /// The thread waits until it is told.
    asleep: bool,
    /// Something was sent since the thread last looked.
    busy: bool,
}

/// The queue and the writer behind it.
pub(crate) struct Core {
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// `None` once the ledger is closed.
    writer: Mutex<Option<Writer>>,
    pub(crate) shared: Arc<Shared>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    pub(crate) fn new(writer: Writer, shared: Arc<Shared>) -> Self {
        Self {
            queue: Mutex::default(),
            arrived: Condvar::new(),
            writer: Mutex::new(Some(writer)),
            shared,
        }
    }

    /// Puts a request behind those that wait.
    pub(crate) fn send(&self, request: Request) {
        let mut queue = lock(&self.queue);
        if queue.requests.len() >= WAITING || queue.closed {
            drop(queue);
            request.done.complete(Err(Error::Busy { waiting: WAITING }));
            return;
        }
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        queue.requests.push_back(request);
        queue.busy = true;
        let asleep = std::mem::take(&mut queue.asleep);
        drop(queue);
        if asleep {
            self.arrived.notify_one();
        }
    }

    /// Tells the thread that somebody waits who will not commit himself.
    pub(crate) fn announce(&self) {
        self.arrived.notify_one();
    }

    /// Commits what waits, on the caller's thread, unless somebody is committing already.
    pub(crate) fn help(&self) {
        let guard = match self.writer.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        self.commit_one_group(guard);
        self.pass_on();
    }

    /// Whoever came while the writer was taken relies on this.
    fn pass_on(&self) {
        if !lock(&self.queue).requests.is_empty() {
            self.announce();
        }
    }

    fn commit_one_group(&self, mut writer: MutexGuard<'_, Option<Writer>>) {
        if let Some(writer) = writer.as_mut() {
            let group = self.gather();
            self.shared
                .waiting
                .fetch_sub(group.len(), Ordering::Relaxed);
            writer.handle(group);
        }
    }

    fn gather(&self) -> Vec<Request> {
        let mut queue = lock(&self.queue);
        let (mut entries, mut bytes, mut take) = (0, 0, 0);
        for request in &queue.requests {
            if entries >= GROUP_ENTRIES || bytes >= GROUP_BYTES {
                break;
            }
            entries += request.entries.len();
            bytes += request.entries.iter().map(|e| e.body.len()).sum::<usize>();
            take += 1;
        }
        queue.requests.drain(..take).collect()
    }

    /// The ledger's own thread: commits what nobody commits himself, and syncs the mark when there is nothing to do.
    pub(crate) fn run(&self) {
        while self.next() {
            self.commit_one_group(lock(&self.writer));
        }
    }

    /// Waits until there is something to commit; false at the end.
    fn next(&self) -> bool {
        let mut queue = lock(&self.queue);
        loop {
            if !queue.requests.is_empty() && !self.is_taken() {
                return true;
            }
            if queue.closed {
                return !queue.requests.is_empty();
            }
            if queue.asleep {
                queue = self
                    .arrived
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (back, timeout) = self
                .arrived
                .wait_timeout(queue, IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            queue = back;
            let idle = timeout.timed_out() && queue.requests.is_empty();
            if idle && !std::mem::take(&mut queue.busy) {
                drop(queue);
                if let Some(writer) = lock(&self.writer).as_mut() {
                    writer.idle();
                }
                queue = lock(&self.queue);
                queue.asleep = queue.requests.is_empty() && !queue.closed;
            }
        }
    }

    /// Whether somebody is committing: he passes on what he leaves.
    fn is_taken(&self) -> bool {
        matches!(self.writer.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Uses the writer between two groups; `None` when the ledger is closed.
    pub(crate) fn with_writer<T>(&self, work: impl FnOnce(&mut Writer) -> T) -> Option<T> {
        let done = lock(&self.writer).as_mut().map(work);
        self.pass_on();
        done
    }

    /// Nothing more comes; the thread ends when it has committed what waits.
    pub(crate) fn close(&self) {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        queue.asleep = false;
        drop(queue);
        self.arrived.notify_one();
    }

    /// Takes the writer out, to end it.
    pub(crate) fn take_writer(&self) -> Option<Writer> {
        lock(&self.writer).take()
    }
}
