//! What every learner keeps to: one suite, run by both.

mod common;

use std::sync::Arc;

use common::{advance, batch, config, fresh, frozen, lora, model, stale};
use policy::{Slot, SlotShelf};
use rl::{Batch, Learner, PolicyLoss, PolicyVersion, Proposal, Sample, Shelf, Stored};
use trainer::Config;

/// A learner, what it makes live, and the batch that it is given.
type Build = fn() -> (Box<dyn Learner>, Arc<Slot>, Batch);

const BUILDS: [(&str, Build); 2] = [
    ("lora", || {
        let model = model();
        let (learner, slot) = lora(&model, config());
        (Box::new(learner), slot, batch(&model))
    }),
    ("frozen", || {
        let model = model();
        let (learner, slot) = frozen(&model, config());
        (Box::new(learner), slot, batch(&model))
    }),
];

/// Everything but the clock.
fn same(a: &Proposal, b: &Proposal) {
    let timeless = |p: &Proposal| {
        let mut p = p.clone();
        p.metrics.seconds = 0.0;
        p
    };
    assert!(
        timeless(a) == timeless(b),
        "{:?} is not {:?}",
        a.metrics,
        b.metrics
    );
}

#[test]
fn a_step_is_live_only_once_it_is_deployed_under_its_version() {
    for (name, build) in BUILDS {
        let (mut learner, slot, batch) = build();
        assert_eq!(learner.version(), PolicyVersion::BASE, "{name}");
        let proposal = learner.step(&batch).unwrap();
        assert_eq!(proposal.parent, PolicyVersion::BASE);
        assert_eq!(learner.version(), PolicyVersion::BASE);
        assert!(slot.load().adapter.is_none());
        learner.deploy(PolicyVersion::new(1)).unwrap();
        assert_eq!(learner.version(), PolicyVersion::new(1));
        let live = slot.load();
        assert_eq!(live.version, PolicyVersion::new(1));
        assert_eq!(
            live.adapter.as_ref().unwrap().digest(),
            proposal.adapter_digest,
            "{name}"
        );
    }
}

#[test]
fn a_second_step_without_deploying_starts_again_from_the_same_weights() {
    for (_, build) in BUILDS {
        let (mut learner, _slot, batch) = build();
        let first = learner.step(&batch).unwrap();
        same(&first, &learner.step(&batch).unwrap());
    }
}

#[test]
fn equal_runs_give_equal_bytes() {
    for (_, build) in BUILDS {
        let (mut one, _slot, batch) = build();
        let (mut two, _slot, _) = build();
        for _ in 0..3 {
            same(
                &advance(one.as_mut(), &batch),
                &advance(two.as_mut(), &batch),
            );
        }
    }
}

#[test]
fn a_restored_learner_goes_on_bit_for_bit() {
    for (name, build) in BUILDS {
        let (mut one, _slot, batch) = build();
        advance(one.as_mut(), &batch);
        let kept = advance(one.as_mut(), &batch);
        let (mut two, slot, _) = build();
        two.restore(PolicyVersion::new(2), &kept.adapter, &kept.optimizer)
            .unwrap();
        assert_eq!(two.version(), PolicyVersion::new(2), "{name}");
        assert_eq!(slot.load().version, PolicyVersion::new(2));
        assert_eq!(
            slot.load().adapter.as_ref().unwrap().digest(),
            kept.adapter_digest
        );
        let (next, want) = (advance(two.as_mut(), &batch), advance(one.as_mut(), &batch));
        same(&next, &want);
        assert_eq!(next.metrics.step, 3);
    }
}

#[test]
fn deploying_nothing_or_an_old_version_is_refused() {
    for (_, build) in BUILDS {
        let (mut learner, slot, batch) = build();
        let error = learner.deploy(PolicyVersion::new(1)).unwrap_err();
        assert!(matches!(error, rl::Error::Failed { .. }), "{error}");
        learner.step(&batch).unwrap();
        let error = learner.deploy(PolicyVersion::BASE).unwrap_err();
        assert!(
            error.to_string().contains("v0 does not come after v0"),
            "{error}"
        );
        learner.deploy(PolicyVersion::new(5)).unwrap();
        assert!(
            learner.deploy(PolicyVersion::new(6)).is_err(),
            "it was deployed already"
        );
        assert_eq!(slot.load().version, PolicyVersion::new(5));
    }
}

