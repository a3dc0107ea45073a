//! What the host is put through: talk, judge, train, revert, promote, tag, feedback, forget, stop, start again.
//!
//! Every act asks over the API and notes in [`Told`] what was asked and what was acknowledged. [`prepare`] brings a folder to the
//! moment before an act, in which calls are counted from nought.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::host::{Folder, Host, Stop};
use crate::strace::{Fault, Injection, Place, Tracer};

/// Longer than the ledger waits before it makes its mark durable.
const SETTLED: Duration = Duration::from_millis(90);
/// What every user says, so that it can be looked for.
pub(crate) const MARKER: &str = "boil an egg";
/// The session that is forgotten.
pub(crate) const FORGOTTEN: &str = "two";

/// A reply that somebody got.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub(crate) id: String,
    pub(crate) session: String,
    pub(crate) reply: String,
    pub(crate) version: u64,
}

/// What was asked of a host, and what it acknowledged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) turns: Vec<Turn>,
    /// Session and text of every request that was not refused.
    pub(crate) sent: Vec<(String, String)>,
    pub(crate) feedback: Vec<String>,
    pub(crate) feedback_sent: usize,
    /// Versions that a revert or a promotion answered with.
    pub(crate) moved: Vec<u64>,
    pub(crate) moves_sent: usize,
    pub(crate) tagged: bool,
    pub(crate) forgot: bool,
    /// Whether a refusal for want of space is waited out.
    pub(crate) patient: bool,
    /// Requests that were refused for want of space.
    pub(crate) refused: usize,
}

type Play = fn(&mut Told, &Host) -> Result<(), Stop>;

/// One act.
#[derive(Clone, Copy)]
pub(crate) struct Act {
    pub(crate) name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// On a running host.
    Running(Play),
    /// A start, on what so many acts left behind, which ended in this way.
    Start(usize, Before),
}

#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    Stopped,
    Killed,
    KilledForgetting,
}

/// The order of the acts on a running host.
const RUNNING: [(&str, Play); 12] = [
    ("talk", talk),
    ("train", |_, host| live(host, 1)),
    ("talk more", talk_more),
    ("train more", |_, host| live(host, 2)),
    ("revert", |told, host| told.moved(host, "revert", "v1")),
    ("promote", |told, host| told.moved(host, "promote", "v2")),
    ("tag", tag),
    ("feedback", feedback),
    ("forget", |told, host| told.forget(host)),
    ("talk after", talk_after),
    ("train after", trained_all),
    ("stop", |_, host| {
        host.ask_to_stop();
        Ok(())
    }),
];
const FORGET: usize = 8;

/// All acts.
pub(crate) fn acts() -> Vec<Act> {
    let running = RUNNING.iter().map(|(name, play)| Act {
        name,
        kind: Kind::Running(*play),
    });
    let start = |name, after, before| Act {
        name,
        kind: Kind::Start(after, before),
    };
    let mut acts = vec![start("first start", 0, Before::Nothing)];
    acts.extend(running);
    acts.push(start("start again", RUNNING.len() - 1, Before::Stopped));
    acts.push(start(
        "start after a kill",
        RUNNING.len() - 1,
        Before::Killed,
    ));
    acts.push(start("go on forgetting", FORGET, Before::KilledForgetting));
    acts
}

/// The act of this name.
pub(crate) fn act(name: &str) -> Act {
    acts().into_iter().find(|act| act.name == name).unwrap()
}

/// A folder at the moment before an act.
pub(crate) struct Prepared {
    pub(crate) folder: Folder,
    pub(crate) told: Told,
    pub(crate) host: Option<Host>,
}

/// Brings a folder there, untraced.
pub(crate) fn prepare(act: &Act) -> Prepared {
    let folder = Folder::new();
    let mut told = Told::default();
    let (acts, before) = match act.kind {
        Kind::Running(_) => (
            RUNNING
                .iter()
                .take_while(|(name, _)| *name != act.name)
                .count(),
            None,
        ),
        Kind::Start(acts, before) => (acts, Some(before)),
    };
    if before == Some(Before::Nothing) {
        return Prepared {
            folder,
            told,
            host: None,
        };
    }
    let host = Host::start(&folder, None).unwrap_or_else(|ended| panic!("no start: {ended:?}"));
    for (name, play) in &RUNNING[..acts] {
        play(&mut told, &host).unwrap_or_else(|stop| panic!("{name}: {stop:?}\n{}", host.said()));
    }
    let host = match before {
        None => Some(host),
        Some(Before::Killed | Before::Nothing) => {
            host.kill();
            None
        }
        Some(Before::Stopped) => {
            assert!(
                host.stop().is_ok_and(|ended| ended.status.success()),
                "the host did not stop"
            );
            None
        }
        Some(Before::KilledForgetting) => {
            let place = Place::about("pwrite64", &folder.data().join("ledger/keys"), 1);
            let tracer = Tracer::attach(&folder.log(), Some((&place, Fault::Kill)), host.pid());
            let stop = told.forget(&host);
            assert!(matches!(stop, Err(Stop::Gone)), "{stop:?}");
            host.kill();
            tracer.detach();
            None
        }
    };
    Prepared { folder, told, host }
}

