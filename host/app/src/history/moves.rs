//! What moves the line: given as orders to a live host's train loop, or done here when the folder is ours.
//!
//! Both are the same operations of [`loops::Line`]; only who runs them differs. Nothing here decides what a version becomes.

use std::ops::ControlFlow;
use std::sync::mpsc;

use anyhow::Context as _;
use loops::line::Line;
use loops::orders::{Done, Order};
use loops::records::RunRecord;
use loops::{forget, replay};
use rl::{AdapterName, PolicyVersion};

use super::response::{Forgotten, Moved, Plan, Progress, Replay, ReplayedStep, Tell};
use super::workbench::{Control, Workbench};
use super::{Selector, names};
use crate::training;

/// Why a version is there, in its record: somebody asked for it.
const BY_HAND: &str = "an operator";

/// The line as the ledger has it now.
pub(crate) fn line(bench: &Workbench) -> anyhow::Result<Line> {
    let config = &bench.config().loops;
    let ledger = bench.ledger()?.clone();
    Ok(Line::read(
        ledger,
        config.adapter.clone(),
        config.train.rules(),
    )?)
}

pub(crate) fn revert(
    bench: &Workbench,
    version: &str,
    progress: &mut Tell<'_>,
) -> anyhow::Result<Moved> {
    let to = bench.point(&bench.lineage()?, version)?.number();
    let order = Order::Revert {
        to: PolicyVersion::new(to),
        why: format!("revert: {BY_HAND}"),
    };
    moved(give(bench, order, progress)?, None)
}

pub(crate) fn promote(
    bench: &Workbench,
    version: &str,
    progress: &mut Tell<'_>,
) -> anyhow::Result<Moved> {
    let lineage = bench.lineage()?;
    let record = bench.version(&lineage, version)?;
    let live = lineage.live(bench.adapter_name());
    anyhow::ensure!(
        live.is_none_or(|live| live.version != record.version),
        "v{} answers already",
        record.version
    );
    let order = Order::Promote {
        from: PolicyVersion::new(record.version),
        why: format!("promote: {BY_HAND}"),
    };
    moved(give(bench, order, progress)?, None)
}

/// An adapter from outside becomes a version; then it may get a branch, and go live.
pub(crate) fn import(
    bench: &Workbench,
    weights: loops::line::Imported,
    (branch, live): (Option<&str>, bool),
    progress: &mut Tell<'_>,
) -> anyhow::Result<Moved> {
    let done = give(bench, Order::Import(Box::new(weights)), progress)?;
    let imported = moved(done, None)?;
    let number = imported.record.version.to_string();
    if let Some(branch) = branch {
        names::set(bench, ledger::lineage::RefKind::Branch, branch, &number)?;
    }
    let result = if live {
        promote(bench, &number, progress)?
    } else {
        Moved {
            live: false,
            ..imported
        }
    };
    Ok(Moved {
        branch: branch.map(str::to_owned),
        ..result
    })
}

fn moved(done: Done, branch: Option<String>) -> anyhow::Result<Moved> {
    match done {
        Done::Version(record) => Ok(Moved {
            record: *record,
            live: true,
            branch,
        }),
        other => anyhow::bail!("the train loop answered {other:?} to an order for a version"),
    }
}

/// Gives an order and waits until it is obeyed.
pub(crate) fn give(
    bench: &Workbench,
    order: Order,
    progress: &mut Tell<'_>,
) -> anyhow::Result<Done> {
    match bench.control() {
        Control::Live { control, runtime } => {
            let (sender, heard) = mpsc::channel();
            let control = control.clone();
            let (told, end) = (sender.clone(), sender);
            // The order is obeyed whether or not anybody waits for it; this thread only passes on what is heard.
            runtime.spawn(async move {
                let tell = move |what: &str, done, total| {
                    let _ = told.send(Heard::Progress(said(what, done, total)));
                };
                let _ = end.send(Heard::End(Box::new(control.give(order, tell).await)));
            });
            for heard in heard {
                match heard {
                    // Whether anybody hears it or not.
                    Heard::Progress(heard) => drop(progress(heard)),
                    Heard::End(done) => return Ok((*done)?),
                }
            }
            anyhow::bail!(
                "the host stopped before it had obeyed; what was begun goes on when it starts again"
            )
        }
        Control::Offline => obey(bench, order, progress),
    }
}

