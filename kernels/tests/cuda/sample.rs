//! `kernels::cuda::sample`, against the policy's sampler written out plainly.
#![expect(clippy::unwrap_used, reason = "tests")]

use kernels::cuda::Stream;
use kernels::cuda::sample::{Draw, Work, draw};

use crate::common::noise;
use crate::setup::{poisoned, stream};

/// Salmon et al. 2011, in 64-bit arithmetic; the policy's own is tested against the published vectors.
fn uniform(d: &Draw) -> f64 {
    let (mut c, mut k) = (
        [d.position, d.position >> 32, d.request, d.request >> 32].map(|n| n & 0xffff_ffff),
        [d.seed, d.seed >> 32].map(|n| n & 0xffff_ffff),
    );
    for _ in 0..10 {
        let (a, b) = (0xD251_1F53 * c[0], 0xCD9E_8D57 * c[2]);
        c = [(b >> 32) ^ c[1] ^ k[0], b, (a >> 32) ^ c[3] ^ k[1], a].map(|n| n & 0xffff_ffff);
        k = [k[0] + 0x9E37_79B9, k[1] + 0xBB67_AE85].map(|n| n & 0xffff_ffff);
    }
    ((c[0] << 32 | c[1]) >> 11) as f64 / (1u64 << 53) as f64
}

/// The tokens that may be drawn and their weights, by id.
fn kept(d: &Draw, logits: &[f32]) -> Vec<(usize, f64)> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let scale = 1.0 / d.temperature;
    let weight = |l: f32| f64::from((l - max) * scale).exp();
    let mut all: Vec<(usize, f64)> = logits.iter().map(|&l| weight(l)).enumerate().collect();
    all.retain(|(_, w)| *w > 2f64.powi(-126));
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if d.top_k > 0 {
        all.truncate(d.top_k as usize);
    }
    if d.top_p < 1.0 {
        let goal = f64::from(d.top_p) * all.iter().map(|(_, w)| w).sum::<f64>();
        let mut sum = 0.0;
        let last = all.iter().position(|(_, w)| {
            sum += w;
            sum >= goal
        });
        all.truncate(last.map_or(all.len(), |last| last + 1));
    }
    all.retain(|(_, w)| *w >= f64::from(d.min_p));
    all.sort_by_key(|(id, _)| *id);
    all
}

/// The token, and how near the draw came to the edge between two.
fn expected(d: &Draw, logits: &[f32]) -> (u32, f64) {
    let kept = kept(d, logits);
    let total: f64 = kept.iter().map(|(_, w)| w).sum();
    let mut left = uniform(d) * total;
    let mut nearest = f64::INFINITY;
    for &(id, weight) in &kept {
        nearest = nearest.min(left.abs() / total);
        left -= weight;
        if left < 0.0 {
            return (id as u32, nearest.min(-left / total));
        }
    }
    panic!("a sum of weights is reached by its last");
}

fn on_device(on: &Stream, vocab: usize, logits: &[f32], draws: &[Draw]) -> Vec<u32> {
    let logits = on.upload(logits).unwrap();
    let draws = on.upload(draws).unwrap();
    let mut tokens = poisoned(on, draws.len());
    let mut work = Work::new(on, draws.len(), vocab).unwrap();
    draw(
        on,
        logits.view(),
        draws.view(),
        &mut work,
        &mut tokens.view_mut(),
    )
    .unwrap();
    let found = on.download(tokens.view()).unwrap();
    // The memory is as it was before.
    let again = &mut tokens.view_mut();
    draw(on, logits.view(), draws.view(), &mut work, again).unwrap();
    assert_eq!(on.download(again.as_view()).unwrap(), found);
    found
}

const PLAIN: Draw = Draw {
    seed: 0x1234_5678_9abc_def0,
    request: 0,
    position: 0,
    temperature: 1.0,
    top_p: 1.0,
    min_p: 0.0,
    top_k: 0,
};

fn row(vocab: usize, seed: u64) -> Vec<f32> {
    (0..vocab as u64).map(|i| 6.0 * noise(seed, i)).collect()
}

#[test]
fn draws_are_the_policys_whatever_is_left_out() {
    let Some(on) = stream() else { return };
    let settings = [
        (1.0, 0, 1.0, 0.0),
        (0.7, 0, 1.0, 0.0),
        (1.0, 1, 1.0, 0.0),
        (1.3, 20, 1.0, 0.0),
        (1.0, 0, 0.9, 0.0),
        (2.0, 0, 0.3, 0.0),
        (1.0, 40, 0.8, 0.0),
        (1.5, 0, 1.0, 0.05),
        (1.0, 100_000, 0.95, 0.02),
        (1.0, 7, 1e-9, 0.0),
    ];
    for vocab in [1, 17, 503, 5000, 13_000] {
        let mut logits = Vec::new();
        let mut draws = Vec::new();
        for (at, &(temperature, top_k, top_p, min_p)) in settings.iter().enumerate() {
            logits.extend(row(vocab, 3 + at as u64));
            draws.push(Draw {
                request: at as u64 * (1 << 33),
                position: 1 + (1 << 40) * at as u64,
                temperature,
                top_p,
                min_p,
                top_k,
                ..PLAIN
            });
        }
        let found = on_device(&on, vocab, &logits, &draws);
        for ((row, d), token) in logits.chunks(vocab).zip(&draws).zip(found) {
            let (expected, nearest) = expected(d, row);
            assert!(
                token == expected || nearest < 1e-6,
                "{d:?}: {token}, not {expected}"
            );
        }
    }
}

