//! The live guard and trials, fed with histories that are made by hand or by a seeded source.

use rl::{
    FinishReason, Message, PolicyVersion, Seed, Turn,
    VoteValue::{Negative, Positive},
    seam::conformance,
};

use super::{Decision, GuardConfig, LiveGuard, StageConfig, Trial, Trip};

const OLD: PolicyVersion = PolicyVersion::new(1);
const NEW: PolicyVersion = PolicyVersion::new(2);

/// A sound reply of this many tokens.
fn sound(version: PolicyVersion, tokens: u32) -> Turn {
    Turn {
        version,
        response: (0..tokens).collect(),
        logprobs: vec![-0.5; tokens as usize],
        ..conformance::turn("How do I boil an egg?", "In hot water.")
    }
}

fn empty(version: PolicyVersion) -> Turn {
    Turn {
        reply: Message::assistant(" "),
        ..sound(version, 1)
    }
}

fn cut(version: PolicyVersion) -> Turn {
    Turn {
        finish: FinishReason::Length,
        ..sound(version, 60)
    }
}

fn circles(version: PolicyVersion) -> Turn {
    Turn {
        // Two thirds of it: one that does nothing else is broken.
        response: (0..60)
            .map(|at| if at < 19 { 100 + at } else { at % 5 })
            .collect(),
        ..sound(version, 60)
    }
}

/// A guard that has seen 40 sound replies of about 60 tokens before the new version.
fn guard() -> LiveGuard {
    let mut guard = LiveGuard::new(GuardConfig::default(), OLD);
    for at in 0..40 {
        assert_eq!(guard.served(&sound(OLD, 40 + at)), None);
        let verdict = if at % 4 == 0 { Negative } else { Positive };
        assert_eq!(guard.judged(OLD, verdict), None);
    }
    guard.promoted(NEW);
    guard
}

/// Serves the same again and again; the trip and after how many.
fn until(guard: &mut LiveGuard, turn: &Turn, most: u64) -> Option<(u64, Trip)> {
    (1..=most).find_map(|count| guard.served(turn).map(|trip| (count, trip)))
}

#[test]
fn every_kind_of_bad_reply_trips_its_guard_within_a_couple_of_dozen() {
    for (turn, name, most) in [
        (empty(NEW), "burst", 5),
        (circles(NEW), "repetition", 40),
        (cut(NEW), "cut-off", 30),
        (sound(NEW, 2), "shorter", 22),
        (sound(NEW, 500), "longer", 22),
    ] {
        let (count, trip) = until(&mut guard(), &turn, 40).unwrap();
        assert_eq!((trip.guard.as_str(), trip.version), (name, NEW), "{trip:?}");
        assert!(count <= most, "{name} took {count}");
        assert_eq!((trip.seen, trip.bad_replies), (count, count), "{trip:?}");
    }
}

#[test]
fn broken_replies_between_sound_ones_are_found_by_evidence() {
    let mut guard = guard();
    let trip = (0..40).find_map(|at| {
        let turn = if at % 3 == 0 {
            sound(NEW, 60)
        } else {
            empty(NEW)
        };
        guard.served(&turn)
    });
    let trip = trip.unwrap();
    assert_eq!(trip.guard, "errors");
    assert!(trip.bad_replies < trip.seen && trip.seen <= 36, "{trip:?}");
    assert!(trip.why.contains("% before"), "{}", trip.why);
}

#[test]
fn negative_verdicts_trip_and_say_how_many_there_were() {
    let mut guard = guard();
    let trip = (0..40).find_map(|_| guard.judged(NEW, Negative)).unwrap();
    assert_eq!(trip.guard, "negative");
    assert_eq!(trip.seen, trip.bad_replies);
    assert!(trip.seen <= 36, "{trip:?}");
}

#[test]
fn learned_brevity_is_no_disaster() {
    let mut guard = LiveGuard::new(GuardConfig::default(), PolicyVersion::BASE);
    let mut tokens = 90.0;
    for version in 0..12 {
        let version = PolicyVersion::new(version);
        if version > PolicyVersion::BASE {
            guard.promoted(version);
        }
        for _ in 0..30 {
            assert_eq!(guard.served(&sound(version, tokens as u32)), None);
            let verdict = if version.get() < 5 {
                Negative
            } else {
                Positive
            };
            assert_eq!(guard.judged(version, verdict), None);
        }
        tokens *= 0.75;
    }
}

