//! The compute threads, and the gate through which serving and training take turns on them.
//!
//! A [`Pool`] runs one job at a time: `tasks` calls of one closure, handed out one by one, so that a thread that the
//! system delays does not delay the rest. Which thread runs a task never changes a result. Workers spin briefly for
//! the next job and then sleep; a late worker is not waited for. Nothing is allocated for a job.
//!
//! Whoever has breathed once ([`Slice::breathe`]) gives its turn away in the middle of a job, too: [`turn`] says when.
//!
//! Not here: what is computed, and any queue of requests.

use crate::error::require;
use crate::{Error, Isa, Result};
use parking_lot::{Condvar, Mutex};
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use turn::Turns;

mod turn;

pub use turn::Slice;

/// Looks at the job word before a worker sleeps: some 50 µs, longer than the pauses inside one decode step, also where the cores share no
/// cache.
const SPINS: u32 = 1000;

/// In the job word: workers may join. Below it 31 bits of job number, then 32 bits of workers inside.
const OPEN: u64 = 1 << 63;
const JOB: u64 = 1 << 32;
const INSIDE: u64 = JOB - 1;

type Task = dyn Fn(usize) + Sync;

thread_local! {
    /// Whether this thread is inside a job; a job inside a job runs on its own thread.
    static IN_JOB: Cell<bool> = const { Cell::new(false) };
}

/// Persistent compute threads.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by whoever's job is running.
    submit: Mutex<()>,
    turns: Arc<Turns>,
    isa: Isa,
}

struct Shared {
    word: AtomicU64,
    task: UnsafeCell<Option<*const Task>>,
    tasks: AtomicUsize,
    next: AtomicUsize,
    panicked: AtomicBool,
    /// When the job that runs is interrupted for whoever waits for a turn; see [`turn::NEVER`].
    until: AtomicU64,
    turns: Arc<Turns>,
    stop: AtomicBool,
    asleep: AtomicUsize,
    caller_asleep: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
    done: Condvar,
}

