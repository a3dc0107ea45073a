//! What the judge model and the teacher are asked about one turn: votes, hints, log-probs.
//!
//! A call that fails or takes too long gives an absent answer with its reason. What follows from the answers is
//! [`crate::judging`]'s business.

use std::sync::Arc;

use rl::{
    Answer, AnswerForm, Choice, Hint, JudgePrompt, NextState, Policy, Question, SampleRequest,
    Sampling, ScoreRequest, Seed, TokenFlow, Turn, Vote, Weights,
};
use tokio::task::JoinSet;

use crate::{call::GivenUp, hint, judge::TeacherWeights, judging::Turnwise, records::HintAsk};

/// What came of one question.
enum Heard {
    /// The turn is not for this judge.
    Nothing,
    /// The model's answer, or why there is none.
    Vote(Vote),
    /// No model was needed.
    ByEvidence(Vote),
}

impl Turnwise {
    pub(crate) async fn ask(
        &self,
        turn: &Arc<Turn>,
        next: &Arc<NextState>,
        votes: u32,
        asks: u32,
    ) -> (Vec<Vote>, Vec<HintAsk>) {
        let mut tasks = JoinSet::new();
        for index in 0..votes + asks {
            let (this, turn, next) = (self.clone(), turn.clone(), next.clone());
            tasks.spawn(async move {
                let answer = if index < votes {
                    let seed = this.parts.seed.derive(&format!("vote/{}/{index}", turn.id));
                    Ok(this.vote(turn, next, seed).await)
                } else {
                    let name = format!("hint/{}/{}", turn.id, index - votes);
                    Err(this
                        .ask_hint(turn, next, this.parts.seed.derive(&name))
                        .await)
                };
                (index, answer)
            });
        }
        let mut answers: Vec<_> = tasks.join_all().await;
        answers.sort_by_key(|(index, _)| *index);
        let (mut heard_votes, mut heard_asks) = (Vec::new(), Vec::new());
        // The evidence says the same however often it is looked at: its one vote is the only one.
        let clear = answers.iter().find_map(|(_, answer)| match answer {
            Ok(Heard::ByEvidence(vote)) => Some(vote.clone()),
            _ => None,
        });
        let is_clear = clear.is_some();
        heard_votes.extend(clear);
        for (_, answer) in answers {
            match answer {
                Ok(Heard::Vote(vote)) if !is_clear => heard_votes.push(vote),
                Ok(_) => {}
                Err(ask) => heard_asks.extend(ask),
            }
        }
        (heard_votes, heard_asks)
    }

    /// One vote.
    async fn vote(&self, turn: Arc<Turn>, next: Arc<NextState>, seed: Seed) -> Heard {
        let parts = self.parts.clone();
        let vote = self.caller.call("the judge", move |given_up| {
            let prompt = match parts.judge.evaluate(&turn, &next, seed)? {
                Question::Ask(prompt) => prompt,
                Question::Skip => return Ok(Heard::Nothing),
                Question::Decided(value, score) => {
                    return Ok(Heard::ByEvidence(Vote {
                        value: Some(value),
                        answers: Vec::new(),
                        score: score.filter(|score| score.is_finite()),
                        seed,
                        absent: None,
                    }));
                }
            };
            let answer = answer(&*parts.policy, prompt, seed, given_up)?;
            let read = parts.judge.read_vote(&turn, &next, &answer)?;
            let (value, score) = read.unzip();
            let finite = answer.choices.into_iter().filter(|c| c.logprob.is_finite());
            let answers = finite.map(|c| (c.text, c.logprob)).collect();
            let absent = value
                .is_none()
                .then(|| "the answer could not be read as a vote".to_owned());
            let score = score.flatten().filter(|score| score.is_finite());
            Ok(Heard::Vote(Vote {
                value,
                answers,
                score,
                seed,
                absent,
            }))
        });
        match vote.await {
            Ok(vote) => vote,
            Err(error) => {
                tracing::warn!(%error, "a vote is absent");
                self.parts.board.plugin_failed("vote");
                let absent = Some(error.to_string());
                let zero = ledger::mutant::on("failed-vote-is-zero");
                Heard::Vote(Vote {
                    value: zero.then_some(rl::VoteValue::Ambiguous),
                    answers: Vec::new(),
                    score: None,
                    seed,
                    absent,
                })
            }
        }
    }