#[test]
fn foreign_bytes_are_refused_and_change_nothing() {
    for (_, build) in BUILDS {
        let (mut learner, slot, batch) = build();
        let kept = advance(learner.as_mut(), &batch);
        let version = PolicyVersion::new(9);
        for (adapter, optimizer) in [
            (&b"no"[..], &kept.optimizer[..]),
            (&kept.adapter[..], &b"no"[..]),
            (&kept.adapter[..kept.adapter.len() / 2], &kept.optimizer[..]),
            (&kept.optimizer[..], &kept.adapter[..]),
        ] {
            let error = learner.restore(version, adapter, optimizer).unwrap_err();
            assert!(matches!(error, rl::Error::Refused { .. }), "{error}");
        }
        assert_eq!(learner.version(), PolicyVersion::new(1));
        assert_eq!(slot.load().version, PolicyVersion::new(1));
    }
}

#[test]
fn samples_that_the_model_cannot_run_are_refused_by_name_and_nothing_moves() {
    type Damage = fn(&mut Batch);
    let table: [(&str, Damage); 7] = [
        ("advantage has 1 numbers", |b| {
            b.samples[1].advantage = vec![1.0]
        }),
        ("behaviour[2] is NaN", |b| {
            b.samples[1].behaviour[2] = f32::NAN
        }),
        ("token 264 is not in the vocabulary of 264", |b| {
            b.samples[1].response[3] = 264
        }),
        ("exceed the model's context of 512", |b| {
            b.samples[1].prompt = vec![1; 600]
        }),
        ("prompt holds no token", |b| b.samples[1].prompt.clear()),
        ("every weight or advantage is 0", |b| b.samples.clear()),
        ("every weight or advantage is 0", |b| {
            for sample in &mut b.samples {
                sample.advantage.fill(0.0);
            }
        }),
    ];
    for (_, build) in BUILDS {
        let (mut learner, slot, good) = build();
        let want = learner.step(&good).unwrap();
        for (says, damage) in table {
            let mut bad = good.clone();
            damage(&mut bad);
            let error = learner.step(&bad).unwrap_err();
            assert!(matches!(error, rl::Error::Refused { .. }), "{error}");
            assert!(
                error.to_string().contains(says),
                "{error} does not say: {says}"
            );
            assert!(
                learner.deploy(PolicyVersion::new(1)).is_err(),
                "a refused step has no result"
            );
        }
        assert!(slot.load().adapter.is_none());
        same(&learner.step(&good).unwrap(), &want);
    }
}

#[test]
fn a_ratio_beyond_the_tripwire_or_not_finite_refuses_the_step() {
    for (_, build) in BUILDS {
        let (mut learner, _slot, good) = build();
        let want = learner.step(&good).unwrap();
        for (behaviour, says) in [
            (-40.0, "above `max-ratio` 10000"),
            (-1000.0, "a ratio is inf"),
        ] {
            let mut bad = good.clone();
            bad.samples[0].behaviour[0] = behaviour;
            let error = learner.step(&bad).unwrap_err();
            assert!(matches!(error, rl::Error::Refused { .. }));
            assert!(error.to_string().contains(says), "{error}");
        }
        let mut huge = good.clone();
        huge.samples[0].advantage.fill(f32::MAX);
        huge.samples[0].weight.fill(f32::MAX);
        let error = learner.step(&huge).unwrap_err();
        assert!(matches!(error, rl::Error::Refused { .. }), "{error}");
        same(&learner.step(&good).unwrap(), &want);
    }
}

