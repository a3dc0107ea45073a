//! What a session sees and leaves behind, its limits, and how sessions that overlap come together.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn value(text: &str) -> Option<Arc<[u8]>> {
    Some(text.as_bytes().into())
}

fn stored(pairs: &[(&str, &str)]) -> Arc<Contents> {
    let mut contents = Contents::default();
    for (at, (key, text)) in (1..).zip(pairs) {
        let write = Write {
            key: (*key).to_owned(),
            value: value(text),
        };
        contents.apply(at, &[write]).unwrap();
    }
    Arc::new(contents)
}

fn pairs(contents: &Contents) -> Vec<(String, String)> {
    let pair =
        |(key, value): (&str, &[u8])| (key.to_owned(), String::from_utf8_lossy(value).into());
    contents.iter().map(pair).collect()
}

#[test]
fn a_session_sees_what_was_stored_when_it_began_and_its_own_writes() {
    let contents = stored(&[("a", "one"), ("b", "two")]);
    let session = Session::new(contents.clone());
    session.put("a", b"mine").unwrap();
    session.remove("b").unwrap();
    assert_eq!(session.get("a").unwrap(), value("mine"));
    assert_eq!(session.get("b").unwrap(), None);
    assert_eq!(session.keys("").unwrap(), ["a"]);
    let other = Session::new(contents);
    assert_eq!(other.get("a").unwrap(), value("one"));
    assert_eq!(other.keys("").unwrap(), ["a", "b"]);
}

#[test]
fn what_was_read_of_others_is_remembered_and_what_was_written_first_is_not() {
    let contents = stored(&[
        ("a", "one"),
        ("b", "two"),
        ("c/1", "three"),
        ("c/2", "four"),
    ]);
    let read = |of: &dyn Fn(&Session)| {
        let session = Session::new(contents.clone());
        of(&session);
        session.close().read
    };
    assert_eq!(read(&|one| drop(one.get("b"))), [2]);
    assert_eq!(read(&|one| drop(one.get("nothing"))), [0u64; 0]);
    assert_eq!(
        read(&|one| drop(one.keys("c/"))),
        [3, 4],
        "that a key is there was somebody's word"
    );
    let own = |one: &Session| {
        one.put("b", b"mine").unwrap();
        one.get("b").unwrap();
    };
    assert_eq!(read(&own), [0u64; 0]);
}

#[test]
fn only_what_changes_something_is_left_behind_and_nothing_more_is_taken() {
    let session = Session::new(stored(&[("a", "one")]));
    session.put("b", b"two").unwrap();
    session.remove("b").unwrap();
    session.remove("never").unwrap();
    session.remove("a").unwrap();
    let writes = session.close().writes;
    assert_eq!(
        writes,
        [Write {
            key: "a".into(),
            value: None
        }]
    );
    assert_eq!(session.put("a", b"late"), Err(Unfit::Over));
    assert_eq!(session.get("a"), Err(Unfit::Over));
    assert_eq!(session.keys(""), Err(Unfit::Over));
    assert!(session.close().is_empty());
}

#[test]
fn each_limit_holds_at_its_edge() {
    let session = Session::default();
    let key = "k".repeat(KEY_BYTES);
    session.put(&key, &vec![0; VALUE_BYTES]).unwrap();
    for (key, unfit) in [
        (String::new(), Unfit::Key(0)),
        (format!("{key}k"), Unfit::Key(KEY_BYTES + 1)),
        ("a\u{1b}[2J".to_owned(), Unfit::Control),
    ] {
        assert_eq!(session.put(&key, b""), Err(unfit));
        assert_eq!(session.get(&key), Err(unfit));
        assert_eq!(session.remove(&key), Err(unfit));
    }
    assert_eq!(
        session.put("v", &vec![0; VALUE_BYTES + 1]),
        Err(Unfit::Value(VALUE_BYTES + 1))
    );

    let many = Session::default();
    for n in 0..KEYS {
        many.put(&n.to_string(), b"").unwrap();
    }
    assert_eq!(many.put("one more", b""), Err(Unfit::Keys));
    many.put("0", b"again").unwrap();
    many.remove("1").unwrap();
    many.put("one more", b"").unwrap();

    let large = Session::default();
    let each = VALUE_BYTES - 2;
    let count = TOTAL_BYTES / VALUE_BYTES;
    for n in 0..count {
        large.put(&format!("{n:02}"), &vec![0; each]).unwrap();
    }
    let over = TOTAL_BYTES + 1;
    assert_eq!(large.put("x", b""), Err(Unfit::Total(over)));
    assert_eq!(
        large.put("00", &vec![0; each + 1]),
        Err(Unfit::Total(over)),
        "what grows a value beyond the limit is refused"
    );
    large.put("00", &vec![0; each - 1]).unwrap();
    large.put("x", b"").unwrap();
}

