//! What plugins store: who finds it when, what a restart and a failure leave, and what is forgotten with what.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ledger::verify;
use loops::{
    audit,
    forget::{self, Selector},
    orders::Control,
    records::{
        ACTION, ActionRecord, CLOSED, ClosedRecord, Closing, EPISODE, EpisodeRecord, STORED,
        StoredRecord, TURN, TurnRecord,
    },
    rollout::{Assignment, Config, Event},
};
use parking_lot::Mutex;
use rl::{
    Action, Agent, AgentReply, AgentRequest, Archive, Classification, Done, Environment, Episode,
    Message, ModalityCard, NextState, Observation, Outcome, RequestView, Seed, Step, TaskId, Turn,
    seam::Nowhere,
    store::{Session, TOTAL_BYTES, VALUE_BYTES},
};

use crate::{
    history::line,
    rig::{Plugins, Rig, config, folder, request},
    rollout::agent,
};

/// Does with its store what a task says, a command each action, and what a message on live traffic says.
struct Diary {
    name: &'static str,
    /// Replies that are read without a reaction.
    synthetic: bool,
}

impl Diary {
    fn open(&self, archive: &dyn Archive) -> rl::Result<Session> {
        archive.open(self.name)
    }
}

fn done(store: &Session, command: &str) -> rl::Result<String> {
    let words: Vec<&str> = command.split(' ').collect();
    let unfit = |error: rl::store::Unfit| rl::Error::Refused {
        what: "store".into(),
        why: error.to_string(),
    };
    Ok(match words[..] {
        ["put", key, value] => {
            store.put(key, value.as_bytes()).map_err(unfit)?;
            "ok".into()
        }
        // A task's name is not sealed: the value must not be in it.
        ["put-name", key] => {
            store.put(key, b"Ada Lovelace").map_err(unfit)?;
            "ok".into()
        }
        ["put-much"] => {
            for n in 0..TOTAL_BYTES / VALUE_BYTES {
                let value = vec![0xff; VALUE_BYTES - 2];
                store.put(&format!("{n:02}"), &value).map_err(unfit)?;
            }
            "ok".into()
        }
        ["remove", key] => {
            store.remove(key).map_err(unfit)?;
            "ok".into()
        }
        ["get", key] => {
            let value = store.get(key).map_err(unfit)?;
            value.map_or("nothing".into(), |value| {
                String::from_utf8_lossy(&value).into_owned()
            })
        }
        ["fail"] => {
            return Err(rl::Error::Failed {
                what: "an episode".into(),
                why: "on purpose".into(),
            });
        }
        _ => "?".into(),
    })
}

struct Day {
    commands: Vec<String>,
    next: usize,
    store: Session,
}

impl Environment for Diary {
    fn card(&self) -> ModalityCard {
        ModalityCard {
            name: self.name.into(),
            version: "native".into(),
            tools: Vec::new(),
        }
    }

    fn classify(&self, _: RequestView<'_>) -> rl::Result<Classification> {
        Ok(Classification::Main)
    }

    fn next_state(&self, turn: &Turn, new: &[Message]) -> rl::Result<Option<NextState>> {
        self.next_state_with(turn, new, &Nowhere)
    }

    fn next_state_with(
        &self,
        _: &Turn,
        new: &[Message],
        archive: &dyn Archive,
    ) -> rl::Result<Option<NextState>> {
        let Some(last) = new.last() else {
            return Ok(None);
        };
        let Some(command) = last.content.strip_prefix("store ") else {
            return Ok(Some(NextState::of(new.to_vec())));
        };
        let said = done(&self.open(archive)?, command)?;
        let next = NextState::of(vec![Message::user(said)]);
        Ok((!self.synthetic).then_some(next))
    }

    fn session_ends(&self, _: &[Message]) -> rl::Result<bool> {
        Ok(false)
    }

    fn tasks(&self, _: &str) -> rl::Result<Vec<TaskId>> {
        Ok(Vec::new())
    }

