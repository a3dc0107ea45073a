//! The rollout loop: drives hosted episodes of an environment against the policy, as a user would meet it.
//!
//! An episode interrupted by a restart goes on: its recorded actions are replayed with the same seed, then new ones follow.
//! It does not judge or train: the turns reach the ledger through the agent, like anybody's.

use std::{collections::HashMap, fmt, sync::Arc};

use ledger::{Ledger, Seq};
use rl::{
    Action, Agent, AgentReply, AgentRequest, Archive, Environment, Episode, EpisodeId, Message,
    Outcome, Role, Sampling, Seed, Sees, SessionId, Step, TaskId, TenantId, TurnId, seam::Nowhere,
};
use serde::{Deserialize, Serialize};
use tokio::{
    runtime::Handle as Runtime,
    task::{JoinSet, spawn_blocking},
    time::{Duration, sleep},
};

use crate::{
    Error, Result, Shutdown,
    records::{self, ACTION, ActionRecord, EpisodeRecord, FORGET, ForgetRecord, GroupRecord},
    serve,
    status::Board,
    store::{Lent, Stores},
};

/// An agent that is not available is asked this often before its episode fails.
const ATTEMPTS: u32 = 6;
/// The wait after the first failed attempt; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// `[loops.rollout]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Episodes at once.
    pub concurrency: usize,
    /// Turns after which the host ends an episode that does not end by itself.
    pub max_turns: u32,
    /// How the policy's tokens are drawn; the seed is derived for each turn.
    pub sampling: Sampling,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            concurrency: 1,
            max_turns: 1_000,
            sampling: Sampling::default(),
        }
    }
}

/// An episode to be played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its id: unique, and the same after a restart, for the episode to go on.
    pub episode: EpisodeId,
    /// The task.
    pub task: TaskId,
    /// The episode's seed.
    pub seed: Seed,
    /// The attempts at one task that are compared with each other; none for an attempt that stands alone.
    pub group: Option<String>,
}

impl Assignment {
    /// What the policy's tokens derive from. Attempts of a group have one seed, so that they meet the same environment: their tokens
    /// must differ all the same, or there is nothing to compare.
    fn tokens(&self) -> Seed {
        match &self.group {
            Some(_) => self.seed.derive(self.episode.as_str()),
            None => self.seed,
        }
    }

    fn group(&self) -> &str {
        self.group
            .as_deref()
            .unwrap_or_else(|| self.episode.as_str())
    }
}

/// A turn of an episode.
#[derive(Clone, Debug)]
pub struct Played {
    /// The episode.
    pub episode: EpisodeId,
    /// 0 for the first.
    pub index: u32,
    /// What the policy saw last.
    pub asked: Option<Message>,
    /// Its reply.
    pub reply: AgentReply,
    /// What came back.
    pub reaction: Vec<Message>,
    /// The oracle's word.
    pub outcome: Option<Outcome>,
}

/// What happens in an episode, for whoever watches.
#[derive(Clone, Debug)]
pub enum Event {
    /// A turn was played.
    Turn(Box<Played>),
    /// An episode is over.
    Ended(EpisodeRecord),
    /// An episode failed; the others go on.
    Failed {
        /// The episode.
        episode: EpisodeId,
        /// Why.
        error: Error,
    },
}

/// Plays episodes. Cheap to clone.
#[derive(Clone)]
pub struct Rollout {
    config: Config,
    ledger: Ledger,
    environment: Arc<dyn Environment>,
    agent: Arc<dyn Agent>,
    serve: serve::Handle,
    board: Board,
    sees: Sees,
    stores: Stores,
    /// Whose store the environment's plugin has; none where nothing is kept.
    tenant: Option<TenantId>,
}

/// Receives events, from any thread.
pub type Watch = Arc<dyn Fn(Event) + Send + Sync>;

