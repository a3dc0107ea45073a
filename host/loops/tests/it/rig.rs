//! A host in miniature: real loops, real ledger; a policy of arithmetic, a learner that hashes.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::RecvTimeoutError,
    },
};

use ledger::{Ledger, Options, Record, Seq};
use loops::{
    Config, Handle, Loops, Seams, Status, Stop, Trained,
    bench::{Bench, MakeBench, Turn},
    gate::GateConfig,
    records,
};
use parking_lot::{Condvar, Mutex};
use prometheus_client::registry::Registry;
use rl::{
    AdapterName, Batch, Completion, Environment, FinishReason, Judge, Learner, Message, Policy,
    PolicyCard, PolicyVersion, Proposal, RewardRule, SampleRequest, SampledToken, Sampling,
    ScoreRequest, Served, SessionId, Shelf, StepMetrics, Stored, TokenFlow, TokenId, ToolSpec,
    TurnId, TurnRequest, TurnSink, Weights,
    seam::{MajorityRule, Transcript, WordJudge},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::Duration};

/// Far more than anything here takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A door that calls of the policy wait behind.
#[derive(Clone, Default)]
pub(crate) struct Door(Arc<(Mutex<bool>, Condvar)>);

impl Door {
    pub(crate) fn shut(&self) {
        *self.0.0.lock() = true;
    }

    pub(crate) fn open(&self) {
        *self.0.0.lock() = false;
        self.0.1.notify_all();
    }

    pub(crate) fn pass(&self) {
        let mut shut = self.0.0.lock();
        while *shut {
            self.0.1.wait(&mut shut);
        }
    }
}

/// Tokens are bytes; a log-prob is a function of the token and the prompt's length.
#[derive(Clone, Default)]
pub(crate) struct Arithmetic {
    pub(crate) live: Arc<AtomicU64>,
    /// The digests of versions that have answered; the base has none.
    digests: Arc<Mutex<HashMap<u64, String>>>,
    pub(crate) door: Door,
    /// A door that the learner's steps wait behind.
    pub(crate) step_door: Door,
    /// Refuses to answer as a candidate: the gate must hold what it cannot examine.
    pub(crate) mute: Arc<AtomicBool>,
    /// The canaries, of the gate's own, to which a candidate replies with one token again and again.
    pub(crate) broken: Arc<AtomicUsize>,
    /// A candidate draws its replies against the odds: it is far from what answers.
    pub(crate) far: Arc<AtomicBool>,
    /// The version that a share of the sessions gets, and the share.
    pub(crate) trial: Arc<Mutex<Option<(u64, f64)>>>,
}

impl Arithmetic {
    fn logprob(prompt: &[TokenId], id: TokenId) -> f32 {
        -0.25 - (id % 7) as f32 / 8.0 - prompt.len() as f32 % 5.0 / 10.0
    }