#[test]
fn draws_come_as_often_as_their_weights_say() {
    let Some(on) = stream() else { return };
    let (vocab, count) = (5, 2000);
    let one = [0.0, 1.0, -1.0, 0.5, f32::NEG_INFINITY];
    let draws: Vec<Draw> = (0..count)
        .map(|position| Draw { position, ..PLAIN })
        .collect();
    let found = on_device(&on, vocab, &one.repeat(count as usize), &draws);
    let total: f64 = one.iter().map(|l| f64::from(*l).exp()).sum();
    for (id, logit) in one.iter().enumerate() {
        let share = f64::from(*logit).exp() / total;
        let seen = found.iter().filter(|&&t| t as usize == id).count() as f64 / count as f64;
        let deviation = (share * (1.0 - share) / count as f64).sqrt();
        assert!(
            (seen - share).abs() <= 4.0 * deviation,
            "{id}: {seen}, not {share}"
        );
    }
}

#[test]
fn equal_weights_stay_by_their_ids() {
    let Some(on) = stream() else { return };
    let vocab = 300;
    // One heavy token late, and equals: with it, the first nineteen equals are the top twenty.
    let mut logits = vec![1.0; vocab];
    logits[250] = 1.5;
    let draws: Vec<Draw> = (0..200)
        .map(|position| Draw {
            position,
            top_k: 20,
            ..PLAIN
        })
        .collect();
    let found = on_device(&on, vocab, &logits.repeat(draws.len()), &draws);
    assert!(found.iter().all(|&t| t < 19 || t == 250), "{found:?}");
    assert!(found.contains(&18) && found.contains(&250));
    // Half of what equals weigh is the first half of them.
    let draws: Vec<Draw> = draws
        .iter()
        .map(|d| Draw {
            top_k: 0,
            top_p: 0.5,
            ..*d
        })
        .collect();
    let found = on_device(&on, 4, &[2.0; 4].repeat(draws.len()), &draws);
    assert!(found.iter().all(|&t| t < 2) && found.contains(&0) && found.contains(&1));
}

#[test]
fn without_a_temperature_the_first_of_the_likeliest_is_taken() {
    let Some(on) = stream() else { return };
    let greedy = Draw {
        temperature: 0.0,
        ..PLAIN
    };
    let (nan, none) = (f32::NAN, f32::NEG_INFINITY);
    let rows = [
        [0.0, 3.0, 3.0, 1.0],
        [nan, none, -7.0, nan],
        [none, none, none, none],
        [nan, nan, nan, nan],
        [0.0, f32::INFINITY, 5.0, f32::INFINITY],
    ];
    let expected = [1, 2, 4, 4, 1];
    let greedily = on_device(&on, 4, rows.as_flattened(), &[greedy; 5]);
    assert_eq!(greedily, expected);
    let mut long = row(9000, 1);
    long[700] = 9.0;
    long[900] = 9.0;
    assert_eq!(on_device(&on, 9000, &long, &[greedy]), [700]);
    // A temperature too small to divide by is none; and where a number is infinite there is nothing to draw.
    let tiny = Draw {
        temperature: 1e-42,
        ..PLAIN
    };
    assert_eq!(on_device(&on, 4, rows.as_flattened(), &[tiny; 5]), expected);
    let drawn = on_device(&on, 4, rows.as_flattened(), &[PLAIN; 5]);
    assert_eq!(drawn[1..], expected[1..]);
}

#[test]
fn a_row_draws_the_same_in_any_batch() {
    let Some(on) = stream() else { return };
    let vocab = 777;
    let draws: Vec<Draw> = (0..33)
        .map(|position| Draw {
            position,
            top_p: 0.9,
            ..PLAIN
        })
        .collect();
    let logits: Vec<f32> = (0..33).flat_map(|seed| row(vocab, seed)).collect();
    let together = on_device(&on, vocab, &logits, &draws);
    for at in [0, 5, 32] {
        let row = &logits[at * vocab..(at + 1) * vocab];
        let alone = on_device(&on, vocab, row, &draws[at..=at]);
        assert_eq!(alone[0], together[at]);
    }
}

#[test]
fn a_bin_that_is_too_full_for_its_list_is_looked_through() {
    let Some(on) = stream() else { return };
    // All as likely, but one in a thousand.
    let vocab = 10_000;
    let logits: Vec<f32> = (0..vocab)
        .map(|id| if id % 1000 == 7 { 2.0 } else { 1.0 })
        .collect();
    let draws: Vec<Draw> = (0..20)
        .map(|position| Draw {
            position,
            top_k: 9500,
            top_p: if position < 10 { 1.0 } else { 0.999 },
            ..PLAIN
        })
        .collect();
    let found = on_device(&on, vocab, &logits.repeat(draws.len()), &draws);
    for (d, token) in draws.iter().zip(found) {
        let (expected, nearest) = expected(d, &logits);
        assert!(token == expected || nearest < 1e-6, "{d:?}: {token}");
    }
}
