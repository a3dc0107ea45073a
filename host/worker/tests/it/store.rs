//! What a guest in a worker stores: kept by the host, each call with its own.

use std::sync::{Arc, Mutex};

use bundled::fixtures::REACHING;
use plugin::outside::{Outside, Sessions};
use rl::{
    Archive, Environment as _, Episode, Message, Seed,
    seam::conformance,
    store::{Contents, Session},
};
use worker::{SealedEnvironment, Workers};

use crate::rig::{config, given, program, reply};

/// What one tenant's plugins stored.
#[derive(Default)]
struct Kept {
    contents: Mutex<Arc<Contents>>,
    opened: Mutex<Vec<Session>>,
}

impl Archive for Kept {
    fn open(&self, plugin: &str) -> rl::Result<Session> {
        assert_eq!(plugin, "reaching");
        let session = Session::new(self.contents.lock().unwrap().clone());
        self.opened.lock().unwrap().push(session.clone());
        Ok(session)
    }
}

impl Kept {
    /// Takes up what the last session wrote.
    fn close(&self) {
        let session = self.opened.lock().unwrap().pop().unwrap();
        let writes = session.close().writes;
        let mut contents = self.contents.lock().unwrap();
        Arc::make_mut(&mut contents).apply(1, &writes).unwrap();
    }
}

fn environment() -> SealedEnvironment {
    let offers = Outside {
        store: Some(Arc::new(Sessions)),
        ..Outside::default()
    };
    let workers = Workers::start(given(REACHING, ""), offers, program(), config()).unwrap();
    SealedEnvironment::new(workers).unwrap()
}

fn said(episode: &mut dyn Episode, lines: &str) -> rl::Result<String> {
    let step = episode.act(&reply(lines))?;
    Ok(step.observation.messages[0].content.clone())
}

#[test]
fn what_an_episode_in_a_worker_stores_is_the_hosts_to_keep() {
    let (environment, kept) = (environment(), Kept::default());
    let begin = || {
        environment
            .start_with(&"store".into(), Seed::new(1), &kept)
            .unwrap()
    };
    let mut first = begin();
    let lines = "put a one\nput b two\nremove b\nget a\nkeys ";
    assert_eq!(said(&mut *first, lines).unwrap(), "ok\nok\nok\none\na");
    kept.close();
    let error = said(&mut *first, "put a late").unwrap_err().to_string();
    assert!(error.contains("recorded already"), "{error}");
    assert_eq!(said(&mut *begin(), "get a\nget b").unwrap(), "one\nnothing");
    let mut alone = environment.start(&"store".into(), Seed::new(1)).unwrap();
    assert_eq!(said(&mut *alone, "get a").unwrap(), "nothing");
}

#[test]
fn a_guest_in_a_worker_meets_the_same_limits() {
    let environment = environment();
    for (task, what) in [
        ("store-a-long-key", ["a key of 257 bytes"; 2]),
        // On a busy machine the time outside runs out first.
        ("store-for-ever", ["host calls", "time outside"]),
        ("store-no-text", ["utf-8"; 2]),
    ] {
        let mut episode = environment.start(&task.into(), Seed::new(1)).unwrap();
        let error = said(&mut *episode, "go").unwrap_err().to_string();
        let said = what.iter().any(|limit| error.contains(limit));
        assert!(said, "{task}: {error}");
    }
}

#[test]
fn a_turns_store_is_its_tenants_also_where_one_worker_serves_all() {
    let environment = environment();
    let (one, other) = (Kept::default(), Kept::default());
    let react = |archive: &dyn Archive, lines: &str| {
        let new = [Message::user(format!("store {lines}"))];
        let next = environment
            .next_state_with(&conformance::turn("hello", "hi"), &new, archive)
            .unwrap();
        next.unwrap().text
    };
    react(&one, "put name Ada");
    one.close();
    assert!(react(&one, "get name").contains("Ada"));
    assert!(react(&other, "get name").contains("nothing"));
    environment
        .session_ends(&[Message::user("store")])
        .unwrap_err();
}