impl Rollout {
    pub(crate) fn new(
        config: Config,
        ledger: Ledger,
        environment: Arc<dyn Environment>,
        agent: Arc<dyn Agent>,
        serve: serve::Handle,
        (board, stores): (Board, Stores),
        sees: Sees,
    ) -> Result<Self> {
        if !(1..=1024).contains(&config.concurrency) {
            let value = config.concurrency.to_string();
            let allowed = "1 to 1024 are allowed";
            return Err(Error::Config {
                key: "concurrency",
                value,
                allowed,
            });
        }
        Ok(Self {
            config,
            ledger,
            environment,
            agent,
            serve,
            board,
            sees,
            stores,
            tenant: None,
        })
    }

    /// The same where the environment's plugin finds what it stored in this tenant's episodes before, and what it stores is kept. Without
    /// it every episode begins with nothing stored, as in an exam: neither may it learn from others, nor others from it.
    #[must_use]
    pub fn storing_for(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// Plays the episodes that are not over yet, in order, several at once; returns the records of all that are over.
    ///
    /// # Errors
    /// The ledger's. An episode that fails is reported to `watch`, and the others go on.
    pub async fn run(
        &self,
        assignments: Vec<Assignment>,
        shutdown: Shutdown,
        watch: Watch,
    ) -> Result<Vec<EpisodeRecord>> {
        let mut groups = Groups::new(&assignments);
        let mut left = assignments.into_iter().enumerate();
        let mut tasks = JoinSet::new();
        let mut records = Vec::new();
        loop {
            while tasks.len() < self.config.concurrency && !shutdown.is_now() {
                let Some((index, assignment)) = left.next() else {
                    break;
                };
                let (this, watch, shutdown) = (self.clone(), watch.clone(), shutdown.clone());
                let runtime = Runtime::current();
                let names = (assignment.episode.clone(), assignment.group().to_owned());
                let play =
                    spawn_blocking(move || this.play(&assignment, &runtime, &shutdown, &watch));
                tasks.spawn(async move { (index, names, play.await) });
            }
            let Some(done) = tasks.join_next().await else {
                break;
            };
            let panicked = |what: &str| Error::Panicked {
                what: what.to_owned(),
            };
            let (index, (episode, group), played) = done.map_err(|_| panicked("a rollout task"))?;
            let over = match played.unwrap_or_else(|_| Err(panicked("an episode"))) {
                Ok(Some(record)) => {
                    let over = groups.ended(&group, Some(record.episode.clone()));
                    records.push((index, record));
                    over
                }
                // Interrupted: it goes on after the next start, and its group with it.
                Ok(None) => None,
                // Its key was destroyed while it ran: it was forgotten, and only it ends.
                Err(error @ Error::Ledger { .. }) if !error.is_erased() => return Err(error),
                Err(error) => {
                    tracing::warn!(%episode, error = %error.chain(), "an episode failed");
                    watch(Event::Failed { episode, error });
                    groups.ended(&group, None)
                }
            };
            if let Some(over) = over.filter(|_| self.sees != Sees::Turn) {
                self.ledger
                    .append(over.to_entry()?)
                    .await
                    .map_err(ledger("record the end of a group"))?;
                self.board.judge.ring();
            }
        }
        records.sort_by_key(|(index, _)| *index);
        Ok(records.into_iter().map(|(_, record)| record).collect())
    }

    /// Plays one episode on a blocking thread; none when the shutdown came first.
    fn play(
        &self,
        assignment: &Assignment,
        runtime: &Runtime,
        shutdown: &Shutdown,
        watch: &Watch,
    ) -> Result<Option<EpisodeRecord>> {
        let key = records::episode_key(&assignment.episode);
        if let Some(record) = self
            .ledger
            .by_key(&key)
            .map_err(ledger("look up an episode"))?
        {
            return records::decode(&record).map(Some);
        }
        let begun = self.ledger.durable().next();
        let store = self.store(assignment);
        let archive: &dyn Archive = store.as_ref().map_or(&Nowhere, |store| store);
        let mut table = Table::set(self, assignment, archive, begun)?;
        let mut ended = table.replay(self, assignment)?;
        while ended.is_none() && table.index < self.config.max_turns {
            if shutdown.is_now() {
                return Ok(None);
            }
            ended = table.turn(self, assignment, runtime, watch)?;
        }
        table.is_wanted(self, assignment)?;
        let done = ended.as_ref().and_then(|step| step.done);
        if let Some(turn) = table.turns.last() {
            // What came back is known even where the host's limit ends the episode before anybody can answer it.
            runtime.block_on(self.serve.react(turn, table.reaction(), true))?;
        }
        let card = self.environment.card();
        let record = EpisodeRecord {
            episode: assignment.episode.clone(),
            environment: format!("{} {}", card.name, card.version),
            task: assignment.task.clone(),
            seed: assignment.seed,
            session: session_of(assignment),
            turns: table.turns,
            done,
            outcome: table.outcome,
        };
        let mut entries = vec![record.to_entry()?];
        if let Some(store) = &store {
            entries.extend(store.leave()?);
        }
        self.ledger
            .append_all(entries)
            .wait()
            .map_err(ledger("record the end of an episode"))?;
        self.board.metrics.episodes.inc();
        watch(Event::Ended(record.clone()));
        Ok(Some(record))
    }

    fn store(&self, assignment: &Assignment) -> Option<Lent> {
        let tenant = self.tenant.as_ref()?;
        let (episode, group) = (&assignment.episode, assignment.group());
        Some(self.stores.of_episode(tenant, episode, group))
    }
}

/// Which attempts of which group are still to come, and which ended.
struct Groups(HashMap<String, (usize, Vec<EpisodeId>)>);

impl Groups {
    fn new(assignments: &[Assignment]) -> Self {
        let mut groups: HashMap<_, (usize, Vec<_>)> = HashMap::new();
        for assignment in assignments {
            groups.entry(assignment.group().to_owned()).or_default().0 += 1;
        }
        Self(groups)
    }

