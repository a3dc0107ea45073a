//! The bounded admission queue: where requests wait, who goes first, and how they are told that they may not.
//!
//! Users go before loops; among users the tenant with the fewest running sequences goes first, then whoever came
//! first. A place is reserved before anything about a request is recorded, so that a full queue costs nothing. Shared
//! between handles and the engine's thread; computes nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rl::{ScoreRequest, TenantId};
use tokio::sync::{mpsc, oneshot};

use super::job::{Event, Priority, Refusal, SampleJob};

/// Limits of the queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) waiting: usize,
    pub(crate) waiting_per_tenant: usize,
    pub(crate) max_wait: Duration,
}

/// What a queued job asks for, and where its answer goes.
#[derive(Debug)]
pub(crate) enum Work {
    Sample {
        job: SampleJob,
        events: mpsc::UnboundedSender<Event>,
    },
    Score {
        request: ScoreRequest,
        answer: oneshot::Sender<Result<Vec<Vec<f32>>, Refusal>>,
    },
}

impl Work {
    pub(crate) fn is_abandoned(&self) -> bool {
        match self {
            Self::Sample { events, .. } => events.is_closed(),
            Self::Score { answer, .. } => answer.is_closed(),
        }
    }

    pub(crate) fn refuse(self, refusal: Refusal) {
        // Whoever is gone needs no answer.
        match self {
            Self::Sample { events, .. } => drop(events.send(Event::Failed(refusal))),
            Self::Score { answer, .. } => drop(answer.send(Err(refusal))),
        }
    }
}

/// A job in the queue.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) permit: Permit,
    pub(crate) work: Work,
    pub(crate) submitted: Instant,
}

/// Whether a job can begin.
#[derive(Debug)]
pub(crate) enum Fit<T> {
    /// It can, with this.
    Now(T),
    /// There is no room for its keys and values.
    NoRoom,
    /// Running replies hold as many versions as may be, and its version is another one.
    NoPlace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// What waits is still served; nothing new comes in.
    Draining,
    /// Nothing is served any more.
    Closed,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    why_closed: String,
    /// What was computed before must not be reused.
    forget: bool,
    /// Places taken: permits that have not left the queue.
    taken: usize,
    by_tenant: HashMap<TenantId, usize>,
    users: VecDeque<Entry>,
    loops: VecDeque<Entry>,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: Limits,
    state: Mutex<State>,
    changed: Condvar,
}

/// A place in the queue. Dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    queue: Arc<Queue>,
    priority: Priority,
    tenant: TenantId,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.taken = state.taken.saturating_sub(1);
        if let Some(count) = state.by_tenant.get_mut(&self.tenant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                state.by_tenant.remove(&self.tenant);
            }
        }
    }
}

