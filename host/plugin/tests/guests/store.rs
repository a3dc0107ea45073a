//! A store in a guest's hands: what it sees, what its limits are, and who has none. Who keeps what is stored is tested in `loops`.

use std::sync::{Arc, Mutex};

use bundled::fixtures::{FAULTY, REACHING};
use plugin::{
    Capability, GuestEnvironment, Limits, PluginHost,
    outside::{Outside, Sessions},
};
use rl::{
    Action, Archive, Environment, Episode, Message, Seed, TaskId,
    store::{Changes, Contents, Session},
};

use crate::support::{load, turn, words};

/// What one tenant's plugins stored, one of them.
#[derive(Default)]
struct Kept {
    contents: Mutex<Arc<Contents>>,
    opened: Mutex<Vec<(String, Session)>>,
}

impl Archive for Kept {
    fn open(&self, plugin: &str) -> rl::Result<Session> {
        let session = Session::new(self.contents.lock().unwrap().clone());
        let mut opened = self.opened.lock().unwrap();
        opened.push((plugin.to_owned(), session.clone()));
        Ok(session)
    }
}

impl Kept {
    fn close(&self) -> Changes {
        let (plugin, session) = self.opened.lock().unwrap().pop().expect("it was opened");
        assert_eq!(plugin, "reaching");
        let changes = session.close();
        let mut contents = self.contents.lock().unwrap();
        Arc::make_mut(&mut contents)
            .apply(1, &changes.writes)
            .unwrap();
        changes
    }
}

fn limits() -> Limits {
    Limits {
        call_ms: 500,
        instances: 16,
        ..Limits::default()
    }
}

fn offering() -> Outside {
    Outside {
        store: Some(Arc::new(Sessions)),
        ..Outside::default()
    }
}

fn environment(offers: Outside) -> GuestEnvironment {
    let host = PluginHost::with(limits(), offers).unwrap();
    let guest = load(&host, REACHING, "").unwrap();
    GuestEnvironment::new(&guest, Seed::new(1)).unwrap()
}

fn act(episode: &mut dyn Episode, text: &str) -> rl::Result<String> {
    let action = Action {
        message: Message::assistant(text),
        truncated: false,
    };
    let step = episode.act(&action)?;
    Ok(step.observation.messages[0].content.clone())
}

fn begin(environment: &GuestEnvironment, task: &str, kept: &Kept) -> Box<dyn Episode> {
    let task = TaskId::new(task);
    environment.start_with(&task, Seed::new(1), kept).unwrap()
}

/// What an episode of this task answers to its first action.
fn answer(task: &str) -> rl::Result<String> {
    let environment = environment(offering());
    act(&mut *begin(&environment, task, &Kept::default()), "go")
}

#[test]
fn an_episode_finds_what_one_before_has_left_and_its_own_writes() {
    let (environment, kept) = (environment(offering()), Kept::default());
    let mut first = begin(&environment, "store", &kept);
    assert_eq!(
        act(&mut *first, "put a/1 one\nput a/2 two\nput b three").unwrap(),
        "ok\nok\nok"
    );
    assert_eq!(
        act(&mut *first, "get a/1\nkeys a/\nget c").unwrap(),
        "one\na/1 a/2\nnothing"
    );
    // Nobody else sees it before it is over.
    let mut meanwhile = begin(&environment, "store", &kept);
    assert_eq!(act(&mut *meanwhile, "keys ").unwrap(), "");
    kept.opened.lock().unwrap().pop();
    assert_eq!(kept.close().writes.len(), 3);
    assert_eq!(act(&mut *meanwhile, "get a/1").unwrap(), "nothing");

    let mut second = begin(&environment, "store", &kept);
    assert_eq!(
        act(&mut *second, "keys \nremove a/1\nget a/1").unwrap(),
        "a/1 a/2 b\nok\nnothing"
    );
    assert_eq!(kept.close().writes.len(), 1);
    let said = words(act(&mut *second, "get b"));
    assert!(said.contains("recorded already"), "after its end: {said}");
}

#[test]
fn an_episode_without_an_archive_begins_with_nothing_and_leaves_nothing() {
    let environment = environment(offering());
    for _ in 0..2 {
        let mut episode = environment.start(&"store".into(), Seed::new(1)).unwrap();
        assert_eq!(
            act(&mut *episode, "get a\nput a one\nget a").unwrap(),
            "nothing\nok\none"
        );
    }
}

