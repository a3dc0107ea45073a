//! Threads that are kept for the next job: a call is short, and starting a thread takes as long.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crossbeam_channel::{Receiver, Sender, unbounded};

type Job = Box<dyn FnOnce() + Send>;

/// Runs every job at once, on an idle thread or a new one.
pub(crate) struct Threads {
    jobs: Sender<Job>,
    waiting: Receiver<Job>,
    /// Threads that wait and are not yet promised to a job.
    idle: Arc<AtomicUsize>,
    started: AtomicUsize,
    most: usize,
}

impl Threads {
    pub(crate) fn new(most: usize) -> Self {
        let (jobs, waiting) = unbounded();
        Self {
            jobs,
            waiting,
            idle: Arc::default(),
            started: AtomicUsize::new(0),
            most,
        }
    }

    /// Gives the job to a thread. Its panics end that thread only.
    pub(crate) fn run(&self, job: Job) -> io::Result<()> {
        // A thread is promised before the job is sent: counted when it takes the job, two jobs could be sent to one thread.
        let promised = self
            .idle
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |idle| {
                idle.checked_sub(1)
            });
        if promised.is_ok() {
            let sent = self.jobs.send(job);
            return sent.map_err(|_| io::ErrorKind::BrokenPipe.into());
        }
        if self.started.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.started.fetch_sub(1, Ordering::Relaxed);
            return Err(io::Error::other(format!(
                "{} calls are under way at once",
                self.most
            )));
        }
        let (waiting, idle) = (self.waiting.clone(), Arc::clone(&self.idle));
        let work = move || {
            job();
            idle.fetch_add(1, Ordering::AcqRel);
            while let Ok(job) = waiting.recv() {
                job();
                idle.fetch_add(1, Ordering::AcqRel);
            }
        };
        let thread = thread::Builder::new()
            .name("worker-call".into())
            .spawn(work);
        if thread.is_err() {
            self.started.fetch_sub(1, Ordering::Relaxed);
        }
        thread.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn jobs_that_wait_for_each_other_all_run_and_threads_are_used_again() {
        let threads = Threads::new(4);
        for _ in 0..50 {
            let meet = Arc::new(Barrier::new(5));
            for _ in 0..4 {
                let meet = Arc::clone(&meet);
                // A thread is idle a moment after its last job met the others.
                let job = || -> Job {
                    let meet = Arc::clone(&meet);
                    Box::new(move || {
                        meet.wait();
                    })
                };
                while threads.run(job()).is_err() {
                    thread::yield_now();
                }
            }
            meet.wait();
        }
        assert_eq!(threads.started.load(Ordering::Relaxed), 4);
    }
}
