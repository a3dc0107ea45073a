//! Jobs of several threads, panics, and turns that are given away in the middle of a job.

use super::*;

#[test]
fn every_task_runs_exactly_once_on_any_number_of_threads() {
    for threads in 1..=4 {
        let pool = Pool::new(threads).unwrap();
        for tasks in [0, 1, 2, 3, 100] {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..50 {
                pool.run(tasks, &|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 50));
        }
    }
}

#[test]
fn a_panic_in_a_task_reaches_the_caller_and_the_pool_goes_on() {
    let pool = Pool::new(3).unwrap();
    for bad in 0..20 {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.run(20, &|i| assert!(i != bad, "as planned"));
        }));
        assert!(outcome.is_err(), "task {bad}");
        let done = AtomicUsize::new(0);
        pool.run(20, &|_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 20);
    }
}

#[test]
fn a_job_is_not_told_of_the_panics_of_the_one_before() {
    let pool = Pool::new(2).unwrap();
    for _ in 0..20 {
        // The caller's task and the worker's, at the same time.
        let both = std::sync::Barrier::new(2);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.run(2, &|_| {
                both.wait();
                panic!("as planned");
            });
        }));
        assert!(outcome.is_err());
        pool.run(2, &|_| ());
    }
}

#[test]
fn a_job_inside_a_job_runs_in_place() {
    let pool = Pool::new(2).unwrap();
    let done = AtomicUsize::new(0);
    pool.run(4, &|_| {
        pool.run(4, &|_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(done.into_inner(), 16);
}

#[test]
fn jobs_of_several_threads_are_run_one_after_the_other() {
    let pool = Pool::new(2).unwrap();
    let inside = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..100 {
                    pool.run(3, &|_| {
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            });
        }
    });
}

#[test]
fn a_waiter_gets_its_turn_when_the_holder_breathes() {
    let pool = Pool::new(1).unwrap();
    let served = AtomicBool::new(false);
    let started = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let mut turn = pool.enter();
        scope.spawn(|| {
            started.wait();
            let _turn = pool.enter();
            served.store(true, Ordering::SeqCst);
        });
        started.wait();
        while !served.load(Ordering::SeqCst) {
            turn.breathe();
        }
    });
}

#[test]
fn no_threads_is_refused() {
    assert!(matches!(
        Pool::new(0),
        Err(Error::Argument {
            what: "threads",
            ..
        })
    ));
}

/// A job of many tasks in a turn, the first of which waits until somebody wants the turn; whether a later one saw him served.
fn interrupted(pool: &Pool, patient: bool) -> bool {
    const TASKS: usize = 500;
    let counts: Vec<AtomicUsize> = (0..TASKS).map(|_| AtomicUsize::new(0)).collect();
    let (served, seen) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let mut turn = pool.enter();
        if patient {
            turn.breathe();
        }
        scope.spawn(|| {
            let _turn = pool.enter();
            served.store(true, Ordering::SeqCst);
        });
        pool.run(TASKS, &|index| {
            while index == 0 && !pool.turns.is_over(0) && !served.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
            counts[index].fetch_add(1, Ordering::Relaxed);
            // Long enough for the waiter to fall asleep: only then he can be given the turn.
            let begun = std::time::Instant::now();
            while begun.elapsed().as_micros() < 100 && !served.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
            seen.fetch_or(served.load(Ordering::SeqCst), Ordering::SeqCst);
        });
    });
    assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
    seen.into_inner()
}

#[test]
fn whoever_has_breathed_gives_way_in_the_middle_of_a_job_and_nobody_else_does() {
    for threads in 1..=3 {
        let pool = Pool::new(threads).unwrap();
        assert!(interrupted(&pool, true), "{threads} threads");
        assert!(!interrupted(&pool, false), "{threads} threads");
    }
}

#[test]
fn whoever_gave_way_computes_for_its_share_before_it_does_so_again() {
    let pool = Pool::new(1).unwrap();
    let served = AtomicU64::new(0);
    let held = 20_000_000;
    std::thread::scope(|scope| {
        let mut turn = pool.enter();
        scope.spawn(|| {
            let _turn = pool.enter();
            let begun = pool.turns.now();
            while pool.turns.now() < begun + held {
                std::hint::spin_loop();
            }
            served.store(pool.turns.now(), Ordering::SeqCst);
        });
        while served.load(Ordering::SeqCst) == 0 {
            turn.breathe();
        }
        let share = pool.turns.until() - served.load(Ordering::SeqCst);
        assert!(share >= held / 3, "{share} ns");
    });
    assert_eq!(
        pool.turns.until(),
        turn::NEVER,
        "patience ends with the turn"
    );
}

#[test]
fn each_item_is_worked_on_once() {
    for threads in [1, 2, 3] {
        let mut items: Vec<usize> = (0..100).collect();
        Pool::new(threads)
            .unwrap()
            .each(&mut items, &|at, item| *item += 1000 * at);
        assert!(items.into_iter().eq((0..100).map(|i| 1001 * i)));
    }
}
