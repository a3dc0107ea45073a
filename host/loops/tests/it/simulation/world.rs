//! One run: the host and its disk, the people, the operator, and what happens to them all.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Instant,
};

use ledger::{
    Ledger, Options, Seq,
    disk::{Fault, Simulated},
    lineage::{Lineage, RefKind, RefRecord},
};
use loops::{
    Config, Line,
    forget::Selector,
    orders::Order,
    records::{self, CLOSED, ClosedRecord, Closing, JUDGED, TURN, TurnRecord},
    schedule::Rules,
    status::LoopState,
};
use parking_lot::Mutex;
use rl::{Feedback, Message, PolicyVersion, Rating, Seed, TurnId, TurnRequest, TurnSink};
use tokio::{task::JoinSet, time::Duration};

use super::{
    DIR, Mode, alone, check,
    judge::Moody,
    memory::{Asked, Memory, Request, Sent},
    plan::{Death, Manner, Op, Plan, Trouble, USERS, Whom, Wish},
};
use crate::rig::{Arithmetic, Failure, Plugins, Rig, Settings, config, request, served};

/// Real time that the loops may take for something that nothing stands in the way of.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
const LOOKS: u32 = 500;
/// After so long without it, in the runtime's time, something is given up that may never come.
const GIVEN_UP: Duration = Duration::from_secs(20 * 60);
/// The runtime's clock jumps whenever it has nothing to do, also when only the ledger's thread has: not further than this.
const TICK: Duration = Duration::from_millis(500);

pub(super) type Shared = Arc<Mutex<Memory>>;

/// A conversation as its client knows it.
#[derive(Clone, Debug, Default)]
struct Talk {
    session: String,
    messages: Vec<Message>,
    last: Option<TurnId>,
}

/// A process.
struct Life {
    rig: Rig,
    tasks: JoinSet<()>,
}

impl Drop for Life {
    fn drop(&mut self) {
        // Whoever waits behind it would keep the runtime from ending.
        self.rig.policy.step_door.open();
    }
}

/// A run.
pub(super) struct World {
    plan: Plan,
    memory: Shared,
    disk: Simulated,
    life: Option<Life>,
    clock: Arc<AtomicI64>,
    talks: Arc<Mutex<BTreeMap<(u8, u8), Talk>>>,
    /// What comes after the fault that is armed, and when it strikes.
    armed: Option<(u64, Death)>,
    killed_at: Arc<AtomicU64>,
    lives: usize,
    serial: u64,
}

fn say(memory: &Shared, what: String) {
    let mut memory = memory.lock();
    if super::loud() {
        println!("{what}");
    }
    memory.trace.push(what);
}

/// Waits for something that may never come.
/// How long something is waited for that must come: on the machine's own clock, but by looking often, too, so that a machine that
/// stood still for a while is no failure.
struct Patience {
    start: Instant,
    looks: u32,
}

impl Patience {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            looks: 0,
        }
    }

    /// Whether to look once more.
    fn lasts(&mut self) -> bool {
        self.looks += 1;
        self.start.elapsed() < PATIENCE || self.looks < LOOKS
    }
}

async fn patiently<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(GIVEN_UP, future).await.ok()
}

/// Keeps the clock from jumping far.
async fn tick() {
    loop {
        tokio::time::sleep(TICK).await;
        std::thread::yield_now();
    }
}

impl World {
    pub(super) fn new(plan: Plan, memory: Shared) -> Self {
        Self {
            plan,
            memory,
            disk: Simulated::new(),
            life: None,
            clock: Arc::new(AtomicI64::new(1_700_000_000_000)),
            talks: Arc::default(),
            armed: None,
            killed_at: Arc::new(AtomicU64::new(u64::MAX)),
            lives: 0,
            serial: 0,
        }
    }

