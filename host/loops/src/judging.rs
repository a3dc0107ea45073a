//! One turn, judged: votes, hints, teacher log-probs, verdict, reward, sample; one record at the end.
//! To decide may take long and be given up at any moment; to record is short, and is always finished.
//!
//! A call that fails or takes too long is absent and its reason is recorded; only the ledger's failure is an error here.
//! It does not choose the turn ([`crate::judge`] does).

use std::sync::Arc;

use ledger::Ledger;
use rl::{
    Decider, Feedback, Hint, JudgedTurn, NextState, NotTrainable, Rating, RewardRule, Sample, Sees,
    TokenStreams, Turn, TurnId, TurnReward, Verdict, Vote,
    algorithm::{HintTeacher, Judged},
};
use tokio::time::Instant;

use crate::{
    Error, Result,
    belief::{believe, refused, said, value},
    call::Caller,
    hint,
    judge::{Algorithm, Parts},
    paying::mean,
    praise::Speaker,
    records::{
        self, ActionRecord, CLOSED, ClosedRecord, Closing, FEEDBACK, HintAsk, JUDGED, JudgedRecord,
        SPENT, TURN, TurnRecord,
    },
    status::Before,
};

/// Judges turns one by one. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Turnwise {
    pub(crate) parts: Arc<Parts>,
    /// To the judge's prompts and the model: may be slow, may hang.
    pub(crate) caller: Caller,
    /// To the reward rule, which needs no model: a hanging judge must not hold up a person's word.
    pub(crate) rule: Caller,
}

/// What was decided about a turn, and is not recorded yet.
pub(crate) struct Decided {
    turn: Arc<Turn>,
    before: Before,
    record: JudgedRecord,
    /// When judging it began.
    start: Instant,
}

/// Everything that the ledger says about a turn.
#[derive(Default)]
pub(crate) struct Dossier {
    pub(crate) record: Option<TurnRecord>,
    pub(crate) closing: Option<Closing>,
    judged: Option<JudgedRecord>,
    feedback: Option<Feedback>,
    spent: bool,
}

impl Dossier {
    pub(crate) fn load(ledger: &Ledger, turn: &TurnId) -> Result<Self> {
        let mut dossier = Self::default();
        for record in ledger.by_subject(turn.as_str()) {
            let record = record.map_err(Error::ledger("judge", "read a turn's records"))?;
            if record.erased {
                // Forgotten: there is nothing to decide about, and nothing to decide from.
                return Ok(Self::default());
            }
            match record.kind.as_str() {
                TURN => dossier.record = Some(records::decode(&record)?),
                CLOSED => {
                    dossier.closing = Some(records::decode::<ClosedRecord>(&record)?.closing);
                }
                FEEDBACK => dossier.merge(records::decode(&record)?),
                JUDGED => dossier.judged = Some(records::decode(&record)?),
                SPENT => dossier.spent = true,
                _ => {}
            }
        }
        Ok(dossier)
    }

    /// The last word on each point counts.
    fn merge(&mut self, later: Feedback) {
        match &mut self.feedback {
            None => self.feedback = Some(later),
            Some(feedback) => {
                feedback.rating = later.rating.or(feedback.rating);
                feedback.correction = later.correction.or(feedback.correction.take());
            }
        }
    }

    /// Whether there is anything to decide that has not been decided.
    fn is_due(&self) -> bool {
        let trainable = self
            .record
            .as_ref()
            .is_some_and(|r| r.not_trainable.is_none());
        let told = matches!(self.closing, Some(Closing::Next(_))) || self.feedback.is_some();
        // What was paid with its group stays as it is: the others were paid in relation to it.
        let known = self
            .judged
            .as_ref()
            .is_some_and(|j| j.feedback == self.feedback || j.paid.is_some());
        trainable && told && !known && !self.spent
    }

    pub(crate) fn judged(&self) -> Option<&JudgedRecord> {
        self.judged.as_ref()
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.spent
    }

