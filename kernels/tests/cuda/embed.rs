//! `kernels::cuda::embed`.

use kernels::cuda::embed;
use kernels::{Error, reference};

use crate::common::{bits, vector};
use crate::setup::{narrow, poisoned, rounded, stream};

#[test]
fn each_token_gets_its_row_and_a_stranger_gets_nan() {
    let Some(on) = stream() else { return };
    for c in [8, 64, 576, 2056] {
        let vocab = 37;
        let table = vector(1, vocab * c);
        let tokens = [0u32, 36, 5, 5, 37, u32::MAX];
        let device = on.upload(&narrow(&table)).unwrap();
        let ids = on.upload(&tokens).unwrap();
        let mut out = poisoned(&on, tokens.len() * c);
        embed::forward(&on, device.view(), vocab, ids.view(), &mut out.view_mut()).unwrap();
        let found = on.download(out.view()).unwrap();
        let table = rounded(&table);
        for (&token, row) in tokens.iter().zip(found.chunks(c)) {
            if (token as usize) < vocab {
                let expected = reference::embed(&table, c, &[token]);
                assert_eq!(bits(row), bits(&expected), "token {token}");
            } else {
                assert!(row.iter().all(|v| v.is_nan()), "token {token}");
            }
        }
    }
}

#[test]
fn a_table_that_is_no_matrix_is_refused() {
    let Some(on) = stream() else { return };
    let table = on.upload(&narrow(&vector(1, 60))).unwrap();
    let ids = on.upload(&[0u32]).unwrap();
    let mut out = poisoned(&on, 6);
    let refused = embed::forward(&on, table.view(), 10, ids.view(), &mut out.view_mut());
    assert!(matches!(refused, Err(Error::Argument { .. })));
    let refused = embed::forward(&on, table.view(), 7, ids.view(), &mut out.view_mut());
    assert!(matches!(refused, Err(Error::Shape { .. })));
}