    /// One more is over, with or without a result; the group when it was the last.
    fn ended(&mut self, group: &str, episode: Option<EpisodeId>) -> Option<GroupRecord> {
        let (left, episodes) = self.0.get_mut(group)?;
        *left = left.saturating_sub(1);
        episodes.extend(episode);
        if *left > 0 {
            return None;
        }
        let (_, mut episodes) = self.0.remove(group)?;
        // In which order they ended is chance; what a rule makes of them must not be.
        episodes.sort();
        Some(GroupRecord {
            group: group.to_owned(),
            episodes,
        })
    }
}

/// An episode that is being played.
struct Table {
    episode: Box<dyn Episode>,
    messages: Vec<Message>,
    turns: Vec<TurnId>,
    index: u32,
    outcome: Option<Outcome>,
    /// Requests to forget are read from here.
    next: Seq,
}

impl Table {
    fn set(
        rollout: &Rollout,
        assignment: &Assignment,
        archive: &dyn Archive,
        next: Seq,
    ) -> Result<Self> {
        let seam = Error::seam("rollout", "start an episode");
        let mut episode = rollout
            .environment
            .start_with(&assignment.task, assignment.seed, archive)
            .map_err(seam)?;
        let seam = Error::seam("rollout", "observe an episode");
        let messages = episode.observe().map_err(seam)?.messages;
        Ok(Self {
            episode,
            messages,
            turns: Vec::new(),
            index: 0,
            outcome: None,
            next,
        })
    }

    /// Whether the episode may go on: not when something that it may have read was forgotten since it began. What it shows and says
    /// after that may be made of it, and would be trained.
    fn is_wanted(&mut self, rollout: &Rollout, assignment: &Assignment) -> Result<()> {
        for record in rollout.ledger.by_kind(FORGET, self.next) {
            let record = record.map_err(ledger("read requests to forget"))?;
            self.next = record.seq.next();
            let forget: ForgetRecord = records::decode(&record)?;
            let episode = &assignment.episode;
            let ours = |subject: &String| subject == episode.as_str();
            if forget.subjects.iter().any(ours) && !ledger::mutant::on("forgotten-episode-goes-on")
            {
                return Err(Error::Forgotten {
                    episode: episode.clone(),
                });
            }
        }
        Ok(())
    }