enum Heard {
    Progress(Progress),
    End(Box<loops::Result<Done>>),
}

fn said(what: &str, done: u64, total: u64) -> Progress {
    Progress {
        what: what.to_owned(),
        done,
        total,
    }
}

/// Obeys an order on a folder that nobody else has open.
fn obey(bench: &Workbench, order: Order, progress: &mut Tell<'_>) -> anyhow::Result<Done> {
    let mut line = line(bench)?;
    if line.forgetting().is_some() && !matches!(order, Order::Forget(_)) {
        // What was interrupted comes first: until it is over the line is between two states.
        finish_forgetting(bench, &mut line, progress)?;
    }
    Ok(match order {
        Order::Revert { to, why } => Done::Version(Box::new(line.revert(to, &why)?)),
        Order::Promote { from, why } => Done::Version(Box::new(line.promote(from, &why)?)),
        Order::Import(weights) => Done::Version(Box::new(line.import(*weights)?)),
        Order::Name(name) => {
            line.name(name)?;
            Done::Named
        }
        Order::Trip(_) | Order::EndTrial(_) => {
            anyhow::bail!("{order:?} is a guard's order: on a folder nobody is served")
        }
        Order::Forget(selector) => {
            let before = match line.forgetting() {
                Some(_) => Some(finish_forgetting(bench, &mut line, progress)?),
                None => None,
            };
            let forgotten = match (forget::begin(&mut line, &selector), before) {
                (Ok(()), _) => finish_forgetting(bench, &mut line, progress)?,
                // The same request, interrupted and finished just now.
                (Err(loops::Error::NothingToForget), Some(before)) => before,
                (Err(error), _) => return Err(error.into()),
            };
            let data = bench.data();
            crate::manifest::write(data, bench.ledger()?, &forgotten.request, &forgotten.record)?;
            Done::Forgotten(Box::new(forgotten))
        }
    })
}

fn finish_forgetting(
    bench: &Workbench,
    line: &mut Line,
    progress: &mut Tell<'_>,
) -> anyhow::Result<forget::Forgotten> {
    begin_run(bench, line)?;
    let make = training::bench(bench.loaded()?, line.adapter());
    let gate = &bench.config().loops.gate;
    relayed(progress, |tell| {
        let tell = |what: &str, done, total| {
            // Forgetting is never broken off.
            let _ = tell(what, done, total);
        };
        Ok(forget::finish(line, &make, gate, &tell)?)
    })
}

/// Ledgers of the first programs do not say by which settings they were trained: this host's, then.
fn begin_run(bench: &Workbench, line: &mut Line) -> anyhow::Result<()> {
    if line.run().is_some() {
        return Ok(());
    }
    let config = bench.config();
    line.begin_run(RunRecord {
        adapter: line.adapter().to_string(),
        model: config.model.name.clone(),
        seed: config.loops.seed,
        rules: config.loops.train.rules(),
        learner: config.train.to_json(),
        through: ledger::Seq::ZERO,
    })?;
    Ok(())
}

/// Runs `work` on a thread of its own and passes on what it says. It is told to break off when nobody waits for it any more, which it may not do.
fn relayed<T: Send>(
    progress: &mut Tell<'_>,
    work: impl FnOnce(&(dyn Fn(&str, u64, u64) -> ControlFlow<()> + Send + Sync)) -> anyhow::Result<T>
    + Send,
) -> anyhow::Result<T> {
    let (sender, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let tell = move |what: &str, done, total| match sender.send(said(what, done, total)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            };
            work(&tell)
        });
        // What ends this closes the channel, which tells the worker.
        let _ = heard.into_iter().try_for_each(progress);
        match worker.join() {
            Ok(result) => result,
            Err(_) => anyhow::bail!("the computation panicked; see standard error"),
        }
    })
}

