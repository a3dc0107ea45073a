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
    compiled::{Artefact, Cache, EngineDigest},
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
    cache: Option<Cache>,
    fuel: Runtime,
    deadline: Runtime,
    // Dropped with the host, which ends the ticking thread.
    _ticker: mpsc::Sender<()>,
}

/// An engine with the capabilities in its linker.
pub(crate) struct Runtime {
    pub(crate) engine: Engine,
    digest: EngineDigest,
    linker: Linker<State>,
    /// By the component's SHA-256: the same guest with another config is compiled once.
    compiled: Mutex<BTreeMap<[u8; 32], InstancePre<State>>>,
}

/// Where a component's code comes from, before the compiler is asked.
pub(crate) enum Ready<'a> {
    /// From nowhere.
    Nowhere,
    /// From an earlier start of this host; what is compiled is kept for the next.
    Kept(&'a Cache),
    /// From the process that started this one.
    Handed(Artefact),
}

/// A component that can be instantiated.
pub(crate) struct Compiled {
    pub(crate) pre: InstancePre<State>,
    /// By this process, just now.
    pub(crate) anew: bool,
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

    /// Makes the engines and reserves their address space. `offers` is what stands behind `shell`, `browser`, `http`, `model` and `store`.
    ///
    /// # Errors
    /// [`Error::Start`] when the limits do not fit this machine.
    pub fn with(limits: Limits, offers: Outside) -> Result<Self> {
        Self::keeping(limits, offers, None)
    }

    /// As [`PluginHost::with`]; what it compiles is kept in `cache`, and what is kept there is not compiled.
    ///
    /// # Errors
    /// As [`PluginHost::with`].
    pub fn keeping(limits: Limits, offers: Outside, cache: Option<Cache>) -> Result<Self> {
        check_mappings(limits.instances)?;
        let fuel = Runtime::new(&limits, Budget::Fuel)?;
        let deadline = Runtime::new(&limits, Budget::Deadline)?;
        let ticker = tick(deadline.engine.clone())?;
        let inner = Inner {
            limits: Arc::new(limits),
            offers,
            cache,
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

    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.inner.cache.as_ref()
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
            digest: EngineDigest::of(&engine),
            engine,
            linker,
            compiled: Mutex::default(),
        })
    }

    /// Takes a component compiled by others or before, or compiles it, and links it with the capabilities.
    pub(crate) fn compile(
        &self,
        component: &[u8],
        digest: [u8; 32],
        ready: Ready<'_>,
    ) -> wasmtime::Result<Compiled> {
        if let Some(pre) = self.compiled.lock().get(&digest) {
            let pre = pre.clone();
            return Ok(Compiled { pre, anew: false });
        }
        let found = match &ready {
            Ready::Nowhere => None,
            Ready::Kept(cache) => self.kept(cache, digest),
            Ready::Handed(artefact) => self.handed(artefact),
        };
        let anew = found.is_none();
        let component = match found {
            Some(component) => component,
            None => Component::from_binary(&self.engine, component)?,
        };
        let pre = self.linker.instantiate_pre(&component)?;
        if let (Ready::Kept(cache), true) = (&ready, anew)
            && let Ok(code) = component.serialize()
        {
            cache.keep_own(digest, self.digest, &code);
        }
        let mut known = self.compiled.lock();
        if known.len() >= COMPILED {
            known.clear();
        }
        known.insert(digest, pre.clone());
        Ok(Compiled { pre, anew })
    }

    fn kept(&self, cache: &Cache, digest: [u8; 32]) -> Option<Component> {
        let component = cache.own(digest, self.digest)?.component(&self.engine);
        if component.is_err() {
            cache.refuse_own(digest, self.digest);
        }
        component.ok()
    }

    fn handed(&self, artefact: &Artefact) -> Option<Component> {
        let component = artefact.component(&self.engine);
        if let Err(error) = &component {
            tracing::warn!(
                error = format!("{error:#}"),
                "compiled code is of another engine: compiled again"
            );
        }
        component.ok()
    }
}

/// The digest of the engine that a host with these limits has.
pub(crate) fn digest(limits: &Limits, budget: Budget) -> Result<EngineDigest> {
    // Address space is reserved by who runs code, and changes none of it.
    let engine = Engine::new(&codegen(limits, budget)).map_err(|error| Error::Start {
        problem: format!("{error:#}"),
    })?;
    Ok(EngineDigest::of(&engine))
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
    let mut config = codegen(limits, budget);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Everything that code depends on.
fn codegen(limits: &Limits, budget: Budget) -> Config {
    let mut config = Config::new();
    config
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_space_changes_no_code_and_what_limits_work_does() {
        let limits = Limits {
            instances: 4,
            ..Limits::default()
        };
        for budget in [Budget::Fuel, Budget::Deadline] {
            let runtime = Runtime::new(&limits, budget).unwrap();
            assert_eq!(runtime.digest, digest(&limits, budget).unwrap());
        }
        let fuel = digest(&limits, Budget::Fuel).unwrap();
        assert_eq!(fuel, digest(&limits, Budget::Fuel).unwrap());
        assert_ne!(fuel, digest(&limits, Budget::Deadline).unwrap());
        let roomier = Limits {
            memory_bytes: 128 << 20,
            ..limits
        };
        assert_ne!(fuel, digest(&roomier, Budget::Fuel).unwrap());
    }
}