    /// Whether this is one of the canaries that a candidate breaks at.
    fn breaks(&self, prompt: &[TokenId]) -> rl::Result<bool> {
        let probes = GateConfig::default().probes.into_iter();
        for probe in probes.take(self.broken.load(Ordering::SeqCst)) {
            if self.encode(&[Message::user(probe.prompt)], &[], "")? == prompt {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Policy for Arithmetic {
    fn card(&self) -> PolicyCard {
        PolicyCard {
            model: "arithmetic".into(),
            context: 4096,
            vocab_size: 256,
        }
    }

    fn version(&self, _weights: &Weights) -> rl::Result<PolicyVersion> {
        Ok(PolicyVersion::new(self.live.load(Ordering::SeqCst)))
    }

    fn encode(
        &self,
        messages: &[Message],
        _tools: &[ToolSpec],
        reply_prefix: &str,
    ) -> rl::Result<Vec<TokenId>> {
        let text: String = messages.iter().map(|m| m.content.as_str()).collect();
        self.encode_text(&format!("{text}>{reply_prefix}"))
    }

    fn encode_text(&self, text: &str) -> rl::Result<Vec<TokenId>> {
        Ok(text.bytes().map(TokenId::from).collect())
    }

    fn sample(
        &self,
        request: SampleRequest,
        on_token: &mut dyn FnMut(SampledToken) -> TokenFlow,
    ) -> rl::Result<Completion> {
        self.door.pass();
        let candidate = rl::candidate_of(&AdapterName::new("main"));
        let candidate = Weights::Adapter(candidate);
        if self.mute.load(Ordering::SeqCst) && request.weights == candidate {
            return Err(rl::Error::Refused {
                what: "sample".into(),
                why: "the candidate is mute".into(),
            });
        }
        let token = SampledToken {
            id: 65,
            logprob: -0.5,
        };
        on_token(token);
        let examined = request.weights == candidate;
        let circles = examined && self.breaks(&request.prompt)?;
        let count = if circles { 16 } else { 1 };
        let far = examined && self.far.load(Ordering::SeqCst);
        let logprob = if far {
            -1.9
        } else {
            Self::logprob(&request.prompt, 65)
        };
        Ok(Completion {
            tokens: vec![65; count],
            logprobs: vec![logprob; count],
            text: format!("{}", request.prompt.len()),
            finish: FinishReason::Stop,
            version: self.version(&request.weights)?,
            adapter_digest: String::new(),
        })
    }

    fn score(&self, request: ScoreRequest) -> rl::Result<Vec<Vec<f32>>> {
        self.door.pass();
        let score = |id: &TokenId| Self::logprob(&request.prompt, *id);
        Ok(request
            .continuations
            .iter()
            .map(|ids| ids.iter().map(score).collect())
            .collect())
    }
}

/// What the learner was told, seen from outside.
#[derive(Default, Debug)]
pub(crate) struct Witness {
    /// Every batch that a step was computed on: sample ids.
    pub(crate) batches: Vec<Vec<String>>,
    /// Every version that went live, with the adapter's bytes.
    pub(crate) live: Vec<(u64, Vec<u8>)>,
    /// The next steps fail like this.
    pub(crate) fail: Vec<Failure>,
    /// There is memory for samples of so many tokens.
    pub(crate) longest: Option<usize>,
    /// The next restoration fails.
    pub(crate) fail_restore: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    NotFinite,
    BadMetric,
    NotNow,
    Panic,
    Deploy,
}

/// What the learner goes by; recorded with every step.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) lr: f64,
    /// One batch in so many is refused, as a loss that is not finite is: by its content, so that a replay refuses it, too.
    #[serde(default)]
    pub(crate) refuses: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lr: 1e-4,
            refuses: 0,
        }
    }
}

/// "Weights" are the hash of the weights before and of the batch: equal histories give equal bytes.
pub(crate) struct HashLearner {
    version: PolicyVersion,
    weights: Vec<u8>,
    moments: Vec<u8>,
    /// Weights and moments.
    proposal: Option<(Vec<u8>, Vec<u8>)>,
    fail_deploy: bool,
    settings: Settings,
    door: Door,
    served: Arithmetic,
    witness: Arc<Mutex<Witness>>,
}

impl HashLearner {
    fn new(served: Arithmetic, witness: Arc<Mutex<Witness>>) -> Self {
        Self {
            version: PolicyVersion::BASE,
            weights: b"base".to_vec(),
            moments: Vec::new(),
            proposal: None,
            fail_deploy: false,
            settings: Settings::default(),
            door: Door::default(),
            served,
            witness,
        }
    }
}

/// What is served, as a number.
struct NumberShelf(Arithmetic);

impl NumberShelf {
    fn serve(&self, version: PolicyVersion, stored: Option<Stored<'_>>) {
        let digest = stored.and_then(|stored| stored.digest).unwrap_or_default();
        self.0.digests.lock().insert(version.get(), digest.into());
        self.0.live.store(version.get(), Ordering::SeqCst);
        self.end_trial();
    }
}

impl Shelf for NumberShelf {
    fn holds(&self, _: PolicyVersion) -> bool {
        false
    }

    fn show_as(&self, version: PolicyVersion, of: PolicyVersion) -> bool {
        if of == PolicyVersion::BASE {
            self.serve(version, None);
        }
        of == PolicyVersion::BASE
    }

    fn show(&self, version: PolicyVersion, stored: Option<Stored<'_>>) -> rl::Result<()> {
        self.serve(version, stored);
        Ok(())
    }

