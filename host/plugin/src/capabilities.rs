//! What a guest can reach: the one file in which capabilities are given.
//!
//! A guest gets `log` and `metric` always, and the others by its manifest. Nothing here reaches a file, a socket, the environment
//! or real time; `shell`, `browser`, `http`, `model` and `store` do, and only through what the host's owner put behind them ([`crate::outside`]).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable, ResourceTableError};

use crate::{
    bindings::{
        browser, clock, config, http, log, metric, model as wit_model, random, shell, store, types,
    },
    error::LogTail,
    limits::{Breach, Growth, Limit, Limits},
    manifest::{Manifest, Value},
    model,
    outside::{Outside, Refusal},
    store::Lent,
};

/// How many of the last log lines an error shows.
const TAIL_LINES: usize = 12;

/// How many names a plugin's metrics may have; more would let a guest fill the host's memory.
const METRIC_NAMES: usize = 64;

/// A metric of a plugin, over all its instances.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Metric {
    /// How many values were recorded.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The latest.
    pub last: f64,
}

/// Machines and pages that one instance may hold at once.
const HELD: usize = 8;

/// What a host function gives: an answer, or a fault that the guest reads; the outer error ends the instance.
pub(crate) type Answer<T> = wasmtime::Result<Result<T, types::Fault>>;

/// A plugin's metrics by name.
pub(crate) type Metrics = Arc<Mutex<BTreeMap<String, Metric>>>;

/// What one instance carries on the host's side.
#[derive(Debug)]
pub(crate) struct State {
    plugin: Arc<str>,
    config: Arc<BTreeMap<String, Value>>,
    metrics: Metrics,
    limits: Arc<Limits>,
    pub(crate) growth: Growth,
    tail: VecDeque<String>,
    offers: Outside,
    pub(crate) account: model::Opened,
    table: ResourceTable,
    /// What has been asked over `http`; none before the first request.
    pub(crate) client: Option<crate::http::Held>,
    /// What its plugin stored, as its episode or turn sees it.
    pub(crate) lent: Lent,
    // The call under way.
    function: &'static str,
    seed: rl::Seed,
    random: u64,
    calls_before: u32,
    host_calls: u64,
    passed_bytes: usize,
    started: Instant,
    /// Time that this call has spent outside.
    outside: Duration,
    lines: u64,
    dropped_lines: u64,
}

impl State {
    pub(crate) fn new(
        manifest: &Manifest,
        config: Arc<BTreeMap<String, Value>>,
        metrics: Metrics,
        limits: Arc<Limits>,
        offers: Outside,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(HELD);
        Self {
            offers,
            account: model::Opened::default(),
            table,
            client: None,
            lent: Lent::Nothing,
            outside: Duration::ZERO,
            started: Instant::now(),
            plugin: manifest.name.as_str().into(),
            config,
            metrics,
            growth: Growth::new(&limits),
            limits,
            tail: VecDeque::new(),
            function: "instantiate",
            seed: rl::Seed::default(),
            random: 0,
            calls_before: 0,
            host_calls: 0,
            passed_bytes: 0,
            lines: 0,
            dropped_lines: 0,
        }
    }

    /// Begins a call: its budgets are full, its random numbers are those of `seed`, and the clock has advanced.
    pub(crate) fn begin(&mut self, function: &'static str, seed: rl::Seed) {
        self.function = function;
        (self.seed, self.random) = (seed, seed.get());
        self.calls_before = self.calls_before.saturating_add(1);
        self.host_calls = 0;
        self.passed_bytes = 0;
        (self.started, self.outside) = (Instant::now(), Duration::ZERO);
        self.lines = 0;
        self.growth.breach = None;
        // An instance of live traffic serves calls that have nothing to do with each other; one of an episode is its alone.
        if !function.starts_with("episode.") {
            self.client = None;
        }
    }

