//! `cargo bench -p plugin`: what the border between host and guest costs, beside the same work without it.
//!
//! The native peer is `rl`'s own majority rule, the other one an environment that says the same behind a local HTTP server in
//! Python (`http_environment.py`, keep-alive, the standard library only), as environments are commonly served. Figures only:
//! nothing is asserted.
#![expect(clippy::print_stdout, reason = "a command")]

use std::{
    error::Error,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bundled::{BINARY_REWARD, CONVERSATION, fixtures::FAULTY};
use plugin::{Capability, GuestEnvironment, GuestReward, Limits, Plugin, PluginHost};
use rl::{
    Action, Environment, Message, RequestView, RewardRule, Seed, VoteValue,
    seam::{MajorityRule, conformance},
};
use wasmtime::{
    Config, Engine, Store,
    component::{Component, Linker},
};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Calls of a row, and those before that are not counted.
const CALLS: usize = 20_000;
const WARM: usize = 2_000;
/// Deadline of the guest that spins.
const DEADLINE_MS: u64 = 50;

fn main() -> Outcome<()> {
    println!("| | p50 | p99 | a second |\n|---|---|---|---|");
    borders()?;
    let mut ratios = Vec::new();
    let turns = episodes()?;
    for (served, with) in [("plain", "the standard library"), ("fastapi", "FastAPI")] {
        match python(served, with) {
            Ok(over_http) => ratios.push(format!(
                "environment turns beside HTTP in Python by {with}: {:.0} ×",
                turns / over_http
            )),
            Err(error) => ratios.push(format!(
                "HTTP in Python by {with} was not measured: {error}"
            )),
        }
    }
    println!("\n{}", ratios.join("\n"));
    open_at_once()?;
    spin()
}

fn host(limits: Limits) -> Outcome<PluginHost> {
    Ok(PluginHost::new(limits)?)
}

fn load(host: &PluginHost, guest: bundled::Bundled, section: &str) -> Outcome<Plugin> {
    let section = section.parse()?;
    Ok(host.load(guest.manifest, guest.component, &Capability::ALL, &section)?)
}

/// Times a call; prints a row; gives calls a second.
fn row<T>(name: &str, calls: usize, mut call: impl FnMut() -> T) -> f64 {
    for _ in 0..WARM.min(calls) {
        std::hint::black_box(call());
    }
    let mut times = Vec::with_capacity(calls);
    let all = Instant::now();
    for _ in 0..calls {
        let start = Instant::now();
        std::hint::black_box(call());
        times.push(start.elapsed());
    }
    let rate = calls as f64 / all.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |share: f64| micros(times[(share * (calls - 1) as f64) as usize]);
    println!("| {name} | {} | {} | {rate:.0} |", at(0.5), at(0.99));
    rate
}

fn micros(time: Duration) -> String {
    format!("{:.2} µs", time.as_secs_f64() * 1e6)
}

fn borders() -> Outcome<()> {
    bare()?;
    let host = host(Limits::default())?;
    let rule = GuestReward::new(&load(&host, BINARY_REWARD, "")?)?;
    let votes = vec![conformance::vote(Some(VoteValue::Positive)); 3];
    row("the clock of this table alone", CALLS, || ());
    row("a rule's verdict on no votes", CALLS, || rule.verdict(&[]));
    row("the same, native", CALLS, || MajorityRule.verdict(&[]));
    row("a rule's verdict on 3 votes", CALLS, || {
        rule.verdict(&votes)
    });
    row("the same, native", CALLS, || MajorityRule.verdict(&votes));
    let environment = GuestEnvironment::new(&load(&host, CONVERSATION, "")?, Seed::new(1))?;
    let idle = GuestEnvironment::new(&lazy(&host)?, Seed::new(1))?;
    row("whether a session ends, on no messages", CALLS, || {
        environment.session_ends(&[])
    });
    let text = |bytes: usize| "How long should an egg be boiled? ".repeat(bytes / 34);
    let messages = [Message::user(text(4 << 10))];
    let tools = [];
    let view = RequestView {
        messages: &messages,
        tools: &tools,
    };
    row(
        "classify 4 KB, by a guest that does not read them",
        CALLS,
        || idle.classify(view),
    );
    row(
        "the same, by one that searches them for 24 phrases",
        CALLS,
        || environment.classify(view),
    );
    let turn = conformance::turn("How do I boil an egg?", "In water.");
    let long = [Message::user(text(100 << 10))];
    row("the next state of a reaction of 100 KB", CALLS / 10, || {
        environment.next_state(&turn, &long)
    });
    Ok(())
}

/// `(component (core module $m (func (export "f") (result i32) i32.const 0)) (core instance $i (instantiate $m))
/// (func (export "f") (result u32) (canon lift (core func $i "f"))))`
const EMPTY: &[u8] = b"\x00asm\r\x00\x01\x00\x01-\x00asm\x01\x00\x00\x00\x01\x05\x01`\x00\x01\x7f\x03\x02\x01\x00\x07\x05\x01\x01f\x00\x00\n\x06\x01\x04\x00A\x00\x0b\x00\t\x04name\x00\x02\x01m\x02\x04\x01\x00\x00\x00\x07\x05\x01@\x00\x00y\x06\x07\x01\x00\x00\x01\x00\x01f\x08\x06\x01\x00\x00\x00\x00\x00\x0b\x07\x01\x00\x01f\x01\x00\x00";

/// What no host of this engine can go below: a function that does nothing, without budgets, checks or a shared pool.
fn bare() -> Outcome<()> {
    let mut config = Config::new();
    config.concurrency_support(false).epoch_interruption(true);
    let engine = Engine::new(&config)?;
    let component = Component::from_binary(&engine, EMPTY)?;
    let mut store = Store::new(&engine, ());
    store.set_epoch_deadline(1);
    let instance = Linker::new(&engine).instantiate(&mut store, &component)?;
    let function = instance.get_typed_func::<(), (u32,)>(&mut store, "f")?;
    row("an empty function, by the engine alone", CALLS, || {
        function.call(&mut store, ()).is_ok()
    });
    Ok(())
}

/// A guest that does nothing.
fn lazy(host: &PluginHost) -> Outcome<Plugin> {
    let manifest = FAULTY
        .manifest
        .replace("reward-plugin", "environment-plugin");
    let section = "abuse = 'none'\nsize = 0".parse()?;
    Ok(host.load(&manifest, FAULTY.component, &Capability::ALL, &section)?)
}

/// The whole of an episode's life, and its turns; gives turns a second of an environment that has as little to do as its peer
/// in Python.
fn episodes() -> Outcome<f64> {
    let host = host(Limits::default())?;
    let environment = GuestEnvironment::new(&load(&host, CONVERSATION, "")?, Seed::new(1))?;
    let tasks = environment.tasks("train")?;
    let task = tasks.first().ok_or("the conversation has no task")?;
    let idle = GuestEnvironment::new(&lazy(&host)?, Seed::new(1))?;
    row(
        "an instance and its end, nothing asked of it",
        CALLS,
        || idle.start(&"lazy".into(), Seed::new(7)).is_ok(),
    );
    row(
        "an episode: instance from the pool, start, drop",
        CALLS,
        || environment.start(task, Seed::new(7)).is_ok(),
    );
    let action = Action {
        message: Message::assistant("About six minutes in boiling water, then cold water."),
        truncated: false,
    };
    let mut seed = 0_u64;
    let mut episode = environment.start(task, Seed::new(seed))?;
    // An episode that is over begins again: that is part of a turn's price.
    row("a turn of a scripted user, with its outcome", CALLS, || {
        let step = episode.act(&action);
        let outcome = episode.outcome();
        if step.as_ref().is_ok_and(|step| step.done.is_some()) || step.is_err() {
            seed += 1;
            if let Ok(next) = environment.start(task, Seed::new(seed)) {
                episode = next;
            }
        }
        (step.is_ok(), outcome.is_ok())
    });
    let mut episode = idle.start(&"lazy".into(), Seed::new(7))?;
    Ok(row(
        "a turn of an environment with little to do, with its outcome",
        CALLS,
        || (episode.act(&action).is_ok(), episode.outcome().is_ok()),
    ))
}

/// A server that is stopped with its owner.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Such turns behind HTTP; gives turns a second.
fn python(served: &str, with: &str) -> Outcome<f64> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/http_environment.py");
    let python = std::env::var("NEXTSTATE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let child = Command::new(python)
        .args([script.as_os_str(), served.as_ref()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut server = Server(child);
    let mut port = String::new();
    let stdout = server.0.stdout.take().ok_or("no output")?;
    BufReader::new(stdout).read_line(&mut port)?;
    if port.is_empty() {
        return Err("the server did not start".into());
    }
    let stream = TcpStream::connect(("127.0.0.1", port.trim().parse::<u16>()?))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let body = serde_json::json!({
        "action": "About six minutes in boiling water, then cold water."
    })
    .to_string();
    let request = format!(
        "POST /step HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut failed = None;
    let rate = row(
        &format!("a turn of one behind HTTP in Python by {with}"),
        CALLS / 20,
        || {
            if let Err(error) = exchange(&mut reader, &request) {
                failed = Some(error);
            }
        },
    );
    failed.map_or(Ok(rate), Err)
}

fn exchange(reader: &mut BufReader<TcpStream>, request: &str) -> Outcome<()> {
    reader.get_mut().write_all(request.as_bytes())?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err("the server closed".into());
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let _: serde_json::Value = serde_json::from_slice(&body)?;
    Ok(())
}

/// 10,000 episodes open at once, or as many as this machine's kernel allows the mappings of.
fn open_at_once() -> Outcome<()> {
    let most = fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        .map_or(10_001, |maps| (maps.saturating_sub(8_000) / 5).min(10_001));
    // The plugin keeps one for itself.
    let limits = Limits {
        instances: most,
        ..Limits::default()
    };
    let host = host(limits)?;
    let environment = GuestEnvironment::new(&load(&host, CONVERSATION, "")?, Seed::new(1))?;
    let tasks = environment.tasks("train")?;
    let task = tasks.first().ok_or("the conversation has no task")?;
    let before = resident()?;
    let start = Instant::now();
    let mut open = Vec::new();
    for seed in 1..u64::from(most) {
        let mut episode = environment.start(task, Seed::new(seed))?;
        episode.observe()?;
        open.push(episode);
    }
    println!(
        "{} episodes open at once, opened in {:.2} s: {:.0} KB each (vm.max_map_count allows {most})",
        open.len(),
        start.elapsed().as_secs_f64(),
        (resident()? - before) / 1024.0 / open.len() as f64
    );
    Ok(())
}

/// Bytes of memory that are this process's own. Not its resident set: that counts the pages of a plugin's image, which all
/// instances share, once for each.
fn resident() -> Outcome<f64> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find(|line| line.starts_with("Pss:"));
    let pss = line.and_then(|line| line.split_whitespace().nth(1));
    let kilobytes: f64 = pss.ok_or("no line `Pss:`")?.parse()?;
    Ok(kilobytes * 1024.0)
}

fn spin() -> Outcome<()> {
    let host = host(Limits {
        call_ms: DEADLINE_MS,
        ..Limits::default()
    })?;
    let manifest = FAULTY
        .manifest
        .replace("reward-plugin", "environment-plugin");
    let guest = bundled::Bundled {
        manifest: Box::leak(manifest.into_boxed_str()),
        ..FAULTY
    };
    let environment = GuestEnvironment::new(
        &load(&host, guest, "abuse = 'spin'\nsize = 0")?,
        Seed::new(1),
    )?;
    let mut late = Vec::new();
    for _ in 0..40 {
        let start = Instant::now();
        if environment.tasks("train").is_ok() {
            return Err("the guest that spins was not stopped".into());
        }
        late.push(
            start
                .elapsed()
                .saturating_sub(Duration::from_millis(DEADLINE_MS)),
        );
    }
    late.sort_unstable();
    println!(
        "a guest that spins is stopped {:.1} ms after its deadline (p50), {:.1} ms at most",
        late[late.len() / 2].as_secs_f64() * 1e3,
        late[late.len() - 1].as_secs_f64() * 1e3
    );
    Ok(())
}
