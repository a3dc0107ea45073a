//! A pack is a forest of the sequences that were pushed, whatever their order.

use super::*;
use proptest::prelude::*;

/// The tokens on the way to a row of the pack.
fn path(pack: &Pack, row: usize) -> Vec<u32> {
    let node = pack
        .nodes()
        .iter()
        .rposition(|n| n.first <= row && row < n.first + n.count);
    let mut at = node;
    let mut end = node.map_or(0, |i| {
        pack.nodes()[i].start + row + 1 - pack.nodes()[i].first
    });
    let mut tokens = Vec::new();
    while let Some(i) = at {
        let node = pack.nodes()[i];
        let own = &pack.tokens()[node.first..node.first + end - node.start];
        tokens.splice(0..0, own.iter().copied());
        (at, end) = (node.parent, node.start);
    }
    tokens
}

proptest! {
    #[test]
    fn every_target_is_at_the_end_of_its_own_tokens(
        sequences in prop::collection::vec((0usize..4, 0usize..60, prop::collection::vec(0u32..2, 1..40)), 1..12)
    ) {
        let mut pack = Pack::default();
        let mut asked = Vec::new();
        let mut alone = 0;
        for (family, shared, own) in sequences {
            let mut tokens: Vec<u32> = (0..shared as u32).map(|i| 100 * family as u32 + i % 7).collect();
            tokens.extend(own);
            alone += tokens.len();
            let targets: Vec<Target> = (0..tokens.len()).map(|row| Target { row, token: 5 }).collect();
            pack.push(&tokens, &targets).unwrap();
            asked.extend((1..=tokens.len()).map(|n| tokens[..n].to_vec()));
        }
        prop_assert!(pack.rows() <= alone);
        for (i, node) in pack.nodes().iter().enumerate() {
            prop_assert!(node.count > 0);
            match node.parent {
                None => prop_assert_eq!(node.start, 0),
                Some(parent) => {
                    let before = pack.nodes()[parent];
                    prop_assert!(parent < i);
                    prop_assert!(node.start >= SHARED);
                    prop_assert_eq!(before.start + before.count, node.start);
                }
            }
        }
        prop_assert_eq!(pack.targets().len(), asked.len());
        for (target, tokens) in pack.targets().iter().zip(&asked) {
            prop_assert_eq!(&path(&pack, target.row), tokens);
        }
        prop_assert!(pack.is_aligned(1));
        for unit in [1, 8, 32, 64] {
            let aligned = pack.aligned(unit);
            prop_assert!(aligned.is_aligned(unit));
            prop_assert!((pack.rows()..=alone).contains(&aligned.rows()));
            prop_assert_eq!(unit > 1 || aligned.rows() == pack.rows(), true);
            for (target, tokens) in aligned.targets().iter().zip(&asked) {
                prop_assert_eq!(&path(&aligned, target.row), tokens);
            }
            for (i, node) in aligned.nodes().iter().enumerate() {
                prop_assert!(node.count > 0 && node.parent.is_none_or(|parent| parent < i));
            }
        }
    }
}

#[test]
fn a_conversation_that_goes_on_is_one_chain() {
    let tokens: Vec<u32> = (0..90).collect();
    let mut pack = Pack::default();
    for end in [30, 60, 90] {
        pack.push(&tokens[..end], &[]).unwrap();
    }
    assert_eq!((pack.rows(), pack.nodes().len()), (90, 3));
    // The same again, in the other order: the longest holds the others.
    pack.clear();
    for end in [90, 60, 30] {
        assert_eq!(pack.shared(&tokens[..end]), if end == 90 { 0 } else { end });
        pack.push(&tokens[..end], &[]).unwrap();
    }
    assert_eq!(pack.rows(), 90);
}

#[test]
fn little_in_common_is_not_shared() {
    let mut pack = Pack::default();
    pack.push(&[1; SHARED - 1], &[]).unwrap();
    pack.push(&[1; SHARED - 1], &[]).unwrap();
    assert_eq!((pack.rows(), pack.nodes().len()), (2 * (SHARED - 1), 2));
    assert_eq!(pack.shared(&[1; SHARED]), 0);
}

#[test]
fn a_row_that_is_not_there_is_refused() {
    let mut pack = Pack::default();
    assert!(matches!(pack.push(&[], &[]), Err(Error::EmptySequence)));
    let beyond = Target { row: 3, token: 0 };
    assert!(matches!(
        pack.push(&[1, 2, 3], &[beyond]),
        Err(Error::TargetRow { row: 3, rows: 3 })
    ));
    assert_eq!(pack.rows(), 0, "nothing of it was taken");
}
