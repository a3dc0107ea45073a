//! The points, one run for each, and the report.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::check::check;
use crate::host::{Ended, Host, Stop};
use crate::scenario::{self, Act, act, acts, prepare};
use crate::strace::{self, Fault, Place};

/// A run may take another way than the recorded one; it gets so many chances to come by the planned call.
const TRIES: usize = 3;
/// A host that stops by itself does it within this time.
const STOPS: Duration = Duration::from_secs(10);
/// A process that was killed, or that ends at once, is gone within this time.
const SOON: Duration = Duration::from_millis(300);
const SIGKILL: i32 = 9;

/// One run at a time: the calls of two hosts that compete for the processor come in other orders.
static ONE: Mutex<()> = Mutex::new(());

/// Acts of which a test run that does not try all tries some calls.
const OFTEN: [&str; 5] = ["first start", "talk", "train", "forget", "go on forgetting"];

fn all() -> bool {
    std::env::var("NEXTSTATE_CRASH").is_ok_and(|what| what == "all")
}

/// The calls of an act.
struct Recorded {
    act: Act,
    places: Vec<Place>,
    hidden: Vec<strace::Call>,
}

fn recorded() -> &'static Vec<Recorded> {
    static RECORDED: OnceLock<Vec<Recorded>> = OnceLock::new();
    let wanted = |act: &Act| match std::env::var("NEXTSTATE_CRASH_ACT") {
        Ok(only) => act.name == only,
        Err(_) => all() || OFTEN.contains(&act.name),
    };
    RECORDED.get_or_init(|| acts().into_iter().filter(wanted).map(record).collect())
}

fn record(act: Act) -> Recorded {
    let mut prepared = prepare(&act);
    let (played, host) = act.play(&mut prepared, None);
    let host = host.unwrap_or_else(|ended| panic!("{}: {ended:?}", act.name));
    assert!(played.is_ok(), "{}: {played:?}: {}", act.name, host.said());
    let pid = host.pid();
    host.kill();
    let calls = strace::calls(&prepared.folder.log(), pid);
    let found = strace::places(&calls, &prepared.folder.data());
    // The next run's folder has another name.
    let data = prepared.folder.data().display().to_string();
    let mut places = found.places;
    for place in &mut places {
        place.path = place.path.replace(&data, "{data}");
    }
    Recorded {
        act,
        places,
        hidden: found.hidden,
    }
}

/// Space goes away and comes back under a running host.
pub(crate) fn run_full() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut prepared = prepare(&act("talk more"));
    let mut wrong = scenario::run_full(&mut prepared);
    wrong.extend(check(&prepared.folder, &mut prepared.told));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// How a run went.
#[derive(Debug)]
enum Went {
    /// The planned call was not made.
    Missed,
    /// It was; with what is wrong.
    Met(Vec<String>),
}

/// Runs the points of a fault: all of them, or about `some`.
pub(crate) fn run(fault: Fault, some: usize) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let began = Instant::now();
    let all = all() || std::env::var_os("NEXTSTATE_CRASH_ACT").is_some();
    let points: Vec<(&Act, &Place)> = recorded()
        .iter()
        .flat_map(|recorded| recorded.places.iter().map(|place| (&recorded.act, place)))
        .filter(|(_, place)| fault.concerns(&place.call))
        .collect();
    let stride = if all { 1 } else { points.len().div_ceil(some) };
    let mut table: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (act, place) in points.iter().copied().step_by(stride) {
        let went = (0..TRIES)
            .map(|_| one(act, place, fault))
            .find(|went| matches!(went, Went::Met(_)));
        let row = table.entry(place.call.as_str()).or_default();
        let name = format!(
            "{fault:?} in `{}` at {} {} of {}",
            act.name, place.call, place.nth, place.path
        );
        match went {
            Some(Went::Met(found)) => {
                row[0] += 1;
                eprintln!("{name}: {}", verdict(&found));
                wrong.extend(found.into_iter().map(|what| format!("{name}: {what}")));
            }
            _ => {
                row[1] += 1;
                eprintln!("{name}: not reached");
            }
        }
    }
    let hidden = hidden(fault, all);
    eprintln!(
        "{fault:?}: {} points of {}, in {:.0?}; {hidden} calls have no place of their own",
        points.len().div_ceil(stride),
        points.len(),
        began.elapsed()
    );
    for (call, [met, missed]) in &table {
        eprintln!("  {call:12} {met:4} reached  {missed:3} not reached");
    }
    let met: usize = table.values().map(|row| row[0]).sum();
    assert!(
        wrong.is_empty(),
        "{} violations:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        met * 2 >= points.len().div_ceil(stride),
        "too few points were reached: {table:?}"
    );
}