    /// Ends a call: says how many log lines it lost.
    pub(crate) fn end(&mut self) {
        if self.dropped_lines > 0 {
            let (plugin, function, dropped) = (&*self.plugin, self.function, self.dropped_lines);
            tracing::warn!(plugin, function, dropped, "a guest logged more than it may");
            self.dropped_lines = 0;
        }
    }

    pub(crate) fn tail(&self) -> LogTail {
        LogTail(self.tail.iter().cloned().collect())
    }

    /// What the host offers beyond computation.
    pub(crate) fn offers(&self) -> &Outside {
        &self.offers
    }

    /// The function under way, and the seed of this call of it.
    pub(crate) fn under_way(&self) -> (&'static str, rl::Seed) {
        (self.function, self.seed)
    }

    /// A call that leaves the guest: its time does not count as the guest's own, but has a limit of its own.
    pub(crate) fn outside<T>(
        &mut self,
        passed: usize,
        call: impl FnOnce(&mut ResourceTable) -> wasmtime::Result<Result<T, Refusal>>,
    ) -> Answer<T> {
        self.charge(passed)?;
        let allowed = self.limits.outside(self.function);
        if self.outside >= allowed {
            let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            return Err(Breach {
                limit: Limit::Outside,
                used: ms(self.outside),
                allowed: ms(allowed),
            }
            .into());
        }
        let started = Instant::now();
        let answer = call(&mut self.table).map_err(|error| match error.downcast_ref() {
            Some(ResourceTableError::Full) => Breach {
                limit: Limit::Held,
                used: HELD as u64 + 1,
                allowed: HELD as u64,
            }
            .into(),
            _ => error,
        });
        self.outside += started.elapsed();
        // Attack: text from a page or a program that forges log lines where a fault is shown; it is cut and cleaned there.
        Ok(answer?.map_err(|refusal| match refusal {
            Refusal::Invalid(why) => types::Fault::InvalidInput(why),
            Refusal::Unsupported(why) => types::Fault::Unsupported(why),
            Refusal::Failed(why) => types::Fault::Internal(why),
        }))
    }

    /// Time since the call began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// What is left of the call's own time.
    pub(crate) fn time_left(&self) -> Duration {
        let own = self.started.elapsed().saturating_sub(self.outside);
        Duration::from_millis(self.limits.call_ms).saturating_sub(own)
    }

    /// Destroys what the guest held.
    pub(crate) fn let_go<T: 'static>(&mut self, held: Resource<T>) -> wasmtime::Result<()> {
        self.charge(0)?;
        let started = Instant::now();
        drop(self.table.delete(held)?);
        self.outside += started.elapsed();
        Ok(())
    }

    /// Counts a host call and the bytes it hands over. Attack: a loop of host calls burns the host's time while it uses next to no fuel.
    fn charge(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.host_calls += 1;
        self.passed_bytes = self.passed_bytes.saturating_add(bytes);
        if self.host_calls > self.limits.host_calls {
            let (used, allowed) = (self.host_calls, self.limits.host_calls);
            return Err(Breach {
                limit: Limit::HostCalls,
                used,
                allowed,
            }
            .into());
        }
        if self.passed_bytes > self.limits.output_bytes {
            let (used, allowed) = (self.passed_bytes as u64, self.limits.output_bytes as u64);
            return Err(Breach {
                limit: Limit::Output,
                used,
                allowed,
            }
            .into());
        }
        Ok(())
    }
}

/// Gives a linker every capability. Which of them a component may import is decided when it is loaded.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    type Own = HasSelf<State>;
    types::add_to_linker::<State, Own>(linker, |state| state)?;
    log::add_to_linker::<State, Own>(linker, |state| state)?;
    metric::add_to_linker::<State, Own>(linker, |state| state)?;
    random::add_to_linker::<State, Own>(linker, |state| state)?;
    clock::add_to_linker::<State, Own>(linker, |state| state)?;
    config::add_to_linker::<State, Own>(linker, |state| state)?;
    shell::add_to_linker::<State, Own>(linker, |state| state)?;
    browser::add_to_linker::<State, Own>(linker, |state| state)?;
    wit_model::add_to_linker::<State, Own>(linker, |state| state)?;
    http::add_to_linker::<State, Own>(linker, |state| state)?;
    store::add_to_linker::<State, Own>(linker, |state| state)
}