    /// One question for a hint; none when there is nothing to learn.
    async fn ask_hint(&self, turn: Arc<Turn>, next: Arc<NextState>, seed: Seed) -> Option<HintAsk> {
        let parts = self.parts.clone();
        let text = next.text.clone();
        let asked = self.caller.call("the judge", move |given_up| {
            let Some(prompt) = parts.judge.ask_hint(&turn, &next, seed)? else {
                return Ok(None);
            };
            let answer = answer(&*parts.policy, prompt, seed, given_up)?;
            let hint = parts.judge.read_hint(&turn, &next, &answer)?;
            Ok(Some(hint))
        });
        match asked.await {
            Ok(None) => None,
            Ok(Some(None)) => Some(HintAsk {
                seed,
                hint: None,
                refused: None,
            }),
            Ok(Some(Some(hint))) => {
                let refused = hint::accept(&hint.text, &text).err();
                Some(HintAsk {
                    seed,
                    hint: Some(hint.text.trim().to_owned()),
                    refused,
                })
            }
            Err(error) => {
                tracing::warn!(%error, "a hint is absent");
                self.parts.board.plugin_failed("hint");
                Some(HintAsk {
                    seed,
                    hint: None,
                    refused: Some(error.to_string()),
                })
            }
        }
    }

    /// The teacher's log-probs of every response token.
    pub(crate) async fn teach(&self, turn: &Arc<Turn>, hint: &Hint) -> rl::Result<Vec<f32>> {
        let (parts, turn, hint) = (self.parts.clone(), turn.clone(), hint.clone());
        self.caller
            .call("the teacher", move |_| {
                let messages = parts.judge.place_hint(&turn.messages, &hint)?;
                let prompt = parts.policy.encode(&messages, &turn.tools, "")?;
                let weights = match (parts.config.teacher, &turn.adapter) {
                    (TeacherWeights::Policy, Some(adapter)) => Weights::Adapter(adapter.clone()),
                    _ => Weights::Base,
                };
                let request = ScoreRequest {
                    weights,
                    prompt,
                    continuations: vec![turn.response.clone()],
                    temperature: turn.sampling.logprob_temperature(),
                };
                let scores = parts.policy.score(request)?.pop().unwrap_or_default();
                let n = turn.response.len();
                if scores.len() == n && scores.iter().all(|score| score.is_finite()) {
                    return Ok(scores);
                }
                Err(rl::Error::Failed {
                    what: "the teacher".to_owned(),
                    why: format!("{} usable log-probs for {n} tokens", scores.len()),
                })
            })
            .await
    }
}

/// Puts a judge's prompt to the base model.
pub(crate) fn answer(
    policy: &dyn Policy,
    prompt: JudgePrompt,
    seed: Seed,
    given_up: &GivenUp,
) -> rl::Result<Answer> {
    let tokens = policy.encode(&prompt.messages, &[], &prompt.reply_prefix)?;
    match prompt.answer {
        AnswerForm::Choice(texts) => {
            let continuations = texts
                .iter()
                .map(|text| policy.encode_text(text))
                .collect::<rl::Result<Vec<_>>>()?;
            let request = ScoreRequest {
                weights: Weights::Base,
                prompt: tokens,
                continuations,
                temperature: 1.0,
            };
            let scores = policy.score(request)?;
            let choices = texts
                .into_iter()
                .zip(scores)
                .map(|(text, scores)| Choice {
                    text,
                    logprob: scores.iter().sum(),
                })
                .collect();
            Answer::chosen(choices).ok_or_else(|| rl::Error::Refused {
                what: "the judge's prompt".to_owned(),
                why: "it allows no answer".to_owned(),
            })
        }
        AnswerForm::Text {
            max_tokens,
            stop,
            temperature,
        } => {
            let sampling = Sampling {
                temperature,
                seed,
                max_tokens,
                stop,
                ..Sampling::default()
            };
            let request = SampleRequest {
                weights: Weights::Base,
                prompt: tokens,
                sampling,
            };
            let mut flow = |_| {
                if given_up.is_set() {
                    TokenFlow::Stop
                } else {
                    TokenFlow::Continue
                }
            };
            let completion = policy.sample(request, &mut flow)?;
            Ok(Answer {
                text: completion.text,
                finish: completion.finish,
                choices: Vec::new(),
            })
        }
    }
}