// SAFETY: `task` is written only by the submitting thread while no worker is inside (word: closed, zero inside), and
// read only by workers that joined through the word afterwards (acquire); the closure behind it is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as for `Sync`; the pointer is only followed inside a job.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("threads", &self.threads())
            .field("isa", &self.isa)
            .finish()
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller of a job included.
    ///
    /// # Errors
    /// [`Error::Argument`] for zero threads; [`Error::Thread`] when the system refuses one.
    pub fn new(threads: usize) -> Result<Pool> {
        Pool::with_isa(threads, Isa::best())
    }

    /// As many threads as the process may run at once.
    pub fn default_threads() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// A pool that uses a given instruction set, for tests and comparisons: results are the same on each.
    ///
    /// # Errors
    /// As [`Pool::new`]; [`Error::Argument`] for a set that this processor lacks.
    pub fn with_isa(threads: usize, isa: Isa) -> Result<Pool> {
        require!(
            "pool.new",
            threads = threads as f64,
            threads > 0,
            "at least one thread is needed"
        );
        let has = Isa::available().contains(&isa);
        require!(
            "pool.new",
            isa = f64::from(isa as u8),
            has,
            "this processor lacks that instruction set"
        );
        let turns = Arc::new(Turns::new());
        let shared = Arc::new(Shared::new(Arc::clone(&turns)));
        let mut workers = Vec::with_capacity(threads - 1);
        for index in 1..threads {
            let shared = Arc::clone(&shared);
            let worker = std::thread::Builder::new()
                .name(format!("compute-{index}"))
                .spawn(move || shared.work())
                .map_err(|source| Error::Thread { index, source })?;
            workers.push(worker);
        }
        Ok(Pool {
            shared,
            workers,
            submit: Mutex::new(()),
            turns,
            isa,
        })
    }

    /// Threads that share a job, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// The instruction set that ops use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Takes a turn at computing. Turns are granted in order of arrival, so that two loops which both want to compute
    /// all the time alternate.
    ///
    /// A thread must not enter twice: the second turn would wait for the first.
    pub fn enter(&self) -> Slice<'_> {
        self.turns.enter()
    }

    /// Calls `task(0)` to `task(tasks - 1)`, in any order, on any threads, and returns when all are done.
    ///
    /// # Panics
    /// When a task panics, after every thread has left the job.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if IN_JOB.get() {
            (0..tasks).for_each(task);
            return;
        }
        if tasks <= 1 || self.workers.is_empty() {
            (0..tasks).for_each(|index| {
                self.turns.give_way();
                task(index);
            });
            return;
        }
        let mut next = 0;
        while next < tasks {
            self.turns.give_way();
            next = self.run_from(next, tasks, task);
        }
    }

    /// Calls `work` with each of some items and its place, as [`Pool::run`] runs tasks.
    ///
    /// # Panics
    /// As [`Pool::run`].
    pub fn each<T: Send>(&self, items: &mut [T], work: &(dyn Fn(usize, &mut T) + Sync)) {
        let count = items.len();
        let items = Shards::new(items);
        self.run(count, &|at| {
            // SAFETY: each item belongs to one task.
            for item in unsafe { items.part(at..at + 1) } {
                work(at, item);
            }
        });
    }

    /// Runs tasks from `first` on until all are done or whoever waits for a turn must get it; the first that is not begun.
    fn run_from(&self, first: usize, tasks: usize, task: &(dyn Fn(usize) + Sync)) -> usize {
        let _turn = self.submit.lock();
        let until = self.turns.until();
        self.shared.until.store(until, Ordering::Relaxed);
        self.shared.post(first, tasks, task);
        IN_JOB.set(true);
        let own = catch_unwind(AssertUnwindSafe(|| self.shared.take_tasks(tasks, task)));
        IN_JOB.set(false);
        if own.is_err() {
            self.shared.next.store(tasks, Ordering::Relaxed);
        }
        self.shared.close();
        // Also when the caller's own task panicked: the next job must not be told of it.
        let others = self.shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!others, "a compute task panicked; its message is above");
        self.shared.next.load(Ordering::Relaxed)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        {
            let _lock = self.shared.lock.lock();
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks, so that joining it cannot fail.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn new(turns: Arc<Turns>) -> Shared {
        Shared {
            word: AtomicU64::new(0),
            task: UnsafeCell::new(None),
            tasks: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            until: AtomicU64::new(turn::NEVER),
            turns,
            stop: AtomicBool::new(false),
            asleep: AtomicUsize::new(0),
            caller_asleep: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            done: Condvar::new(),
        }
    }

    /// Opens a job at its task `first`. The caller holds `submit`, and the previous job is closed.
    fn post(&self, first: usize, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        // SAFETY: only the lifetime changes; `close` returns only when no worker can still use the reference.
        let task: *const Task =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static Task>(task) };
        // SAFETY: the previous job is closed with nobody inside, so that nobody reads the cell.
        unsafe { *self.task.get() = Some(task) };
        self.tasks.store(tasks, Ordering::Relaxed);
        self.next.store(first, Ordering::Relaxed);
        let number = (self.word.load(Ordering::Relaxed) & !OPEN).wrapping_add(JOB) & !OPEN;
        self.word.store(number | OPEN, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            let _lock = self.lock.lock();
            self.wake.notify_all();
        }
    }

    /// Lets nobody in any more and waits for those inside.
    fn close(&self) {
        self.word.fetch_and(!OPEN, Ordering::SeqCst);
        for _ in 0..SPINS {
            if self.word.load(Ordering::Acquire) & INSIDE == 0 {
                return;
            }
            std::hint::spin_loop();
        }
        let mut lock = self.lock.lock();
        self.caller_asleep.store(true, Ordering::SeqCst);
        while self.word.load(Ordering::SeqCst) & INSIDE != 0 {
            self.done.wait(&mut lock);
        }
        self.caller_asleep.store(false, Ordering::SeqCst);
    }

    fn take_tasks(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let until = self.until.load(Ordering::Relaxed);
        while !self.turns.is_over(until) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= tasks {
                return;
            }
            task(index);
        }
    }

    /// A worker's life.
    fn work(&self) {
        IN_JOB.set(true);
        let mut last = 0;
        while let Some(word) = self.await_job(last) {
            let joined =
                self.word
                    .compare_exchange(word, word + 1, Ordering::AcqRel, Ordering::Relaxed);
            if joined.is_err() {
                continue;
            }
            last = word & !INSIDE;
            self.take_part();
            let before = self.word.fetch_sub(1, Ordering::SeqCst);
            if before & (OPEN | INSIDE) == 1 && self.caller_asleep.load(Ordering::SeqCst) {
                let _lock = self.lock.lock();
                self.done.notify_all();
            }
        }
    }

    /// This thread's share of the job that it has joined.
    fn take_part(&self) {
        // SAFETY: this worker is inside, so that `close` has not returned: the cell is not written and the closure lives.
        let Some(task) = (unsafe { (*self.task.get()).map(|task| &*task) }) else {
            return;
        };
        let tasks = self.tasks.load(Ordering::Relaxed);
        if catch_unwind(AssertUnwindSafe(|| self.take_tasks(tasks, task))).is_err() {
            self.panicked.store(true, Ordering::Relaxed);
            self.next.store(tasks, Ordering::Relaxed);
        }
    }

    /// The word of an open job other than `last`; none when the pool ends.
    fn await_job(&self, last: u64) -> Option<u64> {
        let look = || {
            let word = self.word.load(Ordering::SeqCst);
            (word & OPEN != 0 && word & !INSIDE != last).then_some(word)
        };
        for _ in 0..SPINS {
            if let Some(word) = look() {
                return Some(word);
            }
            std::hint::spin_loop();
        }
        let mut lock = self.lock.lock();
        self.asleep.fetch_add(1, Ordering::SeqCst);
        let found = loop {
            if self.stop.load(Ordering::SeqCst) {
                break None;
            }
            if let Some(word) = look() {
                break Some(word);
            }
            self.wake.wait(&mut lock);
        };
        self.asleep.fetch_sub(1, Ordering::SeqCst);
        found
    }
}

