//! Calling guests: one owner a store, budgets for each call, and what becomes of a call that goes wrong.
//!
//! A trap or a limit ends the instance it happened in and nothing else; the next call gets a fresh one.

use std::time::Duration;

use parking_lot::Mutex;
use wasmtime::{Store, Trap, UpdateDeadline, component::InstancePre};

use crate::{
    bindings::{environment, judge, reward, types},
    capabilities::State,
    error::{Error, FaultKind, LoadProblem, Result},
    host::{Budget, TICK},
    limits::{Breach, Limit},
    load::{Plugin, budget},
    mappings::{self, Mapped},
    store::Lent,
};

/// How many idle instances are kept for the next call; more would only serve a burst.
const IDLE_INSTANCES: usize = 4;

/// The exports of a world.
pub(crate) trait Exports: Sized {
    /// A component whose exports were looked up and type-checked, which is most of the price of an instance.
    type Pre: Clone;

    fn look_up(component: InstancePre<State>) -> wasmtime::Result<Self::Pre>;
    fn instantiate(pre: &Self::Pre, store: &mut Store<State>) -> wasmtime::Result<Self>;
}

macro_rules! exports {
    ($($world:ty, $pre:ty;)*) => {$(
        impl Exports for $world {
            type Pre = $pre;

            fn look_up(component: InstancePre<State>) -> wasmtime::Result<Self::Pre> {
                <$pre>::new(component)
            }

            fn instantiate(pre: &Self::Pre, store: &mut Store<State>) -> wasmtime::Result<Self> {
                pre.instantiate(store)
            }
        }
    )*};
}

exports! {
    environment::EnvironmentPlugin, environment::EnvironmentPluginPre<State>;
    judge::JudgePlugin, judge::JudgePluginPre<State>;
    reward::RewardPlugin, reward::RewardPluginPre<State>;
}

/// What a guest's function gives: its own answer or fault, inside wasmtime's.
pub(crate) type Answered<T> = wasmtime::Result<Result<T, types::Fault>>;

/// One instance and its store.
pub(crate) struct Instance<W> {
    plugin: Plugin,
    store: Store<State>,
    exports: W,
    // Given back after the store is gone: fields are dropped in this order.
    _mapped: Mapped,
}

impl<W: Exports> Instance<W> {
    /// A fresh instance. A guest can loop, grow and break in here as well: the budgets are set before it starts.
    fn new(plugin: &Plugin, pre: &W::Pre) -> Result<Self> {
        let inner = &plugin.inner;
        inner.endings.wait();
        let limits = inner.host.shared_limits();
        let state = State::new(
            &inner.manifest,
            inner.config.clone(),
            inner.metrics.clone(),
            limits,
            inner.host.offers().clone(),
        );
        let engine = &inner.host.runtime(budget(inner.manifest.world)).engine;
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.growth);
        store.set_hostcall_fuel(inner.host.limits().output_bytes);
        store.set_max_component_handles(1_000);
        store.epoch_deadline_callback(|store| match store.data().time_left() {
            Duration::ZERO => Err(Trap::Interrupt.into()),
            left => Ok(UpdateDeadline::Continue(ticks(left))),
        });
        let mapped = mappings::take(inner.mappings).map_err(|breach| {
            classify(
                plugin,
                &store,
                "instantiate",
                &wasmtime::Error::from(breach),
            )
        })?;
        refill(plugin, &mut store)
            .map_err(|error| classify(plugin, &store, "instantiate", &error))?;
        match W::instantiate(pre, &mut store) {
            Ok(exports) => Ok(Self {
                plugin: plugin.clone(),
                store,
                exports,
                _mapped: mapped,
            }),
            Err(error) => {
                // A full pool broke nothing.
                if !error.is::<wasmtime::PoolConcurrencyLimitError>() {
                    inner.endings.count();
                }
                Err(classify(plugin, &store, "instantiate", &error))
            }
        }
    }

    /// Lends it what its plugin stored. It must serve nobody else afterwards.
    pub(crate) fn lend(&mut self, session: rl::store::Session) {
        self.store.data_mut().lent = Lent::Session(session);
    }

    /// Calls a function of the guest. The flag says whether the instance may be used again.
    pub(crate) fn call<T>(
        &mut self,
        function: &'static str,
        seed: rl::Seed,
        call: impl FnOnce(&W, &mut Store<State>) -> Answered<T>,
    ) -> (Result<T>, bool) {
        self.store.data_mut().begin(function, seed);
        let answer = refill(&self.plugin, &mut self.store)
            .and_then(|()| call(&self.exports, &mut self.store));
        self.store.data_mut().end();
        match answer {
            Ok(Ok(answer)) => (Ok(answer), true),
            Ok(Err(fault)) => (Err(said_no(&self.plugin, function, fault)), true),
            Err(error) => {
                self.plugin.inner.endings.count();
                let error = classify(&self.plugin, &self.store, function, &error);
                (Err(error), false)
            }
        }
    }
}