    /// Everything that the plan says, then the end.
    pub(super) async fn run(mut self, mode: Mode) {
        let ticking = tokio::spawn(tick());
        self.start(None).await;
        for (number, op) in self.plan.ops.clone().into_iter().enumerate() {
            say(&self.memory, format!("{number}: {op:?}"));
            self.act(op).await;
            if self.is_over() {
                let (_, death) = self.armed.take().unwrap_or((0, Death::Kill));
                self.memory.lock().count("processes ended by a fault");
                self.die(death).await;
                self.start(None).await;
            }
        }
        say(&self.memory, "the end".to_owned());
        match mode {
            Mode::Safety => self.die(Death::Power(self.plan.seed)).await,
            Mode::Liveness => self.heal().await,
        }
        ticking.abort();
    }

    fn rules(&self) -> Rules {
        self.plan.rules[self.lives.saturating_sub(1) % self.plan.rules.len()]
    }

    fn config(&self) -> Config {
        let mut config = config();
        let rules = self.rules();
        (config.train.batch_size, config.train.max_lag) = (rules.batch_size, rules.max_lag);
        config.seed = Seed::new(self.plan.seed);
        config.checkpoint.every = self.plan.checkpoint;
        config
    }

    fn open(&self, disk: &Simulated) -> ledger::Result<Ledger> {
        let clock = self.clock.clone();
        let options = Options {
            clock: Arc::new(move || clock.load(Ordering::Relaxed)),
            segment_bytes: self.plan.segment_bytes,
            disk: Arc::new(disk.clone()),
            ..Options::default()
        };
        Ledger::open(DIR, options)
    }

    /// A process starts on what is on the disk; it may be killed at an operation on the way.
    async fn start(&mut self, killed_at: Option<u64>) {
        if let Some(at) = killed_at {
            self.disk.arm(Some(Fault::Kill(at)));
            drop(self.open(&self.disk));
            self.disk = self.disk.crash(at);
            self.memory.lock().count("kills while opening");
        }
        let ledger = match self.open(&self.disk) {
            Err(error) if error.is_retryable() => {
                self.disk.limit(None);
                self.open(&self.disk)
            }
            opened => opened,
        };
        let ledger = ledger.unwrap_or_else(|e| panic!("the ledger does not open: {e:?}"));
        self.lives += 1;
        let plugins = Plugins {
            judge: Arc::new(Moody),
            ..Plugins::default()
        };
        let settings = Settings {
            refuses: self.plan.refuses,
            ..Settings::default()
        };
        let rig = Rig::on(ledger, self.config(), plugins, settings).unwrap();
        self.life = Some(Life {
            rig,
            tasks: JoinSet::new(),
        });
        self.memory.lock().count("processes");
    }

    fn life(&self) -> &Life {
        self.life.as_ref().unwrap()
    }

    fn pulse(&self) -> Pulse {
        Pulse {
            disk: self.disk.clone(),
            killed_at: self.killed_at.clone(),
        }
    }

    /// Whether the process can only end: its ledger accepts nothing any more.
    fn is_over(&self) -> bool {
        let struck = self
            .armed
            .is_some_and(|(at, _)| self.disk.operations() > at);
        struck || self.life().rig.ledger.health().is_err()
    }

    /// The process is gone; the disk is what is left of it, and is checked.
    async fn die(&mut self, death: Death) {
        // In this order: nothing is told to anybody between the two.
        self.remember_live();
        let left = match death {
            Death::Kill => self.disk.process_kill(),
            Death::Power(seed) => self.disk.crash(seed),
        };
        self.end_life(left, &format!("{death:?}")).await;
    }

    async fn end_life(&mut self, left: Simulated, how: &str) {
        self.armed = None;
        if let Some(mut life) = self.life.take() {
            life.tasks.abort_all();
            life.rig.policy.step_door.open();
            life.tasks.shutdown().await;
            life.rig.end_running().await;
        }
        self.disk = left;
        self.killed_at = Arc::new(AtomicU64::new(u64::MAX));
        self.check(how);
    }

    fn remember_live(&self) {
        let life = self.life();
        let live = life.rig.witness.lock().live.clone();
        self.memory.lock().live.extend(live);
    }

