//! `kernels::cuda::rmsnorm`.

use kernels::cuda::rmsnorm;
use kernels::{Error, reference};

use crate::common::{bits, close, dot, slope, vector, wide};
use crate::setup::{BF16, poisoned, stream, widened};

const ROWS: [usize; 5] = [1, 3, 17, 33, 65];

#[test]
fn the_norm_is_the_references_for_ragged_sizes() {
    let Some(on) = stream() else { return };
    for rows in ROWS {
        for c in [4, 64, 144, 576, 1028, 2048] {
            let (x, w) = (vector(1, rows * c), vector(2, c));
            let mut device = on.upload(&x).unwrap();
            let weight = on.upload(&w).unwrap();
            let mut out = poisoned(&on, rows * c);
            rmsnorm::forward(
                &on,
                &mut device.view_mut(),
                None,
                weight.view(),
                1e-5,
                &mut out.view_mut(),
            )
            .unwrap();
            let found = widened(&on.download(out.view()).unwrap());
            let expected = x
                .chunks(c)
                .flat_map(|x| reference::rmsnorm(&wide(x), &wide(&w), 1e-5));
            close("rmsnorm", &found, &expected.collect::<Vec<_>>(), BF16);
            assert_eq!(bits(&on.download(device.view()).unwrap()), bits(&x));
        }
    }
}

#[test]
fn a_row_is_added_first_and_is_the_same_alone() {
    let Some(on) = stream() else { return };
    let (rows, c) = (17, 192);
    let (x, add, w) = (vector(3, rows * c), vector(4, rows * c), vector(5, c));
    let weight = on.upload(&w).unwrap();
    let run = |from: usize, rows: usize| {
        let part = from * c..(from + rows) * c;
        let mut device = on.upload(&x[part.clone()]).unwrap();
        let add = on.upload(&add[part]).unwrap();
        let mut out = poisoned(&on, rows * c);
        let (mut x, mut y) = (device.view_mut(), out.view_mut());
        rmsnorm::forward(&on, &mut x, Some(add.view()), weight.view(), 1e-6, &mut y).unwrap();
        let found = widened(&on.download(out.view()).unwrap());
        (on.download(device.view()).unwrap(), found)
    };
    let (sum, out) = run(0, rows);
    let expected: Vec<f32> = x.iter().zip(&add).map(|(x, a)| x + a).collect();
    assert_eq!(bits(&sum), bits(&expected));
    let norms = expected
        .chunks(c)
        .flat_map(|x| reference::rmsnorm(&wide(x), &wide(&w), 1e-6));
    close("rmsnorm", &out, &norms.collect::<Vec<_>>(), BF16);
    for row in 0..rows {
        let (_, alone) = run(row, 1);
        assert_eq!(
            bits(&alone),
            bits(&out[row * c..(row + 1) * c]),
            "row {row}"
        );
    }
}

#[test]
fn the_gradient_is_the_slope_and_is_added() {
    let Some(on) = stream() else { return };
    for (rows, c) in [(1, 4), (3, 64), (5, 260), (2, 1028)] {
        let (x, w) = (vector(6, rows * c), vector(7, c));
        let dout = vector(8, rows * c);
        let [x_, dout_] = [&x, &dout].map(|v| on.upload(v).unwrap());
        let weight = on.upload(&w).unwrap();
        let mut dx = on.upload(&vec![1.0; rows * c]).unwrap();
        rmsnorm::backward(
            &on,
            x_.view(),
            weight.view(),
            1e-3,
            dout_.view(),
            &mut dx.view_mut(),
        )
        .unwrap();
        let expected = x.chunks(c).zip(dout.chunks(c)).flat_map(|(x, dout)| {
            let loss = |x: &[f64]| dot(&reference::rmsnorm(x, &wide(&w), 1e-3), dout);
            slope(&wide(x), loss).into_iter().map(|v| v + 1.0)
        });
        let expected: Vec<f64> = expected.collect();
        close(
            "gradient",
            &on.download(dx.view()).unwrap(),
            &expected,
            2e-4,
        );
    }
}

#[test]
fn sizes_that_disagree_are_refused_at_the_door() {
    let Some(on) = stream() else { return };
    let mut x = on.upload(&vector(1, 64)).unwrap();
    let weight = on.upload(&vector(1, 32)).unwrap();
    let mut out = poisoned(&on, 60);
    let refused = rmsnorm::forward(
        &on,
        &mut x.view_mut(),
        None,
        weight.view(),
        1e-5,
        &mut out.view_mut(),
    );
    assert!(matches!(refused, Err(Error::Shape { what: "out", .. })));
    let (mut first, mut second) = (poisoned(&on, 65), poisoned(&on, 64));
    let refused = rmsnorm::forward(
        &on,
        &mut first.view_mut().part(1..65).unwrap(),
        None,
        weight.view(),
        1e-5,
        &mut second.view_mut(),
    );
    assert!(matches!(refused, Err(Error::Argument { what: "x", .. })));
    let odd = on.upload(&vector(1, 6)).unwrap();
    let refused = rmsnorm::backward(
        &on,
        odd.view(),
        odd.view(),
        1e-5,
        odd.view(),
        &mut x.view_mut(),
    );
    assert!(matches!(refused, Err(Error::Argument { .. })));
}
