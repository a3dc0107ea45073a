//! `kernels::cuda::loss`, against the trainer's arithmetic written out plainly.

use kernels::Error;
use kernels::cuda::loss::{FIGURES, Kind, Objective, Starts, Streams, samples};

use crate::common::{close, noise};
use crate::setup::{poisoned, stream};

/// One token's numbers: log π, log π_old, log π_ref, log μ, A, weight.
type Token = [f64; 6];

/// Figures and derivatives of one sample.
fn expected(o: &Objective, with_reference: bool, tokens: &[Token]) -> (Vec<f64>, Vec<f64>) {
    let total: f64 = tokens.iter().map(|t| t[5]).sum();
    let mut figures = vec![0.0; FIGURES];
    let mut slopes = vec![0.0; tokens.len()];
    if total <= 0.0 {
        return (figures, slopes);
    }
    let log_ratio = |t: &Token| t[0] - if o.tis_cap >= 0.0 { t[1] } else { t[3] };
    let counted = || tokens.iter().enumerate().filter(|(_, t)| t[5] > 0.0);
    let sequence = counted()
        .map(|(_, t)| t[5] / total * log_ratio(t))
        .sum::<f64>();
    for (at, t) in counted() {
        let weight = t[5] / total;
        let correction = if o.tis_cap >= 0.0 {
            (t[1] - t[3]).exp().min(o.tis_cap)
        } else {
            1.0
        };
        let a = t[4] * correction;
        let r = match o.kind {
            Kind::Gspo => sequence.exp(),
            _ => log_ratio(t).exp(),
        };
        let (low, high) = (1.0 - o.clip_low, 1.0 + o.clip_high);
        let (loss, slope, clipped) = match o.kind {
            Kind::ImportanceSampling => (-a * r, -a * r, false),
            Kind::Cispo => (-a * r.min(high) * t[0], -a * r.min(high), r > high),
            Kind::Ppo | Kind::Gspo if -a * r.clamp(low, high) > -a * r => {
                (-a * r.clamp(low, high), 0.0, true)
            }
            Kind::Ppo | Kind::Gspo => (-a * r, -a * r, false),
        };
        let d = t[2] - t[0];
        let bounded = d.clamp(-10.0, 10.0);
        let inside = d.to_bits() == bounded.to_bits();
        let dkl = if with_reference && inside {
            1.0 - d.exp()
        } else {
            0.0
        };
        if with_reference {
            figures[1] += weight * (bounded.exp() - bounded - 1.0);
        }
        figures[0] += weight * loss;
        figures[2] += (t[0] - t[3]).exp();
        figures[3] = figures[3].max((t[0] - t[3]).exp());
        figures[4] += f64::from(u8::from(clipped));
        figures[5] += 1.0;
        slopes[at] = o.share * weight * (slope + o.kl_beta * dkl);
    }
    (figures, slopes)
}

/// Streams as if weights had moved a little; some tokens are left out.
fn token(seed: u64, at: u64) -> Token {
    let n = |k: u64| f64::from(noise(seed + k, at));
    let logprob = -2.0 + n(0);
    let far = if at % 41 == 7 { 30.0 } else { 0.0 };
    [
        logprob,
        logprob + 0.3 * n(1),
        logprob + n(2) + far,
        logprob + 0.4 * n(3),
        n(4),
        if at % 5 == 3 { 0.0 } else { 0.6 + 0.5 * n(5) },
    ]
    .map(|v| f64::from(v as f32))
}

fn objective(kind: Kind, tis_cap: f64) -> Objective {
    Objective {
        clip_low: 0.2,
        clip_high: 0.28,
        tis_cap,
        kl_beta: 0.05,
        share: 0.25,
        kind,
        reserved: 0,
    }
}