    fn start(&self, task: &TaskId, seed: Seed) -> rl::Result<Box<dyn Episode>> {
        self.start_with(task, seed, &Nowhere)
    }

    fn start_with(
        &self,
        task: &TaskId,
        _: Seed,
        archive: &dyn Archive,
    ) -> rl::Result<Box<dyn Episode>> {
        Ok(Box::new(Day {
            commands: task.as_str().split(',').map(str::to_owned).collect(),
            next: 0,
            store: self.open(archive)?,
        }))
    }
}

impl Episode for Day {
    fn observe(&mut self) -> rl::Result<Observation> {
        Ok(Observation {
            messages: vec![Message::user("go")],
        })
    }

    fn act(&mut self, _: &Action) -> rl::Result<Step> {
        let said = done(&self.store, &self.commands[self.next])?;
        self.next += 1;
        Ok(Step {
            observation: Observation {
                messages: vec![Message::user(said)],
            },
            done: (self.next == self.commands.len()).then_some(Done::Finished),
        })
    }

    fn outcome(&mut self) -> rl::Result<Option<Outcome>> {
        Ok(None)
    }

    fn snapshot(&mut self) -> rl::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

fn diary(name: &'static str) -> Arc<Diary> {
    Arc::new(Diary {
        name,
        synthetic: false,
    })
}

fn start(dir: &std::path::Path) -> Rig {
    let plugins = Plugins {
        environment: diary("diary"),
        ..Plugins::default()
    };
    Rig::with(dir, config(), plugins)
}

fn episode(name: &str, group: Option<&str>, commands: &str) -> Assignment {
    Assignment {
        episode: name.into(),
        task: commands.into(),
        seed: Seed::new(7),
        group: group.map(str::to_owned),
    }
}

/// Plays episodes one after the other; what each of them was shown after each action, or why it failed.
async fn played_by(
    rig: &Rig,
    (name, tenant, patience): (&'static str, Option<&str>, u32),
    assignments: &[Assignment],
) -> Vec<String> {
    played_with(rig, (name, tenant, agent(rig, patience)), assignments).await
}

async fn played_with(
    rig: &Rig,
    (name, tenant, agent): (&'static str, Option<&str>, Arc<dyn Agent>),
    assignments: &[Assignment],
) -> Vec<String> {
    let rollout = rig
        .handle
        .rollout(Config::default(), diary(name), agent)
        .unwrap();
    let rollout = match tenant {
        Some(tenant) => rollout.storing_for(tenant.into()),
        None => rollout,
    };
    let said: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let seen = said.clone();
    let watch = Arc::new(move |event| {
        let (episode, words) = match event {
            Event::Turn(turn) => (turn.episode, turn.reaction[0].content.clone()),
            Event::Failed { episode, error } => (episode, error.chain()),
            Event::Ended(_) => return,
        };
        seen.lock().push((episode.to_string(), words));
    });
    let (_stop, shutdown) = loops::shutdown();
    rollout
        .run(assignments.to_vec(), shutdown, watch)
        .await
        .unwrap();
    drop(rollout);
    let said = said.lock();
    let of = |assignment: &Assignment| {
        let mut words = said
            .iter()
            .filter(|(episode, _)| *episode == assignment.episode.to_string());
        words
            .by_ref()
            .map(|(_, words)| words.as_str())
            .collect::<Vec<_>>()
            .join(",")
    };
    assignments.iter().map(of).collect()
}

async fn played(rig: &Rig, assignments: &[Assignment]) -> Vec<String> {
    played_by(rig, ("diary", Some("tenant"), 99), assignments).await
}

/// What an episode that begins now finds under a key.
async fn found(rig: &Rig, key: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!("look-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let look = episode(&name, None, &format!("get {key}"));
    played(rig, &[look]).await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_episode_finds_what_others_left_before_its_group_began_and_its_own() {
    let dir = folder();
    let rig = start(dir.path());
    let said = played(
        &rig,
        &[
            episode("a-0", Some("a"), "get k,put k one,get k"),
            // Another attempt at the same task meets the same, whatever the first one left.
            episode("a-1", Some("a"), "get k,put l two"),
            episode("b-0", Some("b"), "get k,get l,remove k,get k"),
            episode("c", None, "get k,get l"),
        ],
    )
    .await;
    assert_eq!(
        said,
        [
            "nothing,ok,one",
            "nothing,ok",
            "one,two,ok,nothing",
            "nothing,two"
        ]
    );
    let stored = rig.records::<StoredRecord>(STORED);
    let read: Vec<usize> = stored.iter().map(|one| one.read.len()).collect();
    assert_eq!(read, [0, 0, 2, 1], "what was read of others is recorded");
    let ledger = rig.ledger.clone();
    rig.stop().await;
    assert!(audit::audit(&ledger, &"main".into()).unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_episode_that_fails_leaves_nothing_and_one_without_a_tenant_neither() {
    let dir = folder();
    let rig = start(dir.path());
    let said = played(&rig, &[episode("a", None, "put k one,fail")]).await;
    assert!(said[0].contains("on purpose"), "{said:?}");
    assert_eq!(found(&rig, "k").await, "nothing");
    let exam = [
        episode("exam-0", None, "put k one,get k"),
        episode("exam-1", None, "get k"),
    ];
    let said = played_by(&rig, ("diary", None, 99), &exam).await;
    assert_eq!(said, ["ok,one", "nothing"]);
    assert_eq!(found(&rig, "k").await, "nothing");
    assert!(rig.records::<StoredRecord>(STORED).is_empty());
    // Nor does an exam find what practice left.
    played(&rig, &[episode("b", None, "put k one")]).await;
    let exam = [episode("exam-2", None, "get k")];
    let said = played_by(&rig, ("diary", None, 99), &exam).await;
    assert_eq!(said, ["nothing"]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_and_plugins_have_each_their_own() {
    let dir = folder();
    let rig = start(dir.path());
    played(&rig, &[episode("a", None, "put k one")]).await;
    for (number, name, tenant) in [(0, "diary", "other"), (1, "notes", "tenant")] {
        let look = [episode(
            &format!("look-at-{number}"),
            None,
            "get k,put k mine",
        )];
        let said = played_by(&rig, (name, Some(tenant), 99), &look).await;
        assert_eq!(said, ["nothing,ok"], "{name} of {tenant}");
    }
    assert_eq!(found(&rig, "k").await, "one");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_episode_that_goes_on_after_a_restart_sees_what_it_saw() {
    let dir = folder();
    let rig = start(dir.path());
    played(&rig, &[episode("a", None, "put k one")]).await;
    let long = episode("b", None, "get k,put l mine,get k,get l");
    // Its agent is gone after two replies.
    let said = played_by(
        &rig,
        ("diary", Some("tenant"), 2),
        std::slice::from_ref(&long),
    )
    .await;
    assert!(said[0].starts_with("one,ok,"), "{said:?}");
    played(&rig, &[episode("c", None, "put k two,put l two")]).await;
    rig.kill().await;

    let rig = start(dir.path());
    let said = played(&rig, &[long]).await;
    assert_eq!(said, ["one,mine"], "its last two turns");
    assert_eq!(found(&rig, "k").await, "two");
    assert_eq!(found(&rig, "l").await, "mine", "the later to end wins");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_is_there_after_a_kill_and_the_bytes_are_the_same() {
    let dir = folder();
    let rig = start(dir.path());
    let much = episode("a", None, "put-much");
    played(&rig, &[much, episode("b", None, "put 00 small")]).await;
    rig.kill().await;
    let rig = start(dir.path());
    assert_eq!(found(&rig, "00").await, "small");
    let bytes = String::from_utf8_lossy(&vec![0xff; VALUE_BYTES - 2]).into_owned();
    assert_eq!(found(&rig, "01").await, bytes);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_for_which_others_left_no_room_are_dropped_as_a_whole() {
    let dir = folder();
    let rig = start(dir.path());
    let group = |n: u32, commands: &str| episode(&format!("a-{n}"), Some("a"), commands);
    let said = played(
        &rig,
        &[group(0, "put-much"), group(1, "put k one,put l two")],
    )
    .await;
    assert_eq!(said, ["ok", "ok,ok"]);
    assert_eq!(found(&rig, "k").await, "nothing");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turns_store_is_its_tenants_and_is_there_with_its_next_state() {
    let dir = folder();
    let rig = start(dir.path());
    rig.talk_as("ann", "s-0", &["hi", "store put k one"]).await;
    assert_eq!(found(&rig, "k").await, "one");
    let of_another = |line: &str, messages: Vec<Message>| rl::TurnRequest {
        tenant: "other".into(),
        ..request(line, messages)
    };
    let mut messages = vec![Message::user("hi")];
    rig.say(of_another("s-1", messages.clone()), "re: hi").await;
    messages.push(Message::assistant("re: hi"));
    messages.push(Message::user("store get k"));
    rig.say(of_another("s-1", messages), "re: it").await;
    let closed: Vec<loops::records::ClosedRecord> = rig.records(loops::records::CLOSED);
    let text = |one: &loops::records::ClosedRecord| match &one.closing {
        loops::records::Closing::Next(next) => next.text.clone(),
        other => format!("{other:?}"),
    };
    let last = closed.last().map(text).unwrap();
    assert!(last.contains("nothing"), "{last}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_for_a_next_state_that_is_none_is_nothing() {
    let dir = folder();
    let plugins = Plugins {
        environment: Arc::new(Diary {
            name: "diary",
            synthetic: true,
        }),
        ..Plugins::default()
    };
    let rig = Rig::with(dir.path(), config(), plugins);
    rig.talk_as("ann", "s-0", &["hi", "store put k one"]).await;
    assert_eq!(found(&rig, "k").await, "nothing");
    rig.stop().await;
}

fn session(name: &str) -> Selector {
    Selector::Session {
        tenant: None,
        session: name.into(),
    }
}

async fn forget(rig: &Rig, selector: Selector) -> forget::Forgotten {
    let control = rig.handle.control();
    control.forget(selector, |_, _, _| {}).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_forgotten_episode_stored_is_gone_and_so_are_those_that_read_it() {
    let dir = folder();
    let rig = start(dir.path());
    played(
        &rig,
        &[
            episode("first", None, "put k first,put m first"),
            episode("forgotten", None, "put-name k,put-name n"),
            // It makes something of it, and another one something of that.
            episode("reader", None, "get k,put r derived"),
            episode("reader-of-reader", None, "get r,put q derived-again"),
            episode("stranger", None, "get m,put s mine"),
        ],
    )
    .await;
    assert_eq!(found(&rig, "m").await, "first");
    let plan = forget::plan(&line(&rig.ledger), &session("forgotten")).unwrap();
    assert_eq!(plan.subjects, ["forgotten", "reader", "reader-of-reader"]);
    assert_eq!(plan.turns.len(), 6, "two turns each");
    forget(&rig, session("forgotten")).await;
    let look = "get k,get m,get n,get r,get q,get s";
    let expected = "first,first,nothing,nothing,nothing,mine";
    assert_eq!(
        played(&rig, &[episode("now", None, look)]).await,
        [expected]
    );
    rig.kill().await;
    let rig = start(dir.path());
    assert_eq!(
        played(&rig, &[episode("then", None, look)]).await,
        [expected]
    );
    rig.stop().await;
    verify(dir.path()).unwrap();
    // Nothing of it is left in a file.
    let left = std::process::Command::new("grep")
        .args(["-rl", "Lovelace"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(
        left.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&left.stdout)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_forgotten_user_made_a_turn_store_is_gone_with_the_turns_that_read_it() {
    let dir = folder();
    let rig = start(dir.path());
    rig.talk_as("ann", "s-0", &["hi", "store put k secret"])
        .await;
    let of_bob = rig
        .talk_as("bob", "s-1", &["hi", "store get k", "and now?"])
        .await;
    rig.talk_as("cleo", "s-2", &["hi", "store put l mine"])
        .await;
    rig.until(|s| s.reacted == 4).await;
    let ann = Selector::User {
        tenant: None,
        user: "ann".into(),
    };
    let plan = forget::plan(&line(&rig.ledger), &ann).unwrap();
    assert!(plan.turns.contains(&of_bob[0]), "its next state quotes it");
    assert_eq!(plan.turns.len(), 3, "two of ann's and one of bob's");
    forget(&rig, ann).await;
    assert_eq!(found(&rig, "k").await, "nothing");
    assert_eq!(found(&rig, "l").await, "mine");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_episode_that_is_not_over_goes_with_what_it_may_have_read() {
    let dir = folder();
    let rig = start(dir.path());
    let before = episode("before", None, "get k,get k,get k");
    played_by(&rig, ("diary", Some("tenant"), 1), &[before]).await;
    played(&rig, &[episode("forgotten", None, "put k secret")]).await;
    let open = episode("open", None, "get k,get k,get k");
    played_by(&rig, ("diary", Some("tenant"), 1), &[open]).await;
    let other = episode("other", None, "get k,get k,get k");
    played_by(&rig, ("notes", Some("tenant"), 1), &[other]).await;
    let plan = forget::plan(&line(&rig.ledger), &session("forgotten")).unwrap();
    assert_eq!(plan.subjects, ["forgotten", "open"]);
    let actions = rig.records::<ActionRecord>(ACTION);
    let of_open = actions.iter().find(|one| one.episode.as_str() == "open");
    assert!(plan.turns.contains(&of_open.unwrap().turn));
    rig.stop().await;
}

/// While it thinks about one of its replies, somebody is forgotten.
struct Meanwhile {
    agent: Arc<dyn Agent>,
    control: Control,
    runtime: tokio::runtime::Handle,
    /// Replies before that one.
    before: AtomicU64,
}

impl Agent for Meanwhile {
    fn reply(&self, asked: AgentRequest) -> rl::Result<AgentReply> {
        if self.before.fetch_sub(1, Ordering::SeqCst) == 0 {
            let forgotten = self.control.forget(session("forgotten"), |_, _, _| {});
            self.runtime.block_on(forgotten).unwrap();
        }
        self.agent.reply(asked)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_episode_in_which_something_that_it_may_have_read_is_forgotten_ends_there() {
    for before in 0..3 {
        let dir = folder();
        let rig = start(dir.path());
        played(&rig, &[episode("forgotten", None, "put k secret")]).await;
        let meanwhile = Arc::new(Meanwhile {
            agent: agent(&rig, 99),
            control: rig.handle.control().clone(),
            runtime: tokio::runtime::Handle::current(),
            before: before.into(),
        });
        let all = [
            episode("open", None, "get k,get k,get k"),
            episode("next", None, "get k"),
        ];
        let said = played_with(&rig, ("diary", Some("tenant"), meanwhile), &all).await;
        assert!(said[0].ends_with("since it began"), "{said:?}");
        assert_eq!(said[1], "nothing", "the next one goes on");
        let turns = rig.records::<TurnRecord>(TURN);
        let left = turns.iter().filter(|r| r.turn.session.as_str() == "open");
        let left: Vec<_> = left.map(|r| r.turn.id.clone()).collect();
        assert_eq!(left.len(), 1, "the reply that was under way");
        let over = rig.records::<EpisodeRecord>(EPISODE);
        assert!(over.iter().all(|record| record.episode.as_str() != "open"));
        let closed = rig.records::<ClosedRecord>(CLOSED);
        let trained = closed
            .iter()
            .any(|c| left.contains(&c.turn) && matches!(c.closing, Closing::Next(_)));
        assert!(!trained, "nobody reacts to it");
        let plan = forget::plan(&line(&rig.ledger), &session("next")).unwrap();
        assert!(plan.turns.contains(&left[0]), "the next request finds it");
        rig.stop().await;
    }
}