impl Permit {
    /// Who waits.
    pub(crate) fn priority(&self) -> Priority {
        self.priority
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Whose request it is.
    pub(crate) fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Puts the work into the queue, or refuses it when the queue closed in the meantime.
    pub(crate) fn enqueue(self, work: Work) {
        let queue = Arc::clone(&self.queue);
        let mut state = queue.state.lock();
        if state.phase == Phase::Closed {
            let why = state.why_closed.clone();
            drop(state);
            work.refuse(Refusal::Stopped { why });
            return;
        }
        let entry = Entry {
            permit: self,
            work,
            submitted: Instant::now(),
        };
        match entry.permit.priority {
            Priority::User => state.users.push_back(entry),
            Priority::Loop => state.loops.push_back(entry),
        }
        drop(state);
        queue.changed.notify_one();
    }
}

impl Queue {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::new(State {
                phase: Phase::Open,
                why_closed: "it is not running".into(),
                forget: false,
                taken: 0,
                by_tenant: HashMap::new(),
                users: VecDeque::new(),
                loops: VecDeque::new(),
            }),
            changed: Condvar::new(),
        })
    }

    /// Reserves a place.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        priority: Priority,
        tenant: &TenantId,
    ) -> Result<Permit, Refusal> {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Open => {}
            Phase::Draining => return Err(Refusal::Draining),
            Phase::Closed => {
                return Err(Refusal::Stopped {
                    why: state.why_closed.clone(),
                });
            }
        }
        if state.taken >= self.limits.waiting {
            return Err(Refusal::QueueFull {
                waiting: state.taken,
            });
        }
        let own = state.by_tenant.get(tenant).copied().unwrap_or(0);
        if own >= self.limits.waiting_per_tenant {
            return Err(Refusal::TenantFull {
                tenant: tenant.clone(),
                waiting: own,
            });
        }
        state.taken += 1;
        state.by_tenant.insert(tenant.clone(), own + 1);
        Ok(Permit {
            queue: Arc::clone(self),
            priority,
            tenant: tenant.clone(),
        })
    }

    /// Places taken.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().taken
    }

    /// Refuses what waited too long and forgets what nobody waits for; gives how many were forgotten.
    pub(crate) fn tidy(&self) -> usize {
        let now = Instant::now();
        let limit = self.limits.max_wait;
        let mut gone = Vec::new();
        let mut state = self.state.lock();
        let State { users, loops, .. } = &mut *state;
        for lane in [users, loops] {
            let mut index = 0;
            while let Some(entry) = lane.get(index) {
                let late = now.duration_since(entry.submitted) > limit;
                if late || entry.work.is_abandoned() {
                    gone.extend(lane.remove(index));
                } else {
                    index += 1;
                }
            }
        }
        drop(state);
        // Outside of the lock: dropping a permit takes it.
        let mut forgotten = 0;
        for Entry { permit, work, .. } in gone {
            drop(permit);
            if work.is_abandoned() {
                forgotten += 1;
            } else {
                work.refuse(Refusal::WaitedTooLong {
                    seconds: limit.as_secs(),
                });
            }
        }
        forgotten
    }

    /// The next job that can begin, with what it begins with: users first, then loops when `loops_allowed`.
    ///
    /// The best job for which there is no room blocks the others: a large request is not passed over for ever. One whose version finds no
    /// place is passed over: it waits for replies that run already, and nobody who begins meanwhile makes their number larger.
    pub(crate) fn pop<T>(
        &self,
        running: impl Fn(&TenantId) -> usize,
        loops_allowed: bool,
        mut fits: impl FnMut(&Entry) -> Fit<T>,
    ) -> Option<(Entry, T)> {
        let mut state = self.state.lock();
        let State { users, loops, .. } = &mut *state;
        let running = |(index, entry): (usize, &Entry)| (running(&entry.permit.tenant), index);
        let mut order: Vec<_> = users.iter().enumerate().map(running).collect();
        order.sort_unstable();
        match first(users, order.into_iter().map(|(_, index)| index), &mut fits) {
            Fit::Now((index, with)) => return Some((users.remove(index)?, with)),
            Fit::NoRoom => return None,
            Fit::NoPlace if !loops_allowed => return None,
            Fit::NoPlace => {}
        }
        match first(loops, 0..loops.len(), &mut fits) {
            Fit::Now((index, with)) => Some((loops.remove(index)?, with)),
            Fit::NoRoom | Fit::NoPlace => None,
        }
    }

    /// Blocks until there is a job, or nothing more will come. False when the thread should end.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.forget || !(state.users.is_empty() && state.loops.is_empty()) {
                return state.phase != Phase::Closed;
            }
            if state.phase != Phase::Open {
                return false;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Asks the engine's thread to throw away what it keeps for reuse.
    pub(crate) fn forget(&self) {
        self.state.lock().forget = true;
        self.changed.notify_all();
    }

    /// Whether it was asked to, since the last time it looked.
    pub(crate) fn take_forget(&self) -> bool {
        std::mem::take(&mut self.state.lock().forget)
    }

    /// Whether live sequences must be cut off.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().phase == Phase::Closed
    }

    /// Lets nothing new in.
    pub(crate) fn drain(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Draining;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Lets nothing in and refuses what waits.
    pub(crate) fn close(&self, why: &str) {
        let mut state = self.state.lock();
        if state.phase != Phase::Closed {
            state.phase = Phase::Closed;
            why.clone_into(&mut state.why_closed);
        }
        let State { users, loops, .. } = &mut *state;
        let left: Vec<Entry> = users.drain(..).chain(loops.drain(..)).collect();
        drop(state);
        self.changed.notify_all();
        for Entry { permit, work, .. } in left {
            drop(permit);
            work.refuse(Refusal::Stopped {
                why: why.to_owned(),
            });
        }
    }

    /// Why nothing is served any more.
    pub(crate) fn why_closed(&self) -> String {
        self.state.lock().why_closed.clone()
    }
}

/// The first of a lane, in this order, that can begin, or for which there is no room.
fn first<T>(
    lane: &VecDeque<Entry>,
    order: impl Iterator<Item = usize>,
    fits: &mut impl FnMut(&Entry) -> Fit<T>,
) -> Fit<(usize, T)> {
    for index in order {
        match lane.get(index).map(&mut *fits) {
            Some(Fit::Now(with)) => return Fit::Now((index, with)),
            Some(Fit::NoRoom) => return Fit::NoRoom,
            Some(Fit::NoPlace) | None => {}
        }
    }
    Fit::NoPlace
}

#[cfg(test)]
mod tests {
    use super::*;
    use rl::{Sampling, Weights};

    fn queue(waiting: usize, per_tenant: usize) -> Arc<Queue> {
        let max_wait = Duration::from_secs(60);
        Queue::new(Limits {
            waiting,
            waiting_per_tenant: per_tenant,
            max_wait,
        })
    }