    /// Looks at a copy of the disk, as a process would find it that starts now.
    fn check(&self, how: &str) {
        say(&self.memory, format!("check after {how}"));
        let copy = self.disk.process_kill();
        copy.limit(None);
        let ledger = self
            .open(&copy)
            .unwrap_or_else(|e| panic!("the ledger does not open after {how}: {e:?}"));
        check::check(&copy, &ledger, &self.memory.lock(), self.plan.rules[0]);
        let (whole, cut) = check::checkpoints(&ledger);
        let mut memory = self.memory.lock();
        for (what, count) in [("checkpoints", whole), ("checkpoints cut off", cut)] {
            *memory.counts.entry(what.to_owned()).or_default() += count;
        }
    }

    async fn act(&mut self, op: Op) {
        let name = format!("{op:?}");
        let name = name.split(['(', ' ']).next().unwrap_or_default().to_owned();
        self.memory.lock().count(&name);
        match op {
            Op::Say {
                user,
                session,
                line,
                manner,
            } => self.talk(user, session, line, manner).await,
            Op::Renew(user, session) => {
                self.talks.lock().remove(&(user, session));
            }
            Op::Rate {
                turn,
                up,
                corrected,
            } => self.rate(turn, up, corrected).await,
            Op::Wish(wish, waited) => self.wish(wish, waited).await,
            Op::Trouble(trouble) => self.life().rig.witness.lock().fail.push(match trouble {
                Trouble::Busy => Failure::NotNow,
                Trouble::Panic => Failure::Panic,
                Trouble::Deploy => Failure::Deploy,
            }),
            Op::Hold => self.life().rig.policy.step_door.shut(),
            Op::Release => self.life().rig.policy.step_door.open(),
            Op::Settle => self.settle().await,
            Op::Pause(turns) => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            }
            Op::Clock(by) => {
                self.clock.fetch_add(by, Ordering::Relaxed);
            }
            Op::DieAt(at, death) => {
                self.killed_at.store(u64::MAX, Ordering::Relaxed);
                self.disk.arm(Some(Fault::Kill(at)));
                self.killed_at.store(at, Ordering::Relaxed);
                self.armed = Some((at, death));
            }
            Op::FailAt(at, death) => {
                self.killed_at.store(u64::MAX, Ordering::Relaxed);
                self.disk.arm(Some(Fault::Error(at)));
                self.armed = Some((at, death));
            }
            Op::Fill(more) => self.disk.limit(Some(self.disk.used() + more)),
            Op::Heal => self.disk.limit(None),
            Op::Die(death, killed_at) => {
                self.die(death).await;
                self.start(killed_at).await;
            }
            Op::Stop => self.stop().await,
        }
    }

    /// A clean shutdown and a start.
    async fn stop(&mut self) {
        self.life().rig.policy.step_door.open();
        if let Some(life) = &mut self.life {
            patiently(async { while life.tasks.join_next().await.is_some() {} }).await;
        }
        if self.is_over() {
            return;
        }
        let stopped = patiently(self.life.as_mut().unwrap().rig.stop_running()).await;
        let stopped = stopped.unwrap_or_else(|| panic!("the loops do not stop"));
        if self.is_over() {
            return;
        }
        stopped.unwrap_or_else(|error| panic!("the loops failed at a stop: {error}"));
        self.remember_live();
        // What the ledger writes when it is closed is written before the next process starts.
        let disk = self.disk.clone();
        self.end_life(disk, "a stop").await;
        self.disk = self.disk.process_kill();
        self.start(None).await;
    }

    async fn talk(&mut self, user: u8, session: u8, line: &str, manner: Manner) {
        let serial = self.serial;
        self.serial += 1;
        let talk = {
            let mut talks = self.talks.lock();
            let talk = talks.entry((user, session)).or_default();
            if talk.session.is_empty() {
                talk.session = format!("{}-{session}-{serial}", USERS[usize::from(user)]);
            }
            talk.clone()
        };
        let rig = &self.life().rig;
        let one = |reply: u64| Turned {
            sink: rig.sink(),
            policy: rig.policy.clone(),
            memory: self.memory.clone(),
            talks: self.talks.clone(),
            place: (user, session),
            text: format!("{line} zq<{}>{serial}", talk.session),
            reply: format!("re {line} zq<{}>{serial}/{reply}", talk.session),
            talk: talk.clone(),
            lost: manner == Manner::Lost,
            pulse: self.pulse(),
        };
        match manner {
            Manner::Plain | Manner::Lost => one(0).run().await,
            Manner::Twice => drop(tokio::join!(one(0).run(), one(1).run())),
            Manner::Late => {
                let turned = one(0);
                if let Some(life) = &mut self.life {
                    life.tasks.spawn(turned.run());
                }
            }
        }
    }

    async fn rate(&mut self, turn: u64, up: bool, corrected: bool) {
        let memory = self.memory.clone();
        let (feedback, at) = {
            let mut memory = memory.lock();
            if memory.answered.is_empty() {
                return;
            }
            let turn = &memory.answered[turn as usize % memory.answered.len()];
            let session = &memory.turns[turn].session;
            let feedback = Feedback {
                tenant: "tenant".into(),
                turn: turn.clone(),
                rating: Some(if up { Rating::Up } else { Rating::Down }),
                correction: corrected.then(|| format!("say it shorter zq<{session}>")),
            };
            memory.feedback.push((feedback.clone(), false));
            (feedback, memory.feedback.len() - 1)
        };
        let sink = self.life().rig.sink();
        if sink.feedback(feedback).await.is_ok() {
            memory.lock().feedback[at].1 = true;
        }
    }

    async fn wish(&mut self, wish: Wish, waited: bool) {
        let Some((what, order)) = self.order(wish) else {
            return;
        };
        if matches!(what, Request::Forget(_)) && waited {
            self.life().rig.policy.step_door.open();
        }
        let why = format!("wish {}", self.memory.lock().asked.len());
        let order = match order {
            Order::Revert { to, .. } => Order::Revert {
                to,
                why: why.clone(),
            },
            Order::Promote { from, .. } => Order::Promote {
                from,
                why: why.clone(),
            },
            other => other,
        };
        let at = {
            let mut memory = self.memory.lock();
            let known = memory.answered.iter().cloned().collect();
            memory.asked.push(Asked {
                what,
                why,
                done: None,
                known,
            });
            memory.asked.len() - 1
        };
        let (memory, control) = (
            self.memory.clone(),
            self.life().rig.handle.control().clone(),
        );
        let (told, heard) = tokio::sync::oneshot::channel::<()>();
        let given = async move {
            let done = control.give(order, |_, _, _| {}).await;
            let heard = match &done {
                Ok(_) => "obeyed".to_owned(),
                Err(error) => format!("refused: {error}"),
            };
            say(&memory, format!("wish {at} {heard}"));
            let mut memory = memory.lock();
            memory.count(&format!(
                "{} {}",
                ["refused", "obeyed"][usize::from(done.is_ok())],
                match wish {
                    Wish::Revert(_) => "revert",
                    Wish::Promote(_) => "promote",
                    Wish::Name(_) | Wish::Unname(_) => "name",
                    Wish::Forget(_) => "forget",
                }
            ));
            memory.asked[at].done = done.ok();
            drop(told);
        };
        if let Some(life) = &mut self.life {
            life.tasks.spawn(given);
        }
        if waited {
            patiently(heard).await;
        }
    }

    /// What an operator sees and can ask for.
    fn order(&self, wish: Wish) -> Option<(Request, Order)> {
        let lineage = Lineage::read(&self.life().rig.ledger).ok()?;
        let newest = lineage.newest("main").map_or(0, |v| v.version);
        let version = |pick: u64| pick % (newest + 1);
        let why = String::new();
        Some(match wish {
            Wish::Revert(pick) => {
                let to = PolicyVersion::new(version(pick));
                (Request::Revert(to.get()), Order::Revert { to, why })
            }
            Wish::Promote(pick) => {
                let from = PolicyVersion::new(version(pick));
                (Request::Promote(from.get()), Order::Promote { from, why })
            }
            Wish::Name(pick) | Wish::Unname(pick) => {
                let given = matches!(wish, Wish::Name(_)) && newest > 0;
                let name = RefRecord {
                    name: format!("name-{}", pick % 3),
                    kind: RefKind::Branch,
                    adapter: "main".into(),
                    version: given.then(|| 1 + pick % newest.max(1)),
                };
                (Request::Name(name.clone()), Order::Name(name))
            }
            Wish::Forget(whom) => {
                let whom = match whom {
                    Whom::User(user) => Selector::User {
                        tenant: None,
                        user: USERS[usize::from(user)].into(),
                    },
                    Whom::Session(user, session) => Selector::Session {
                        tenant: Some("tenant".into()),
                        session: self
                            .talks
                            .lock()
                            .get(&(user, session))
                            .map(|talk| talk.session.as_str().into())?,
                    },
                    Whom::Turn(turn) => {
                        let memory = self.memory.lock();
                        let count = memory.answered.len().max(1);
                        let turn = memory.answered.get(turn as usize % count)?;
                        Selector::Sample(format!("sample-{turn}").as_str().into())
                    }
                };
                (Request::Forget(whom.clone()), Order::Forget(whom))
            }
        })
    }

    /// Until nothing is left to do, if that ever comes.
    async fn settle(&mut self) {
        let rules = self.rules();
        let Some(life) = &mut self.life else { return };
        life.rig.policy.step_door.open();
        patiently(async { while life.tasks.join_next().await.is_some() {} }).await;
        let idle = patiently(life.rig.until(|s| is_idle(s, rules))).await;
        if idle.is_some() && !self.is_over() {
            self.head_answers().await;
        }
    }

    /// What answers is what the ledger says: at once, or when the step that is being published is.
    async fn head_answers(&self) {
        let (life, mut patience) = (self.life(), Patience::new());
        loop {
            let lineage = match Lineage::read(&life.rig.ledger) {
                // The disk was struck since somebody looked.
                Err(_) if self.is_over() => return,
                lineage => lineage.unwrap(),
            };
            let head = lineage.heads().last().map_or(0, |head| head.version);
            let live = life.rig.handle.status().live.get();
            let answers = life.rig.policy.live.load(Ordering::SeqCst);
            if (live, answers) == (head, head) {
                break;
            }
            if self.is_over() {
                return;
            }
            assert!(
                patience.lasts(),
                "the ledger says v{head}, the status v{live}, and v{answers} answers"
            );
            tokio::time::sleep(TICK).await;
        }
        self.memory.lock().count("heads compared");
    }

    /// Nothing fails any more: everything that is due is done, and the loops go on.
    async fn heal(&mut self) {
        self.killed_at.store(u64::MAX, Ordering::Relaxed);
        self.disk.arm(None);
        self.disk.limit(None);
        self.armed = None;
        self.life().rig.witness.lock().fail.clear();
        self.settle().await;
        if self.is_over() {
            self.die(Death::Kill).await;
            self.start(None).await;
        }
        let mut patience = Patience::new();
        // The ledger looks for space again when some time has passed on the machine's own clock.
        while self.life().rig.ledger.room().is_err() {
            assert!(patience.lasts(), "there is space, and no room");
            tokio::time::sleep(TICK).await;
        }
        self.everything_is_done().await;
        self.head_answers().await;
        self.a_new_version_comes().await;
        self.everything_is_done().await;
        self.head_answers().await;
        self.is_what_would_have_been();
        let stopped = patiently(self.life.as_mut().unwrap().rig.stop_running()).await;
        stopped
            .unwrap_or_else(|| panic!("the loops do not stop"))
            .unwrap();
        self.remember_live();
        let disk = self.disk.clone();
        self.end_life(disk, "the end").await;
    }

    /// A turn whose next state came, and that nobody has judged.
    fn unjudged(&self) -> Option<String> {
        let ledger = &self.life().rig.ledger;
        let subjects = |kind: &str| -> HashSet<String> {
            let all = ledger.by_kind(kind, Seq::FIRST).map(Result::unwrap);
            all.filter(|r| !r.erased).map(|r| r.subject).collect()
        };
        let judged = subjects(JUDGED);
        let turns = ledger.by_kind(TURN, Seq::FIRST).map(Result::unwrap);
        let trainable: HashSet<String> = turns
            .filter(|r| !r.erased)
            .filter(|r| {
                let turn: TurnRecord = records::decode(r).unwrap();
                turn.not_trainable.is_none()
            })
            .map(|r| r.subject)
            .collect();
        for closed in ledger.by_kind(CLOSED, Seq::FIRST).map(Result::unwrap) {
            if closed.erased || !trainable.contains(&closed.subject) {
                continue;
            }
            let record: ClosedRecord = records::decode(&closed).unwrap();
            if matches!(record.closing, Closing::Next(_)) && !judged.contains(&closed.subject) {
                return Some(closed.subject);
            }
        }
        None
    }

    /// Everything is judged, no batch waits, nor a request to forget, for whoever reads the ledger anew; and the gauges say so.
    async fn everything_is_done(&self) {
        let (mut patience, ledger) = (Patience::new(), &self.life().rig.ledger);
        loop {
            let mut line = Line::read(ledger.clone(), "main".into(), self.rules()).unwrap();
            line.pull().unwrap();
            let due = line.due();
            let status = self.life().rig.handle.status();
            let well = status.loops.values().all(|s| *s == LoopState::Running);
            let answers = status.live == line.version();
            let unjudged = self.unjudged();
            let nothing = due.is_none() && line.forgetting().is_none() && unjudged.is_none();
            let depth = |name: &str| status.queues[name].depth;
            let gauges = (depth("judge"), depth("train")) == (0, line.waiting() as u64);
            if nothing && well && answers && gauges {
                return;
            }
            assert!(
                patience.lasts(),
                "nothing fails, and this is left: {due:?}, {:?}, {unjudged:?}: {status:#?}\nthe ledger ends with:\n{}",
                line.forgetting(),
                self.tail()
            );
            tokio::time::sleep(TICK).await;
        }
    }

    /// The last records, for whoever looks for what went wrong.
    fn tail(&self) -> String {
        let all = self.life().rig.ledger.scan(Seq::FIRST);
        let all: Vec<_> = all.map(Result::unwrap).collect();
        let last = all[all.len().saturating_sub(24)..].iter();
        let lines = last.map(|r| {
            let body = String::from_utf8_lossy(&r.body);
            let body: String = body.chars().take(400).collect();
            format!(
                "  {} {} {} erased {} {body}\n",
                r.seq, r.kind, r.subject, r.erased
            )
        });
        lines.collect()
    }

    /// Somebody who comes now is answered and learned from.
    async fn a_new_version_comes(&mut self) {
        let before = self.life().rig.handle.status().version;
        for _ in 0..60 {
            let answered = self.memory.lock().answered.len();
            self.talk(0, 7, "great", Manner::Plain).await;
            assert_eq!(
                self.memory.lock().answered.len(),
                answered + 1,
                "nothing fails, and a turn was not answered"
            );
            self.everything_is_done().await;
            if self.life().rig.handle.status().version > before {
                return;
            }
        }
        panic!("60 good turns, and no new version after {before}");
    }

    /// The weights are those of a world in which the forgotten never were.
    fn is_what_would_have_been(&self) {
        if self.plan.moves || self.plan.rules.len() > 1 {
            return;
        }
        let ledger = &self.life().rig.ledger;
        let line = Line::read(ledger.clone(), "main".into(), self.rules()).unwrap();
        let forgotten: HashSet<TurnId> = line.forgotten().iter().cloned().collect();
        let blob = line.head().and_then(|v| v.adapter_blob);
        let adapter = blob.map(|blob| ledger.get_blob(&blob).unwrap());
        assert_eq!(
            adapter,
            alone::train(ledger, self.rules(), &forgotten),
            "what answers is not what training alone gives"
        );
        let mut memory = self.memory.lock();
        memory.count(match forgotten.is_empty() {
            true => "compared with training alone",
            false => "compared with a world without the forgotten",
        });
    }
}

