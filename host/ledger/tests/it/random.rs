//! The same promises for steps that nobody thought of.

use ledger::{
    Entry,
    disk::{Fault, Simulated},
};
use proptest::prelude::*;

use crate::scenario::{Step, run};

fn entries() -> impl Strategy<Value = Entry> {
    let user = prop_oneof![Just("ann"), Just("bob"), Just("eve")];
    (
        any::<bool>(),
        user,
        any::<u32>(),
        0..2500usize,
        proptest::option::of(0..6u8),
    )
        .prop_map(|(sealed, user, id, len, key)| {
            let subject = if sealed {
                user.to_owned()
            } else {
                format!("t{id}")
            };
            let mut body = format!("{id}").into_bytes();
            body.resize(body.len().max(len), b'.');
            let entry = Entry::new("turn", subject, body);
            // What has the same key is the same entry, as from a client that asks again.
            let entry = match key {
                Some(key) => {
                    Entry::new("turn", format!("k{key}"), vec![key; 9]).with_key(format!("k{key}"))
                }
                None => entry.with_key(format!("id{id}")),
            };
            if sealed && key.is_none() {
                entry.sealed()
            } else {
                entry
            }
        })
}

fn step() -> impl Strategy<Value = Step> {
    let blob = || prop_oneof![Just(b"one".to_vec()), Just(vec![2; 3000])];
    let users = proptest::collection::vec(
        prop_oneof![Just("ann".to_owned()), Just("bob".to_owned())],
        1..3,
    );
    prop_oneof![
        6 => proptest::collection::vec(entries(), 1..4).prop_map(Step::Append),
        1 => blob().prop_map(Step::Put),
        1 => blob().prop_map(Step::Remove),
        1 => users.prop_map(Step::Destroy),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_steps_and_any_fault_keep_every_promise(
        steps in proptest::collection::vec(step(), 1..14),
        at in 0..220u64,
        kill in any::<bool>(),
        seed in any::<u64>(),
        limit in proptest::option::of(9_000..120_000u64),
    ) {
        let disk = Simulated::new();
        disk.limit(limit);
        disk.arm(Some(if kill { Fault::Kill(at) } else { Fault::Error(at) }));
        let memory = run(&disk, &steps);
        disk.limit(None);
        memory.check(&disk.process_kill(), "the next process");
        memory.check(&disk.crash(seed), "after a power loss");
    }
}