/// Counts the calls that are not tried, and lists them.
fn hidden(fault: Fault, list: bool) -> usize {
    let calls = recorded().iter().flat_map(|recorded| {
        let calls = recorded.hidden.iter();
        calls.map(|call| (recorded.act.name, call))
    });
    let calls = calls.filter(|(_, call)| fault.concerns(&call.name));
    calls
        .inspect(|(act, call)| {
            if list {
                eprintln!(
                    "no place of its own in `{act}`: {} of {}",
                    call.name, call.path
                );
            }
        })
        .count()
}

fn verdict(found: &[String]) -> String {
    match found {
        [] => "held".to_owned(),
        _ => format!("VIOLATED: {}", found.join("; ")),
    }
}

fn one(act: &Act, place: &Place, fault: Fault) -> Went {
    let mut prepared = prepare(act);
    prepared.told.patient = fault == Fault::NoSpace;
    let data = prepared.folder.data();
    let mut place = place.clone();
    place.path = place.path.replace("{data}", &data.display().to_string());
    let (played, host) = act.play(&mut prepared, Some((&place, fault)));
    let pid = host.as_ref().map(Host::pid).unwrap_or_default();
    let mut wrong = Vec::new();
    let met = match fault {
        Fault::Kill => killed(host),
        _ => {
            let calls = strace::calls(&prepared.folder.log(), pid);
            let met = strace::after_fault(&calls);
            if let Some((call, after)) = &met {
                let patience = match fault {
                    // It may go on, and then nothing happens.
                    Fault::NoSpace if played.is_ok() => SOON,
                    _ => STOPS,
                };
                let ended = match host {
                    Ok(host) => host.wait(patience),
                    Err(ended) => Ok(ended),
                };
                failed(call, after, fault, &played, ended, &mut wrong);
            }
            met.is_some()
        }
    };
    if !met {
        return Went::Missed;
    }
    wrong.extend(check(&prepared.folder, &mut prepared.told));
    Went::Met(wrong)
}

/// Whether the planned kill was what ended it.
fn killed(host: Result<Host, Ended>) -> bool {
    let ended = match host {
        // A process that was killed may take a moment to be gone.
        Ok(host) => host.wait(SOON),
        Err(ended) => Ok(ended),
    };
    match ended {
        Ok(ended) => ended.status.signal() == Some(SIGKILL),
        Err(host) => {
            host.kill();
            false
        }
    }
}

/// A failed call: the host stops and says why, or, when there was no space only, goes on.
fn failed(
    call: &strace::Call,
    after: &[&strace::Call],
    fault: Fault,
    played: &Result<(), Stop>,
    ended: Result<Ended, Box<Host>>,
    wrong: &mut Vec<String>,
) {
    match ended {
        // A step that found no space is taken again at the next start: nothing is lost, and it was told.
        Ok(ended)
            if fault == Fault::NoSpace
                && ended.status.success()
                && ended.said.contains("is full") => {}
        Ok(ended) if ended.status.success() => {
            wrong.push(format!("it ended as if nothing had been: {ended:?}"))
        }
        Ok(ended) if !ended.said.contains("error") => {
            wrong.push(format!("it does not say why it ended: {ended:?}"))
        }
        Ok(_) => {}
        Err(host) if fault == Fault::NoSpace && played.is_ok() => {
            host.kill();
        }
        // The request is over; its manifest is written at the next start, which is looked at below.
        Err(host) if fault == Fault::NoSpace && host.said().contains("waits for space") => {
            host.kill();
        }
        // An index only saves time: without it the next opening reads more.
        Err(host)
            if call.path.ends_with(".idx") && host.said().contains("index was not written") =>
        {
            host.kill();
        }
        Err(host) => {
            wrong.push(format!(
                "it goes on after {} of {} failed ({played:?}): {}",
                call.name,
                call.path,
                host.said()
            ));
            host.kill();
        }
    }
    if fault == Fault::Io
        && call.name.ends_with("sync")
        && after.iter().any(|later| later.name == call.name)
    {
        wrong.push(format!(
            "{} of {} failed and was tried again",
            call.name, call.path
        ));
    }
}
