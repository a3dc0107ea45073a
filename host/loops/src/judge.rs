//! The judge loop: a turn whose next state came gets its votes, verdict, hints and teacher log-probs, and becomes a sample
//! or a stated reason why not.
//!
//! Everything is recorded, the absent votes included: missing is not zero. It writes no prompt (the judge plugin does),
//! decides no reward (the reward rule does) and knows no algorithm (`rl::algorithm` does). It only reads what serve
//! recorded, so a judge that hangs or fails slows nobody.
//! Start at `Judging::run`; one turn is `judging.rs`, the questions about it are `asking.rs`.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use ledger::Ledger;
use parking_lot::Mutex;
use rl::{
    Answer, Feedback, Judge, JudgePrompt, Policy, RewardRule, Seed, TurnId,
    algorithm::{Method, Settings},
};
use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::Duration};

use crate::{
    Error, Result, Shutdown,
    call::GivenUp,
    judging::{Decided, Turnwise},
    paying::Purse,
    praise::Praise,
    queue::Tail,
    records::{self, CLOSED, ClosedRecord, Closing, FEEDBACK},
    recovery::Places,
    status::Board,
    watch::Watch,
};

/// Records read ahead: turn ids only are kept of them.
const READ_AHEAD: usize = 64;
/// Most votes and most questions for a hint: each costs a run of the model.
const MOST_ASKED: u32 = 31;

/// Which weights the teacher has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TeacherWeights {
    /// The policy that is being trained, as in the paper.
    #[default]
    Policy,
    /// The base model, as in the reference code.
    Base,
}

/// `[loops.judge]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Votes asked for each turn; the reward rule makes a verdict of those that are present.
    pub votes: u32,
    /// How often the judge is asked for a hint.
    pub hint_asks: u32,
    /// Accepted hints that are kept, shortest first.
    pub max_hints: usize,
    /// A vote, a hint or a teacher's score that takes longer is absent.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Turns judged, and calls made, at once.
    pub concurrency: usize,
    /// Which weights the teacher has.
    pub teacher: TeacherWeights,
    /// Whether a reward rule may decide or pay the opposite of what the votes and people said. One that does so by mistake trains
    /// the opposite of what they want, so it is refused.
    pub contrary_rewards: bool,
    /// Whether hosted attempts at one task that all had the same outcome are left out of training (dynamic sampling), whatever
    /// their turns were like.
    pub drop_equal_groups: bool,
    /// Whether the praise of somebody who praises nearly everything, among others who do not, counts less and less.
    pub fade_praise: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            votes: 3,
            hint_asks: 3,
            max_hints: 3,
            timeout: Duration::from_secs(120),
            concurrency: 2,
            teacher: TeacherWeights::Policy,
            contrary_rewards: false,
            drop_equal_groups: false,
            fade_praise: true,
        }
    }
}

impl Config {
    pub(crate) fn validate(&self) -> Result<()> {
        let check = |good: bool, key, value: String, allowed| {
            if good {
                Ok(())
            } else {
                Err(Error::Config {
                    key,
                    value,
                    allowed,
                })
            }
        };
        let votes = (1..=MOST_ASKED).contains(&self.votes);
        check(
            votes,
            "votes",
            self.votes.to_string(),
            "1 to 31 are allowed",
        )?;
        let asks = (1..=MOST_ASKED).contains(&self.hint_asks);
        check(
            asks,
            "hint-asks",
            self.hint_asks.to_string(),
            "1 to 31 are allowed",
        )?;
        let hints = (1..=3).contains(&self.max_hints);
        check(
            hints,
            "max-hints",
            self.max_hints.to_string(),
            "1 to 3 are allowed",
        )?;
        let slots = (1..=1024).contains(&self.concurrency);
        check(
            slots,
            "concurrency",
            self.concurrency.to_string(),
            "1 to 1024 are allowed",
        )?;
        let time = !self.timeout.is_zero();
        check(
            time,
            "timeout",
            format!("{:?}", self.timeout),
            "it must be above 0",
        )
    }
}

/// `[algorithm]`
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Algorithm {
    /// Verdict, hint, or both.
    pub method: Method,
    /// The method's numbers.
    pub settings: Settings,
}

/// Answers one prompt of a judge plugin with the base weights, exactly as the loop does: for commands that measure a judge.
/// Blocks; has no time limit.
///
/// # Errors
/// What the policy ran into, or a prompt that allows no answer.
pub fn answer(policy: &dyn Policy, prompt: JudgePrompt, seed: Seed) -> rl::Result<Answer> {
    crate::asking::answer(policy, prompt, seed, &GivenUp::default())
}