    /// Brings the episode to where the ledger says it was; the last step when that ended it.
    fn replay(&mut self, rollout: &Rollout, assignment: &Assignment) -> Result<Option<Step>> {
        for record in rollout.ledger.by_subject(assignment.episode.as_str()) {
            let record = record.map_err(ledger("read an episode's actions"))?;
            if record.kind != ACTION {
                continue;
            }
            let action: ActionRecord = records::decode(&record)?;
            let step = self.act(action.turn, action.message, action.truncated)?;
            if step.done.is_some() {
                return Ok(Some(step));
            }
        }
        Ok(None)
    }

    /// One turn; the step when it ended the episode.
    fn turn(
        &mut self,
        rollout: &Rollout,
        assignment: &Assignment,
        runtime: &Runtime,
        watch: &Watch,
    ) -> Result<Option<Step>> {
        self.is_wanted(rollout, assignment)?;
        let mut sampling = rollout.config.sampling.clone();
        sampling.seed = assignment.tokens().derive(&format!("turn/{}", self.index));
        let request = AgentRequest {
            session: session_of(assignment),
            messages: self.messages.clone(),
            tools: rollout.environment.card().tools,
            sampling,
            session_done: false,
        };
        let asked = self.messages.last().cloned();
        let reply = reply(rollout, &request, runtime)?;
        self.is_wanted(rollout, assignment)?;
        let record = ActionRecord {
            episode: assignment.episode.clone(),
            index: self.index,
            turn: reply.turn.clone(),
            message: reply.message.clone(),
            truncated: reply.truncated,
        };
        rollout
            .ledger
            .append(record.to_entry()?)
            .wait()
            .map_err(ledger("record an action"))?;
        let index = self.index;
        let step = self.act(reply.turn.clone(), reply.message.clone(), reply.truncated)?;
        let played = Played {
            episode: assignment.episode.clone(),
            index,
            asked,
            reply,
            reaction: step.observation.messages.clone(),
            outcome: self.outcome.clone(),
        };
        watch(Event::Turn(Box::new(played)));
        Ok(step.done.is_some().then_some(step))
    }

    /// What came back after the last reply.
    fn reaction(&self) -> Vec<Message> {
        let reply = self
            .messages
            .iter()
            .rposition(|message| message.role == Role::Assistant);
        reply.map_or_else(Vec::new, |at| self.messages[at + 1..].to_vec())
    }

    fn act(&mut self, turn: TurnId, message: Message, truncated: bool) -> Result<Step> {
        let action = Action { message, truncated };
        let step = self
            .episode
            .act(&action)
            .map_err(Error::seam("rollout", "act in an episode"))?;
        self.outcome = self
            .episode
            .outcome()
            .map_err(Error::seam("rollout", "ask for an outcome"))?;
        self.messages.push(action.message);
        self.messages
            .extend(step.observation.messages.iter().cloned());
        self.turns.push(turn);
        self.index += 1;
        Ok(step)
    }
}

/// Asks the agent, with patience when it is not available.
fn reply(rollout: &Rollout, request: &AgentRequest, runtime: &Runtime) -> Result<AgentReply> {
    let mut wait = FIRST_WAIT;
    let mut attempt = 1;
    loop {
        match rollout.agent.reply(request.clone()) {
            Ok(reply) => return Ok(reply),
            Err(error) if error.is_retryable() && attempt < ATTEMPTS => {
                tracing::debug!(%error, attempt, "the agent is not available");
                runtime.block_on(sleep(wait));
                wait *= 2;
                attempt += 1;
            }
            Err(error) => return Err(Error::seam("rollout", "get a reply")(error)),
        }
    }
}

fn session_of(assignment: &Assignment) -> SessionId {
    SessionId::new(assignment.episode.as_str())
}

fn ledger(action: &'static str) -> impl FnOnce(ledger::Error) -> Error {
    Error::ledger("rollout", action)
}

impl fmt::Debug for Rollout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rollout")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