impl From<&Selector> for forget::Selector {
    fn from(selector: &Selector) -> Self {
        let tenant = |tenant: &Option<String>| tenant.as_deref().map(Into::into);
        match selector {
            Selector::User { user, tenant: of } => Self::User {
                tenant: tenant(of),
                user: user.clone(),
            },
            Selector::Session {
                session,
                tenant: of,
            } => Self::Session {
                tenant: tenant(of),
                session: session.as_str().into(),
            },
            Selector::Sample(sample) => Self::Sample(sample.as_str().into()),
            Selector::Tenant(tenant) => Self::Tenant(tenant.as_str().into()),
        }
    }
}

pub(crate) fn plan(bench: &Workbench, selector: &Selector) -> anyhow::Result<Plan> {
    let plan = forget::plan(&line(bench)?, &selector.into())?;
    Ok(Plan {
        turns: plan.turns.len(),
        episodes: plan.subjects.len(),
        trained: plan.trained,
        versions: plan.versions.iter().map(|v| v.get()).collect(),
        steps: plan.steps,
        seconds: plan.seconds,
    })
}

pub(crate) fn forget(
    bench: &Workbench,
    selector: &Selector,
    progress: &mut Tell<'_>,
) -> anyhow::Result<Forgotten> {
    let done = give(bench, Order::Forget(selector.into()), progress)?;
    let Done::Forgotten(forgotten) = done else {
        anyhow::bail!("the train loop answered {done:?} to an order to forget");
    };
    let forget::Forgotten {
        request,
        record,
        keys,
        blobs,
    } = *forgotten;
    Ok(Forgotten {
        id: request.id,
        commitment: request.commitment,
        turns: request.turns.len(),
        keys,
        blobs,
        before: record.before.get(),
        after: record.after.get(),
        erased: record.erased.iter().map(|v| v.get()).collect(),
        computed: record.computed,
    })
}

pub(crate) fn replay(
    bench: &Workbench,
    to: Option<&str>,
    progress: &mut Tell<'_>,
) -> anyhow::Result<Replay> {
    let to = to
        .map(|to| bench.version(&bench.lineage()?, to))
        .transpose()?;
    let options = replay::Options {
        to: to.map(|record| PolicyVersion::new(record.version)),
        gate: bench.config().loops.gate.clone(),
        ..replay::Options::default()
    };
    let replayed = replayed(bench, options, progress)?;
    let over = replayed.steps.iter().filter(|step| !step.pending);
    let steps = over.map(|step| ReplayedStep {
        version: step.version.map(PolicyVersion::get),
        samples: step.samples.len(),
        adapter: step.adapter,
        optimizer: step.optimizer,
    });
    Ok(Replay {
        steps: steps.collect(),
        refused: replayed.refused,
        exact: replayed.is_exact(),
    })
}

/// Training run again, as `options` say.
pub(crate) fn replayed(
    bench: &Workbench,
    options: replay::Options,
    progress: &mut Tell<'_>,
) -> anyhow::Result<replay::Replayed> {
    let line = line(bench)?;
    anyhow::ensure!(
        line.run().is_some(),
        "the ledger does not say by which settings it was trained: it is of an older program; \
         a host that is started on it records them"
    );
    let adapter: AdapterName = bench.adapter_name().into();
    let make = training::bench(bench.loaded()?, &adapter);
    relayed(progress, |tell| {
        replay::replay(&line, &make, options, tell).context("failed to replay")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_told_that_nobody_waits_and_what_it_gives_is_given_all_the_same() {
        let mut gone = |_| anyhow::bail!("gone");
        let steps = relayed(&mut gone, |tell| {
            let steps = 0..1_000_000_u64;
            let told = |step: &u64| tell("steps", *step, 0).is_continue();
            Ok(steps.take_while(told).count())
        });
        assert!(steps.unwrap() < 1_000_000);
    }
}