#[test]
fn fresh_samples_have_ratio_one_and_no_mismatch_and_stale_ones_are_measured() {
    for (name, build) in BUILDS {
        let (mut learner, _slot, batch) = build();
        let metrics = learner.step(&batch).unwrap().metrics;
        assert_eq!(
            (metrics.ratio_mean, metrics.ratio_max, metrics.clipped),
            (1.0, 1.0, 0.0)
        );
        assert_eq!(
            (
                metrics.mismatched,
                metrics.fresh,
                metrics.tokens,
                metrics.samples
            ),
            (0, 11, 11, 2),
            "{name}"
        );
        assert!((metrics.pg_loss - (-1.0 + 0.5) / 2.0).abs() < 1e-6);
        let old = learner.step(&stale(&model())).unwrap().metrics;
        assert!(old.ratio_max > 2.0 && old.clipped > 0.2, "{old:?}");
        assert_eq!(old.mismatched, 11, "they claim to be fresh and are not");
        let mut other = stale(&model());
        for sample in &mut other.samples {
            sample.version = PolicyVersion::new(7);
        }
        let other = learner.step(&other).unwrap().metrics;
        assert_eq!((other.mismatched, other.fresh), (0, 0));
        assert_eq!((other.rechecked, other.uncompared), (0, 11), "unheard of");
    }
}

#[test]
fn one_sample_of_an_older_version_that_is_kept_is_computed_by_that_version() {
    for (name, build) in BUILDS {
        let (mut learner, slot, batch) = build();
        advance(learner.as_mut(), &batch);
        let looked = |learner: &mut dyn Learner, batch: &Batch| {
            let found = learner.step(batch).unwrap().metrics;
            let compared = (found.fresh, found.rechecked, found.uncompared);
            (compared, found.mismatched)
        };
        // Of the base's 7 and 4 tokens.
        assert_eq!(looked(learner.as_mut(), &batch), ((0, 7, 4), 0), "{name}");
        let mut other = batch.clone();
        let recorded = &mut other.samples[0].behaviour[2];
        *recorded = f32::from_bits(recorded.to_bits() + 1);
        assert_eq!(looked(learner.as_mut(), &other), ((0, 7, 4), 1), "{name}");
        // The first whose version is kept; a fresh one needs no pass.
        other.samples[0].version = PolicyVersion::new(9);
        assert_eq!(looked(learner.as_mut(), &other), ((0, 4, 7), 0), "{name}");
        other.samples[0].version = PolicyVersion::new(1);
        other.samples[0].behaviour = common::log_probs(&model(), &slot.load(), &other.samples[0]);
        assert_eq!(looked(learner.as_mut(), &other), ((7, 4, 0), 0), "{name}");
        slot.forget();
        assert_eq!(looked(learner.as_mut(), &batch), ((0, 0, 11), 0), "{name}");
    }
}

#[test]
fn what_a_version_served_has_ratio_one_when_it_is_trained_from_that_version() {
    let model = model();
    let (mut learner, slot) = lora(&model, config());
    advance(&mut learner, &batch(&model));
    let mut served = batch(&model);
    for sample in &mut served.samples {
        sample.behaviour = common::log_probs(&model, &slot.load(), sample);
        sample.version = slot.load().version;
    }
    let metrics = learner.step(&served).unwrap().metrics;
    assert_eq!((metrics.ratio_max, metrics.mismatched), (1.0, 0));
    let first = learner.step(&batch(&model)).unwrap().metrics;
    assert_ne!(
        first.ratio_mean, 1.0,
        "the old version's samples are one version stale"
    );
}

#[test]
fn the_learner_raises_what_is_praised_and_the_frozen_one_moves_nothing() {
    let model = model();
    let praised = fresh(&model, 1, 7, 1.0);
    let sum = |slot: &Slot| {
        common::log_probs(&model, &slot.load(), &praised)
            .iter()
            .sum::<f32>()
    };
    let batch = Batch {
        samples: vec![praised.clone()],
    };
    let before: f32 = praised.behaviour.iter().sum();
    // Without a clip, which would stop the push as soon as the tokens are likely enough.
    let free = Config {
        policy_loss: PolicyLoss::ImportanceSampling,
        ..config()
    };
    let (mut learner, slot) = lora(&model, free.clone());
    let (mut control, still) = frozen(&model, free);
    for _ in 0..5 {
        let measured = advance(&mut learner, &batch).metrics;
        assert!(measured.grad_norm > 0.0);
        let idle = advance(&mut control, &batch);
        assert!(idle.metrics.grad_norm > 0.0);
        assert_eq!(sum(&still), before);
    }
    assert!(sum(&slot) > before + 0.5, "{} against {before}", sum(&slot));
    assert_eq!(still.load().version, PolicyVersion::new(5));
}

