//! `kernels::cuda::swiglu`.

use kernels::cuda::swiglu;
use kernels::{Error, reference};

use crate::common::{close, dot, slope, vector, wide};
use crate::setup::{BF16, narrow, poisoned, rounded, stream, widened};

#[test]
fn the_activation_is_the_references_far_from_zero_too() {
    let Some(on) = stream() else { return };
    for (rows, f) in [(1, 8), (3, 64), (17, 136), (2, 2056), (33, 192)] {
        let values: Vec<f32> = vector(6, rows * 2 * f).iter().map(|v| v * 120.0).collect();
        let gate_up = on.upload(&narrow(&values)).unwrap();
        let mut out = poisoned(&on, rows * f);
        swiglu::forward(&on, f, gate_up.view(), &mut out.view_mut()).unwrap();
        let values = wide(&rounded(&values));
        let expected: Vec<f64> = (0..rows * f)
            .map(|at| at / f * 2 * f + at % f)
            .map(|g| reference::swiglu(values[g], values[g + f]))
            .collect();
        let found = widened(&on.download(out.view()).unwrap());
        close("swiglu", &found, &expected, BF16);
    }
}

#[test]
fn the_gradient_is_the_slope() {
    let Some(on) = stream() else { return };
    for (rows, f) in [(1, 8), (3, 64), (2, 2056)] {
        let (values, dout) = (rounded(&vector(7, rows * 2 * f)), vector(8, rows * f));
        let values: Vec<f32> = values.iter().map(|v| v * 4.0).collect();
        let gate_up = on.upload(&narrow(&values)).unwrap();
        let dout_ = on.upload(&dout).unwrap();
        let mut dx = poisoned(&on, rows * 2 * f);
        swiglu::backward(&on, f, gate_up.view(), dout_.view(), &mut dx.view_mut()).unwrap();
        let expected = values
            .chunks(2 * f)
            .zip(dout.chunks(f))
            .flat_map(|(x, dout)| {
                let loss = |x: &[f64]| {
                    let out: Vec<f64> = (0..f).map(|i| reference::swiglu(x[i], x[i + f])).collect();
                    dot(&out, dout)
                };
                slope(&wide(x), loss)
            });
        let found = widened(&on.download(dx.view()).unwrap());
        close("gradient", &found, &expected.collect::<Vec<_>>(), BF16);
    }
}

#[test]
fn at_the_ends_of_the_numbers_nothing_is_nan() {
    let Some(on) = stream() else { return };
    let mut values = vec![3e38f32; 8];
    values.extend([1.0; 8]);
    values.extend([-3e38; 8]);
    values.extend([1.0; 8]);
    let gate_up = on.upload(&narrow(&values)).unwrap();
    let mut out = poisoned(&on, 16);
    swiglu::forward(&on, 8, gate_up.view(), &mut out.view_mut()).unwrap();
    let found = widened(&on.download(out.view()).unwrap());
    assert!(found[..8].iter().all(|&v| v > 2.9e38), "{found:?}");
    assert!(found[8..].iter().all(|&v| v == 0.0), "{found:?}");
}

#[test]
fn columns_that_are_not_whole_eights_are_refused() {
    let Some(on) = stream() else { return };
    let gate_up = on.upload(&narrow(&vector(1, 24))).unwrap();
    let mut out = poisoned(&on, 12);
    let refused = swiglu::forward(&on, 12, gate_up.view(), &mut out.view_mut());
    assert!(matches!(refused, Err(Error::Argument { .. })));
}
