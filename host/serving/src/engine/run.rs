//! Builds the engine, runs its thread, and ends it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use policy::{ChatTemplate, Kv, Model, Slot, Tokenizer};
use rl::{AdapterName, PolicyCard};

use super::config::Config;
use super::handle::{EngineHandle, Inner};
use super::queue::{Limits, Queue};
use super::text::Text;
use super::worker::Worker;
use crate::error::{Error, Result};
use crate::metrics::{EngineMetrics, SharedRegistry};

/// What an engine serves.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The base model's name, as clients ask for it.
    pub name: String,
    /// The weights.
    pub model: Arc<Model>,
    /// Text to ids and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Conversations to text.
    pub template: Arc<ChatTemplate>,
    /// Where the newest version of each adapter is found.
    pub adapters: BTreeMap<AdapterName, Arc<Slot>>,
}

/// An engine that does not run yet.
pub struct Engine {
    pub(super) worker: Worker,
    pub(super) handle: EngineHandle,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}

/// A running engine. Dropping it cuts off what runs; [`Running::shutdown`] lets it finish.
#[derive(Debug)]
pub struct Running {
    handle: EngineHandle,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Engine {
    /// Checks the configuration against the model.
    ///
    /// # Errors
    /// [`Error::Setting`] for a setting out of range, [`Error::Vocabulary`] for a tokenizer of another model.
    pub fn build(config: Config, parts: Parts, registry: &SharedRegistry) -> Result<Self> {
        config.validate()?;
        let Parts {
            name,
            model,
            tokenizer,
            template,
            adapters,
        } = parts;
        let config = Config {
            prefill_rows: config.prompt_rows(model.is_on_gpu()),
            ..config
        };
        let shape = model.config();
        if tokenizer.vocab_size() > shape.vocab_size {
            return Err(Error::Vocabulary {
                tokenizer: tokenizer.vocab_size(),
                model: shape.vocab_size,
            });
        }
        let per_token =
            (shape.layers * shape.kv_heads * shape.head_dim * 2 * size_of::<f32>()) as u64;
        let mut one = Kv::new(shape);
        one.reserve(1);
        let block = one.bytes() as u64;
        let block_tokens = usize::try_from(block / per_token.max(1))
            .unwrap_or(1)
            .max(1);
        let held = usize::try_from(config.kv_bytes / block.max(1)).unwrap_or(usize::MAX);
        let context = config
            .context
            .min(model.context())
            .min(held.saturating_mul(block_tokens));
        if context < 2 {
            let rule = "enough for one block of keys and values";
            let value = config.kv_bytes.to_string();
            return Err(Error::Setting {
                key: "kv-bytes",
                value,
                rule,
            });
        }
        let queue = Queue::new(Limits {
            waiting: config.max_waiting,
            waiting_per_tenant: config.max_waiting_per_tenant,
            max_wait: config.max_wait,
        });
        let card = PolicyCard {
            model: name,
            context,
            vocab_size: shape.vocab_size,
        };
        let inner = Arc::new(Inner {
            queue,
            longest_token: tokenizer.longest_token().max(1),
            text: Text::new(tokenizer, template, context),
            card,
            adapters,
            metrics: EngineMetrics::register(registry),
        });
        let handle = EngineHandle {
            inner: Arc::clone(&inner),
        };
        Ok(Self {
            worker: Worker::new(config, model, inner, block, block_tokens),
            handle,
        })
    }

    /// Reaches the engine, also before it runs: requests wait.
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// [`Error::Thread`] when the system refuses one.
    pub fn start(self) -> Result<Running> {
        let Self { worker, handle } = self;
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || worker.run())
            .map_err(|source| Error::Thread { source })?;
        Ok(Running {
            handle,
            thread: Some(thread),
        })
    }
}

impl Running {
    /// Reaches the engine.
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Lets nothing new in, finishes what waits and runs, and ends the thread. Blocks.
    ///
    /// # Errors
    /// [`Error::EngineStopped`] when the thread broke before.
    pub fn shutdown(mut self) -> Result<()> {
        self.handle.inner.queue.drain();
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        let why = || self.handle.inner.queue.why_closed();
        thread
            .join()
            .unwrap_or_else(|_| Err(Error::EngineStopped { why: why() }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.handle.inner.queue.close("the host is stopping");
            if let Err(error) = self.join() {
                tracing::error!(%error, "engine");
            }
        }
    }
}
