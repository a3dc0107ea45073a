//! `kernels::cuda::output`.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::ops::Range;

use half::bf16;
use kernels::cuda::adapters::Shape;
use kernels::cuda::gemm::{self, Output, Variant};
use kernels::cuda::output::{self, Head, Normalizer, PART, Targets, Work};
use kernels::cuda::{Buffer, Stream};
use kernels::{Error, reference};

use crate::common::{bits, close, noise, slope, vector, wide};
use crate::linear::{head, operand};
use crate::setup::{narrow, poisoned, rounded, stream};

/// A last linear map, hidden states, and targets of every row: none, one, and several, of which some are the same.
struct Case {
    rows: usize,
    map: Shape,
    hidden: Vec<f32>,
    w: Vec<f32>,
    temperature: Vec<f32>,
    tokens: Vec<Vec<u32>>,
    on_gpu: (Buffer<bf16>, Buffer<bf16>, Buffer<f32>),
}

impl Case {
    fn new(on: &Stream, rows: usize, outputs: usize, inputs: usize) -> Case {
        let (hidden, hidden_) = operand(on, 1, rows * inputs);
        let w: Vec<f32> = vector(2, outputs * inputs)
            .iter()
            .map(|v| v * 0.5)
            .collect();
        let w = rounded(&w);
        let temperature: Vec<f32> = (0..rows).map(|r| 0.5 + 0.25 * (r % 5) as f32).collect();
        let inverse: Vec<f32> = temperature.iter().map(|t| 1.0 / t).collect();
        let token = |row, i| ((noise(3, row * 8 + i) + 1.0) * 0.5 * outputs as f32) as u32;
        let list = |row: u64| {
            let mut list: Vec<u32> = (0..row % 4).map(|i| token(row, i)).collect();
            list.extend(list.first().copied().filter(|_| row % 4 == 3));
            // The last one is in the last part.
            list.extend((row % 4 == 2).then_some(outputs as u32 - 1));
            list
        };
        Case {
            rows,
            map: Shape { outputs, inputs },
            tokens: (0..rows as u64).map(list).collect(),
            on_gpu: (
                hidden_,
                on.upload(&narrow(&w)).unwrap(),
                on.upload(&inverse).unwrap(),
            ),
            hidden,
            w,
            temperature,
        }
    }

    fn head(&self) -> Head<'_> {
        Head {
            hidden: self.on_gpu.0.view(),
            weights: self.on_gpu.1.view(),
            inverse_temperature: self.on_gpu.2.view(),
        }
    }

    fn targets(&self, on: &Stream) -> Targets {
        let lists = self.tokens.iter().map(Vec::as_slice);
        Targets::upload(on, self.map.outputs, lists).unwrap()
    }

    /// Normalizers and log-probs as training has them.
    fn trained(&self, on: &Stream) -> (Buffer<Normalizer>, Vec<f32>) {
        self.trained_by(Variant::Tiles, on)
    }

    fn trained_by(&self, variant: Variant, on: &Stream) -> (Buffer<Normalizer>, Vec<f32>) {
        let targets = self.targets(on);
        let count = targets.count();
        let mut work = Work::new(on.gpu(), self.rows, self.map.outputs, count).unwrap();
        let mut normalizers = poisoned(on, self.rows);
        let mut out = poisoned(on, count);
        let (mut n, mut to) = (normalizers.view_mut(), out.view_mut());
        output::log_probs_by(
            variant,
            on,
            self.head(),
            &targets,
            &mut work,
            &mut n,
            &mut to,
        )
        .unwrap();
        (normalizers, on.download(out.view()).unwrap())
    }

    /// log p of every token in a row, from the hidden state.
    fn log_softmax(&self, row: usize, hidden: &[f64]) -> Vec<f64> {
        let logits: Vec<f64> = self
            .w
            .chunks(self.map.inputs)
            .map(|w| w.iter().zip(hidden).map(|(w, h)| f64::from(*w) * h).sum())
            .collect();
        reference::log_softmax(&logits, f64::from(self.temperature[row]))
    }

    fn state(&self, row: usize) -> Vec<f64> {
        wide(&self.hidden[row * self.map.inputs..][..self.map.inputs])
    }
}

#[test]
fn the_log_probs_are_the_references_for_ragged_sizes() {
    let Some(on) = stream() else { return };
    for (rows, outputs, inputs) in [(1, 16, 16), (3, 496, 64), (65, 528, 144), (130, 272, 32)] {
        let case = Case::new(&on, rows, outputs, inputs);
        let (_, found) = case.trained(&on);
        let expected = case.tokens.iter().enumerate().flat_map(|(row, tokens)| {
            let all = case.log_softmax(row, &case.state(row));
            tokens.iter().map(move |&t| all[t as usize])
        });
        close("log-prob", &found, &expected.collect::<Vec<_>>(), 1e-5);
    }
}