fn is_idle(status: &loops::Status, rules: Rules) -> bool {
    let running = |state: &LoopState| *state == LoopState::Running;
    status.loops.values().all(running)
        && status.queues["judge"].depth == 0
        && status.queues["train"].depth < rules.batch_size as u64
        && status.live == status.version
}

/// Whether the process was killed: of one that is gone nobody hears anything, whatever its threads still do.
struct Pulse {
    disk: Simulated,
    killed_at: Arc<AtomicU64>,
}

impl Pulse {
    fn is_gone(&self) -> bool {
        self.disk.operations() > self.killed_at.load(Ordering::Relaxed)
    }
}

/// One request of one client.
struct Turned {
    sink: Arc<dyn TurnSink>,
    policy: Arithmetic,
    memory: Shared,
    talks: Arc<Mutex<BTreeMap<(u8, u8), Talk>>>,
    place: (u8, u8),
    talk: Talk,
    text: String,
    reply: String,
    lost: bool,
    pulse: Pulse,
}

impl Turned {
    async fn run(self) {
        let mut messages = self.talk.messages.clone();
        messages.push(Message::user(self.text.clone()));
        let user = USERS[usize::from(self.place.0)].to_owned();
        let begin = TurnRequest {
            user: Some(user.clone()),
            ..request(&self.talk.session, messages.clone())
        };
        {
            let mut memory = self.memory.lock();
            let said = memory.said.entry(self.talk.session.clone()).or_default();
            said.insert(self.text.clone());
        }
        let begun = self.sink.begin(begin).await;
        if self.pulse.is_gone() {
            return;
        }
        let ticket = match begun {
            Ok(ticket) => ticket,
            Err(error) => {
                say(&self.memory, format!("{:?} refused: {error}", self.text));
                self.memory.lock().count("turns refused");
                return;
            }
        };
        let turn = ticket.turn.clone();
        {
            let mut memory = self.memory.lock();
            let sent = Sent {
                user,
                session: self.talk.session.clone(),
                after: self.talk.last.clone(),
                messages: messages.clone(),
                reply: self.reply.clone(),
                finished: !self.lost,
                answered: false,
            };
            // A turn's name never comes again.
            let before = memory.turns.insert(turn.clone(), sent);
            assert!(
                before.is_none_or(|before| !before.answered),
                "{turn} was answered already"
            );
            memory.closed.extend(self.talk.last.clone());
        }
        if self.lost {
            return;
        }
        let reply = Message::assistant(self.reply.clone());
        let served = served(reply.clone(), &self.policy);
        let finished = self.sink.finish(ticket, served).await;
        if let Err(error) = finished {
            say(&self.memory, format!("{turn} refused: {error}"));
            self.memory.lock().count("replies refused");
            return;
        }
        say(&self.memory, format!("{turn} answers {:?}", self.text));
        let mut memory = self.memory.lock();
        memory.count("turns answered");
        memory.answered.push(turn.clone());
        if let Some(sent) = memory.turns.get_mut(&turn) {
            sent.answered = true;
        }
        drop(memory);
        messages.push(reply);
        let mut talks = self.talks.lock();
        if let Some(talk) = talks.get_mut(&self.place)
            && talk.session == self.talk.session
        {
            (talk.messages, talk.last) = (messages, Some(turn));
        }
    }
}
