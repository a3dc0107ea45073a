//! The ledger on a simulated disk: killed, cut off from power, and refused at every single one of its operations.

use ledger::{
    Error,
    disk::{Fault, Simulated},
};

use crate::scenario::{self, entry, open, run, steps};

/// 0 loses all that was not synced, 1 nothing, the others any part of it.
const SEEDS: [u64; 6] = [0, 1, 2, 3, 4, 5];

fn operations() -> u64 {
    let disk = Simulated::new();
    let memory = run(&disk, &steps());
    assert!(memory.errors.is_empty(), "{:?}", memory.errors);
    memory.check(&disk.process_kill(), "without a fault");
    disk.operations()
}

#[test]
fn a_kill_at_any_operation_loses_nothing_acknowledged() {
    let total = operations();
    assert!(total > 100, "{total}");
    for n in 0..total {
        let disk = Simulated::new();
        disk.arm(Some(Fault::Kill(n)));
        let memory = run(&disk, &steps());
        memory.check(&disk.process_kill(), &format!("killed at {n} of {total}"));
    }
}

#[test]
fn a_power_loss_at_any_operation_loses_nothing_acknowledged() {
    let total = operations();
    for n in 0..=total {
        let disk = Simulated::new();
        disk.arm(Some(Fault::Kill(n)));
        let memory = run(&disk, &steps());
        for seed in SEEDS {
            let context = format!("power lost at {n} of {total}, seed {seed}");
            memory.check(&disk.crash(seed), &context);
        }
    }
    println!("{} power losses", (total + 1) * SEEDS.len() as u64);
}

#[test]
fn a_failed_operation_anywhere_stops_the_ledger_and_loses_nothing_acknowledged() {
    let total = operations();
    for n in 0..total {
        let disk = Simulated::new();
        disk.arm(Some(Fault::Error(n)));
        let memory = run(&disk, &steps());
        let context = format!("error at {n} of {total}");
        let stopped = memory.errors.first();
        assert!(
            stopped.is_none_or(|e| e.is_poisoned() || matches!(e, Error::File { .. })),
            "{context}: {:?}",
            memory.errors
        );
        // The next process reads the page cache that the failed one has left; then the power goes.
        memory.check(&disk.process_kill(), &context);
        for seed in SEEDS {
            memory.check(&disk.crash(seed), &format!("{context}, seed {seed}"));
        }
    }
}

#[test]
fn a_failed_sync_is_never_followed_by_an_acknowledgement() {
    let total = operations();
    let mut stopped = 0;
    for n in 0..total {
        let disk = Simulated::new();
        let ledger = open(&disk).unwrap();
        ledger.append(entry("a", 0)).wait().unwrap();
        disk.arm(Some(Fault::Error(n)));
        let first = ledger.append(entry("b", 0)).wait();
        if disk.operations() <= n {
            break;
        }
        if let Err(error) = first {
            stopped += 1;
            assert!(error.is_poisoned(), "{error}");
            let second = ledger.append(entry("c", 0)).wait().unwrap_err();
            assert!(second.is_poisoned(), "{second}");
            assert!(ledger.put_blob(b"x").unwrap_err().is_poisoned());
            assert!(ledger.health().unwrap_err().to_string().contains("restart"));
            assert_eq!(ledger.scan(ledger::Seq::FIRST).count(), 1);
        }
    }
    // The write, its sync, and the mark.
    assert_eq!(stopped, 3);
}

#[test]
fn a_crash_while_opening_after_a_crash_loses_nothing_either() {
    let total = operations();
    let mut tried = 0;
    for n in (0..total).step_by(5) {
        for seed in [1, 2, 3] {
            let disk = Simulated::new();
            disk.arm(Some(Fault::Kill(n)));
            let memory = run(&disk, &steps());
            let left = disk.crash(seed);
            for m in 0.. {
                let again = left.process_kill();
                again.arm(Some(Fault::Kill(m)));
                let opened = open(&again).map(drop);
                if again.operations() <= m {
                    assert!(opened.is_ok());
                    break;
                }
                tried += 1;
                for after in [0, 4] {
                    let context = format!("at {n} seed {seed}, opening at {m} seed {after}");
                    memory.check(&again.crash(after), &context);
                }
                memory.check(
                    &again.process_kill(),
                    &format!("at {n}, opening killed at {m}"),
                );
            }
        }
    }
    println!("{tried} crashes while opening");
}

#[test]
fn a_full_disk_at_any_size_refuses_and_recovers() {
    let disk = Simulated::new();
    run(&disk, &steps());
    let most = disk.used();
    let mut refused = 0;
    for limit in (0..most).step_by(613) {
        let disk = Simulated::new();
        disk.limit(Some(limit));
        let memory = run(&disk, &steps());
        refused += memory.errors.len();
        for error in &memory.errors {
            let opening = matches!(error, Error::Full | Error::File { .. });
            assert!(opening && !error.is_poisoned(), "{limit}: {error}");
        }
        disk.limit(None);
        memory.check(&disk.process_kill(), &format!("full at {limit} of {most}"));
        memory.check(
            &disk.crash(2),
            &format!("full at {limit} of {most}, then power lost"),
        );
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn a_group_is_there_whole_or_not_at_all_after_any_tear() {
    use ledger::Seq;
    for seed in 0..200 {
        let disk = Simulated::new();
        let ledger = open(&disk).unwrap();
        ledger.append(entry("a", 0)).wait().unwrap();
        // The write is the first operation, the sync the second.
        disk.arm(Some(Fault::Kill(1)));
        let group = vec![entry("g1", 700), entry("g2", 700), entry("g3", 700)];
        assert!(ledger.append_all(group).wait().is_err());
        let ledger = open(&disk.crash(seed)).unwrap();
        let count = ledger.scan(Seq::FIRST).count();
        assert!(count == 1 || count == 4, "seed {seed}: {count}");
        // A shorter group over what is left of the longer one.
        ledger.append(entry("b", 0)).wait().unwrap();
        let records: Vec<_> = ledger.scan(Seq::FIRST).map(Result::unwrap).collect();
        assert_eq!(records.len(), count + 1);
    }
}

#[test]
fn an_append_costs_one_sync_and_opening_checks_before_it_writes() {
    let disk = Simulated::new();
    let ledger = open(&disk).unwrap();
    ledger.append(entry("a", 0).sealed()).wait().unwrap();
    let before = disk.syncs();
    ledger.append(entry("b", 0)).wait().unwrap();
    ledger.append(entry("c", 0).sealed()).wait().unwrap();
    ledger
        .append_all(vec![entry("d", 0), entry("e", 0).sealed()])
        .wait()
        .unwrap();
    // The mark is synced when the ledger is idle, which it may have been for a moment here.
    let syncs = disk.syncs() - before;
    assert!((3..=4).contains(&syncs), "{syncs}");
}

#[test]
fn two_handles_on_one_simulated_folder_are_refused_too() {
    let disk = Simulated::new();
    let first = open(&disk).unwrap();
    assert!(matches!(open(&disk), Err(Error::Locked { .. })));
    drop(first);
    open(&disk).unwrap();
    assert_eq!(scenario::DIR, "/data/ledger");
}