#[test]
fn what_may_not_be_stored_is_a_fault_that_says_what_may() {
    for (task, what) in [
        (
            "store-a-large-value",
            "a value of 65537 bytes; at most 65536",
        ),
        ("store-a-long-key", "a key of 257 bytes; 1 to 256"),
    ] {
        let said = words(answer(task));
        assert!(
            said.contains("refused the call") && said.contains(what),
            "{said}"
        );
    }
    let environment = environment(offering());
    let mut episode = begin(&environment, "store", &Kept::default());
    for (line, what) in [
        ("put ", "a key of 0 bytes"),
        ("get \u{7}", "a control character"),
    ] {
        let said = words(act(&mut *episode, line));
        assert!(said.contains(what), "{said}");
    }
    assert_eq!(
        act(&mut *episode, "keys ").unwrap(),
        "",
        "and the episode goes on"
    );
    // 16 values of 64 KiB with their keys are more than 1 MiB.
    assert_eq!(answer("store-until-full").unwrap(), "15");
}

#[test]
fn a_guest_that_never_stops_storing_meets_its_limits() {
    let said = words(answer("store-for-ever"));
    assert!(
        said.contains("stopped") && said.contains("host calls: 10001 of 10000"),
        "{said}"
    );
    let said = words(answer("store-keys-for-ever"));
    assert!(said.contains("1000 keys are stored"), "{said}");
    let said = words(answer("store-a-huge-value"));
    assert!(
        said.contains("stopped") && said.contains("output (bytes)"),
        "{said}"
    );
}

#[test]
fn a_key_that_is_no_text_is_a_trap() {
    for task in ["store-no-text", "store-look-for-no-text"] {
        let said = words(answer(task));
        assert!(
            said.contains("broke") && said.contains("utf-8"),
            "{task}: {said}"
        );
    }
}

#[test]
fn a_host_without_a_store_says_so_in_a_fault() {
    let environment = environment(Outside::default());
    let said = words(act(
        &mut *begin(&environment, "store", &Kept::default()),
        "keys ",
    ));
    assert!(
        said.contains("said no") && said.contains("no store"),
        "{said}"
    );
}

#[test]
fn live_traffic_has_the_store_of_its_turn_and_no_other() {
    let environment = environment(offering());
    let (one, other) = (Kept::default(), Kept::default());
    let react = |kept: &Kept, lines: &str| {
        let new = [Message::user(format!("store {lines}"))];
        let next = environment.next_state_with(&turn("hello", "hi"), &new, kept);
        next.map(|next| next.unwrap().text)
    };
    react(&one, "put name Ada").unwrap();
    assert_eq!(one.close().writes.len(), 1);
    assert!(react(&one, "get name").unwrap().contains("Ada"));
    let of_the_other = react(&other, "get name").unwrap();
    assert!(of_the_other.contains("nothing"), "{of_the_other}");
    let said = words(environment.session_ends(&[Message::user("store")]));
    assert!(
        said.contains("hosted episodes and for `next-state`"),
        "{said}"
    );
}

#[test]
fn no_instance_that_had_a_store_serves_anybody_else() {
    let host = PluginHost::with(limits(), offering()).unwrap();
    let guest = load(&host, REACHING, "").unwrap();
    let environment = GuestEnvironment::new(&guest, Seed::new(1)).unwrap();
    let new = [Message::user("store get name")];
    environment
        .next_state_with(&turn("hello", "hi"), &new, &Kept::default())
        .unwrap();
    // Were it one that had served the turn, it would still be lent its store.
    for _ in 0..8 {
        let said = words(environment.session_ends(&[Message::user("store")]));
        assert!(said.contains("said no"), "{said}");
    }
}

#[test]
fn a_judge_and_a_reward_rule_have_no_store() {
    let host = PluginHost::with(limits(), offering()).unwrap();
    for world in ["judge-plugin", "reward-plugin"] {
        for capability in ["store", "http"] {
            let manifest = FAULTY.manifest.replace("reward-plugin", world);
            let manifest = manifest.replace("\"clock\"", &format!("\"clock\", \"{capability}\""));
            let section = toml::Table::new();
            let loaded = host.load(&manifest, FAULTY.component, &Capability::ALL, &section);
            let said = loaded.unwrap_err();
            let said = std::error::Error::source(&said).unwrap().to_string();
            assert!(
                said.contains(&format!("`{capability}` is for environments"))
                    && said.contains("replay"),
                "{said}"
            );
        }
    }
}
