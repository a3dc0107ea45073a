//! Chat templates: a conversation to the exact text, and token ids, that a model was trained on.
//!
//! Templates are programs that come with a model, so they run in a sandboxed engine: no files, no includes, no clock, fuel and an
//! output cap. What messages hold is data: [`ChatTemplate::encode`] follows it through the rendering and never lets it become a
//! special token. Does not parse replies; [`crate::toolcalls`] does.
//!
//! # Data
//! To know which parts of the result are data, [`ChatTemplate::encode`] renders with a placeholder (noncharacters and a number that occurs
//! in none of the texts) in the place of every text of a message or a tool, and puts the texts back afterwards; so a template never
//! sees them and cannot let a piece of one pass as its own words. White space at a text's ends stays outside of the placeholder, so
//! that `trim` works; a text written with `tojson` is escaped when it is put back; Qwen's search for `</think>` in content is done
//! for the template. Anything else that a template does with the inside of a text is lost.

use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use rl::{Message, ToolSpec};

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

mod functions;
mod values;

use values::{Places, Style};

/// Instructions for a template and for each message or tool: some 100 times what published templates take.
const FUEL: u64 = 1_000_000;
const FUEL_EACH: u64 = 100_000;
/// Output may be this much, and eight times the texts that went in (JSON escapes, repeated system prompts).
const OUTPUT: usize = 1 << 20;
const OUTPUT_FACTOR: usize = 8;

/// What most small models use, and what a model without a template gets.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + \
    message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
}

/// How long a prompt may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptSize {
    /// Bytes of its text.
    pub bytes: usize,
    /// Its tokens.
    pub tokens: usize,
}

/// A rendered conversation, and which parts of it are data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Byte ranges that came from messages or tools: sorted, disjoint.
    pub untrusted: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// Compiles a template. `bos` and `eos` are the texts that it may name as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// [`Error::Template`] with the line of the mistake.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self> {
        let mut environment = Environment::new();
        // White space as transformers sets Jinja up.
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(|source| Error::Template {
            action: "parse",
            source,
        })?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", functions::tojson);
        environment.add_function("raise_exception", functions::raise_exception);
        // transformers' own block tag marks the assistant's words for training; here it means nothing.
        let own = functions::without_generation_tags(source);
        environment
            .add_template_owned(NAME, own)
            .map_err(|source| Error::Template {
                action: "parse",
                source,
            })?;
        Ok(Self {
            environment,
            source: source.into(),
            bos: bos.unwrap_or_default().into(),
            eos: eos.unwrap_or_default().into(),
        })
    }

    /// The ChatML template, for models that come without one.
    pub fn chatml() -> Self {
        // The source is ours and a test renders it.
        Self::new(CHATML, None, None).unwrap_or_else(|_| Self {
            environment: Environment::empty(),
            source: String::new(),
            bos: String::new(),
            eos: String::new(),
        })
    }

    /// Lets the template know the date, as seconds since 1970 in UTC. Without it, `strftime_now` is not defined: Llama's templates then
    /// write a fixed date, and prompts do not change from day to day.
    #[must_use]
    pub fn at(mut self, unix_seconds: i64) -> Self {
        let now = move |format: String| functions::strftime(unix_seconds, &format);
        self.environment.add_function("strftime_now", now);
        self
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template does anything with tools. One that does not leaves definitions and calls out of the prompt.
    pub fn supports_tools(&self) -> bool {
        self.source.contains("tools")
    }

    /// The conversation as text, as transformers' `apply_chat_template(tokenize=False)` gives it.
    ///
    /// # Errors
    /// [`Error::Template`] when the template refuses the conversation or runs out of fuel, [`Error::TemplateOutput`],
    /// [`Error::ToolParameters`].
    pub fn render(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
        add_generation_prompt: bool,
    ) -> Result<String> {
        let limit = OUTPUT + OUTPUT_FACTOR * values::size(messages, tools);
        let places = &mut Places::none();
        self.run(messages, tools, add_generation_prompt, places, limit)
    }

    /// The conversation as text, with the parts that are data.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_spans(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
        add_generation_prompt: bool,
    ) -> Result<Rendered> {
        let limit = OUTPUT + OUTPUT_FACTOR * values::size(messages, tools);
        let mut places = Places::of(messages, tools);
        let text = self.run(messages, tools, add_generation_prompt, &mut places, limit)?;
        let whole = places.put_back(&text, usize::MAX);
        whole.ok_or(Error::TemplateOutput { limit })
    }

    /// The conversation as token ids. Special tokens come only from the template itself. For texts without anything that looks like a
    /// special token the ids are exactly those of [`ChatTemplate::render`]'s text.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`], and those of the tokenizer.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        tools: &[ToolSpec],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>> {
        let rendered = self.render_spans(messages, tools, add_generation_prompt)?;
        tokenizer.encode_spans(&rendered.text, &rendered.untrusted)
    }

    /// As [`ChatTemplate::encode`], of a conversation that is not longer than `most`: of one that is, no more is held than of one that is not.
    ///
    /// # Errors
    /// And [`Error::PromptTooLong`].
    pub fn encode_within(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        tools: &[ToolSpec],
        add_generation_prompt: bool,
        most: PromptSize,
    ) -> Result<Vec<u32>> {
        let too_long = || Error::PromptTooLong { most };
        let mut places = Places::of(messages, tools);
        // Here are white space, placeholders and the template's own words; other texts are put back.
        let limit = OUTPUT + most.bytes;
        let text = match self.run(messages, tools, add_generation_prompt, &mut places, limit) {
            Err(Error::TemplateOutput { .. }) => return Err(too_long()),
            text => text?,
        };
        let rendered = places.put_back(&text, most.bytes).ok_or_else(too_long)?;
        drop((places, text));
        let ids = tokenizer.encode_at_most(&rendered.text, &rendered.untrusted, most.tokens)?;
        ids.ok_or_else(too_long)
    }

    fn run(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
        add_generation_prompt: bool,
        places: &mut Places,
        limit: usize,
    ) -> Result<String> {
        let finds_reasoning = places.are_used()
            && self.source.contains("reasoning_content")
            && self.source.contains("</think>");
        let style = Style { finds_reasoning };
        let context = minijinja::context! {
            messages => messages.iter().map(|m| values::message(m, style, places)).collect::<Vec<_>>(),
            tools => values::tools(tools, places)?,
            documents => (),
            add_generation_prompt,
            bos_token => &self.bos,
            eos_token => &self.eos,
        };
        let mut environment = self.environment.clone();
        let items = (messages.len() + tools.len()) as u64;
        environment.set_fuel(Some(FUEL.saturating_add(FUEL_EACH.saturating_mul(items))));
        let fail = |source| Error::Template {
            action: "render",
            source,
        };
        let template = environment.get_template(NAME).map_err(fail)?;
        let mut out = functions::Capped::new(limit);
        match template.render_captured_to(context, &mut out) {
            Ok(_) => Ok(out.into_text()),
            Err(error) if error.kind() == ErrorKind::WriteFailure => {
                Err(Error::TemplateOutput { limit })
            }
            Err(error) => Err(fail(error)),
        }
    }
}

const NAME: &str = "chat template";

#[cfg(test)]
mod tests;
