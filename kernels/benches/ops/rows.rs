//! Ops that treat each row, or each element, alone; the optimizer.

use super::{Bench, C, D, F, HEADS, KV_HEADS, V, Work, numbers};
use kernels::adamw::AdamW;
use kernels::rope::{Scaling, Table};
use kernels::{Dtype, Packed, adamw, embed, rmsnorm, rope, swiglu};

pub(crate) fn rows(bench: &Bench) {
    let pool = &bench.pool;
    let weight = numbers(C);
    let table = Table::new(D, 2048, 1e5, Scaling::None).unwrap();
    for m in [1usize, 32, 256] {
        let (x, mut out) = (numbers(m * C), vec![0.0; m * C]);
        let work = |elements: usize, moved: usize, flops: usize| Work {
            flops: (m * elements * flops) as f64,
            bytes: 4.0 * (m * moved) as f64,
        };
        bench.row(&format!("rmsnorm × {m}"), work(C, 2 * C, 4), || {
            rmsnorm::forward(pool, m, &x, &weight, 1e-5, &mut out).unwrap();
        });
        // The heads of one token, as QK-norm has them.
        let heads = HEADS + KV_HEADS;
        let (mut q, head) = (numbers(heads * D), numbers(D));
        if m == 1 {
            bench.row(
                "rmsnorm-in-place 12 heads",
                work(heads * D, 2 * heads * D, 4),
                || {
                    rmsnorm::in_place(pool, heads, &mut q, &head, 1e-5).unwrap();
                },
            );
        }
        let mut dx = numbers(m * C);
        bench.row(
            &format!("rmsnorm-backward × {m}"),
            work(C, 4 * C, 8),
            || {
                rmsnorm::backward(pool, m, &x, &weight, 1e-5, &out, &mut dx).unwrap();
            },
        );
        let width = (HEADS + 2 * KV_HEADS) * D;
        let mut qkv = numbers(m * width);
        let turned = (HEADS + KV_HEADS) * D;
        bench.row(&format!("rope × {m}"), work(turned, 2 * turned, 3), || {
            rope::forward(pool, &table, &mut qkv, width, 0..turned, 0).unwrap();
        });
        bench.row(
            &format!("rope-backward × {m}"),
            work(turned, 2 * turned, 3),
            || {
                rope::backward(pool, &table, &mut qkv, width, 0..turned, 0).unwrap();
            },
        );
        let (mut gate_up, mut hidden) = (numbers(m * 2 * F), vec![0.0; m * F]);
        // An exponential counts as ten.
        bench.row(&format!("swiglu × {m}"), work(F, 3 * F, 14), || {
            swiglu::forward(pool, m, F, &gate_up, &mut hidden).unwrap();
        });
        bench.row(
            &format!("swiglu-backward × {m}"),
            work(F, 5 * F, 20),
            || {
                swiglu::backward(pool, m, F, &mut gate_up, &hidden).unwrap();
            },
        );
    }
}

/// Rows of a packed matrix, here and there: one number of each line of a panel.
pub(crate) fn embed(bench: &Bench) {
    let pool = &bench.pool;
    let table = Packed::pack(pool, &[&numbers(V * C)], C, Dtype::Bf16).unwrap();
    for m in [1usize, 32, 256] {
        let tokens: Vec<u32> = (0..m).map(|i| (i * 7919 % V) as u32).collect();
        let mut out = vec![0.0; m * C];
        let work = Work {
            flops: 0.0,
            bytes: (m * C * (2 + 4)) as f64,
        };
        bench.row(&format!("embed × {m}"), work, || {
            embed::forward(pool, &table, &tokens, &mut out).unwrap();
        });
    }
}

pub(crate) fn optimizer(bench: &Bench) {
    let (pool, n) = (&bench.pool, 4_884_480);
    let (mut params, grads) = (numbers(n), numbers(n));
    let (mut first, mut second) = (vec![0.0; n], vec![0.0; n]);
    let settings = AdamW {
        lr: 1e-4,
        beta1: 0.9,
        beta2: 0.98,
        eps: 1e-8,
        weight_decay: 0.0,
    };
    let moved = |numbers: usize, flops: usize| Work {
        flops: (n * flops) as f64,
        bytes: 4.0 * (n * numbers) as f64,
    };
    bench.row("adamw × 4.9 M", moved(7, 12), || {
        adamw::step(
            pool,
            &settings,
            1,
            1.0,
            &mut params,
            &grads,
            &mut first,
            &mut second,
        )
        .unwrap();
    });
    bench.row("adamw-norm × 4.9 M", moved(1, 2), || {
        std::hint::black_box(adamw::norm(pool, &grads));
    });
}
