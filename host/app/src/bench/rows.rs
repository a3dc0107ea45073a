//! What is measured: the rows, who takes part in each, and what is aimed at.

use serde::{Deserialize, Serialize};

use super::contender::Contender;

/// One line of the table.
#[derive(Debug)]
pub(super) struct Row {
    /// As `--only` names it.
    pub(super) name: &'static str,
    /// For people.
    pub(super) title: &'static str,
    /// What is done.
    pub(super) work: Work,
    /// Who does it, we first.
    pub(super) contenders: &'static [Contender],
    /// The least ratio of our speed to theirs that is aimed at.
    pub(super) targets: &'static [(Contender, f64)],
}

/// Sizes of a work.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    /// Greedy steps of some sequences together, after a prompt each.
    Decode {
        sequences: usize,
        /// Adapters of rank 16 among which our sequences are dealt out.
        adapters: usize,
        steps: usize,
    },
    /// One prompt.
    Prefill { tokens: usize },
    /// A LoRA step of rank 16.
    Train { sequences: usize, tokens: usize },
    /// Streams of the engine, alone and while a learner takes such steps.
    Beside { streams: usize },
}

/// Tokens of a stream whose distances are measured, alone and again beside training.
const STREAMED: usize = 200;

/// Tokens of the prompt before decoding.
const PROMPT: usize = 32;

use Contender::{LlamaBf16, LlamaF32, LlamaQ8, Ours, OursPairs, OursQ8, TorchF32};

/// The table.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: "decode-1",
        title: "decode, batch 1",
        work: Work::Decode {
            sequences: 1,
            adapters: 0,
            steps: 40,
        },
        contenders: &[Ours, OursPairs, OursQ8, LlamaBf16, LlamaQ8, TorchF32],
        targets: &[(LlamaBf16, 1.2), (LlamaQ8, 1.2)],
    },
    Row {
        name: "decode-8",
        title: "decode, batch 8",
        work: Work::Decode {
            sequences: 8,
            adapters: 0,
            steps: 20,
        },
        contenders: &[Ours, OursPairs, OursQ8, LlamaBf16, LlamaQ8],
        targets: &[],
    },
    Row {
        name: "decode-32",
        title: "decode, batch 32",
        work: Work::Decode {
            sequences: 32,
            adapters: 0,
            steps: 12,
        },
        contenders: &[Ours, OursPairs, OursQ8, LlamaBf16, LlamaQ8],
        targets: &[],
    },
    Row {
        name: "adapters-32",
        title: "decode, batch 32, 8 adapters (llama.cpp: none)",
        work: Work::Decode {
            sequences: 32,
            adapters: 8,
            steps: 12,
        },
        contenders: &[Ours, OursPairs, LlamaBf16],
        targets: &[(LlamaBf16, 2.0)],
    },
    Row {
        name: "prefill-256",
        title: "prefill of 256",
        work: Work::Prefill { tokens: 256 },
        contenders: &[Ours, OursPairs, LlamaF32, LlamaBf16, TorchF32],
        targets: &[(LlamaF32, 1.6), (TorchF32, 1.05)],
    },
    Row {
        name: "train",
        title: "LoRA rank 16, step of 4 × 256",
        work: Work::Train {
            sequences: 4,
            tokens: 256,
        },
        contenders: &[Ours, OursPairs, TorchF32],
        targets: &[(TorchF32, 1.5)],
    },
    Row {
        name: "beside-1",
        title: "1 stream beside training",
        work: Work::Beside { streams: 1 },
        contenders: &[Ours, OursPairs],
        targets: &[],
    },
    Row {
        name: "beside-4",
        title: "4 streams beside training",
        work: Work::Beside { streams: 4 },
        contenders: &[Ours, OursPairs],
        targets: &[],
    },
];

/// A work as it is asked for: one line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "lowercase")]
pub(super) enum Ask {
    /// See [`Work::Decode`].
    Decode {
        prompts: Vec<Vec<u32>>,
        steps: usize,
        adapters: usize,
    },
    /// See [`Work::Prefill`].
    Prefill { prompts: Vec<Vec<u32>> },
    /// See [`Work::Train`].
    Train { prompts: Vec<Vec<u32>> },
    /// See [`Work::Beside`]; `samples` are what is trained.
    Beside {
        prompts: Vec<Vec<u32>>,
        samples: Vec<Vec<u32>>,
        tokens: usize,
    },
}

impl Work {
    /// The same words for everybody, sequences beginning at different ones.
    pub(super) fn ask(self, text: &[u32]) -> Ask {
        let prompts = |sequences: usize, tokens: usize| {
            let from = |first: usize| text.iter().cycle().skip(first).take(tokens).copied();
            (0..sequences).map(|i| from(7 * i).collect()).collect()
        };
        match self {
            Self::Decode {
                sequences,
                adapters,
                steps,
            } => Ask::Decode {
                prompts: prompts(sequences, PROMPT),
                steps,
                adapters,
            },
            Self::Prefill { tokens } => Ask::Prefill {
                prompts: prompts(1, tokens),
            },
            Self::Train { sequences, tokens } => Ask::Train {
                prompts: prompts(sequences, tokens),
            },
            Self::Beside { streams } => Ask::Beside {
                prompts: prompts(streams, PROMPT),
                samples: prompts(4, 256),
                tokens: STREAMED,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_asked_the_same_and_sequences_differ() {
        let text: Vec<u32> = (10..60).collect();
        let asked = serde_json::to_value(ROWS[1].work.ask(&text)).unwrap();
        assert_eq!(
            (&asked["work"], &asked["steps"]),
            (&"decode".into(), &20.into())
        );
        let prompts = asked["prompts"].as_array().unwrap();
        assert_eq!(prompts.len(), 8);
        assert_eq!(prompts[0].as_array().unwrap().len(), PROMPT);
        assert_ne!(prompts[0], prompts[1]);
    }

    #[test]
    fn we_come_first_in_every_row_and_targets_are_of_those_who_take_part() {
        for row in ROWS {
            assert_eq!(row.contenders[0], Ours, "{}", row.name);
            for (contender, ratio) in row.targets {
                assert!(
                    row.contenders.contains(contender) && *ratio > 1.0,
                    "{}",
                    row.name
                );
            }
        }
    }
}
