//! The disasters: what each breaks, and what must be true afterwards.

use std::sync::Arc;

use app::host::Loaded;
use ledger::Seq;

use crate::colluder;
use crate::findings::{self, Facts, Report, Stopper};
use crate::seams::{self, Changing, NanRule, Stopwatch, Switch, Tamper, Tampered};
use crate::stage::{Around, Plan, Stage};

/// Messages of one more round of conversations, and how many rounds are waited for a stop.
const ROUND: usize = 2;
const MORE: usize = 20;

/// How a disaster is made.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The host is started again with a thousand times the learning rate; without the gate, if so.
    LearningRate { gate: bool },
    /// Numbers that are none, in the learner.
    Nan,
    /// A reward that is no number, from a guest or from a native rule.
    NanReward { guest: bool },
    /// A guest whose rewards or verdicts say the opposite.
    Inverted(&'static str),
    /// A user who praises everything.
    Colluder,
    /// A rare token that is praised; without the gate, if so.
    Attractor { gate: bool },
}

/// One disaster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disaster {
    pub(crate) name: &'static str,
    what: &'static str,
    kind: Kind,
    /// Who may stop it.
    by: &'static [Stopper],
}

/// Every disaster.
pub(crate) const ALL: [Disaster; 10] = [
    Disaster {
        name: "lr-x1000",
        what: "the learning rate is multiplied by 1000",
        kind: Kind::LearningRate { gate: true },
        by: &[Stopper::Gate, Stopper::Step],
    },
    Disaster {
        name: "lr-x1000-ungated",
        what: "the same, and the gate is switched off",
        kind: Kind::LearningRate { gate: false },
        by: &[Stopper::Guard],
    },
    Disaster {
        name: "nan",
        what: "a NaN in a sample, a gradient, a weight, a metric",
        kind: Kind::Nan,
        by: &[Stopper::Step],
    },
    Disaster {
        name: "nan-reward-guest",
        what: "a reward plugin answers NaN",
        kind: Kind::NanReward { guest: true },
        by: &[Stopper::Reward],
    },
    Disaster {
        name: "nan-reward-native",
        what: "a native reward rule answers NaN",
        kind: Kind::NanReward { guest: false },
        by: &[Stopper::Reward],
    },
    Disaster {
        name: "inverted-reward",
        what: "a reward plugin pays for the opposite of the verdict",
        kind: Kind::Inverted("invert-rewards"),
        by: &[Stopper::Reward, Stopper::Gate, Stopper::Guard],
    },
    Disaster {
        name: "inverted-verdict",
        what: "a reward plugin says the opposite of the votes",
        kind: Kind::Inverted("invert-verdicts"),
        by: &[Stopper::Reward, Stopper::Gate, Stopper::Guard],
    },
    Disaster {
        name: "colluder",
        what: "a user praises everything, with as many replies as all others",
        kind: Kind::Colluder,
        by: &[],
    },
    Disaster {
        name: "attractor",
        what: "a rare token is praised in every sample",
        kind: Kind::Attractor { gate: true },
        by: &[Stopper::Gate, Stopper::Guard],
    },
    Disaster {
        name: "attractor-ungated",
        what: "the same, and the gate is switched off",
        kind: Kind::Attractor { gate: false },
        by: &[Stopper::Guard],
    },
];

/// What is put around the seams of a disaster.
fn around(kind: Kind, switch: &Switch, stopwatch: &Stopwatch) -> anyhow::Result<Around> {
    let after = match kind {
        Kind::NanReward { guest: true } => Some(seams::faulty("nan")?),
        Kind::NanReward { guest: false } => Some(Arc::new(NanRule) as Arc<dyn rl::RewardRule>),
        Kind::Inverted(abuse) => Some(seams::faulty(abuse)?),
        _ => None,
    };
    let (switch, stopwatch) = (switch.clone(), stopwatch.clone());
    Ok(Arc::new(move |mut seams: loops::Seams| {
        if let Some(after) = &after {
            seams.rule = Arc::new(Changing {
                before: seams.rule,
                after: Arc::clone(after),
                switch: switch.clone(),
            });
        }
        let tamper: Tamper = match kind {
            Kind::Nan => seams::nans(),
            Kind::Attractor { .. } => seams::attractor(Arc::clone(&seams.policy), "main".into()),
            _ => seams::honest(),
        };
        seams.trained.learner = Box::new(Tampered {
            inner: seams.trained.learner,
            switch: switch.clone(),
            stopwatch: stopwatch.clone(),
            tamper,
        });
        seams
    }))
}

/// Plays a disaster from a fresh folder to its report.
pub(crate) async fn run(
    disaster: &Disaster,
    plan: &Plan,
    loaded: Loaded,
) -> anyhow::Result<Report> {
    let folder = tempfile::tempdir()?;
    let (switch, stopwatch) = (Switch::default(), Stopwatch::default());
    let mut config = plan.config(folder.path())?;
    if let Kind::Attractor { gate } | Kind::LearningRate { gate } = disaster.kind {
        config.loops.gate.enabled = gate;
    }
    let around = around(disaster.kind, &switch, &stopwatch)?;
    let mut stage = Stage::begin(plan, config, loaded, around).await?;
    stage.talk(plan.from).await?;
    stage.drain().await?;
    let before = stage.exam().await?;

    if let Kind::LearningRate { .. } = disaster.kind {
        stage = stage.restart(|config| config.train.lr *= 1000.0).await?;
    }
    let (since, at_ms): (Seq, i64) = (stage.host.ledger().durable().next(), seams::now_ms());
    switch.turn_on();
    let read = |stage: &Stage| Facts::read(stage.host.ledger(), since, at_ms, &stopwatch);
    match disaster.kind {
        Kind::Colluder => colluder::talk(&mut stage, plan).await?,
        _ => stage.talk(plan.interactions).await?,
    }
    stage.drain().await?;
    // What has not come out yet goes on. When it is stopped, nobody says a word more before the exam.
    for _ in 0..MORE {
        if disaster.by.is_empty() || read(&stage)?.has_stopped(disaster.by) {
            break;
        }
        stage.talk(ROUND).await?;
        if !read(&stage)?.has_stopped(disaster.by) {
            stage.drain().await?;
        }
    }
    let after = stage.exam().await?;
    let facts = read(&stage)?;
    let replies = stage.replies();
    stage.host.stop().await?;
    let report = Report::new(disaster.name, disaster.what, (before, after), facts);
    Ok(findings::judge(report, disaster.by, &replies))
}
