//! What making tokens of a prompt takes, against what a host plans for it: counted, for the whole process.
#![expect(
    unsafe_code,
    reason = "an allocator that counts is an allocator; everything else is the system's"
)]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::print_stdout, reason = "the figures")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use policy::{ChatTemplate, Tokenizer};
use rl::Message;
use serving::engine::{longest_prompt, prompt_bytes};

#[path = "common/tiny.rs"]
mod tiny;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is the system allocator's own; counting touches no memory but two atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One that has tokens of up to 64 spaces, as models' have, and a word.
fn tokenizer() -> Tokenizer {
    let mut json = tiny::tokenizer_json();
    json["pre_tokenizer"]["use_regex"] = true.into();
    let (space, mut id) = ("Ġ", 300);
    let mut add = |left: &str, right: &str| {
        json["model"]["vocab"][format!("{left}{right}")] = id.into();
        json["model"]["merges"]
            .as_array_mut()
            .unwrap()
            .push(format!("{left} {right}").into());
        id += 1;
    };
    for power in 0..6 {
        let half = space.repeat(1 << power);
        add(&half, &half);
    }
    add("t", "h");
    add("th", "e");
    Tokenizer::from_json(
        &serde_json::to_vec(&json).unwrap(),
        "tokenizer.json".as_ref(),
    )
    .unwrap()
}

// One test: the counts are the process's.
#[test]
fn a_prompt_takes_no_more_than_is_planned_however_long_its_text_is() {
    let (tokenizer, template) = (tokenizer(), ChatTemplate::chatml());
    for context in [512, 8192] {
        let most = longest_prompt(context);
        let planned = prompt_bytes(context);
        // A terminal that shows little.
        let rows = format!("{}\n", " ".repeat(79));
        for piece in [
            "a ",
            " ",
            &rows,
            "the cat sat ",
            "\n",
            "ü",
            "ﷺ",
            "1",
            "{}",
            "a1",
        ] {
            for bytes in [30 << 10, most.bytes - 100, 4 << 20] {
                let text = piece.repeat(bytes / piece.len());
                // The request's own copies are planned with bodies.
                let copies = 2 * text.len();
                let message = [Message::user(text)];
                let before = LIVE.load(Relaxed);
                PEAK.store(before, Relaxed);
                let ids = template.encode_within(&tokenizer, &message, &[], true, most);
                let took = (PEAK.load(Relaxed) - before).saturating_sub(copies);
                let ids = ids.map(|ids| ids.len()).ok();
                println!("{piece:?}, {bytes} bytes, {ids:?} tokens: {took} of {planned}");
                assert!(
                    took <= planned,
                    "{piece:?}, {bytes} bytes: {took} of {planned}"
                );
            }
        }
    }
}