    /// Whether the turn is an action of a hosted episode, whose id is its session. The session alone does not tell: clients name
    /// theirs as they like.
    fn is_hosted(&self, ledger: &Ledger) -> Result<bool> {
        let Some(record) = &self.record else {
            return Ok(false);
        };
        // Attack: a session named as something that has many records of another kind. By key there is nothing to walk through.
        for index in 0.. {
            let key = records::action_key(record.turn.session.as_str(), index);
            let action = ledger
                .by_key(&key)
                .map_err(Error::ledger("judge", "read an episode's actions"))?;
            let Some(action) = action else { break };
            if !action.erased && records::decode::<ActionRecord>(&action)?.turn == record.turn.id {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What the judge and the teacher said.
#[derive(Default)]
struct Heard {
    votes: Vec<Vote>,
    asks: Vec<HintAsk>,
    teachers: Vec<HintTeacher>,
    notes: Vec<String>,
}

impl Turnwise {
    pub(crate) fn new(parts: Parts) -> Self {
        let caller = || Caller::new(parts.config.concurrency, parts.config.timeout);
        let (caller, rule) = (caller(), caller());
        Self {
            parts: Arc::new(parts),
            caller,
            rule,
        }
    }

    /// The same with the plugins of this moment: one that is exchanged meanwhile has no say in what was begun without it.
    pub(crate) fn of_this_moment(&self) -> Self {
        let (judge, rule) = (self.parts.judge.now(), self.parts.rule.now());
        if judge.is_none() && rule.is_none() {
            return self.clone();
        }
        let mut parts = (*self.parts).clone();
        parts.judge = judge.unwrap_or(parts.judge);
        parts.rule = rule.unwrap_or(parts.rule);
        Self {
            parts: Arc::new(parts),
            ..self.clone()
        }
    }

    /// Judges a turn, when that is due. What was decided counts when it is recorded: [`Turnwise::record`].
    #[tracing::instrument(skip_all, fields(turn = %id))]
    pub(crate) async fn judge(&self, id: &TurnId) -> Result<Option<Box<Decided>>> {
        let start = Instant::now();
        let (ledger, turn) = (self.parts.ledger.clone(), id.clone());
        let alone = self.parts.rule.sees() == Sees::Turn;
        let read = move || {
            let dossier = Dossier::load(&ledger, &turn)?;
            let waits = !alone && dossier.is_due() && dossier.is_hosted(&ledger)?;
            Ok::<_, Error>((dossier, waits))
        };
        let (dossier, waits) =
            tokio::task::spawn_blocking(read)
                .await
                .map_err(|_| Error::Panicked {
                    what: "reading a turn's records".to_owned(),
                })??;
        if !dossier.is_due() {
            return Ok(None);
        }
        let Dossier {
            record: Some(record),
            closing,
            judged,
            feedback,
            ..
        } = dossier
        else {
            return Ok(None);
        };
        let turn = Arc::new(record.turn);
        let (next, without) = match closing {
            Some(Closing::Next(next)) => (Some(Arc::new(next)), None),
            Some(Closing::Without(reason)) => (None, Some(reason)),
            None => (None, None),
        };
        let before = match &judged {
            Some(judged) => Before {
                reason: judged.not_trainable,
                sample: judged.sample.is_some(),
            },
            None => Before {
                reason: without,
                sample: false,
            },
        };
        let revision = judged.as_ref().map_or(0, |judged| judged.revision + 1);
        let earlier = judged.as_ref().and_then(|judged| judged.verdict);
        let heard = self
            .hear(&turn, next.as_ref(), judged, feedback.as_ref())
            .await;
        let record = self
            .decide(&turn, (revision, earlier), heard, feedback, waits)
            .await;
        Ok(Some(Box::new(Decided {
            turn,
            before,
            record,
            start,
        })))
    }

    /// Records what was decided, and then says so to whoever waits for it.
    #[tracing::instrument(skip_all, fields(turn = %decided.turn.id))]
    pub(crate) async fn record(&self, decided: Box<Decided>) -> Result<()> {
        let Decided {
            turn,
            before,
            record,
            start,
        } = *decided;
        let appended = self.parts.ledger.append(record.to_entry()?).await;
        let receipt = match appended.map_err(Error::ledger("judge", "record a verdict")) {
            Err(error)
                if error.is_erased() && !ledger::mutant::on("forgotten-turn-ends-the-judge") =>
            {
                tracing::debug!("forgotten while it was judged");
                return Ok(());
            }
            appended => appended?,
        };
        tracing::debug!(verdict = ?record.verdict, reason = ?record.not_trainable, "judged");
        let board = &self.parts.board;
        match (before.sample, record.sample.is_some()) {
            (false, true) => board.train.added((JUDGED, receipt.seq)),
            (true, _) => board.train.ring(),
            (false, false) => {}
        }
        board.judged(&record, &turn.session, before);
        if turn.adapter.is_some() {
            self.parts.watch.judged(turn.version, said(&record));
        }
        let time = start.elapsed().as_secs_f64();
        board.metrics.judge_time.0.observe(time);
        Ok(())
    }

    /// Asks what is to be asked. A person's word makes the question superfluous; an earlier answer is kept.
    async fn hear(
        &self,
        turn: &Arc<Turn>,
        next: Option<&Arc<NextState>>,
        judged: Option<JudgedRecord>,
        feedback: Option<&Feedback>,
    ) -> Heard {
        let method = self.parts.algorithm.method;
        let rated = feedback.is_some_and(|feedback| feedback.rating.is_some());
        let correction = feedback.and_then(|feedback| feedback.correction.clone());
        let mut heard = Heard::default();
        let mut hints = Vec::new();
        if let Some(judged) = judged {
            heard.votes = judged.votes;
            heard.asks = judged.asks;
            heard.teachers = judged.teachers;
        } else if let Some(next) = next {
            let votes = if method.uses_reward() && !rated {
                self.parts.config.votes
            } else {
                0
            };
            let asks = method.uses_hints() && correction.is_none();
            let asks = if asks { self.parts.config.hint_asks } else { 0 };
            (heard.votes, heard.asks) = self.ask(turn, next, votes, asks).await;
            let accepted = heard.asks.iter().filter(|ask| ask.refused.is_none());
            let accepted = accepted.filter_map(|ask| ask.hint.clone());
            hints = accepted.map(|text| Hint { text }).collect();
            hints = hint::choose(hints, self.parts.config.max_hints);
        }
        if let Some(text) = correction.filter(|_| method.uses_hints()) {
            // A person's own words replace what the judge made up.
            heard.teachers.clear();
            hints = vec![Hint { text }];
        }
        for hint in hints {
            match self.teach(turn, &hint).await {
                Ok(logprobs) => heard.teachers.push(HintTeacher { hint, logprobs }),
                Err(error) => {
                    self.parts.board.plugin_failed("teacher");
                    heard
                        .notes
                        .push(format!("hint {:?} was left out: {error}", hint.text));
                }
            }
        }
        heard
    }

    async fn decide(
        &self,
        turn: &Arc<Turn>,
        (revision, earlier): (u32, Option<Verdict>),
        heard: Heard,
        feedback: Option<Feedback>,
        waits: bool,
    ) -> JudgedRecord {
        let Heard {
            votes,
            asks,
            teachers,
            mut notes,
        } = heard;
        let rated = feedback.as_ref().and_then(|feedback| feedback.rating);
        let ruled = self.rule(turn, &votes, rated, waits).await;
        let failed = ruled.is_err();
        let (verdict, reward) = match ruled {
            Ok(decided) => decided,
            Err(error) => {
                tracing::warn!(%error, "the reward rule failed");
                self.parts.board.plugin_failed("reward");
                notes.push(format!("no reward: {error}"));
                (None, None)
            }
        };
        let mut about_praise = Vec::new();
        let praise = self.praise(turn, earlier, verdict, &mut about_praise);
        if !waits {
            notes.append(&mut about_praise);
        }
        let (sample, not_trainable) = match reward {
            None if waits && !failed => (None, Some(NotTrainable::AwaitsGroup)),
            None => (None, Some(NotTrainable::RewardRefused)),
            Some(reward) => {
                let judged = Judged {
                    turn,
                    reward: reward.reward,
                    rl_weight: reward.rl_weight * praise,
                    opd_weight: reward.opd_weight,
                    teachers: teachers.clone(),
                };
                sample_of(&*self.parts.rule, &self.parts.algorithm, &judged).unwrap_or_else(
                    |error| {
                        notes.push(format!("no advantages: {error}"));
                        (None, Some(NotTrainable::RewardRefused))
                    },
                )
            }
        };
        JudgedRecord {
            revision,
            votes,
            asks,
            feedback,
            verdict,
            reward,
            teachers,
            sample,
            not_trainable,
            notes,
            ..self.unjudged(&turn.id)
        }
    }

    /// A record of this turn in which nothing is decided.
    pub(crate) fn unjudged(&self, turn: &TurnId) -> JudgedRecord {
        let algorithm = self.parts.algorithm;
        JudgedRecord {
            turn: turn.clone(),
            revision: 0,
            judge: self.parts.judge.name(),
            rule: self.parts.rule.name(),
            method: algorithm.method,
            settings: algorithm.settings,
            votes: Vec::new(),
            asks: Vec::new(),
            feedback: None,
            verdict: None,
            reward: None,
            teachers: Vec::new(),
            sample: None,
            not_trainable: None,
            notes: Vec::new(),
            paid: None,
        }
    }

    /// What a verdict weighs, seen with the others of whoever gave it; `earlier` is what was decided about the turn before.
    fn praise(
        &self,
        turn: &Turn,
        earlier: Option<Verdict>,
        verdict: Option<Verdict>,
        notes: &mut Vec<String>,
    ) -> f32 {
        let value = |verdict: Option<Verdict>| verdict.map(|verdict| verdict.value);
        let (speaker, mut praise) = (Speaker::of(turn), self.parts.praise.lock());
        praise.heard(&speaker, value(earlier), None);
        let weight = match self.parts.config.fade_praise {
            true => praise.weight(&speaker, value(verdict)),
            false => 1.0,
        };
        praise.heard(&speaker, None, value(verdict));
        if weight < 1.0 {
            notes.push(format!(
                "praise counts {weight:.2}: this speaker praises nearly everything"
            ));
        }
        weight
    }

    /// A person's rating outranks the votes; no vote present is no verdict, whatever a rule says. A turn that `waits` for its
    /// group gets no reward yet.
    async fn rule(
        &self,
        turn: &Turn,
        votes: &[Vote],
        rated: Option<Rating>,
        waits: bool,
    ) -> rl::Result<(Option<Verdict>, Option<TurnReward>)> {
        let (parts, votes) = (self.parts.clone(), votes.to_vec());
        let tokens = u32::try_from(turn.response.len()).unwrap_or(u32::MAX);
        let cut = turn.finish == rl::FinishReason::Length;
        self.rule
            .call("the reward rule", move |_| {
                let rated = rated.filter(|_| !ledger::mutant::on("votes-outrank-a-person"));
                let verdict = match rated {
                    Some(rating) => Some(Verdict {
                        value: value(rating),
                        by: Decider::Person,
                    }),
                    None if votes.iter().any(|vote| vote.value.is_some()) => {
                        parts.rule.verdict(&votes)?
                    }
                    None => None,
                };
                if waits {
                    return Ok((verdict, None));
                }
                let judged = JudgedTurn {
                    verdict,
                    process: mean(votes.iter().filter_map(|vote| vote.value)),
                    tokens,
                    cut,
                };
                let rewards = parts.rule.turn_rewards(&[judged], None)?;
                let [reward] = rewards.as_slice() else {
                    return Err(refused(format!("{} rewards for one turn", rewards.len())));
                };
                let contrary = parts.config.contrary_rewards;
                believe(&votes, verdict, reward, contrary)?;
                let reward = TurnReward {
                    reward: match ledger::mutant::on("no-verdict-rewards-zero") {
                        true => Some(reward.reward.unwrap_or(0.0)),
                        false => verdict.and(reward.reward),
                    },
                    ..*reward
                };
                Ok((verdict, Some(reward)))
            })
            .await
    }
}

/// The sample of a judged turn, by the rule's word on every token where it has one, else by the method; or why there is none.
pub(crate) fn sample_of(
    rule: &dyn RewardRule,
    algorithm: &Algorithm,
    judged: &Judged<'_>,
) -> rl::Result<(Option<Sample>, Option<NotTrainable>)> {
    let streams = TokenStreams {
        advantage: judged.reward.map(|reward| judged.rl_weight * reward),
        behaviour: &judged.turn.logprobs,
        teachers: judged.teachers.iter().map(|t| &*t.logprobs).collect(),
    };
    let sample = match rule.token_advantages(&streams)? {
        Some(advantages) => judged.sample_by_token(advantages),
        None => algorithm.method.sample(judged, &algorithm.settings),
    };
    let sample = sample.filter(Sample::is_effective);
    let reason = sample.is_none().then(|| algorithm.method.why_none(judged));
    Ok((sample, reason))
}
