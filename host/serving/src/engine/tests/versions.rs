//! How many versions of the trained adapter running replies hold.

use super::*;

#[test]
fn whoever_would_hold_one_version_more_than_may_be_waits_for_the_last_reply_of_another() {
    let mut bench = Bench::new(Config {
        max_versions: 2,
        ..Config::default()
    });
    let ask = |bench: &Bench, seed, tokens| {
        bench.sample(job(adapter("one"), prompt(seed, 9), tokens, seed))
    };
    let publish = |bench: &Bench, version| {
        let slot = &bench.slots[&AdapterName::from("one")];
        slot.publish(deployed(&bench.model, version));
    };
    let started = |listener: &mut Listener| {
        let started = listener.listen().started.clone();
        started.map(|started| started.version.get())
    };
    let mut first = ask(&bench, 1, 20);
    bench.worker.turn();
    publish(&bench, 7);
    let mut second = ask(&bench, 2, 200);
    bench.worker.turn();
    assert_eq!(
        (started(&mut first), started(&mut second)),
        (Some(1), Some(7))
    );

    publish(&bench, 8);
    let mut third = ask(&bench, 3, 5);
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
    publish(&bench, 9);
    let mut fourth = ask(&bench, 4, 200);
    let mut base = bench.sample(job(Weights::Base, prompt(5, 9), 5, 5));
    bench.finish(&mut base);
    let mut fifth = ask(&bench, 6, 5);
    let (heard, _) = bench.finish(&mut fifth);
    assert_eq!(heard.started.unwrap().version.get(), 9);
    assert!(second.listen().finish.is_none() && fourth.listen().finish.is_none());
}