impl Act {
    /// Plays it under trace, on a host that runs or that is started by it. The host is given back, unless it ended while it started.
    pub(crate) fn play(
        &self,
        prepared: &mut Prepared,
        injection: Injection<'_>,
    ) -> (Result<(), Stop>, Result<Host, crate::host::Ended>) {
        match self.kind {
            Kind::Running(play) => {
                let host = prepared.host.take().unwrap();
                let tracer = Tracer::attach(&prepared.folder.log(), injection, host.pid());
                let played = play(&mut prepared.told, &host);
                std::thread::park_timeout(SETTLED);
                tracer.detach();
                (played, Ok(host))
            }
            Kind::Start(_, before) => {
                let host = match Host::start(&prepared.folder, Some(injection)) {
                    Ok(host) => host,
                    Err(ended) => return (Err(Stop::Gone), Err(ended)),
                };
                let played = match before {
                    Before::KilledForgetting => forgotten(&host, &prepared.folder.data()),
                    _ => Ok(()),
                };
                std::thread::park_timeout(SETTLED);
                (played, Ok(host))
            }
        }
    }
}

impl Told {
    /// Says something in a session, of which `history` is known; gives the reply.
    fn chat(&mut self, host: &Host, session: &str, history: &[&str]) -> Result<String, Stop> {
        let messages: Vec<Value> = history
            .iter()
            .zip(["user", "assistant"].iter().cycle())
            .map(|(text, role)| json!({"role": role, "content": text}))
            .collect();
        let body = json!({"model": "tiny-llama:main", "messages": messages, "max_tokens": 8});
        let said = history.last().unwrap_or(&"");
        self.sent.push((session.to_owned(), (*said).to_owned()));
        let answered = self.again(|| host.post("/v1/chat/completions", session, &body));
        if let Err(Stop::Refused(503, _)) = &answered {
            self.sent.pop();
        }
        let (_, version, text) = answered?;
        let Ok(body) = serde_json::from_str::<Value>(&text) else {
            return Err(Stop::Gone);
        };
        let reply = body["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .to_owned();
        self.turns.push(Turn {
            id: body["id"].as_str().unwrap().to_owned(),
            session: session.to_owned(),
            reply: reply.clone(),
            version: version.unwrap(),
        });
        Ok(reply)
    }

    /// A conversation whose first reply draws a complaint.
    pub(crate) fn complain(&mut self, host: &Host, session: &str) -> Result<(), Stop> {
        let question = format!("How do I {MARKER}, {session}?");
        let reply = self.chat(host, session, &[&question])?;
        let complaint =
            format!("No, that is too long. Please make it shorter: {MARKER}, {session}!");
        self.chat(host, session, &[&question, &reply, &complaint])
            .map(drop)
    }

    /// Asks again while there is no space, when that is what is expected.
    fn again<T>(&mut self, ask: impl Fn() -> Result<T, Stop>) -> Result<T, Stop> {
        for _ in 0..100 {
            match ask() {
                Err(Stop::Refused(503, _)) if self.patient => self.refused += 1,
                // What was begun goes on by itself when there is space.
                Err(Stop::Refused(_, why))
                    if self.patient && (why.contains("full") || why.contains("goes on")) =>
                {
                    self.refused += 1;
                }
                answered => return answered,
            }
            std::thread::park_timeout(SETTLED);
        }
        ask()
    }

    /// An operator's request; gives the answer.
    fn order(&mut self, host: &Host, request: &Value) -> Result<Value, Stop> {
        self.again(|| {
            let (_, _, text) = host.post("/v1/history", "", request)?;
            let last = text.lines().last().unwrap_or_default();
            let event: Value = serde_json::from_str(last).map_err(|_| Stop::Gone)?;
            match (event.get("done"), event.get("error")) {
                (Some(done), _) => Ok(done.clone()),
                (None, Some(error)) => Err(Stop::Refused(200, error.to_string())),
                // The stream broke off.
                (None, None) => Err(Stop::Gone),
            }
        })
    }

    fn moved(&mut self, host: &Host, how: &str, version: &str) -> Result<(), Stop> {
        self.moves_sent += 1;
        let done = self.order(host, &json!({ how: {"version": version} }))?;
        self.moved
            .push(done["version"]["record"]["version"].as_u64().unwrap());
        Ok(())
    }

    pub(crate) fn forget(&mut self, host: &Host) -> Result<(), Stop> {
        let selector = json!({"session": {"session": FORGOTTEN, "tenant": null}});
        let request = json!({"forget": {"selector": selector, "plan": false}});
        match self.order(host, &request) {
            // It had begun when there was no space, and the host has finished it since.
            Err(Stop::Refused(_, why)) if self.refused > 0 && why.contains("forgotten already") => {
            }
            answered => drop(answered?),
        }
        self.forgot = true;
        Ok(())
    }
}

fn judged(host: &Host, count: u64) -> Result<(), Stop> {
    host.until("judging", |status| status["judged"].as_u64() >= Some(count))
        .map(drop)
}

fn live(host: &Host, version: u64) -> Result<(), Stop> {
    host.until("a version", |status| {
        status["live"].as_u64() >= Some(version)
    })
    .map(drop)
}

/// Until no whole batch waits.
fn trained_all(_: &mut Told, host: &Host) -> Result<(), Stop> {
    let done = |status: &Value| status["queues"]["train"]["depth"].as_u64() < Some(2);
    host.until("training", done).map(drop)
}

fn talk(told: &mut Told, host: &Host) -> Result<(), Stop> {
    told.complain(host, "one")?;
    told.complain(host, FORGOTTEN)?;
    judged(host, 2)
}

fn talk_more(told: &mut Told, host: &Host) -> Result<(), Stop> {
    told.complain(host, "three")?;
    told.complain(host, "four")?;
    judged(host, 4)
}

fn tag(told: &mut Told, host: &Host) -> Result<(), Stop> {
    told.order(
        host,
        &json!({"name": {"kind": "tag", "name": "good", "version": "v1"}}),
    )?;
    told.tagged = true;
    Ok(())
}

/// On the last reply, which nobody has reacted to.
fn feedback(told: &mut Told, host: &Host) -> Result<(), Stop> {
    let id = told.turns.last().unwrap().id.clone();
    told.feedback_sent += 1;
    told.again(|| host.post("/v1/feedback", "", &json!({"id": id, "rating": "up"})))?;
    told.feedback.push(id);
    let quiet = |status: &Value| status["queues"]["judge"]["depth"] == 0;
    host.until("judging what was said", quiet).map(drop)
}

fn talk_after(told: &mut Told, host: &Host) -> Result<(), Stop> {
    told.complain(host, "five")?;
    told.complain(host, "six")?;
    judged(host, 6)
}

/// Takes the space away, talks until that is refused, and gives the space back. Gives what is wrong.
pub(crate) fn run_full(prepared: &mut Prepared) -> Vec<String> {
    let (host, told) = (prepared.host.take().unwrap(), &mut prepared.told);
    // What is preallocated can still be written to: there is no space for the next segment.
    let spare = prepared.folder.data().join("ledger/log/spare");
    let full = Place::about("pwrite64", &spare, 0);
    let tracer = Tracer::attach(
        &prepared.folder.log(),
        Some((&full, Fault::NoSpace)),
        host.pid(),
    );
    let mut wrong = Vec::new();
    let refused = (0..60).find_map(|n| told.complain(&host, &format!("full {n}")).err());
    match refused {
        Some(Stop::Refused(503, why)) if why.contains("full") => {}
        other => wrong.push(format!("without space it says {other:?}")),
    }
    let known = told.sent.len();
    for n in 0..3 {
        match told.complain(&host, &format!("still full {n}")) {
            Err(Stop::Refused(503, _)) if told.sent.len() == known => {}
            other => wrong.push(format!("then it says {other:?}")),
        }
    }
    let log = told.order(&host, &json!({"log": {"limit": null}}));
    match (host.status(), log) {
        (Ok(status), Ok(_)) if status["ledger_error"].is_null() => {}
        other => wrong.push(format!("what is read is not answered: {other:?}")),
    }
    tracer.detach();
    told.patient = true;
    let after = told.complain(&host, "there is space");
    if after.is_err() {
        wrong.push(format!(
            "with space again it says {after:?}: {}",
            host.said()
        ));
    }
    told.patient = false;
    host.kill();
    wrong
}

/// Waits until what was begun to be forgotten is forgotten.
fn forgotten(host: &Host, data: &Path) -> Result<(), Stop> {
    host.until("forgetting", |_| manifests(data) > 0).map(drop)
}

/// Statements of what was forgotten.
pub(crate) fn manifests(data: &Path) -> usize {
    let entries = std::fs::read_dir(data.join("forgotten"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter(|entry| entry.path().extension().is_some_and(|end| end == "json"))
        .count()
}