/// What judging needs, shared by all turns.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) algorithm: Algorithm,
    pub(crate) seed: Seed,
    pub(crate) ledger: Ledger,
    pub(crate) judge: Arc<dyn Judge>,
    pub(crate) rule: Arc<dyn RewardRule>,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) watch: Watch,
    pub(crate) board: Board,
    /// What every speaker's praise is worth.
    pub(crate) praise: Arc<Mutex<Praise>>,
}

/// The gauge shows what a judge that reads on from these places finds.
pub(crate) fn expects(board: &Board, places: &Places) {
    let next = [(CLOSED, places.closed), (FEEDBACK, places.feedback)];
    board.judge.reset(places.to_judge.iter().copied(), &next);
}

/// The loop.
pub(crate) struct Judging {
    turnwise: Turnwise,
    /// Hosted groups that wait to be paid.
    purse: Purse,
    concurrency: usize,
    board: Board,
    closed: Tail,
    feedback: Tail,
    /// Turns to be judged, in the order in which they were closed.
    waiting: VecDeque<TurnId>,
    busy: HashSet<TurnId>,
    /// Turns that got feedback while they were being judged.
    again: HashSet<TurnId>,
}

enum Event {
    Judged(TurnId, Result<Option<Box<Decided>>>),
    Rung,
    Stop,
}

impl Judging {
    pub(crate) fn new(parts: Parts, places: &Places) -> Self {
        let ledger = parts.ledger.clone();
        expects(&parts.board, places);
        let (concurrency, board) = (parts.config.concurrency, parts.board.clone());
        let turnwise = Turnwise::new(parts);
        Self {
            concurrency,
            board,
            closed: Tail::new(ledger.clone(), "judge", CLOSED, places.closed),
            feedback: Tail::new(ledger, "judge", FEEDBACK, places.feedback),
            purse: Purse::new(turnwise.clone()),
            turnwise,
            waiting: VecDeque::new(),
            busy: HashSet::new(),
            again: HashSet::new(),
        }
    }

    /// Judges until the shutdown. What is being judged then is judged anew at the next start.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<()> {
        let mut tasks = JoinSet::new();
        loop {
            self.read().await?;
            self.purse.read().await?;
            self.purse.pay(&self.busy).await?;
            self.start(&mut tasks);
            self.tell();
            let event = tokio::select! {
                () = shutdown.wait() => Event::Stop,
                Some(done) = tasks.join_next() => match done {
                    Ok((turn, result)) => Event::Judged(turn, result),
                    Err(_) => return Err(Error::Panicked { what: "judging a turn".to_owned() }),
                },
                () = self.board.judge.rung() => Event::Rung,
            };
            match event {
                Event::Stop => return Ok(()),
                Event::Rung => {}
                Event::Judged(turn, decided) => {
                    // Here and not in its task: a panic of another turn's ends all tasks, and what is recorded must be told.
                    if let Some(decided) = decided? {
                        self.turnwise.record(decided).await?;
                    }
                    self.busy.remove(&turn);
                    self.purse.judged(&turn);
                    if self.again.remove(&turn) {
                        self.waiting.push_front(turn);
                    }
                }
            }
        }
    }

    /// Reads on when everything that was read is under way.
    async fn read(&mut self) -> Result<()> {
        // Feedback first: a person outranks the judge, and waits.
        while self.waiting.len() < READ_AHEAD {
            let records = self.feedback.take(READ_AHEAD).await?;
            if records.is_empty() {
                break;
            }
            for record in &records {
                // What is forgotten has no body any more; whoever looks at the turn finds nothing to do.
                let turn = match record.erased {
                    true => TurnId::new(record.subject.clone()),
                    false => records::decode::<Feedback>(record)?.turn,
                };
                self.waiting.push_back(turn);
            }
        }
        while self.waiting.len() < READ_AHEAD {
            let records = self.closed.take(READ_AHEAD).await?;
            if records.is_empty() {
                break;
            }
            for record in &records {
                if record.erased {
                    self.waiting.push_back(TurnId::new(record.subject.clone()));
                    continue;
                }
                let closed: ClosedRecord = records::decode(record)?;
                if let Closing::Next(_) = closed.closing {
                    self.waiting.push_back(closed.turn);
                }
            }
        }
        Ok(())
    }

    /// What is read and not done.
    fn tell(&self) {
        let count = self.waiting.len() + self.busy.len() + self.again.len();
        let places = [self.closed.place(), self.feedback.place()];
        self.board.judge.taken(&places, count);
    }

    fn start(&mut self, tasks: &mut JoinSet<(TurnId, Result<Option<Box<Decided>>>)>) {
        while tasks.len() < self.concurrency {
            let Some(turn) = self.waiting.pop_front() else {
                return;
            };
            if !self.busy.insert(turn.clone()) {
                self.again.insert(turn);
                continue;
            }
            let turnwise = self.turnwise.of_this_moment();
            tasks.spawn(async move {
                let result = turnwise.judge(&turn).await;
                (turn, result)
            });
        }
    }
}
