//! What can go wrong in this crate, with the facts that a person needs to act on it.
//!
//! One enum for the crate. Foreign bytes (model files, templates, adapters) always end here and never in a panic; the
//! variant names the file and the field. Start at [`Error::Field`], which most damaged files produce.

use std::io;
use std::path::PathBuf;

use crate::template::PromptSize;

/// What this crate's fallible functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure to load, tokenise, render, run or store a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("failed to {action} {}", path.display())]
    Io {
        /// The verb: open, read, write, rename.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file that must be JSON is not, or lacks what it must have.
    #[error("failed to parse {} as JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A field of a file has a value that cannot be used.
    #[error("{}: field `{field}` {problem}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, as the file calls it.
        field: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// Nothing at this path looks like a model.
    #[error("no model at {}: {reason}", path.display())]
    NotAModel {
        /// What was asked for.
        path: PathBuf,
        /// What was looked for and not found.
        reason: &'static str,
    },
    /// The checkpoint has no tensor of that name.
    #[error("{}: no tensor named `{name}`", path.display())]
    MissingTensor {
        /// The checkpoint.
        path: PathBuf,
        /// The canonical (Hugging Face) name.
        name: String,
    },
    /// A tensor's shape is not what the configuration implies.
    #[error("{}: tensor `{name}` has shape {found:?}, expected {expected:?}", path.display())]
    TensorShape {
        /// The checkpoint.
        path: PathBuf,
        /// The canonical name.
        name: String,
        /// What the caller asked for.
        expected: Vec<usize>,
        /// What the file holds.
        found: Vec<usize>,
    },
    /// The tokenizer library refused the tokenizer's definition or the text.
    #[error("failed to {action} with the tokenizer of {}", path.display())]
    Tokenizer {
        /// What was attempted.
        action: &'static str,
        /// Where the tokenizer came from.
        path: PathBuf,
        /// The cause.
        #[source]
        source: tokenizers::Error,
    },
    /// The chat template failed: its syntax, its own `raise_exception`, or one of the sandbox's limits.
    #[error("failed to {action} the chat template")]
    Template {
        /// What was attempted: parse or render.
        action: &'static str,
        /// The cause.
        #[source]
        source: minijinja::Error,
    },
    /// The chat template produced more text than the sandbox allows.
    #[error("the chat template wrote more than {limit} bytes")]
    TemplateOutput {
        /// The cap, in bytes.
        limit: usize,
    },
    /// A conversation is longer than its caller takes.
    #[error("the prompt has more than {} tokens, or {} bytes of text", most.tokens, most.bytes)]
    PromptTooLong {
        /// What it takes.
        most: PromptSize,
    },
    /// A message cannot be rendered.
    #[error("message {index}: {problem}")]
    Message {
        /// Position in the conversation, from 0.
        index: usize,
        /// What is wrong with it.
        problem: Problem,
    },
    /// An op refused its arguments.
    #[error("failed to compute")]
    Compute(#[from] kernels::Error),
    /// A sequence without tokens cannot be computed.
    #[error("a sequence holds no token")]
    EmptySequence,
    /// A sequence is longer than the model allows.
    #[error("a sequence of {tokens} tokens exceeds the model's context of {context}")]
    TooLong {
        /// Tokens of the sequence.
        tokens: usize,
        /// The model's limit.
        context: usize,
    },
    /// A token id is not in the vocabulary.
    #[error("token {token} is outside of the vocabulary of {vocab}")]
    Token {
        /// The id.
        token: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// A training target names a row that the sequence does not have.
    #[error("a target names row {row} of a sequence of {rows}")]
    TargetRow {
        /// The row.
        row: usize,
        /// Tokens of the sequence.
        rows: usize,
    },
    /// A backward pass got another number of gradients than its forward pass had targets.
    #[error("{found} gradients for {expected} targets")]
    Gradients {
        /// Gradients given.
        found: usize,
        /// Targets of the forward pass.
        expected: usize,
    },
    /// An adapter cannot be made, or does not belong to the model.
    #[error("the adapter's {what} is {found}, but {rule}")]
    AdapterSetting {
        /// Rank, alpha or parameters.
        what: &'static str,
        /// What was given.
        found: f64,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The safetensors library refused the bytes of an adapter.
    #[error("failed to {action} safetensors")]
    Safetensors {
        /// What was attempted.
        action: &'static str,
        /// The cause.
        #[source]
        source: ::safetensors::SafeTensorError,
    },
    /// A setting of the sampler is out of its range.
    #[error("sampling: {setting} is {value}, but {rule}")]
    Sampling {
        /// The setting, as configuration files call it.
        setting: &'static str,
        /// What was asked for.
        value: f32,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A tool definition cannot be rendered.
    #[error("tool `{name}`: its parameters are not a JSON object")]
    ToolParameters {
        /// The tool.
        name: String,
        /// The cause, when it is not even JSON.
        #[source]
        source: Option<serde_json::Error>,
    },
}

/// What is wrong with a field of a foreign file.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It is not there.
    #[error("is missing")]
    Missing,
    /// It appears twice.
    #[error("appears twice")]
    Duplicate,
    /// It has another type.
    #[error("is not {expected}")]
    Type {
        /// What it should be, with an article.
        expected: &'static str,
    },
    /// It is a number outside of its bounds.
    #[error("is {value}, outside of {min}..={max}")]
    Range {
        /// What the file says.
        value: f64,
        /// The least allowed.
        min: f64,
        /// The most allowed.
        max: f64,
    },
    /// It asks for something that this host does not do.
    #[error("asks for {value}, which is not supported")]
    Unsupported {
        /// What the file asks for.
        value: String,
    },
    /// It contradicts another field or the size of the file.
    #[error("is {value}, but {rule}")]
    Inconsistent {
        /// What the file says.
        value: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// It runs past the end of the file or of its container.
    #[error("ends at byte {end}, past the end at {limit}")]
    PastEnd {
        /// Where it would end.
        end: u64,
        /// Where the file or container ends.
        limit: u64,
    },
    /// It is larger than this host accepts.
    #[error("has {count} entries or bytes, more than the limit of {limit}")]
    TooMany {
        /// What the file says.
        count: u64,
        /// The limit.
        limit: u64,
    },
    /// It is not UTF-8.
    #[error("is not UTF-8")]
    Utf8,
    /// It holds a number that is infinite or not a number.
    #[error("holds a non-finite number at element {index}")]
    NonFinite {
        /// The first such element.
        index: usize,
    },
}

/// Shorthand for [`Error::Field`].
pub(crate) fn field(path: impl Into<PathBuf>, field: impl Into<String>, problem: Problem) -> Error {
    Error::Field {
        path: path.into(),
        field: field.into(),
        problem,
    }
}

/// Shorthand for [`Error::Io`] in `map_err`.
pub(crate) fn io(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io {
        action,
        path,
        source,
    }
}