    fn try_out(
        &self,
        version: PolicyVersion,
        stored: Option<Stored<'_>>,
        share: f64,
    ) -> rl::Result<()> {
        if let Some(digest) = stored.and_then(|stored| stored.digest) {
            self.0.digests.lock().insert(version.get(), digest.into());
        }
        *self.0.trial.lock() = Some((version.get(), share));
        Ok(())
    }

    fn end_trial(&self) {
        *self.0.trial.lock() = None;
    }

    fn forget(&self) {
        self.end_trial();
    }
}

/// A bench of arithmetic: a learner that nobody is served by.
pub(crate) fn bench() -> MakeBench {
    Arc::new(|run| {
        let policy = Arithmetic::default();
        let mut learner = HashLearner::new(policy.clone(), Arc::default());
        learner.settings = serde_json::from_value(run.learner.clone()).unwrap();
        Ok(Bench {
            learner: Box::new(learner),
            policy: Arc::new(policy),
        })
    })
}

impl Learner for HashLearner {
    fn version(&self) -> PolicyVersion {
        self.version
    }

    fn step(&mut self, batch: &Batch) -> rl::Result<Proposal> {
        let mut metrics = StepMetrics {
            step: self.version.get() + 1,
            fresh: 7,
            mismatched: 3,
            rechecked: 2,
            uncompared: 5,
            ..StepMetrics::default()
        };
        if let Some(why) = batch.samples.iter().find_map(|s| self.no_room_for(s)) {
            let what = "step".into();
            return Err(rl::Error::Unavailable { what, why });
        }
        let failure = self.witness.lock().fail.pop();
        match failure {
            Some(Failure::NotFinite) => {
                return Err(rl::Error::Refused {
                    what: "step".into(),
                    why: "loss is NaN".into(),
                });
            }
            Some(Failure::NotNow) => {
                return Err(rl::Error::Unavailable {
                    what: "gpu".into(),
                    why: "busy".into(),
                });
            }
            Some(Failure::Panic) => panic!("on purpose"),
            Some(Failure::BadMetric) => metrics.grad_norm = f64::INFINITY,
            Some(Failure::Deploy) => self.fail_deploy = true,
            None => {}
        }
        let ids: Vec<String> = batch.samples.iter().map(|s| s.id.to_string()).collect();
        let mut bytes = self.weights.clone();
        bytes.extend(&self.moments);
        bytes.extend(ids.join(",").into_bytes());
        bytes.extend(self.settings.lr.to_le_bytes());
        let adapter = ledger::Digest::of(&bytes).as_bytes().to_vec();
        let optimizer = ledger::Digest::of(&adapter).as_bytes().to_vec();
        self.witness.lock().batches.push(ids);
        self.door.pass();
        let refuses = self.settings.refuses;
        if refuses > 0 && u64::from(adapter[0]).is_multiple_of(refuses) {
            return Err(rl::Error::Refused {
                what: "step".into(),
                why: "the loss of this batch is NaN".into(),
            });
        }
        self.proposal = Some((adapter.clone(), optimizer.clone()));
        Ok(Proposal {
            parent: self.version,
            adapter_digest: hex::encode(&adapter),
            adapter,
            optimizer,
            metrics,
            settings: serde_json::to_value(self.settings).unwrap(),
        })
    }

    fn no_room_for(&self, sample: &rl::Sample) -> Option<String> {
        let tokens = sample.prompt.len() + sample.response.len();
        let longest = self.witness.lock().longest?;
        (tokens > longest).then(|| format!("{} has {tokens} tokens", sample.id))
    }

    fn stage(&mut self) -> rl::Result<()> {
        match self.proposal {
            Some(_) => Ok(()),
            None => Err(rl::Error::Failed {
                what: "stage".into(),
                why: "there is no proposal".into(),
            }),
        }
    }

    fn unstage(&mut self) {}

