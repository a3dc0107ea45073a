//! How many versions of the trained adapter running replies hold.

use super::*;

impl Bench {
    fn holding(most: usize) -> Self {
        Self::new(Config {
            max_versions: most,
            ..Config::default()
        })
    }

    fn ask(&self, seed: u64, tokens: u32) -> Listener {
        self.sample(job(adapter("one"), prompt(seed, 9), tokens, seed))
    }

    fn publish(&self, version: u64) {
        self.slots[&AdapterName::from("one")].publish(deployed(&self.model, version));
    }

    /// What the gate asks of a version that nobody is served by.
    fn examine(&self, version: u64, seed: u64) -> Listener {
        self.slots[&AdapterName::from("two")].publish(deployed(&self.model, version));
        self.sample_as(
            Priority::Loop,
            job(adapter("two"), prompt(seed, 9), 5, seed),
        )
    }
}

fn started(listener: &mut Listener) -> Option<u64> {
    let started = listener.listen().started.clone();
    started.map(|started| started.version.get())
}

#[test]
fn whoever_would_hold_one_version_more_than_may_be_waits_for_the_last_reply_of_another() {
    let mut bench = Bench::holding(3);
    let mut first = bench.ask(1, 20);
    bench.worker.turn();
    bench.publish(7);
    let mut second = bench.ask(2, 200);
    bench.worker.turn();
    assert_eq!(
        (started(&mut first), started(&mut second)),
        (Some(1), Some(7))
    );

    bench.publish(8);
    let mut third = bench.ask(3, 5);
    bench.finish(&mut first);
    assert_eq!(
        started(&mut third),
        None,
        "it began beside two other versions"
    );
    let (heard, _) = bench.finish(&mut third);
    assert_eq!(heard.started.unwrap().version.get(), 8);
    assert!(second.listen().finish.is_none(), "nobody else had to end");
    // The version that is held already is no further one, and the base weights are none.
    bench.publish(9);
    let mut fourth = bench.ask(4, 200);
    let mut base = bench.sample(job(Weights::Base, prompt(5, 9), 5, 5));
    bench.finish(&mut base);
    let mut fifth = bench.ask(6, 5);
    let (heard, _) = bench.finish(&mut fifth);
    assert_eq!(heard.started.unwrap().version.get(), 9);
    assert!(second.listen().finish.is_none() && fourth.listen().finish.is_none());
}

#[test]
fn whoever_waits_for_a_version_holds_up_nobody_who_needs_none() {
    let mut bench = Bench::holding(3);
    let mut long = vec![bench.ask(1, 200)];
    bench.worker.turn();
    bench.publish(7);
    let held = bench.slots[&AdapterName::from("one")].load();
    long.push(bench.ask(2, 200));
    bench.worker.turn();
    bench.publish(8);
    let mut waits = bench.ask(3, 5);
    // The base weights, and the loops' own work with them.
    let mut base = bench.sample(job(Weights::Base, prompt(4, 9), 5, 4));
    let mut vote = bench.sample_as(Priority::Loop, job(Weights::Base, prompt(5, 9), 5, 5));
    bench.finish(&mut base);
    bench.finish(&mut vote);
    // The live version is one that is held, again.
    bench.slots[&AdapterName::from("one")].publish(held.as_ref().clone());
    let mut again = bench.ask(6, 5);
    bench.finish(&mut again);
    for long in &mut long {
        assert!(long.listen().finish.is_none(), "nobody had to end");
    }
    // By then it gets what is held, too.
    assert_eq!(bench.finish(&mut waits).0.started.unwrap().version.get(), 7);
}

#[test]
fn the_gate_examines_a_version_whatever_users_hold() {
    for most in [2, 3] {
        let mut bench = Bench::holding(most);
        let mut users = Vec::new();
        for version in 0..most as u64 {
            bench.publish(20 + version);
            users.push(bench.ask(1 + version, 200));
            bench.worker.turn();
        }
        let mut examined = bench.examine(90, 7);
        let (heard, _) = bench.finish(&mut examined);
        assert_eq!(heard.started.unwrap().version.get(), 90);
        let running = users.iter_mut().filter_map(started).count();
        assert_eq!(running, most - 1, "one place is the loops'");
        // A second version of theirs has none while the first runs.
        let mut one = bench.examine(91, 8);
        bench.worker.turn();
        let mut other = bench.examine(92, 9);
        bench.worker.turn();
        assert_eq!((started(&mut one), started(&mut other)), (Some(91), None));
        bench.finish(&mut other);
    }
}

#[test]
fn a_version_that_is_held_may_be_held_by_another_also_when_too_many_are() {
    let mut bench = Bench::holding(6);
    let mut long = Vec::new();
    for version in 7..10 {
        bench.publish(version);
        long.push(bench.ask(version, 200));
        bench.worker.turn();
    }
    let held = |most| crate::engine::versions::Held::by(bench.worker.running(), most);
    let newest = bench.slots[&AdapterName::from("one")].load();
    assert!(held(3).has_place(&newest, Priority::Loop));
    assert!(held(2).has_place(&newest, Priority::Loop));
    assert!(held(2).has_place(&newest, Priority::User));
    assert!(!held(2).has_place(&deployed(&bench.model, 11), Priority::Loop));
}