#[test]
fn a_sample_without_weight_changes_neither_the_step_nor_its_figures() {
    let model = model();
    let mut padded = batch(&model);
    let mut nothing = fresh(&model, 5, 9, 3.0);
    nothing.weight.fill(0.0);
    padded.samples.push(nothing);
    let want = lora(&model, config()).0.step(&batch(&model)).unwrap();
    let got = lora(&model, config()).0.step(&padded).unwrap();
    assert_eq!(got.adapter_digest, want.adapter_digest);
    assert_eq!(
        (got.metrics.loss, got.metrics.tokens),
        (want.metrics.loss, want.metrics.tokens)
    );
}

#[test]
fn a_frozen_learner_goes_on_where_a_moving_one_stopped_and_not_the_other_way_round() {
    let model = model();
    let (mut learner, _slot) = lora(&model, config());
    let kept = advance(&mut learner, &batch(&model));
    let (mut control, slot) = frozen(&model, config());
    control
        .restore(PolicyVersion::new(1), &kept.adapter, &kept.optimizer)
        .unwrap();
    let idle = advance(&mut control, &batch(&model));
    assert_eq!(
        (idle.metrics.step, &idle.adapter_digest),
        (2, &kept.adapter_digest)
    );
    assert_eq!(
        slot.load().adapter.as_ref().unwrap().digest(),
        kept.adapter_digest
    );
    let error = learner
        .restore(PolicyVersion::new(2), &idle.adapter, &idle.optimizer)
        .unwrap_err();
    assert!(
        error.to_string().contains("`exp_avg` is F32 [0]"),
        "{error}"
    );
}

#[test]
fn a_staged_proposal_can_be_asked_and_is_not_live_and_is_still_what_a_deployment_takes() {
    let model = model();
    let batch = batch(&model);
    let candidate = Arc::new(Slot::default());
    let (plain, slot) = lora(&model, config());
    let one = Box::new(plain.with_candidate(Arc::clone(&candidate))) as Box<dyn Learner>;
    let (plain, other_slot) = frozen(&model, config());
    let other_candidate = Arc::new(Slot::default());
    let other = Box::new(plain.with_candidate(Arc::clone(&other_candidate))) as Box<dyn Learner>;
    for (mut learner, slot, candidate) in
        [(one, slot, candidate), (other, other_slot, other_candidate)]
    {
        let error = learner.stage().unwrap_err();
        assert!(matches!(error, rl::Error::Failed { .. }), "{error}");
        let proposal = learner.step(&batch).unwrap();
        learner.stage().unwrap();
        let staged = candidate.load().adapter.clone().unwrap();
        assert_eq!(staged.digest(), proposal.adapter_digest);
        assert!(slot.load().adapter.is_none());
        learner.unstage();
        assert!(candidate.load().adapter.is_none());
        learner.deploy(PolicyVersion::new(1)).unwrap();
        let live = slot.load();
        assert_eq!(live.adapter.as_ref().unwrap().digest(), staged.digest());
        assert!(learner.stage().is_err(), "what is deployed is no proposal");
    }
}

#[test]
fn a_learner_without_a_place_for_candidates_says_so() {
    for (_, build) in BUILDS {
        let (mut learner, _slot, batch) = build();
        learner.step(&batch).unwrap();
        let error = learner.stage().unwrap_err().to_string();
        assert!(error.contains("without a place for candidates"), "{error}");
        learner.unstage();
        learner.deploy(PolicyVersion::new(1)).unwrap();
    }
}