    fn deploy(&mut self, version: PolicyVersion) -> rl::Result<()> {
        if std::mem::take(&mut self.fail_deploy) {
            return Err(rl::Error::Failed {
                what: "deploy".into(),
                why: "on purpose".into(),
            });
        }
        (self.weights, self.moments) = self.proposal.take().unwrap();
        self.version = version;
        let digest = match self.weights == b"base" {
            true => String::new(),
            false => hex::encode(&self.weights),
        };
        // An imported version's is its own, and was said when it was shown.
        let mut digests = self.served.digests.lock();
        digests.entry(version.get()).or_insert(digest);
        drop(digests);
        self.served.live.store(version.get(), Ordering::SeqCst);
        self.witness
            .lock()
            .live
            .push((version.get(), self.weights.clone()));
        Ok(())
    }

    fn reset(&mut self, version: PolicyVersion) -> rl::Result<()> {
        self.restore(version, b"base", b"")
    }

    fn restore(
        &mut self,
        version: PolicyVersion,
        adapter: &[u8],
        optimizer: &[u8],
    ) -> rl::Result<()> {
        if std::mem::take(&mut self.witness.lock().fail_restore) {
            return Err(rl::Error::Failed {
                what: "restore".into(),
                why: "on purpose".into(),
            });
        }
        self.proposal = Some((adapter.to_vec(), optimizer.to_vec()));
        self.deploy(version)
    }
}

/// Training alone, on a ledger that somebody else has written.
pub(crate) struct World {
    ledger: Ledger,
}

impl World {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self { ledger }
    }

    /// Every step that is due, from the first on; the adapter at the end.
    pub(crate) fn train_all(&mut self) -> Vec<u8> {
        let rules = config().train.rules();
        let mut line = loops::Line::read(self.ledger.clone(), "main".into(), rules).unwrap();
        let mut learner = HashLearner::new(Arithmetic::default(), Arc::default());
        while let Some(due) = line.due() {
            let samples = line.samples(&due).unwrap();
            let proposal = learner.step(&Batch { samples }).unwrap();
            let step = loops::line::Step {
                proposal,
                seed: rl::Seed::new(0),
                back: 0,
                gate: None,
                share: None,
            };
            let version = line.commit(&due, step).unwrap();
            learner.deploy(PolicyVersion::new(version.version)).unwrap();
        }
        learner.weights
    }
}

/// A running host.
pub(crate) struct Rig {
    pub(crate) metrics: Registry,
    pub(crate) ledger: Ledger,
    pub(crate) handle: Handle,
    pub(crate) policy: Arithmetic,
    pub(crate) witness: Arc<Mutex<Witness>>,
    /// Held while something is computed aside.
    pub(crate) turn: Turn,
    stop: Stop,
    running: JoinHandle<loops::Result<()>>,
}

/// Plugins that a test replaces.
pub(crate) struct Plugins {
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) judge: Arc<dyn Judge>,
    pub(crate) rule: Arc<dyn RewardRule>,
}

impl Default for Plugins {
    fn default() -> Self {
        Self {
            environment: Arc::new(Transcript::default()),
            judge: Arc::new(WordJudge),
            rule: Arc::new(MajorityRule),
        }
    }
}

/// Arithmetic has no canaries to answer.
pub(crate) fn no_gate() -> GateConfig {
    GateConfig {
        enabled: false,
        ..GateConfig::default()
    }
}

/// Batches of two, so that a short talk trains.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.train.batch_size = 2;
    config.gate = no_gate();
    config.guard.enabled = false;
    // A paused clock jumps whenever only the disk is waited for: no session may go idle by that.
    config.serve.idle_timeout = Duration::from_secs(1 << 30);
    config.serve.abandoned_after = Duration::from_secs(1 << 30);
    config
}

impl Rig {
    pub(crate) fn start(dir: &Path, config: Config) -> Self {
        Self::with(dir, config, Plugins::default())
    }

    pub(crate) fn with(dir: &Path, config: Config, plugins: Plugins) -> Self {
        Self::learning(dir, config, plugins, 1e-4)
    }

    /// With this learning rate.
    pub(crate) fn learning(dir: &Path, config: Config, plugins: Plugins, rate: f64) -> Self {
        let settings = Settings {
            lr: rate,
            ..Settings::default()
        };
        Self::on(open(dir), config, plugins, settings).unwrap()
    }