impl types::Host for State {}

impl log::Host for State {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        self.charge(message.len())?;
        self.lines += 1;
        if self.lines > self.limits.log_lines {
            self.dropped_lines += 1;
            return Ok(());
        }
        // Attack: control characters that rewrite an operator's terminal, or forge further log lines.
        let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        let line: String = message
            .chars()
            .take(self.limits.log_line_chars)
            .map(visible)
            .collect();
        let (plugin, function) = (&*self.plugin, self.function);
        match level {
            log::Level::Debug => tracing::debug!(plugin, function, line, "guest"),
            log::Level::Info => tracing::info!(plugin, function, line, "guest"),
            log::Level::Warn => tracing::warn!(plugin, function, line, "guest"),
            log::Level::Error => tracing::error!(plugin, function, line, "guest"),
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
        Ok(())
    }
}

impl metric::Host for State {
    fn record_value(&mut self, name: String, value: f64) -> wasmtime::Result<()> {
        self.charge(name.len())?;
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let mut metrics = self.metrics.lock();
        let known = metrics.contains_key(&name) || metrics.len() < METRIC_NAMES;
        let valid = !name.is_empty() && name.len() <= 64 && name.chars().all(word);
        if known && valid && value.is_finite() {
            let metric = metrics.entry(name).or_default();
            *metric = Metric {
                count: metric.count + 1,
                sum: metric.sum + value,
                last: value,
            };
        } else {
            metrics.entry("dropped".into()).or_default().count += 1;
        }
        Ok(())
    }
}

impl random::Host for State {
    fn bits(&mut self) -> wasmtime::Result<u32> {
        self.charge(0)?;
        // SplitMix64: any seed is a good seed, and one addition advances it.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        Ok(u32::try_from(mixed >> 32).unwrap_or(u32::MAX))
    }

    fn uniform(&mut self) -> wasmtime::Result<f64> {
        Ok(f64::from(random::Host::bits(self)?) / (f64::from(u32::MAX) + 1.0))
    }
}

impl clock::Host for State {
    fn now_ms(&mut self) -> wasmtime::Result<f64> {
        self.charge(0)?;
        // A second a call: virtual, so that a replay sees the same times.
        Ok(f64::from(self.calls_before.saturating_sub(1)) * 1_000.0)
    }
}

impl config::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<config::Value>> {
        self.charge(key.len())?;
        Ok(self.config.get(&key).map(|value| match value.clone() {
            Value::Text(text) => config::Value::Text(text),
            Value::Integer(integer) => config::Value::Integer(integer),
            Value::Number(number) => config::Value::Number(number),
            Value::Boolean(boolean) => config::Value::Boolean(boolean),
            Value::Texts(texts) => config::Value::Texts(texts),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_on_live_traffic_that_has_waited_long_enough_is_stopped_and_one_of_an_episode_goes_on()
    {
        let manifest = "name = 'a'\nversion = '0.1.0'\nworld = 'environment-plugin'\ndoc = 'A.'";
        let mut state = State::new(
            &Manifest::parse(manifest).unwrap(),
            Arc::default(),
            Metrics::default(),
            Arc::default(),
            Outside::default(),
        );
        let mut waited = |function| {
            state.begin(function, rl::Seed::new(1));
            state.outside = Duration::from_secs(5);
            state.outside(0, |_| Ok(Ok(())))
        };
        assert!(waited("episode.act").is_ok());
        assert!(waited("tasks").is_ok());
        let error = waited("classify").unwrap_err();
        let breach = error.downcast_ref::<Breach>().unwrap();
        assert_eq!((breach.limit, breach.allowed), (Limit::Outside, 5_000));
    }
}