#[test]
fn puts_and_removals_without_end_leave_nothing() {
    let session = Session::default();
    for n in 0..100_000 {
        let key = n.to_string();
        session.put(&key, b"value").unwrap();
        session.remove(&key).unwrap();
    }
    let draft = session.lock();
    assert_eq!(
        (draft.written.len(), draft.now.size()),
        (0, Size::default())
    );
}

#[test]
fn the_last_to_write_a_key_wins_and_other_keys_are_left_alone() {
    let contents = stored(&[("both", "old"), ("kept", "old")]);
    let (first, second) = (
        Session::new(contents.clone()),
        Session::new(contents.clone()),
    );
    first.put("both", b"first").unwrap();
    first.put("mine", b"first").unwrap();
    second.put("both", b"second").unwrap();
    let mut contents = Contents::clone(&contents);
    contents.apply(7, &first.close().writes).unwrap();
    contents.apply(8, &second.close().writes).unwrap();
    let found = pairs(&contents);
    let expected = [("both", "second"), ("kept", "old"), ("mine", "first")];
    let expected = expected.map(|(key, text)| (key.to_owned(), text.to_owned()));
    assert_eq!(found, expected);
}

#[test]
fn writes_for_which_others_left_no_room_are_not_taken_up_at_all() {
    let full = || {
        let session = Session::default();
        for n in 0..TOTAL_BYTES / VALUE_BYTES {
            session
                .put(&format!("{n:02}"), &vec![0; VALUE_BYTES - 2])
                .unwrap();
        }
        session
    };
    let mut contents = Contents::default();
    let late = Session::default();
    late.put("small", b"x").unwrap();
    late.put("00", b"x").unwrap();
    contents.apply(1, &full().close().writes).unwrap();
    let late = late.close().writes;
    contents.apply(2, &late).unwrap();
    assert_eq!(contents.size().keys, 17, "it made room for itself");
    let before = contents.clone();
    let other = Session::default();
    other.put("00", &vec![0; VALUE_BYTES]).unwrap();
    other.put("other", b"x").unwrap();
    assert!(contents.apply(3, &other.close().writes).is_err());
    assert_eq!(contents, before);
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u16),
    Remove(u8),
    Get(u8),
    /// A new session on what all before have left.
    Next,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0u8..6, any::<u16>()).prop_map(|(key, value)| Step::Put(key, value)),
        (0u8..6).prop_map(Step::Remove),
        (0u8..6).prop_map(Step::Get),
        Just(Step::Next),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn sessions_one_after_the_other_are_a_map_and_say_whom_they_read(steps in steps()) {
        let mut model: HashMap<String, (Vec<u8>, Position)> = HashMap::new();
        let mut contents = Arc::new(Contents::default());
        let mut session = Session::new(contents.clone());
        let (mut at, mut read) = (1, BTreeSet::new());
        for step in steps.into_iter().chain([Step::Next]) {
            match step {
                Step::Put(key, value) => {
                    let value = value.to_le_bytes().to_vec();
                    session.put(&key.to_string(), &value).unwrap();
                    model.insert(key.to_string(), (value, at));
                }
                Step::Remove(key) => {
                    session.remove(&key.to_string()).unwrap();
                    model.remove(&key.to_string());
                }
                Step::Get(key) => {
                    let found = session.get(&key.to_string()).unwrap();
                    let expected = model.get(&key.to_string());
                    prop_assert_eq!(found.as_deref(), expected.map(|(value, _)| value.as_slice()));
                    read.extend(expected.map(|(_, by)| *by).filter(|by| *by != at));
                }
                Step::Next => {
                    let changes = session.close();
                    prop_assert_eq!(&changes.read, &read.iter().copied().collect::<Vec<_>>());
                    let mut next = Contents::clone(&contents);
                    next.apply(at, &changes.writes).unwrap();
                    let bytes: usize = model.iter().map(|(key, (value, _))| key.len() + value.len()).sum();
                    prop_assert_eq!(next.size(), Size { keys: model.len(), bytes });
                    contents = Arc::new(next);
                    session = Session::new(contents.clone());
                    read.clear();
                    at += 1;
                }
            }
        }
    }
}