#[test]
fn what_a_decode_step_records_is_what_training_computes_bit_for_bit() {
    let Some(on) = stream() else { return };
    // Batches of a decode step, and of a chunk of a prompt: other kernels, other places of a row in its tile.
    let batches = [0..1, 1..2, 3..11, 7..31, 20..84, 60..130, 0..130];
    recorded_is_trained(&on, &Case::new(&on, 130, 528, 144), &batches);
    // More tiles than a block of stored logits has.
    recorded_is_trained(&on, &Case::new(&on, 4, 8256, 16), &[1..2, 0..4]);
}

fn recorded_is_trained(on: &Stream, case: &Case, batches: &[Range<usize>]) {
    let (normalizers, trained) = case.trained(on);
    let trained_normalizers = on.download(normalizers.view()).unwrap();
    let first = |row: usize| case.tokens[..row].iter().map(Vec::len).sum::<usize>();
    for batch in batches {
        let (rows, c) = (batch.len(), case.map.inputs);
        let v = case.map.outputs;
        let hidden = case.on_gpu.0.view();
        let hidden = hidden.part(batch.start * c..batch.end * c).unwrap();
        let inverse = case.on_gpu.2.view().part(batch.clone()).unwrap();
        let lists = case.tokens[batch.clone()].iter().map(Vec::as_slice);
        let targets = Targets::upload(on, v, lists).unwrap();
        let mut work = Work::new(on.gpu(), rows, v, targets.count()).unwrap();
        let mut logits = poisoned(on, rows * v);
        let operands = (hidden, case.on_gpu.1.view());
        let mut to = logits.view_mut();
        gemm::forward(on, rows, case.map, operands, None, Output::F32(&mut to)).unwrap();
        let (mut n, mut out) = (poisoned(on, rows), poisoned(on, targets.count()));
        let logits = logits.view();
        output::normalizers(on, logits, v, inverse, &mut work, &mut n.view_mut()).unwrap();
        let to = &mut out.view_mut();
        output::log_probs_of(on, logits, n.view(), inverse, &targets, &mut work, to).unwrap();
        let expected = &trained[first(batch.start)..first(batch.end)];
        let found = on.download(out.view()).unwrap();
        assert_eq!(bits(&found), bits(expected), "{batch:?}");
        let found = on.download(n.view()).unwrap();
        assert_eq!(found, trained_normalizers[batch.clone()], "{batch:?}");
        // As if each row's first target had been drawn; the others have drawn nothing.
        let drawn = case.tokens[batch.clone()].iter();
        let drawn: Vec<u32> = drawn.map(|t| t.first().map_or(v as u32, |t| *t)).collect();
        let drawn = on.upload(&drawn).unwrap();
        let mut own = poisoned(on, rows);
        let to = &mut own.view_mut();
        output::log_probs_of_drawn(on, logits, v, n.view(), inverse, drawn.view(), to).unwrap();
        for (row, found) in batch.clone().zip(on.download(own.view()).unwrap()) {
            let recorded = trained
                .get(first(row))
                .filter(|_| !case.tokens[row].is_empty());
            let same = recorded.map_or(found.is_nan(), |own| own.to_bits() == found.to_bits());
            assert!(same, "row {row}: {found}, {recorded:?}");
        }
    }
}

#[test]
fn a_rows_log_probs_do_not_depend_on_the_other_rows() {
    let Some(on) = stream() else { return };
    let case = Case::new(&on, 130, 400, 48);
    let (_, all) = case.trained(&on);
    for rows in [1, 2, 17, 64, 128, 129] {
        let mut some = Case::new(&on, 130, 400, 48);
        some.rows = rows;
        some.tokens.truncate(rows);
        let (hidden, inverse) = (&case.on_gpu.0, &case.on_gpu.2);
        some.on_gpu.0 = head(&on, hidden, rows * 48);
        some.on_gpu.2 = head(&on, inverse, rows);
        let (_, found) = some.trained(&on);
        assert_eq!(bits(&found), bits(&all[..found.len()]), "{rows} rows");
    }
}

/// The gradient by the hidden states, for one upstream number a target.
fn gradient(on: &Stream, case: &Case, upstream: &[f32]) -> Vec<f32> {
    gradient_by(Variant::Tiles, on, case, upstream)
}