/// Fills the budget of work of the next call.
fn refill(plugin: &Plugin, store: &mut Store<State>) -> wasmtime::Result<()> {
    let limits = plugin.inner.host.limits();
    match budget(plugin.inner.manifest.world) {
        Budget::Fuel => store.set_fuel(limits.call_fuel),
        Budget::Deadline => {
            store.set_epoch_deadline(ticks(Duration::from_millis(limits.call_ms)));
            Ok(())
        }
    }
}

/// The epochs that this time takes at most.
fn ticks(time: Duration) -> u64 {
    let ticks = time.as_millis().div_ceil(TICK.as_millis().max(1));
    u64::try_from(ticks).unwrap_or(u64::MAX / 2) + 1
}

/// Instances of a plugin whose calls keep no state: any of them may answer, several at once.
pub(crate) struct Pool<W: Exports> {
    pub(crate) plugin: Plugin,
    pre: W::Pre,
    // Boxed: they move at every call.
    idle: Mutex<Vec<Box<Instance<W>>>>,
}

impl<W: Exports> Pool<W> {
    /// A pool with one instance, so that a plugin that does not fit its world fails here.
    pub(crate) fn new(plugin: &Plugin) -> Result<Self> {
        let pre =
            W::look_up(plugin.inner.pre.clone()).map_err(|error| wrong_world(plugin, &error))?;
        let first = Box::new(Instance::new(plugin, &pre)?);
        Ok(Self {
            plugin: plugin.clone(),
            pre,
            idle: Mutex::new(vec![first]),
        })
    }

    /// An instance of the caller's own.
    pub(crate) fn instance(&self) -> Result<Box<Instance<W>>> {
        Ok(Box::new(Instance::new(&self.plugin, &self.pre)?))
    }

    pub(crate) fn call<T>(
        &self,
        function: &'static str,
        seed: rl::Seed,
        call: impl FnOnce(&W, &mut Store<State>) -> Answered<T>,
    ) -> Result<T> {
        let idle = self.idle.lock().pop();
        let mut instance = match idle {
            Some(instance) => instance,
            None => self.instance()?,
        };
        let (answer, reusable) = instance.call(function, seed, call);
        if reusable {
            let mut idle = self.idle.lock();
            if idle.len() < IDLE_INSTANCES {
                idle.push(instance);
            }
        }
        answer
    }

    /// The same with what the plugin stored, in an instance that nobody else had and nobody else gets: whoever it belongs to, nothing of it
    /// stays in an instance's memory.
    pub(crate) fn call_with<T>(
        &self,
        session: Option<rl::store::Session>,
        function: &'static str,
        seed: rl::Seed,
        call: impl FnOnce(&W, &mut Store<State>) -> Answered<T>,
    ) -> Result<T> {
        let Some(session) = session else {
            return self.call(function, seed, call);
        };
        let mut instance = self.instance()?;
        instance.lend(session);
        instance.call(function, seed, call).0
    }

    /// The guest answered with something that the contract rules out.
    pub(crate) fn refuse(&self, function: &'static str, what: impl Into<String>) -> Error {
        refused(&self.plugin, function, what)
    }
}

