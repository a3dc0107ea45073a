//! What host and worker say to each other: MessagePack in frames, each after its length in 4 bytes, little-endian.
//!
//! Calls are numbered and several are under way at once; while one is, the worker may ask for things outside under its number.

use std::{
    borrow::Cow,
    io::{self, Read, Write},
    time::Duration,
};

use plugin::{
    Capability, Limits, LoadProblem,
    outside::{CompletionRequest, Gesture, Refusal, Request},
};
use rl::{
    Action, Answer, Hint, JudgedTurn, Message, ModalityCard, NextState, Seed, TaskId, ToolSpec,
    Turn, Vote,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;

/// Longest frame, in bytes. From the host: the largest component, and room. From the worker: the largest answer, and room.
pub(crate) const TO_WORKER: usize = 64 << 20;
pub(crate) const FROM_WORKER: usize = 10 << 20;

/// Most values in what is decoded: each costs far more memory than the byte that it may be.
const VALUES: usize = 1 << 20;

/// The first frame: all that a worker is told.
#[derive(Serialize, Deserialize)]
pub(crate) struct Begin {
    pub(crate) limits: Limits,
    pub(crate) memory_bytes: u64,
    /// What the host offers, by name.
    pub(crate) offers: Vec<Capability>,
    pub(crate) manifest: String,
    pub(crate) component: ByteBuf,
    pub(crate) grants: Vec<Capability>,
    /// The plugin's section of the recipe, as TOML.
    pub(crate) section: String,
    pub(crate) run: Seed,
}

/// The second frame: what the host does with compiled code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Keeping {
    /// Nothing.
    Nothing,
    /// It takes what the worker has to compile, if that has at most so many bytes.
    Takes {
        /// So many bytes of what an earlier worker compiled follow this frame, as they are.
        has: Option<u64>,
        most: u64,
    },
}

#[derive(Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, on its way to becoming bytes"
)]
pub(crate) enum ToWorker<'a> {
    Call {
        id: u64,
        call: Call<'a>,
    },
    /// What was asked for during a call.
    Got {
        id: u64,
        got: Result<ByteBuf, Refusal>,
    },
    /// An episode is over.
    Over(u64),
}

#[derive(Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// The worker had to compile: so many bytes of code follow this frame, as they are. At most once, before it says that its plugin
    /// is loaded, and before any of the guest's code has run.
    Compiled(u64),
    /// The answer to the first two frames.
    Loaded(Result<Loaded, LoadProblem>),
    Ask {
        id: u64,
        ask: Ask,
    },
    Answer {
        id: u64,
        answer: Result<ByteBuf, rl::Error>,
    },
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Loaded {
    /// Of an environment.
    pub(crate) card: Option<ModalityCard>,
}