    /// On a ledger that is open already.
    pub(crate) fn on(
        ledger: Ledger,
        config: Config,
        plugins: Plugins,
        settings: Settings,
    ) -> loops::Result<Self> {
        let policy = Arithmetic::default();
        let witness = Arc::new(Mutex::new(Witness::default()));
        let mut learner = HashLearner::new(policy.clone(), witness.clone());
        learner.settings = settings;
        learner.door = policy.step_door.clone();
        let turn = Turn::default();
        let trained = Trained {
            learner: Box::new(learner),
            settings: serde_json::to_value(settings).unwrap(),
            model: "arithmetic".into(),
            shelf: Arc::new(NumberShelf(policy.clone())),
            bench: bench(),
            turn: turn.clone(),
            erased: Arc::new(|_| {}),
            forgotten: Arc::new(|_| {}),
        };
        let seams = Seams {
            environment: plugins.environment,
            judge: plugins.judge,
            rule: plugins.rule,
            policy: Arc::new(policy.clone()),
            trained,
        };
        let mut registry = Registry::default();
        let (all, handle) = Loops::build(config, ledger.clone(), seams, &mut registry)?;
        let (stop, shutdown) = loops::shutdown();
        let running = tokio::spawn(all.run(shutdown));
        Ok(Self {
            ledger,
            handle,
            policy,
            witness,
            metrics: registry,
            turn,
            stop,
            running,
        })
    }

    /// A counter, by its name and label as it is exposed; 0 when it was never counted.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics).unwrap();
        let line = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
        text.lines().find_map(line).unwrap_or(0)
    }

    /// Waits until the status is as wanted. A test that would wait for ever says what there was instead.
    pub(crate) async fn until(&self, wanted: impl Fn(&Status) -> bool + Send) -> Status {
        let (_found, stopped) = std::sync::mpsc::channel::<()>();
        let (late, too_late) = tokio::sync::oneshot::channel();
        // Not the runtime's clock, which some tests move.
        std::thread::spawn(move || {
            if stopped.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let _ = late.send(());
            }
        });
        tokio::select! {
            status = self.handle.until(wanted) => status,
            _ = too_late => {
                panic!("not as wanted after {PATIENCE:?}: {:#?}", self.handle.status())
            }
        }
    }

    /// A clean shutdown: the ledger is free when this returns.
    pub(crate) async fn stop(self) {
        self.stop.stop();
        self.running.await.unwrap().unwrap();
    }

    /// The same, for whoever keeps the rest.
    pub(crate) async fn stop_running(&mut self) -> loops::Result<()> {
        self.stop.stop();
        (&mut self.running).await.unwrap()
    }

    /// The same as [`Rig::kill`], for whoever keeps the rest; loops that have ended stay so.
    pub(crate) async fn end_running(&mut self) {
        if !self.running.is_finished() {
            self.running.abort();
            let _ = (&mut self.running).await;
        }
    }

    /// How the loops end by themselves.
    pub(crate) async fn ended(self) -> loops::Result<()> {
        self.running.await.unwrap()
    }

    /// The loops vanish between two of their steps, wherever they are.
    pub(crate) async fn kill(self) {
        self.running.abort();
        let _ = self.running.await;
    }

    pub(crate) fn sink(&self) -> Arc<dyn TurnSink> {
        self.handle.sink()
    }

    pub(crate) async fn say(&self, request: TurnRequest, reply: &str) -> TurnId {
        serve(
            &*self.sink(),
            request,
            Message::assistant(reply),
            self.policy.clone(),
        )
        .await
    }

    /// A turn of a session of its own, served by this version.
    pub(crate) async fn say_by(&self, version: u64, session: &str, reply: &str) -> TurnId {
        let sink = self.sink();
        let asked = request(session, vec![Message::user("hi")]);
        let ticket = sink.begin(asked).await.unwrap();
        let turn = ticket.turn.clone();
        let served = served_by(version, Message::assistant(reply), &self.policy);
        sink.finish(ticket, served).await.unwrap();
        turn
    }

    /// A turn whose reply is one token again and again.
    pub(crate) async fn say_broken(&self, session: &str) -> TurnId {
        let sink = self.sink();
        let ticket = sink
            .begin(request(session, vec![Message::user("hi")]))
            .await
            .unwrap();
        let turn = ticket.turn.clone();
        let reply = Message::assistant("x".repeat(64));
        sink.finish(ticket, served(reply, &self.policy))
            .await
            .unwrap();
        turn
    }

    /// The same as [`Rig::talk`], for somebody.
    pub(crate) async fn talk_as(&self, user: &str, session: &str, lines: &[&str]) -> Vec<TurnId> {
        self.converse((Some(user), session), lines, false).await
    }

    /// The same, and every turn is judged before the next but one: turns that end together are judged in any order.
    pub(crate) async fn talk_in_order(&self, user: &str, lines: &[&str]) -> Vec<TurnId> {
        self.converse((Some(user), user), lines, true).await
    }

    /// One session: each line is a user's message; the replies are `re: <line>`. The turns' ids.
    pub(crate) async fn talk(&self, session: &str, lines: &[&str]) -> Vec<TurnId> {
        self.converse((None, session), lines, false).await
    }

    async fn converse(
        &self,
        (user, session): (Option<&str>, &str),
        lines: &[&str],
        in_order: bool,
    ) -> Vec<TurnId> {
        let before = self.handle.status().judged;
        let mut messages = Vec::new();
        let mut turns = Vec::new();
        for line in lines {
            messages.push(Message::user(*line));
            let reply = format!("re: {line}");
            let request = TurnRequest {
                user: user.map(str::to_owned),
                ..request(session, messages.clone())
            };
            turns.push(self.say(request, &reply).await);
            messages.push(Message::assistant(reply));
            if in_order {
                let ended = turns.len() as u64 - 1;
                self.until(|s| s.judged == before + ended).await;
            }
        }
        turns
    }

    /// All of a kind that are not erased.
    pub(crate) fn records<T: DeserializeOwned>(&self, kind: &str) -> Vec<T> {
        let all: Vec<Record> = self
            .ledger
            .by_kind(kind, Seq::FIRST)
            .map(Result::unwrap)
            .filter(|record| !record.erased)
            .collect();
        all.iter()
            .map(|record| records::decode(record).unwrap())
            .collect()
    }

    pub(crate) fn judged(&self, turn: &TurnId) -> Vec<records::JudgedRecord> {
        let all: Vec<records::JudgedRecord> = self.records(records::JUDGED);
        all.into_iter()
            .filter(|judged| judged.turn == *turn)
            .collect()
    }
}

