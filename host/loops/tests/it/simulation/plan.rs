//! What happens in a run, drawn from its seed before anything happens. Pure; prints itself.

use loops::schedule::Rules;
use rl::Seed;

/// A small generator: the same plan for the same seed, for ever.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64, part: &str) -> Self {
        Self(Seed::new(seed).derive(part).get())
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// It is killed: what it wrote is in the page cache.
    Kill,
    /// The power goes: of what was not synced this seed's part is left.
    Power(u64),
}

/// Whom an operator has forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    User(u8),
    Session(u8, u8),
    /// The turn of this rank among those that were answered, and what follows it.
    Turn(u64),
}

/// An order to the train loop; a number picks a version, as far as there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Revert(u64),
    Promote(u64),
    Name(u64),
    Unname(u64),
    Forget(Whom),
}

/// How the learner fails next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Busy,
    Panic,
    Deploy,
}

/// How a person's request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// The client waits for the reply.
    Plain,
    /// Other things happen meanwhile.
    Late,
    /// The same request twice at once.
    Twice,
    /// The client is gone before there is a reply.
    Lost,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Say {
        user: u8,
        session: u8,
        line: &'static str,
        manner: Manner,
    },
    /// The next request of this session begins a conversation of its own.
    Renew(u8, u8),
    /// A person's word about the turn of this rank.
    Rate {
        turn: u64,
        up: bool,
        corrected: bool,
    },
    /// Whether it is waited for.
    Wish(Wish, bool),
    Trouble(Trouble),
    /// The learner's steps do not end until `Release`.
    Hold,
    Release,
    /// Until nothing is left to do.
    Settle,
    /// The loops get this many turns.
    Pause(u64),
    /// The clock jumps, milliseconds.
    Clock(i64),
    /// The process dies at this operation on the disk.
    DieAt(u64, Death),
    /// This operation on the disk fails: a write, a sync, a rename. The process ends, then this.
    FailAt(u64, Death),
    /// No more than this many further bytes fit.
    Fill(u64),
    Heal,
    /// The process dies now; the next one is killed at this operation while it starts, if it gets so far.
    Die(Death, Option<u64>),
    /// A clean shutdown.
    Stop,
}

pub(super) const USERS: [&str; 3] = ["ann", "bob", "cat"];

const LINES: [&str; 9] = [
    "hi",
    "thank you",
    "great",
    "perfect, nice",
    "That is too long, please cut it.",
    "no, that is wrong",
    "hm",
    "great, exactly",
    "nice",
];

/// The whole of a run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    /// The rules of the first process; the last one's are the ones that hold at the end.
    pub(super) rules: Vec<Rules>,
    pub(super) refuses: u64,
    pub(super) segment_bytes: u64,
    /// Whether reverts and promotions are among the orders.
    pub(super) moves: bool,
    /// Records between checkpoints.
    pub(super) checkpoint: u64,
    pub(super) ops: Vec<Op>,
}

impl Plan {
    pub(super) fn draw(seed: u64, changing: bool) -> Self {
        let mut dice = Dice::new(seed, "plan");
        let batch_size = dice.of(&[1, 2, 2, 2, 3]);
        let max_lag = dice.of(&[0, 1, 2, 4, 100]);
        let mut rules = vec![Rules {
            batch_size,
            max_lag,
        }];
        // Processes that start with other rules than the ones before.
        let mut changes = Dice::new(seed, "rules");
        if changes.one_in(3) || changing {
            for _ in 0..8 {
                rules.push(Rules {
                    batch_size: changes.of(&[1, 2, 3]),
                    max_lag,
                });
            }
        }
        let moves = dice.one_in(2);
        let faults = !dice.one_in(8);
        let refuses = dice.of(&[0, 0, 5]);
        let segment_bytes = dice.of(&[4096, 16 << 10, 256 << 10]);
        let count = 10 + dice.below(50);
        let mut ops = Vec::new();
        while ops.len() < count as usize {
            ops.extend(Op::draw(&mut dice, moves, faults));
        }
        Self {
            seed,
            rules,
            refuses,
            segment_bytes,
            moves,
            // Of dice of its own: a seed's plan stays what it was.
            checkpoint: Dice::new(seed, "checkpoint").of(&[3, 3, 9, 25, 1000]),
            ops,
        }
    }
}

impl Op {
    fn draw(dice: &mut Dice, moves: bool, faults: bool) -> Option<Self> {
        let (user, session) = (dice.below(3) as u8, dice.below(2) as u8);
        let pick = dice.below(1 << 32);
        let waited = !dice.one_in(3);
        Some(match dice.below(100) {
            0..45 => Self::Say {
                user,
                session,
                line: dice.of(&LINES),
                manner: match dice.below(20) {
                    0..4 => Manner::Late,
                    4 => Manner::Twice,
                    5 => Manner::Lost,
                    _ => Manner::Plain,
                },
            },
            45..47 => Self::Renew(user, session),
            47..53 => Self::Rate {
                turn: pick,
                up: dice.one_in(2),
                corrected: dice.one_in(4),
            },
            53..60 if moves => Self::Wish(
                match dice.below(3) {
                    0 => Wish::Promote(pick),
                    _ => Wish::Revert(pick),
                },
                waited,
            ),
            60..63 => Self::Wish(
                match dice.one_in(5) {
                    true => Wish::Unname(pick),
                    false => Wish::Name(pick),
                },
                waited,
            ),
            63..68 => Self::Wish(
                Wish::Forget(match dice.below(4) {
                    0 => Whom::User(user),
                    1 => Whom::Session(user, session),
                    _ => Whom::Turn(pick),
                }),
                waited,
            ),
            68..71 => Self::Trouble(dice.of(&[Trouble::Busy, Trouble::Panic, Trouble::Deploy])),
            71..74 => Self::Hold,
            74..77 => Self::Release,
            77..84 => Self::Settle,
            84..88 => Self::Pause(dice.below(40)),
            88 => Self::Clock(dice.of(&[-86_400_000, -1, 1, 1 << 40])),
            89 => Self::Stop,
            _ if !faults => return None,
            90..93 => Self::Die(Death::draw(dice), dice.one_in(4).then(|| dice.below(30))),
            93..95 => Self::DieAt(dice.below(25), Death::draw(dice)),
            95..97 => Self::FailAt(dice.below(25), Death::draw(dice)),
            97 => Self::Fill(dice.below(20_000)),
            98 => Self::Heal,
            _ => return None,
        })
    }
}

impl Death {
    fn draw(dice: &mut Dice) -> Self {
        match dice.one_in(2) {
            true => Self::Kill,
            // 0 loses all that was not synced, 1 nothing, the others any part of it.
            false => Self::Power(dice.below(1 << 16)),
        }
    }
}
