//! The engines that run guests: one that counts fuel, one that watches the clock.
//!
//! Judges and reward rules get fuel, so that the limit itself replays; environments get a deadline. Neither engine does both:
//! each costs a quarter of the speed on branchy code.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
    component::{Component, InstancePre, Linker},
};

use crate::{
    capabilities::{self, State},
    error::{Error, Result},
    limits::{CORE_INSTANCES, Limits, MEMORIES, TABLES},
    mappings,
    outside::Outside,
};

/// How often the deadline engine looks at the clock; a call may run this much longer than its limit.
pub(crate) const TICK: Duration = Duration::from_millis(2);

/// How much of a used slot's memory is kept, so that the next instance in it faults less; with `pagemap_scan` only dirty pages
/// are cleared.
const KEEP_RESIDENT_BYTES: usize = 1 << 20;

/// Most compiled components that are kept in memory for another load.
const COMPILED: usize = 64;

/// Runs guests within limits. Cheap to clone; the last clone ends its clock.
#[derive(Clone)]
pub struct PluginHost {
    inner: Arc<Inner>,
}

struct Inner {
    limits: Arc<Limits>,
    offers: Outside,
    fuel: Runtime,
    deadline: Runtime,
    // Dropped with the host, which ends the ticking thread.
    _ticker: mpsc::Sender<()>,
}

/// An engine with the capabilities in its linker.
pub(crate) struct Runtime {
    pub(crate) engine: Engine,
    linker: Linker<State>,
    /// By the component's SHA-256: the same guest with another config is compiled once.
    compiled: Mutex<BTreeMap<String, InstancePre<State>>>,
}

/// How work is limited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Budget {
    Fuel,
    Deadline,
}

impl fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginHost")
            .field("limits", &self.inner.limits)
            .finish_non_exhaustive()
    }
}

impl PluginHost {
    /// A host that offers nothing beyond computation; see [`PluginHost::with`].
    ///
    /// # Errors
    /// [`Error::Start`] when the limits do not fit this machine.
    pub fn new(limits: Limits) -> Result<Self> {
        Self::with(limits, Outside::default())
    }

    /// Makes the engines and reserves their address space. `offers` is what stands behind `shell`, `browser`, `http` and `model`.
    ///
    /// # Errors
    /// [`Error::Start`] when the limits do not fit this machine.
    pub fn with(limits: Limits, offers: Outside) -> Result<Self> {
        check_mappings(limits.instances)?;
        let fuel = Runtime::new(&limits, Budget::Fuel)?;
        let deadline = Runtime::new(&limits, Budget::Deadline)?;
        let ticker = tick(deadline.engine.clone())?;
        let inner = Inner {
            limits: Arc::new(limits),
            offers,
            fuel,
            deadline,
            _ticker: ticker,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// What every instance may use.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    pub(crate) fn offers(&self) -> &Outside {
        &self.inner.offers
    }

    pub(crate) fn shared_limits(&self) -> Arc<Limits> {
        Arc::clone(&self.inner.limits)
    }

    pub(crate) fn runtime(&self, budget: Budget) -> &Runtime {
        match budget {
            Budget::Fuel => &self.inner.fuel,
            Budget::Deadline => &self.inner.deadline,
        }
    }
}

impl Runtime {
    fn new(limits: &Limits, budget: Budget) -> Result<Self> {
        let start = |error: wasmtime::Error| Error::Start {
            problem: format!("{error:#}"),
        };
        let engine = Engine::new(&config(limits, budget)).map_err(start)?;
        let mut linker = Linker::new(&engine);
        capabilities::add_to_linker(&mut linker).map_err(start)?;
        Ok(Self {
            engine,
            linker,
            compiled: Mutex::default(),
        })
    }

    /// Compiles a component, or finds it compiled, and links it with the capabilities.
    pub(crate) fn compile(
        &self,
        digest: &str,
        component: &[u8],
    ) -> wasmtime::Result<InstancePre<State>> {
        if let Some(compiled) = self.compiled.lock().get(digest) {
            return Ok(compiled.clone());
        }
        let component = Component::from_binary(&self.engine, component)?;
        let compiled = self.linker.instantiate_pre(&component)?;
        let mut known = self.compiled.lock();
        if known.len() >= COMPILED {
            known.clear();
        }
        known.insert(digest.to_owned(), compiled.clone());
        Ok(compiled)
    }
}

fn config(limits: &Limits, budget: Budget) -> Config {
    // Sized for the hungriest component, so that only the number of components counts: core instances are a counter, memories
    // and tables address space, and none of it costs a guest in Rust anything.
    let all = |each: u32| limits.instances.saturating_mul(each);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(limits.instances)
        .total_core_instances(all(CORE_INSTANCES))
        .total_memories(all(MEMORIES))
        .total_tables(all(TABLES))
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_memory_size(limits.memory_bytes)
        .table_elements(limits.table_elements)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_reservation(limits.memory_bytes.next_multiple_of(64 << 10) as u64)
        .max_wasm_stack(limits.stack_bytes)
        // The same bytes on every machine and on every replay.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        // Nothing here needs it, and it is surface. Several memories stay on, though no module of a guest may have them
        // (`load.rs`): the engine's own adapters between two components need them, and it panics where they are off.
        .wasm_memory64(false)
        .concurrency_support(false)
        .consume_fuel(budget == Budget::Fuel)
        .epoch_interruption(budget == Budget::Deadline);
    config
}

/// Advances the engine's epoch until the host is dropped.
fn tick(engine: Engine) -> Result<mpsc::Sender<()>> {
    let (sender, receiver) = mpsc::channel();
    let run = move || {
        while receiver.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
            engine.increment_epoch();
        }
    };
    thread::Builder::new()
        .name("plugin-epoch".into())
        .spawn(run)
        .map_err(|error| Error::Start {
            problem: format!("start the epoch thread: {error}"),
        })?;
    Ok(sender)
}

/// Refuses at start what could not be kept: see [`mappings`].
fn check_mappings(instances: u32) -> Result<()> {
    let (needed, allowed) = (
        u64::from(instances).saturating_mul(mappings::needed(1)),
        mappings::allowed(),
    );
    if needed > allowed {
        let problem = format!(
            "{instances} instances need about {needed} memory mappings, and vm.max_map_count leaves {allowed} of them: \
            lower `instances` in `[plugins.limits]`, or raise that limit (`sysctl -w vm.max_map_count=…`)"
        );
        return Err(Error::Start { problem });
    }
    Ok(())
}