    fn put(queue: &Arc<Queue>, priority: Priority, tenant: &str) -> mpsc::UnboundedReceiver<Event> {
        let (events, seen) = mpsc::unbounded_channel();
        let job = SampleJob {
            weights: Weights::Base,
            bucket: policy::NO_BUCKET,
            prompt: vec![1],
            sampling: Sampling::default(),
            top_logprobs: 0,
        };
        let permit = queue.reserve(priority, &tenant.into()).unwrap();
        permit.enqueue(Work::Sample { job, events });
        seen
    }

    fn pop(queue: &Queue, running: &[(&str, usize)]) -> Option<(String, Priority)> {
        let count = |tenant: &TenantId| {
            running
                .iter()
                .find(|(name, _)| *name == tenant.as_str())
                .map_or(0, |(_, n)| *n)
        };
        let (entry, ()) = queue.pop(count, true, |_| Fit::Now(()))?;
        Some((entry.permit.tenant().to_string(), entry.permit.priority()))
    }

    #[test]
    fn users_go_before_loops_and_the_least_served_tenant_first() {
        let queue = queue(8, 8);
        let _seen = [
            put(&queue, Priority::Loop, "host"),
            put(&queue, Priority::User, "busy"),
            put(&queue, Priority::User, "quiet"),
        ];
        assert_eq!(
            pop(&queue, &[("busy", 1)]).unwrap(),
            ("quiet".into(), Priority::User)
        );
        assert_eq!(
            pop(&queue, &[("busy", 2)]).unwrap(),
            ("busy".into(), Priority::User)
        );
        assert_eq!(pop(&queue, &[]).unwrap(), ("host".into(), Priority::Loop));
        assert!(pop(&queue, &[]).is_none());
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn a_job_whose_version_finds_no_place_is_passed_over_and_one_without_room_is_not() {
        let queue = queue(8, 8);
        let _seen = [
            put(&queue, Priority::User, "placeless"),
            put(&queue, Priority::User, "large"),
            put(&queue, Priority::User, "small"),
            put(&queue, Priority::Loop, "gate"),
            put(&queue, Priority::Loop, "judge"),
        ];
        let next = |placeless: &[&str], large: &str| {
            let popped = queue.pop(
                |_| 0,
                true,
                |entry| match entry.permit.tenant().as_str() {
                    tenant if placeless.contains(&tenant) => Fit::NoPlace,
                    tenant if tenant == large => Fit::NoRoom,
                    _ => Fit::Now(()),
                },
            );
            popped.map(|(entry, ())| entry.permit.tenant().to_string())
        };
        assert_eq!(next(&["placeless"], "large"), None);
        assert_eq!(next(&["placeless"], "").unwrap(), "large");
        assert_eq!(next(&["placeless"], "gate").unwrap(), "small");
        // The loops' own work does not wait for a user who waits for a version, nor does a vote for the gate.
        assert_eq!(next(&["placeless"], "gate"), None);
        assert_eq!(next(&["placeless", "gate"], "").unwrap(), "judge");
        assert_eq!(next(&[], "").unwrap(), "placeless");
        assert_eq!(next(&[], "").unwrap(), "gate");
    }

    #[test]
    fn a_full_queue_and_a_greedy_tenant_are_told_apart() {
        let queue = queue(3, 2);
        let first = queue.reserve(Priority::User, &"a".into()).unwrap();
        let _second = queue.reserve(Priority::User, &"a".into()).unwrap();
        let refusal = queue.reserve(Priority::User, &"a".into()).unwrap_err();
        assert!(matches!(refusal, Refusal::TenantFull { waiting: 2, .. }));
        let _third = queue.reserve(Priority::User, &"b".into()).unwrap();
        let refusal = queue.reserve(Priority::User, &"c".into()).unwrap_err();
        assert_eq!(refusal, Refusal::QueueFull { waiting: 3 });
        drop(first);
        assert!(queue.reserve(Priority::User, &"a".into()).is_ok());
    }

    #[test]
    fn an_abandoned_job_leaves_the_queue_and_a_late_one_is_told_to_retry() {
        let limits = Limits {
            waiting: 4,
            waiting_per_tenant: 4,
            max_wait: Duration::ZERO,
        };
        let queue = Queue::new(limits);
        drop(put(&queue, Priority::User, "gone"));
        let mut late = put(&queue, Priority::User, "late");
        assert_eq!(queue.tidy(), 1);
        assert_eq!(
            late.try_recv().unwrap(),
            Event::Failed(Refusal::WaitedTooLong { seconds: 0 })
        );
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn a_draining_queue_serves_what_waits_and_a_closed_one_refuses_it() {
        let queue = queue(4, 4);
        let mut waiting = put(&queue, Priority::User, "a");
        queue.drain();
        assert_eq!(
            queue.reserve(Priority::User, &"b".into()).unwrap_err(),
            Refusal::Draining
        );
        assert!(queue.wait());
        queue.close("a test said so");
        assert!(matches!(
            waiting.try_recv().unwrap(),
            Event::Failed(Refusal::Stopped { .. })
        ));
        assert!(!queue.wait());
    }
}