/// A call through a seam. Each is answered by what the seam's method gives.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Call<'a> {
    Classify(Cow<'a, [Message]>, Cow<'a, [ToolSpec]>),
    NextState(Cow<'a, Turn>, Cow<'a, [Message]>),
    SessionEnds(Cow<'a, [Message]>),
    Tasks(Cow<'a, str>),
    Start {
        episode: u64,
        task: TaskId,
        seed: Seed,
    },
    Observe(u64),
    Act(u64, Cow<'a, Action>),
    Outcome(u64),
    Snapshot(u64),
    Evaluate(Cow<'a, Turn>, Cow<'a, NextState>, Seed),
    ReadVote(Cow<'a, Turn>, Cow<'a, NextState>, Cow<'a, Answer>),
    AskHint(Cow<'a, Turn>, Cow<'a, NextState>, Seed),
    ReadHint(Cow<'a, Turn>, Cow<'a, NextState>, Cow<'a, Answer>),
    PlaceHint(Cow<'a, [Message]>, Cow<'a, Hint>),
    Verdict(Cow<'a, [Vote]>),
    TurnRewards(Cow<'a, [JudgedTurn]>, Option<f64>),
    Advantages(Cow<'a, [Vec<Option<f32>>]>),
    TokenAdvantages {
        advantage: Option<f32>,
        behaviour: Cow<'a, [f32]>,
        teachers: Vec<Vec<f32>>,
    },
}

impl Call<'_> {
    /// The function of the contract, for errors.
    pub(crate) fn function(&self) -> &'static str {
        match self {
            Call::Classify(..) => "classify",
            Call::NextState(..) => "next-state",
            Call::SessionEnds(..) => "session-ends",
            Call::Tasks(..) => "tasks",
            Call::Start { .. } => "episode.start",
            Call::Observe(..) => "episode.observe",
            Call::Act(..) => "episode.act",
            Call::Outcome(..) => "episode.outcome",
            Call::Snapshot(..) => "episode.snapshot",
            Call::Evaluate(..) => "evaluate",
            Call::ReadVote(..) => "read-vote",
            Call::AskHint(..) => "ask-hint",
            Call::ReadHint(..) => "read-hint",
            Call::PlaceHint(..) => "place-hint",
            Call::Verdict(..) => "verdict",
            Call::TurnRewards(..) => "turn-rewards",
            Call::Advantages(..) => "advantages",
            Call::TokenAdvantages { .. } => "token-advantages",
        }
    }
}

/// Something that a guest asks for outside. Answered by what the method of `plugin::outside` gives; a machine or page by its number.
#[derive(Serialize, Deserialize)]
pub(crate) enum Ask {
    CreateMachine(String),
    CreatePage,
    Machine(u64, MachineAsk),
    Page(u64, PageAsk),
    LetGo(u64),
    Complete(CompletionRequest),
    Fetch(Request),
    Store(StoreAsk),
}

#[derive(Serialize, Deserialize)]
pub(crate) enum StoreAsk {
    Get(String),
    Put(String, ByteBuf),
    Remove(String),
    Keys(String),
}

#[derive(Serialize, Deserialize)]
pub(crate) enum MachineAsk {
    Run {
        command: String,
        folder: String,
        timeout: Duration,
    },
    WriteFile {
        path: String,
        content: ByteBuf,
        executable: bool,
    },
    ReadFile(String),
    Snapshot,
    RollBack(u32),
    Changes(u32),
}

#[derive(Serialize, Deserialize)]
pub(crate) enum PageAsk {
    Show(String),
    Open(String, String),
    Tree,
    Act(Gesture),
    EvaluateJson(String),
    ScreenshotPng,
}

/// A value as it travels.
pub(crate) fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    rmp_serde::to_vec_named(value).map_err(io::Error::other)
}

/// A value that travelled. Attack: the sender may be in a guest's hands; a length that lies allocates nothing by itself, and bytes
/// that become millions of empty texts are refused before they do.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    if values(bytes) > VALUES {
        let problem = format!("more than {VALUES} values in a frame");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    rmp_serde::from_slice(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// How many values the bytes hold, lists and maps included; what is cut or wrong ends the count, and is the decoder's to refuse.
fn values(bytes: &[u8]) -> usize {
    let mut count = 0;
    let mut at = 0;
    while let Some(marker) = bytes.get(at) {
        at += 1;
        count += 1;
        // The width of the length that follows the marker, and what follows that beside its own bytes.
        let (width, more) = match marker {
            0xa0..=0xbf => (0, usize::from(marker & 0x1f)),
            0xc4 | 0xd9 => (1, 0),
            0xc5 | 0xda => (2, 0),
            0xc6 | 0xdb => (4, 0),
            0xc7 => (1, 1),
            0xc8 => (2, 1),
            0xc9 => (4, 1),
            0xcc | 0xd0 => (0, 1),
            0xcd | 0xd1 | 0xdc | 0xde => (0, 2),
            0xca | 0xce | 0xd2 | 0xdd | 0xdf => (0, 4),
            0xcb | 0xcf | 0xd3 => (0, 8),
            0xd4 => (0, 2),
            0xd5 => (0, 3),
            0xd6 => (0, 5),
            0xd7 => (0, 9),
            0xd8 => (0, 17),
            _ => (0, 0),
        };
        let Some(length) = bytes.get(at..at + width) else {
            break;
        };
        let length = length
            .iter()
            .fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
        at = at.saturating_add(width + more).saturating_add(length);
    }
    count
}

/// A value's frame.
pub(crate) fn frame(value: &impl Serialize, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    rmp_serde::encode::write_named(&mut bytes, value).map_err(io::Error::other)?;
    let length = bytes.len() - 4;
    let header = u32::try_from(length)
        .ok()
        .filter(|_| length <= most)
        .ok_or_else(|| {
            io::Error::other(format!("a frame of {length} bytes, and {most} are allowed"))
        })?;
    bytes[..4].copy_from_slice(&header.to_le_bytes());
    Ok(bytes)
}

/// Sends one frame.
pub(crate) fn send(mut to: impl Write, value: &impl Serialize, most: usize) -> io::Result<()> {
    to.write_all(&frame(value, most)?)
}

/// Receives one frame; its bytes arrive before memory is taken for them.
pub(crate) fn receive<T: DeserializeOwned>(mut from: impl Read, most: usize) -> io::Result<T> {
    let mut header = [0; 4];
    from.read_exact(&mut header)?;
    let length = u32::from_le_bytes(header) as usize;
    if length > most {
        let problem = format!("a frame of {length} bytes, and {most} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    let mut bytes = Vec::with_capacity(length.min(64 << 10));
    from.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    decode(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_is_too_long_cut_or_no_message_is_an_error() {
        let whole = frame(&7u32, 100).unwrap();
        assert_eq!(receive::<u32>(&whole[..], 100).unwrap(), 7);
        assert!(frame(&"a".repeat(200), 100).is_err());
        for bytes in [
            &[255, 255, 255, 255][..],
            &[9, 0, 0, 0, 1],
            &[1, 0, 0, 0, 0xc1],
            &whole[..3],
        ] {
            receive::<u32>(bytes, 100).unwrap_err();
        }
        // A list of 2^21 empty texts: 2 MiB here, 50 MiB as texts.
        let mut many = vec![0xdd, 0, 0x20, 0, 0];
        many.resize(5 + (1 << 21), 0xa0);
        assert!(decode::<Vec<String>>(&many).is_err());
        // A list that says it has 2^32 members, and has none.
        receive::<Vec<String>>(&[5, 0, 0, 0, 0xdd, 255, 255, 255, 255][..], 100).unwrap_err();
    }

    #[test]
    fn values_are_counted_as_the_decoder_reads_them() {
        let hint = Some("a hint".repeat(100));
        let of = |value: &dyn Fn() -> io::Result<Vec<u8>>| values(&value().unwrap());
        assert_eq!(of(&|| encode(&7u64)), 1);
        assert_eq!(
            of(&|| encode(&(u64::MAX, -1i32, 0.5f32, 0.5f64, hint.clone()))),
            6
        );
        assert_eq!(of(&|| encode(&ByteBuf::from(vec![0xa0; 70_000]))), 1);
        let turn = rl::seam::conformance::turn("How do I boil an egg?", "In water.");
        assert!((40..120).contains(&of(&|| encode(&turn))));
    }

    #[test]
    fn numbers_that_json_has_no_words_for_arrive() {
        let sent = (f32::INFINITY, f32::NEG_INFINITY, Some(-0.0f32));
        let bytes = encode(&sent).unwrap();
        assert_eq!(decode::<(f32, f32, Option<f32>)>(&bytes).unwrap(), sent);
    }
}
