//! `kernels::cuda::adamw`.

use kernels::adamw::{self as cpu, AdamW};
use kernels::cuda::adamw::{State, norm, norm_scratch, step};
use kernels::{Error, Pool};

use crate::common::{bits, vector, wide};
use crate::setup::{narrow, poisoned, stream};

const SETTINGS: AdamW = AdamW {
    lr: 1e-3,
    beta1: 0.9,
    beta2: 0.99,
    eps: 1e-8,
    weight_decay: 0.1,
};

#[test]
fn steps_are_the_processors_bit_for_bit() {
    let Some(on) = stream() else { return };
    let pool = Pool::new(1).unwrap();
    for len in [1, 255, 257, 5000] {
        let mut expected = [vector(1, len), vec![0.0; len], vec![0.0; len]];
        let [mut params, mut first, mut second] =
            [0, 1, 2].map(|i: usize| on.upload(&expected[i]).unwrap());
        let mut rounded = poisoned(&on, len);
        let factor = on.upload(&[0.75f32]).unwrap();
        for number in 1..4 {
            let grads = vector(10 + number, len);
            let [p, m, v] = &mut expected;
            cpu::step(&pool, &SETTINGS, number, 0.75, p, &grads, m, v).unwrap();
            let grads = on.upload(&grads).unwrap();
            let mut state = State {
                params: params.view_mut(),
                first: first.view_mut(),
                second: second.view_mut(),
                rounded: Some(rounded.view_mut()),
            };
            step(
                &on,
                &SETTINGS,
                number,
                grads.view(),
                factor.view(),
                &mut state,
            )
            .unwrap();
        }
        let found = [&params, &first, &second].map(|b| on.download(b.view()).unwrap());
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(bits(found), bits(expected), "{len} parameters");
        }
        assert_eq!(on.download(rounded.view()).unwrap(), narrow(&expected[0]));
    }
}

#[test]
fn the_norm_and_its_factor_are_those_of_all_values() {
    let Some(on) = stream() else { return };
    for len in [1, 255, 8192, 8193, 70_001] {
        let values = vector(2, len);
        let exact = wide(&values).iter().map(|v| v * v).sum::<f64>().sqrt();
        let device = on.upload(&values).unwrap();
        for clip in [0.5, 1e9] {
            let mut scratch = poisoned(&on, norm_scratch(len));
            let mut found = poisoned::<f64>(&on, 1);
            let mut factor = poisoned::<f32>(&on, 1);
            norm(
                &on,
                device.view(),
                clip,
                &mut scratch.view_mut(),
                &mut found.view_mut(),
                &mut factor.view_mut(),
            )
            .unwrap();
            let found = on.download(found.view()).unwrap()[0];
            assert!((found - exact).abs() <= 1e-12 * exact, "{found} of {exact}");
            let scale = (f64::from(clip) / (found + 1e-6)).min(1.0) as f32;
            assert_eq!(on.download(factor.view()).unwrap(), [scale]);
        }
    }
}

#[test]
fn one_value_that_is_no_number_shows_in_the_norm() {
    let Some(on) = stream() else { return };
    let mut values = vector(2, 10_000);
    values[9_999] = f32::NAN;
    let device = on.upload(&values).unwrap();
    let mut scratch = poisoned(&on, norm_scratch(10_000));
    let (mut found, mut factor) = (on.upload(&[0f64]).unwrap(), on.upload(&[0f32]).unwrap());
    norm(
        &on,
        device.view(),
        1.0,
        &mut scratch.view_mut(),
        &mut found.view_mut(),
        &mut factor.view_mut(),
    )
    .unwrap();
    assert!(on.download(found.view()).unwrap()[0].is_nan());
}

#[test]
fn step_0_and_other_lengths_are_refused() {
    let Some(on) = stream() else { return };
    let mut buffers = [1, 2, 3].map(|seed| on.upload(&vector(seed, 8)).unwrap());
    let grads = on.upload(&vector(4, 8)).unwrap();
    let short = on.upload(&vector(4, 7)).unwrap();
    let factor = on.upload(&[1f32]).unwrap();
    let [params, first, second] = &mut buffers;
    let mut state = State {
        params: params.view_mut(),
        first: first.view_mut(),
        second: second.view_mut(),
        rounded: None,
    };
    let refused = step(&on, &SETTINGS, 0, grads.view(), factor.view(), &mut state);
    assert!(matches!(refused, Err(Error::Argument { .. })));
    let refused = step(&on, &SETTINGS, 1, short.view(), factor.view(), &mut state);
    assert!(matches!(refused, Err(Error::Shape { what: "grads", .. })));
}