pub(crate) fn refused(plugin: &Plugin, function: &'static str, what: impl Into<String>) -> Error {
    Error::Answer {
        plugin: plugin.inner.manifest.name.clone(),
        function,
        what: what.into(),
    }
}

fn said_no(plugin: &Plugin, function: &'static str, fault: types::Fault) -> Error {
    let (kind, text) = match fault {
        types::Fault::Unsupported(text) => (FaultKind::Unsupported, text),
        types::Fault::InvalidInput(text) => (FaultKind::InvalidInput, text),
        types::Fault::InvalidConfig(text) => (FaultKind::InvalidConfig, text),
        types::Fault::Internal(text) => (FaultKind::Internal, text),
    };
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let text = text.chars().take(2_000).map(visible).collect();
    Error::Fault {
        plugin: plugin.inner.manifest.name.clone(),
        function,
        kind,
        text,
    }
}

fn wrong_world(plugin: &Plugin, error: &wasmtime::Error) -> Error {
    plugin.refused(LoadProblem::World {
        world: plugin.inner.manifest.world.as_str().into(),
        problem: format!("{error:#}"),
    })
}

/// Tells a limit from a trap.
fn classify(
    plugin: &Plugin,
    store: &Store<State>,
    function: &'static str,
    error: &wasmtime::Error,
) -> Error {
    let name = plugin.inner.manifest.name.clone();
    let state = store.data();
    if let Some(breach) = breach(plugin, state, error) {
        let Breach {
            limit,
            used,
            allowed,
        } = breach;
        tracing::warn!(
            plugin = name,
            function,
            limit = limit.as_str(),
            used,
            allowed,
            "stopped a guest"
        );
        return Error::Limit {
            plugin: name,
            function,
            limit,
            used,
            allowed,
            log: state.tail(),
        };
    }
    let Some(trap) = error.downcast_ref::<Trap>() else {
        if function == "instantiate" {
            return wrong_world(plugin, error);
        }
        tracing::warn!(
            plugin = name,
            function,
            "a guest broke the calling convention"
        );
        return Error::Trap {
            plugin: name,
            function,
            trap: error.root_cause().to_string(),
            log: state.tail(),
        };
    };
    tracing::warn!(plugin = name, function, trap = %trap, "a guest broke");
    Error::Trap {
        plugin: name,
        function,
        trap: trap.to_string(),
        log: state.tail(),
    }
}

fn breach(plugin: &Plugin, state: &State, error: &wasmtime::Error) -> Option<Breach> {
    let limits = plugin.inner.host.limits();
    if let Some(breach) = error.downcast_ref::<Breach>() {
        return Some(*breach);
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        let allowed = u64::from(limits.instances);
        return Some(Breach {
            limit: Limit::Instances,
            used: allowed + 1,
            allowed,
        });
    }
    let stack = limits.stack_bytes as u64;
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => {
            let used = u64::try_from(state.elapsed().as_millis()).unwrap_or(u64::MAX);
            return Some(Breach {
                limit: Limit::Time,
                used,
                allowed: limits.call_ms,
            });
        }
        Some(Trap::OutOfFuel) => {
            return Some(Breach {
                limit: Limit::Fuel,
                used: limits.call_fuel,
                allowed: limits.call_fuel,
            });
        }
        Some(Trap::StackOverflow) => {
            return Some(Breach {
                limit: Limit::Stack,
                used: stack,
                allowed: stack,
            });
        }
        _ => {}
    }
    if is_too_much_output(error) {
        let allowed = limits.output_bytes as u64;
        return Some(Breach {
            limit: Limit::Output,
            used: allowed + 1,
            allowed,
        });
    }
    // Refused growth shows as a failed allocation, on which the guest then breaks.
    state.growth.breach
}

/// wasmtime keeps this error's type to itself; a test of `tests/abuse.rs` fails should its words change.
fn is_too_much_output(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .to_string()
            .contains("fuel allocated for hostcalls has been exhausted")
    })
}