#[test]
fn showing_another_version_moves_nothing_of_the_learner() {
    let model = model();
    let (mut learner, slot) = lora(&model, config());
    let batch = batch(&model);
    let shelf = SlotShelf::new(Arc::clone(&slot), model.config().clone(), 4, 8.0);
    let first = advance(&mut learner, &batch);
    let second = advance(&mut learner, &batch);
    shelf.show(PolicyVersion::new(1), None).unwrap();
    let shown = slot.load();
    assert_eq!(
        shown.adapter.as_ref().unwrap().digest(),
        first.adapter_digest
    );
    assert_eq!(learner.version(), PolicyVersion::new(2));
    assert_eq!(learner.step(&batch).unwrap().parent, PolicyVersion::new(2));
    learner
        .restore(PolicyVersion::new(3), &first.adapter, &first.optimizer)
        .unwrap();
    assert_eq!(slot.load().version, PolicyVersion::new(3));
    let again = learner.step(&batch).unwrap();
    assert_eq!(again.adapter_digest, second.adapter_digest);
}

#[test]
fn the_slots_shelf_keeps_to_the_seams_rules() {
    let model = model();
    let (mut learner, slot) = lora(&model, config());
    let batch = batch(&model);
    let [one, two] = [(); 2].map(|()| advance(&mut learner, &batch));
    let slot_of_its_own = Arc::new(Slot::default());
    drop(slot);
    let shelf = SlotShelf::new(Arc::clone(&slot_of_its_own), model.config().clone(), 4, 8.0);
    rl::seam::conformance::shelf(
        &shelf,
        &|bucket| slot_of_its_own.load_for(bucket).version,
        [&one.adapter, &two.adapter],
    )
    .unwrap();
    let show = |stored| shelf.show(PolicyVersion::new(1), Some(stored));
    show(Stored::new(&one.adapter).with_digest(&one.adapter_digest)).unwrap();
    let error = show(Stored::new(&one.adapter).with_digest(&two.adapter_digest)).unwrap_err();
    assert!(error.to_string().contains("digest"), "{error}");
    let other_rank = SlotShelf::new(slot_of_its_own, model.config().clone(), 8, 8.0);
    let error = other_rank.show(PolicyVersion::new(5), Some(Stored::new(&one.adapter)));
    assert!(error.unwrap_err().to_string().contains("rank is 4"));
}

#[test]
fn a_learner_that_keeps_one_version_leaves_no_other_in_its_slot_and_computes_the_same() {
    let model = model();
    let (mut keeping, _) = lora(&model, config());
    let (learner, slot) = lora(&model, config());
    let mut learner = learner
        .with_one_version()
        .with_workspace(trainer::Workspace::new(0));
    for _ in 0..2 {
        let proposal = advance(&mut learner, &batch(&model));
        // Another workspace, which keeps no activations, gives the same bytes.
        assert_eq!(
            proposal.adapter,
            advance(&mut keeping, &batch(&model)).adapter
        );
    }
    let live = slot.load().version;
    assert!(slot.recent(live).is_some());
    assert!(slot.recent(PolicyVersion::new(1)).is_none() && live == PolicyVersion::new(2));
}

#[test]
fn a_sample_that_there_is_no_memory_for_is_put_off_not_refused_and_moves_nothing() {
    let model = model();
    let batch = batch(&model);
    let fed = |sample: &Sample| sample.prompt.len() + sample.response.len() - 1;
    let longest = batch.samples.iter().map(fed).max().unwrap();
    let with = |tokens| {
        let space = trainer::Workspace::default().with_longest(tokens);
        lora(&model, config()).0.with_workspace(space)
    };
    let mut small = with(longest - 1);
    let error = small.step(&batch).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    // Who asks before is told which samples it is, and what to do.
    for sample in &batch.samples {
        let why = small.no_room_for(sample).unwrap_or_default();
        assert_eq!(why.contains("[engine] context"), fed(sample) == longest);
        assert_eq!(why.contains(sample.id.as_str()), fed(sample) == longest);
    }
    let mut enough = with(longest);
    assert!(
        batch
            .samples
            .iter()
            .all(|s| enough.no_room_for(s).is_none())
    );
    assert!(enough.step(&batch).is_ok());
    let whole = trainer::Workspace::default()
        .with_longest(1)
        .without_longest();
    let mut whole = lora(&model, config()).0.with_workspace(whole);
    assert!(whole.step(&batch).is_ok());
}