fn gradient_by(variant: Variant, on: &Stream, case: &Case, upstream: &[f32]) -> Vec<f32> {
    let (normalizers, _) = case.trained(on);
    let targets = case.targets(on);
    let mut work = Work::new(on.gpu(), case.rows, case.map.outputs, targets.count()).unwrap();
    let mut dhidden = poisoned(on, case.rows * case.map.inputs);
    let upstream = on.upload(upstream).unwrap();
    let (n, g, mut to) = (normalizers.view(), upstream.view(), dhidden.view_mut());
    let head = case.head();
    output::backward_by(variant, on, head, &targets, n, g, &mut work, &mut to).unwrap();
    on.download(dhidden.view()).unwrap()
}

#[test]
fn the_gradient_is_the_slope_of_the_log_probs() {
    let Some(on) = stream() else { return };
    // The last is of two parts.
    for (rows, outputs, inputs) in [(1, 16, 16), (7, 208, 32), (5, PART + 48, 16)] {
        let case = Case::new(&on, rows, outputs, inputs);
        let count = case.tokens.iter().map(Vec::len).sum();
        let upstream = vector(5, count);
        let found = gradient(&on, &case, &upstream);
        let mut left = upstream.as_slice();
        for row in 0..rows {
            let tokens = &case.tokens[row];
            let (own, rest) = left.split_at(tokens.len());
            left = rest;
            let found = &found[row * inputs..][..inputs];
            if tokens.is_empty() {
                assert!(found.iter().all(|g| *g == 0.0), "{row}: {found:?}");
                continue;
            }
            let expected = slope(&case.state(row), |hidden| {
                let all = case.log_softmax(row, hidden);
                let terms = tokens.iter().zip(own);
                terms.map(|(&t, g)| all[t as usize] * f64::from(*g)).sum()
            });
            // Each of the probabilities is rounded to bf16.
            close(&format!("{outputs}, row {row}"), found, &expected, 4e-3);
        }
    }
}

#[test]
fn the_variants_have_the_same_bits() {
    let Some(on) = stream() else { return };
    if !on.gpu().is_hopper() {
        return;
    }
    for (rows, outputs, inputs) in [
        (1, 16, 16),
        (33, 656, 80),
        (130, 528, 144),
        (3, PART + 48, 16),
    ] {
        let case = Case::new(&on, rows, outputs, inputs);
        let (normalizers, log_probs) = case.trained(&on);
        let (others, others_log_probs) = case.trained_by(Variant::Hopper, &on);
        let [normalizers, others] = [normalizers, others].map(|n| on.download(n.view()).unwrap());
        assert_eq!(normalizers, others, "{rows} {outputs} {inputs}");
        assert_eq!(bits(&log_probs), bits(&others_log_probs));
        let upstream = vector(7, log_probs.len());
        let gradients = [Variant::Tiles, Variant::Hopper]
            .map(|variant| bits(&gradient_by(variant, &on, &case, &upstream)));
        assert_eq!(gradients[0], gradients[1], "{rows} {outputs} {inputs}");
    }
}

#[test]
fn a_rows_gradient_does_not_depend_on_the_other_rows() {
    let Some(on) = stream() else { return };
    let case = Case::new(&on, 130, 272, 32);
    let count = case.tokens.iter().map(Vec::len).sum();
    let upstream = vector(6, count);
    let all = gradient(&on, &case, &upstream);
    let mut some = Case::new(&on, 130, 272, 32);
    some.rows = 33;
    some.tokens.truncate(33);
    some.on_gpu.0 = head(&on, &case.on_gpu.0, 33 * 32);
    some.on_gpu.2 = head(&on, &case.on_gpu.2, 33);
    let count: usize = some.tokens.iter().map(Vec::len).sum();
    let found = gradient(&on, &some, &upstream[..count]);
    assert_eq!(bits(&found), bits(&all[..33 * 32]));
}

#[test]
fn tokens_outside_of_the_vocabulary_and_lists_of_other_rows_are_refused() {
    let Some(on) = stream() else { return };
    let refused = Targets::upload(&on, 32, [&[31u32][..], &[32]]);
    assert!(matches!(
        refused,
        Err(Error::Argument { what: "token", .. })
    ));
    let case = Case::new(&on, 4, 32, 16);
    let targets = Targets::upload(&on, 32, [&[1u32][..]]).unwrap();
    let mut work = Work::new(on.gpu(), 4, 32, 1).unwrap();
    let (mut n, mut out) = (poisoned(&on, 4), poisoned(&on, 1));
    let (mut n, mut to) = (n.view_mut(), out.view_mut());
    let refused = output::log_probs(&on, case.head(), &targets, &mut work, &mut n, &mut to);
    assert!(matches!(refused, Err(Error::Argument { what: "rows", .. })));
}