#[test]
fn every_objective_is_the_plain_one_for_ragged_samples() {
    let Some(on) = stream() else { return };
    let lengths = [1usize, 3, 0, 300, 33, 7];
    let total: usize = lengths.iter().sum();
    let mut tokens: Vec<Token> = (0..total as u64).map(|at| token(5, at)).collect();
    // The last sample has no weight.
    for token in &mut tokens[total - 7..] {
        token[5] = 0.0;
    }
    let column = |i: usize| tokens.iter().map(|t| t[i] as f32).collect::<Vec<_>>();
    let columns: Vec<_> = (0..6).map(|i| on.upload(&column(i)).unwrap()).collect();
    let starts = Starts::new(&on, &lengths).unwrap();
    for kind in [Kind::ImportanceSampling, Kind::Cispo, Kind::Ppo, Kind::Gspo] {
        for (tis_cap, with_reference) in [(-1.0, true), (1.1, true), (2.0, false)] {
            let o = objective(kind, tis_cap);
            let streams = Streams {
                logprobs: columns[0].view(),
                old: columns[1].view(),
                reference: with_reference.then(|| columns[2].view()),
                behaviour: columns[3].view(),
                advantage: columns[4].view(),
                weight: columns[5].view(),
            };
            let mut slopes = poisoned(&on, total);
            let mut figures = poisoned(&on, lengths.len() * FIGURES);
            let (mut to, mut sums) = (slopes.view_mut(), figures.view_mut());
            samples(&on, &o, &streams, &starts, &mut to, &mut sums).unwrap();
            let slopes = on.download(slopes.view()).unwrap();
            let figures = on.download(figures.view()).unwrap();
            let mut first = 0;
            for (s, &length) in lengths.iter().enumerate() {
                let part = first..first + length;
                let (sums, expected) = expected(&o, with_reference, &tokens[part.clone()]);
                close("derivatives", &slopes[part], &expected, 1e-6);
                for (found, expected) in figures[s * FIGURES..].iter().zip(&sums) {
                    let off = (found - expected).abs() / expected.abs().max(1.0);
                    assert!(off < 1e-12, "{kind:?}, sample {s}: {found}, not {expected}");
                }
                first += length;
            }
        }
    }
}

#[test]
fn a_ratio_that_is_no_number_is_the_largest() {
    let Some(on) = stream() else { return };
    let nan = on.upload(&[-1.0, f32::NAN, -1.0]).unwrap();
    let ones = on.upload(&[-1.0f32; 3]).unwrap();
    let weight = on.upload(&[1.0f32; 3]).unwrap();
    let streams = Streams {
        logprobs: nan.view(),
        old: ones.view(),
        reference: None,
        behaviour: ones.view(),
        advantage: weight.view(),
        weight: weight.view(),
    };
    let starts = Starts::new(&on, &[3]).unwrap();
    let mut slopes = poisoned(&on, 3);
    let mut figures = on.upload(&[0.0; FIGURES]).unwrap();
    let o = objective(Kind::Ppo, -1.0);
    let (mut to, mut sums) = (slopes.view_mut(), figures.view_mut());
    samples(&on, &o, &streams, &starts, &mut to, &mut sums).unwrap();
    let figures = on.download(figures.view()).unwrap();
    assert!(figures[3].is_nan() && figures[5] == 3.0, "{figures:?}");
}

#[test]
fn samples_beyond_the_streams_are_refused() {
    let Some(on) = stream() else { return };
    let ones = on.upload(&[1.0f32; 3]).unwrap();
    let streams = Streams {
        logprobs: ones.view(),
        old: ones.view(),
        reference: None,
        behaviour: ones.view(),
        advantage: ones.view(),
        weight: ones.view(),
    };
    let starts = Starts::new(&on, &[2, 2]).unwrap();
    let mut slopes = poisoned(&on, 3);
    let mut figures = poisoned(&on, 2 * FIGURES);
    let o = objective(Kind::Ppo, -1.0);
    let (mut to, mut sums) = (slopes.view_mut(), figures.view_mut());
    let refused = samples(&on, &o, &streams, &starts, &mut to, &mut sums);
    assert!(matches!(refused, Err(Error::Argument { .. })));
}