/// A mutable slice whose disjoint parts are written by the tasks of one job.
#[derive(Clone, Copy)]
pub(crate) struct Shards<'a, T = f32> {
    data: *mut T,
    len: usize,
    _borrow: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: `part` demands disjointness of its callers; then concurrent use is concurrent use of disjoint `&mut [T]`.
unsafe impl<T: Send> Sync for Shards<'_, T> {}
// SAFETY: as for `Sync`.
unsafe impl<T: Send> Send for Shards<'_, T> {}

impl<'a, T> Shards<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Shards {
            data: data.as_mut_ptr(),
            len: data.len(),
            _borrow: std::marker::PhantomData,
        }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// No two live parts overlap, on any threads.
    ///
    /// # Panics
    /// When the range is outside the slice.
    pub(crate) unsafe fn part(&self, range: std::ops::Range<usize>) -> &'a mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "part inside the slice"
        );
        // SAFETY: inside the borrowed slice (asserted); not aliased (the caller's promise).
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }

    /// The elements of `range`, for any number of readers.
    ///
    /// # Safety
    /// No live part overlaps.
    ///
    /// # Panics
    /// When the range is outside the slice.
    pub(crate) unsafe fn shared(&self, range: std::ops::Range<usize>) -> &'a [T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "part inside the slice"
        );
        // SAFETY: inside the borrowed slice (asserted); nobody writes (the caller's promise).
        unsafe { std::slice::from_raw_parts(self.data.add(range.start), range.len()) }
    }

    /// The start of the slice, for kernels that write rows of a column range.
    pub(crate) fn as_mut_ptr(&self) -> *mut T {
        self.data
    }
}

#[cfg(test)]
mod tests;
