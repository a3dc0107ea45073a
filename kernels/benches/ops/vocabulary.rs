//! Log-probs over the vocabulary: of logits, and straight from hidden rows.

use super::{Bench, C, V, Work, numbers};
use kernels::output::{self, Output, Wanted};
use kernels::softmax::{self, Target};
use kernels::{Dtype, Packed};

/// From logits that are there.
pub(crate) fn logits(bench: &Bench) {
    let pool = &bench.pool;
    let (row, mut weights) = (numbers(V), Vec::new());
    let pass = |passes: usize, flops: usize| Work {
        flops: (V * flops) as f64,
        bytes: 4.0 * (V * passes) as f64,
    };
    bench.row("softmax-normalizer", pass(1, 14), || {
        std::hint::black_box(softmax::normalizer(pool, &row, 1.0).unwrap());
    });
    bench.row("softmax-largest", pass(1, 1), || {
        std::hint::black_box(softmax::largest(&row));
    });
    bench.row("softmax-weights", pass(2, 13), || {
        softmax::weights(&row, 0.5, 1.0, &mut weights);
    });
    for m in [1usize, 32, 128] {
        let (mut logits, mut normalizers) = (numbers(m * V), Vec::new());
        let work = |passes: usize, flops: usize| Work {
            flops: (m * V * flops) as f64,
            bytes: 4.0 * (m * V * passes) as f64,
        };
        bench.row(&format!("softmax × {m}"), work(1, 14), || {
            softmax::normalizers(pool, &logits, V, 1.0, &mut normalizers).unwrap();
        });
        let targets: Vec<Target> = (0..m).map(|row| Target { row, token: 5 }).collect();
        let upstream = vec![1.0; m];
        bench.row(&format!("softmax-backward × {m}"), work(2, 12), || {
            // The gradient lies over the logits: from the second call on they are other numbers of the same size.
            softmax::backward(pool, &mut logits, &normalizers, &targets, &upstream).unwrap();
        });
    }
}

/// From hidden rows, the logits of a tile of rows at a time: 1, a tile, and a training sample's.
pub(crate) fn hidden(bench: &Bench) {
    let pool = &bench.pool;
    let weights = Packed::pack(pool, &[&numbers(V * C)], C, Dtype::Bf16).unwrap();
    for m in [1, output::TILE, 256] {
        let (x, mut dx, mut out) = (numbers(m * C), vec![0.0; m * C], vec![0.0; m]);
        let targets: Vec<Target> = (0..m).map(|row| Target { row, token: 5 }).collect();
        let upstream = vec![1.0; m];
        let wanted = |gradient| Wanted {
            targets: &targets,
            temperature: 1.0,
            gradient,
        };
        let mut state = Output::default();
        let work = Work {
            flops: 2.0 * (m * V * C) as f64,
            bytes: (weights.bytes() + 4 * m * C) as f64,
        };
        bench.row(&format!("output × {m}"), work, || {
            output::log_probs(
                pool,
                &x,
                &weights,
                wanted(false),
                &mut state,
                &mut out,
                &mut || {},
            )
            .unwrap();
        });
        // Both, as training calls them: two products are counted. So many are computed: each row has one target.
        let both = Work {
            flops: 2.0 * work.flops,
            bytes: 2.0 * work.bytes,
        };
        bench.row(&format!("output-both × {m}"), both, || {
            output::log_probs(
                pool,
                &x,
                &weights,
                wanted(true),
                &mut state,
                &mut out,
                &mut || {},
            )
            .unwrap();
            output::backward(
                pool,
                &x,
                &weights,
                &targets,
                &upstream,
                &mut state,
                &mut dx,
                &mut || {},
            )
            .unwrap();
        });
    }
}