pub(crate) fn request(session: &str, messages: Vec<Message>) -> TurnRequest {
    TurnRequest {
        tenant: "tenant".into(),
        key: "key".into(),
        adapter: Some(AdapterName::new("main")),
        session: Some(SessionId::from(session)),
        user: None,
        kind: None,
        session_done: false,
        messages,
        tools: Vec::new(),
    }
}

pub(crate) fn served(reply: Message, policy: &Arithmetic) -> Served {
    served_by(policy.live.load(Ordering::SeqCst), reply, policy)
}

fn served_by(version: u64, reply: Message, policy: &Arithmetic) -> Served {
    let response: Vec<TokenId> = reply.content.bytes().map(TokenId::from).collect();
    let digests = policy.digests.lock();
    Served {
        version: PolicyVersion::new(version),
        adapter_digest: digests.get(&version).cloned().unwrap_or_default(),
        prompt: vec![1, 2, 3],
        logprobs: response
            .iter()
            .map(|id| -0.25 - (*id % 7) as f32 / 8.0)
            .collect(),
        response,
        sampling: Sampling::default(),
        reply,
        finish: FinishReason::Stop,
    }
}

pub(crate) async fn serve(
    sink: &dyn TurnSink,
    request: TurnRequest,
    reply: Message,
    policy: Arithmetic,
) -> TurnId {
    let ticket = sink.begin(request).await.unwrap();
    let turn = ticket.turn.clone();
    sink.finish(ticket, served(reply, &policy)).await.unwrap();
    turn
}

/// A killed host's last blocking call may still hold the folder for a moment.
pub(crate) fn open(dir: &Path) -> Ledger {
    loop {
        match Ledger::open(dir, Options::default()) {
            Err(ledger::Error::Locked { .. }) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}