#[test]
fn a_guard_trips_once_and_starts_anew_with_the_version_that_is_shown_instead() {
    let mut guard = guard();
    until(&mut guard, &empty(NEW), 5).unwrap();
    assert_eq!(until(&mut guard, &empty(NEW), 50), None, "it has spoken");
    let back = PolicyVersion::new(3);
    guard.reverted(back);
    assert_eq!(guard.version(), back);
    assert_eq!(
        guard.served(&empty(NEW)),
        None,
        "a late turn of the old one"
    );
    assert_eq!(until(&mut guard, &sound(back, 60), 60), None);
    // The bad version's replies are no measure: the same disaster is found again.
    guard.promoted(PolicyVersion::new(4));
    assert!(until(&mut guard, &empty(PolicyVersion::new(4)), 5).is_some());
}

#[test]
fn versions_that_follow_each_other_fast_are_watched_together() {
    let numbers = || (2..).map(PolicyVersion::new);
    let next = |guard: &mut LiveGuard, version: PolicyVersion| {
        if version > NEW {
            guard.promoted(version);
        }
    };
    let mut broken = guard();
    let trip = numbers().take(4).find_map(|version| {
        next(&mut broken, version);
        until(&mut broken, &empty(version), 2)
    });
    let (_, trip) = trip.unwrap();
    assert_eq!((trip.version.get(), trip.since), (4, NEW), "{trip:?}");
    assert_eq!((trip.guard.as_str(), trip.bad_replies), ("burst", 5));

    let mut hated = guard();
    let trip = numbers().take(10).find_map(|version| {
        next(&mut hated, version);
        (0..4).find_map(|_| hated.judged(version, Negative))
    });
    let trip = trip.unwrap();
    assert_eq!((trip.guard.as_str(), trip.since), ("negative", NEW));
    assert!(trip.version > NEW && trip.seen <= 36, "{trip:?}");
    // The next version comes before the order is obeyed: it is under suspicion as well.
    let late = trip.version.next();
    hated.promoted(late);
    let again = hated.judged(late, Negative).unwrap();
    assert_eq!((again.version, again.since), (late, NEW));
}

#[test]
fn a_first_version_does_not_inherit_what_the_base_model_does() {
    let mut guard = LiveGuard::new(GuardConfig::default(), PolicyVersion::BASE);
    assert_eq!(until(&mut guard, &empty(PolicyVersion::BASE), 4), None);
    guard.promoted(OLD);
    assert_eq!(until(&mut guard, &empty(OLD), 40), None, "no worse than it");
}

#[test]
fn a_suspicion_that_was_not_confirmed_is_over_when_its_pairs_are() {
    let mut guard = guard();
    let sound = |guard: &mut LiveGuard, version| {
        assert_eq!(until(guard, &sound(version, 60), 60), None);
    };
    guard.served(&empty(NEW));
    guard.promoted(PolicyVersion::new(3));
    assert_eq!(guard.since, NEW, "the last reply was broken");
    sound(&mut guard, PolicyVersion::new(3));
    guard.promoted(PolicyVersion::new(4));
    assert_eq!(guard.since.get(), 4);
}

#[test]
fn equal_versions_that_follow_each_other_fast_are_taken_back_hardly_ever() {
    let mut trips = 0;
    for run in 0..100_u64 {
        let mut count = 0_u64;
        let mut coin = |probability: f64| {
            count += 1;
            let seed = Seed::new(run).derive("fast").derive(&count.to_string());
            (seed.get() as f64) * 2f64.powi(-64) < probability
        };
        let mut guard = LiveGuard::new(GuardConfig::default(), OLD);
        for number in 1..=41 {
            let version = PolicyVersion::new(number);
            if version > OLD {
                guard.promoted(version);
            }
            for _ in 0..if version == OLD { 64 } else { 5 } {
                let turn = match (coin(0.05), coin(0.3), coin(0.5)) {
                    (true, ..) => empty(version),
                    (_, true, _) => cut(version),
                    (.., short) => sound(version, if short { 20 } else { 90 }),
                };
                let tripped = guard.served(&turn).is_some();
                let verdict = if coin(0.4) { Negative } else { Positive };
                trips += u64::from(tripped || guard.judged(version, verdict).is_some());
            }
        }
    }
    // Six guards at 0.001 over 4000 versions: 24 are expected at the very most.
    assert!(trips <= 24, "{trips} of 4000");
}

