//! What versions are asked when nobody says what: a few everyday prompts.

/// Everyday prompts: a fact, an explanation, a list, advice, a text, an instruction, small talk.
pub const CANARIES: [&str; 6] = [
    "What is the capital of France?",
    "How do I boil an egg?",
    "Explain what a hash function is.",
    "Name three good habits for the morning.",
    "Write a short message to thank a colleague.",
    "Hi, how are you?",
];

/// The prompts in a text, one a line; blank lines are skipped.
pub fn parse_probes(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}
