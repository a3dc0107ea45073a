//! What the sampler promises.

use proptest::prelude::*;
use rl::Seed;

use super::*;

fn sampling(temperature: f32) -> Sampling {
    Sampling {
        temperature,
        seed: Seed::new(1),
        ..Sampling::default()
    }
}

/// Draws at positions 0.. and counts each token.
fn counts(sampling: &Sampling, logits: &[f32], draws: u64) -> Vec<u64> {
    let mut sampler = Sampler::new(sampling, 0, logits.len()).unwrap();
    let mut counts = vec![0; logits.len()];
    for position in 0..draws {
        counts[sampler.draw(logits, position).unwrap() as usize] += 1;
    }
    counts
}

#[test]
fn philox_gives_the_published_answers() {
    // kat_vectors of Random123: philox4x32, 10 rounds.
    let ones = u32::MAX;
    assert_eq!(
        philox4x32([0; 4], [0; 2]),
        [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
    );
    assert_eq!(
        philox4x32([ones; 4], [ones; 2]),
        [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
    );
    assert_eq!(
        philox4x32(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0]
        ),
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
    );
}

#[test]
fn uniform_numbers_fill_the_unit_interval_and_differ_in_every_coordinate() {
    let numbers: Vec<f64> = (0..10_000)
        .map(|position| uniform(1, 0, position))
        .collect();
    let mean = numbers.iter().sum::<f64>() / 10_000.0;
    assert!(
        (mean - 0.5).abs() < 0.01 && numbers.iter().all(|x| (0.0..1.0).contains(x)),
        "{mean}"
    );
    assert!(numbers.iter().any(|x| *x < 0.001) && numbers.iter().any(|x| *x > 0.999));
    let base = uniform(7, 1, 2);
    assert!(base != uniform(8, 1, 2) && base != uniform(7, 2, 2) && base != uniform(7, 1, 3));
    assert_ne!(uniform(7, 0, 1 << 32), uniform(7, 0, 0));
}

#[test]
fn temperature_zero_takes_the_largest_logit_and_the_lowest_id_of_a_tie() {
    let mut sampler = Sampler::new(&sampling(0.0), 0, 4).unwrap();
    assert_eq!(sampler.draw(&[0.0, 3.0, 3.0, 1.0], 0), Some(1));
    assert_eq!(
        sampler.draw(&[f32::NAN, -1.0, f32::NEG_INFINITY, f32::NAN], 0),
        Some(1)
    );
    assert_eq!(sampler.draw(&[f32::NAN, f32::NEG_INFINITY], 0), None);
    assert_eq!(sampler.draw(&[], 0), None);
}

#[test]
fn tokens_come_as_often_as_the_softmax_says() {
    let logits = [1.0f32, 0.0, -1.0, 2.0, f32::NEG_INFINITY];
    for temperature in [0.5f32, 1.0, 2.0] {
        let draws = 40_000;
        let counts = counts(&sampling(temperature), &logits, draws);
        let weights: Vec<f64> = logits
            .iter()
            .map(|l| f64::from(l / temperature).exp())
            .collect();
        let total: f64 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(&weights) {
            let (found, expected) = (*count as f64 / draws as f64, weight / total);
            assert!(
                (found - expected).abs() < 0.01,
                "{temperature}: {found} {expected}"
            );
        }
    }
}

#[test]
fn top_k_top_p_and_min_p_keep_exactly_the_tokens_that_they_name() {
    // Probabilities 0.4, 0.3, 0.2, 0.1, in mixed order.
    let logits = [0.2f32, 0.4, 0.1, 0.3].map(f32::ln);
    let kept = |settings: Sampling| -> Vec<usize> {
        let counts = counts(&settings, &logits, 4000);
        (0..4).filter(|id| counts[*id] > 0).collect()
    };
    let base = sampling(1.0);
    assert_eq!(
        kept(Sampling {
            top_k: 1,
            ..base.clone()
        }),
        [1]
    );
    assert_eq!(
        kept(Sampling {
            top_k: 2,
            ..base.clone()
        }),
        [1, 3]
    );
    assert_eq!(
        kept(Sampling {
            top_k: 9,
            ..base.clone()
        }),
        [0, 1, 2, 3]
    );
    assert_eq!(
        kept(Sampling {
            top_p: 0.39,
            ..base.clone()
        }),
        [1]
    );
    assert_eq!(
        kept(Sampling {
            top_p: 0.65,
            ..base.clone()
        }),
        [1, 3]
    );
    assert_eq!(
        kept(Sampling {
            top_p: 0.75,
            ..base.clone()
        }),
        [0, 1, 3]
    );
    assert_eq!(
        kept(Sampling {
            min_p: 0.6,
            ..base.clone()
        }),
        [1, 3]
    );
    // After top-k the probabilities are 0.57 and 0.43: top-p counts among those.
    assert_eq!(
        kept(Sampling {
            top_k: 2,
            top_p: 0.5,
            ..base
        }),
        [1]
    );
}

#[test]
fn bias_and_repetition_penalty_change_what_is_drawn() {
    let logits = [1.0f32, 0.9, -5.0];
    let mut biased = sampling(0.0);
    biased.logit_bias = vec![(0, -100.0), (2, 7.0), (99, 1.0)];
    assert_eq!(
        Sampler::new(&biased, 0, 3).unwrap().draw(&logits, 0),
        Some(2)
    );
    let mut penalised = sampling(0.0);
    penalised.repetition_penalty = 2.0;
    let mut sampler = Sampler::new(&penalised, 0, 3).unwrap();
    assert_eq!(sampler.draw(&logits, 0), Some(0));
    sampler.observe(0);
    sampler.observe(u32::MAX);
    assert_eq!(sampler.draw(&logits, 1), Some(1));
    // A negative logit is multiplied, not divided, so that it falls, too.
    let mut sampler = Sampler::new(&penalised, 0, 3).unwrap();
    sampler.observe(0);
    assert_eq!(sampler.draw(&[-1.0, -1.5, -9.0], 0), Some(1));
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let base = sampling(1.0);
    for (settings, name) in [
        (
            Sampling {
                temperature: f32::NAN,
                ..base.clone()
            },
            "temperature",
        ),
        (
            Sampling {
                temperature: -1.0,
                ..base.clone()
            },
            "temperature",
        ),
        (
            Sampling {
                top_p: 0.0,
                ..base.clone()
            },
            "top-p",
        ),
        (
            Sampling {
                top_p: 1.1,
                ..base.clone()
            },
            "top-p",
        ),
        (
            Sampling {
                min_p: -0.1,
                ..base.clone()
            },
            "min-p",
        ),
        (
            Sampling {
                repetition_penalty: 0.0,
                ..base.clone()
            },
            "repetition-penalty",
        ),
        (
            Sampling {
                logit_bias: vec![(0, f32::NAN)],
                ..base
            },
            "logit-bias",
        ),
    ] {
        let error = Sampler::new(&settings, 0, 3).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn drawing_takes_no_new_memory() {
    let mut settings = sampling(0.8);
    (settings.top_k, settings.top_p, settings.min_p) = (40, 0.9, 0.01);
    settings.repetition_penalty = 1.1;
    let logits: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.7).sin() * 5.0).collect();
    let mut sampler = Sampler::new(&settings, 0, 1000).unwrap();
    let room = |s: &Sampler| {
        (
            s.logits.capacity(),
            s.picker.candidates.capacity(),
            s.seen.capacity(),
        )
    };
    sampler.draw(&logits[..10], 0);
    sampler.draw(&logits, 0);
    let before = room(&sampler);
    for position in 0..100 {
        let id = sampler.draw(&logits, position).unwrap();
        sampler.observe(id);
    }
    assert_eq!(room(&sampler), before);
}

proptest! {
    #[test]
    fn any_logits_and_settings_give_a_possible_token_and_the_same_one_again(
        logits in prop::collection::vec(prop_oneof![
            8 => -30.0f32..30.0, 1 => Just(f32::NAN), 1 => Just(f32::NEG_INFINITY), 1 => Just(f32::INFINITY),
        ], 1..64),
        temperature in prop_oneof![Just(0.0f32), Just(1e-30), 0.01f32..5.0],
        top_k in 0u32..70,
        top_p in 0.01f32..=1.0,
        min_p in 0.0f32..=1.0,
        seed: u64,
        position: u64,
    ) {
        let settings = Sampling {
            temperature, top_k, top_p, min_p, seed: Seed::new(seed), ..Sampling::default()
        };
        let draw = || Sampler::new(&settings, 3, logits.len()).unwrap().draw(&logits, position);
        let drawn = draw();
        prop_assert_eq!(drawn, draw());
        match drawn {
            Some(id) => prop_assert!(logits[id as usize] > f32::NEG_INFINITY),
            None => prop_assert!(logits.iter().all(|l| l.is_nan() || *l == f32::NEG_INFINITY)),
        }
    }

    #[test]
    fn top_p_is_that_of_a_full_sort(
        logits in prop::collection::vec(-8.0f32..8.0, 1..200),
        top_p in 0.01f32..0.999,
    ) {
        let settings = Sampling { top_p, ..sampling(1.0) };
        let mut sampler = Sampler::new(&settings, 0, logits.len()).unwrap();
        sampler.draw(&logits, 0);
        let mut sorted: Vec<u32> = (0..logits.len() as u32).collect();
        sorted.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
        let max = logits[sorted[0] as usize];
        let weight = |id: u32| f64::from((logits[id as usize] - max).exp());
        let total: f64 = (0..logits.len() as u32).map(weight).sum();
        let mut sum = 0.0;
        let mut expected: Vec<u32> = Vec::new();
        for id in sorted {
            expected.push(id);
            sum += weight(id);
            if sum >= f64::from(top_p) * total {
                break;
            }
        }
        expected.sort_unstable();
        let kept: Vec<u32> = sampler.picker.candidates.iter().map(|c| c.id).collect();
        prop_assert_eq!(kept, expected);
    }
}

#[test]
fn the_draw_is_that_of_one_sum_over_the_whole_vocabulary() {
    // More than one block, the last one not full; whole blocks that weigh nothing.
    let logits: Vec<f32> = (0..1700u32)
        .map(|i| match i {
            300..=1100 => f32::NEG_INFINITY,
            _ => (i.wrapping_mul(2_654_435_761) >> 20) as f32 / 500.0,
        })
        .collect();
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let weights: Vec<f64> = logits.iter().map(|&l| (f64::from(l) - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut sampler = Sampler::new(&sampling(1.0), 0, logits.len()).unwrap();
    for position in 0..3000 {
        let at = uniform(1, 0, position) * total;
        let found = sampler.draw(&logits, position).unwrap() as usize;
        // The place lies in the token's part of the sum, but for what f32 rounds.
        let before: f64 = weights[..found].iter().sum();
        let slack = 1e-5 * total;
        assert!(
            before - slack <= at && at <= before + weights[found] + slack,
            "{position}: {found}"
        );
        assert!(weights[found] > 0.0);
    }
}