#[test]
fn what_says_nothing_is_not_counted_and_a_guard_that_is_off_never_trips() {
    let mut watched = guard();
    let side = Turn {
        kind: rl::TurnKind::Side,
        ..empty(NEW)
    };
    let cancelled = Turn {
        finish: FinishReason::Cancelled,
        ..empty(NEW)
    };
    for turn in [side, cancelled, empty(OLD)] {
        assert_eq!(until(&mut watched, &turn, 40), None);
    }
    let off = GuardConfig {
        enabled: false,
        ..GuardConfig::default()
    };
    let mut off = LiveGuard::new(off, NEW);
    assert_eq!(until(&mut off, &empty(NEW), 40), None);
}

#[test]
fn equal_versions_are_taken_back_hardly_ever() {
    let mut trips = 0;
    for run in 0..300_u64 {
        let mut count = 0_u64;
        let mut coin = |probability: f64| {
            count += 1;
            let seed = Seed::new(run).derive("guard").derive(&count.to_string());
            (seed.get() as f64) * 2f64.powi(-64) < probability
        };
        let mut turn = |version| match (coin(0.1), coin(0.3), coin(0.5)) {
            (true, ..) => empty(version),
            (_, true, _) => cut(version),
            (.., short) => sound(version, if short { 20 } else { 90 }),
        };
        let mut guard = LiveGuard::new(GuardConfig::default(), OLD);
        for _ in 0..64 {
            guard.served(&turn(OLD));
        }
        guard.promoted(NEW);
        trips += u64::from((0..200).any(|_| guard.served(&turn(NEW)).is_some()));
    }
    // Five guards at 0.001 over 300 versions: 1.5 are expected at the very most.
    assert!(trips <= 4, "{trips} of 300");
}

#[test]
fn a_trial_promotes_what_is_no_worse_and_rejects_what_is_and_waits_for_both_sides() {
    let begin = || {
        let stage = StageConfig::default();
        Trial::new(&stage, &GuardConfig::default(), NEW, OLD)
    };
    let mut alone = begin();
    for _ in 0..100 {
        assert_eq!(alone.served(&sound(NEW, 60)), Decision::Wait);
    }
    assert_eq!(alone.served(&sound(OLD, 60)), Decision::Promote);
    let mut good = begin();
    let mut decisions = Vec::new();
    for _ in 0..32 {
        (0..3).for_each(|_| drop(good.served(&sound(OLD, 60))));
        good.judged(OLD, Negative);
        good.judged(NEW, Negative);
        decisions.push(good.served(&sound(NEW, 50)));
    }
    assert_eq!(
        decisions.iter().filter(|d| **d == Decision::Wait).count(),
        31
    );
    assert_eq!((good.decision(), good.replies()), (Decision::Promote, 32));
    let mut disliked = begin();
    let rejected = (0..31).find_map(|_| {
        disliked.served(&sound(OLD, 60));
        disliked.served(&sound(NEW, 60));
        disliked.judged(OLD, Positive);
        match disliked.judged(NEW, Negative) {
            Decision::Reject(why) => Some(why),
            _ => None,
        }
    });
    assert!(rejected.unwrap().starts_with("negative"));
    let mut broken = begin();
    let last = (0..5).map(|_| broken.served(&empty(NEW))).last();
    assert!(matches!(last, Some(Decision::Reject(why)) if why.starts_with("burst")));
}

#[test]
fn settings_out_of_range_are_refused() {
    GuardConfig::default().validate().unwrap();
    StageConfig::default().validate().unwrap();
    let bad = |change: fn(&mut GuardConfig)| {
        let mut config = GuardConfig::default();
        change(&mut config);
        config.validate().is_err()
    };
    assert!(bad(|c| c.alpha = 0.0) && bad(|c| c.burst = 1) && bad(|c| c.length = f64::NAN));
    let share = StageConfig {
        share: Some(1.0),
        ..StageConfig::default()
    };
    assert!(share.validate().is_err());
}
