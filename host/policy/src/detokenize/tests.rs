//! What the incremental detokenizer promises.

use proptest::prelude::*;

use super::*;
use crate::checkpoint::gguf::Gguf;
use crate::tokenizer::Special;

fn tokenizer() -> Tokenizer {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/text/smollm.gguf");
    Gguf::open(path.as_ref()).unwrap().tokenizer().unwrap()
}

fn bare(stops: &[&str]) -> Detokenizer {
    Detokenizer {
        stops: stops.iter().map(|stop| (*stop).to_owned()).collect(),
        bytes: Vec::new(),
        text: String::new(),
        held: String::new(),
        stopped: false,
        strip_space: false,
    }
}

#[test]
fn characters_of_several_tokens_appear_when_they_are_complete() {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode("a🚀ø", Special::Plain).unwrap();
    assert!(
        ids.len() > 3,
        "the fixture's tokenizer has no token for these characters: {ids:?}"
    );
    let mut text = Detokenizer::new(&tokenizer, &[]);
    let shown: Vec<String> = ids.iter().map(|id| text.push(&tokenizer, *id)).collect();
    assert!(
        shown.iter().all(|piece| !piece.contains('\u{FFFD}')),
        "{shown:?}"
    );
    assert_eq!(shown.concat() + &text.finish(), "a🚀ø");
}

#[test]
fn special_tokens_are_not_shown() {
    let tokenizer = tokenizer();
    let mut text = Detokenizer::new(&tokenizer, &[]);
    assert_eq!(text.push(&tokenizer, 1), "");
    let a = tokenizer.token_id("a").unwrap();
    assert_eq!(text.push(&tokenizer, a), "a");
    assert_eq!(text.push(&tokenizer, u32::MAX), "");
}

#[test]
fn a_stop_string_across_pieces_ends_the_text_and_is_not_part_of_it() {
    let mut text = bare(&["END", "\n\n"]);
    assert_eq!(text.push_bytes(b"one E"), "one ");
    assert_eq!(text.push_bytes(b"N"), "");
    assert_eq!(text.push_bytes(b"X two\n"), "ENX two");
    assert!(!text.stopped());
    assert_eq!(text.push_bytes(b"\nmore"), "");
    assert!(text.stopped());
    assert_eq!(text.push_bytes(b"never"), "");
    assert_eq!(text.finish(), "");
}

#[test]
fn the_first_of_several_stops_counts_and_held_text_comes_at_the_end() {
    let mut text = bare(&["abcd", "bc"]);
    assert_eq!(text.push_bytes(b"xabcdy"), "x");
    assert!(text.stopped());
    let mut text = bare(&["abcd"]);
    assert_eq!(text.push_bytes(b"xabc"), "x");
    assert_eq!(text.finish(), "abc");
}

#[test]
fn an_unfinished_character_at_the_end_becomes_the_replacement_character() {
    let mut text = bare(&[]);
    assert_eq!(text.push_bytes(&"🙂".as_bytes()[..2]), "");
    assert_eq!(text.finish(), "\u{FFFD}");
}

#[test]
fn an_overlap_is_no_longer_than_the_text_and_never_the_whole_stop() {
    let check = |text: &str, stop: &str, expected: usize| {
        assert_eq!(overlap(text, stop), expected, "{text} {stop}");
    };
    check("xab", "abc", 2);
    check("a", "aaaa", 1);
    check("aaaa", "aaa", 2);
    check("ab", "ab", 0);
    check("xé", "éa", 2);
    check("é", "è", 0);
    check("", "abc", 0);
    check("abc", "", 0);
    check("abc", "x", 0);
}

proptest! {
    #[test]
    fn pieces_add_up_to_the_whole_for_any_bytes(
        bytes in prop::collection::vec(prop_oneof![Just(0xF0u8), Just(0x9F), Just(0x99), Just(0x82), b'a'..=b'c', any::<u8>()], 0..40),
        cut in 1usize..5,
    ) {
        let mut text = bare(&[]);
        let mut shown = String::new();
        for piece in bytes.chunks(cut) {
            shown.push_str(&text.push_bytes(piece));
        }
        shown.push_str(&text.finish());
        prop_assert_eq!(shown, String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_cut_stops_at_the_same_place(whole in "[abé]{0,30}", stop in "[abé]{1,4}", cut in 1usize..4) {
        let mut text = bare(&[&stop]);
        let mut shown = String::new();
        for piece in whole.as_bytes().chunks(cut) {
            shown.push_str(&text.push_bytes(piece));
        }
        shown.push_str(&text.finish());
        prop_assert_eq!(shown.as_str(), whole.split(&stop).next().unwrap());
        prop_assert_eq!(text.stopped(), whole.contains(&stop));
    }
}
