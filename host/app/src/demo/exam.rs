//! The exam: held-out questions that are never trained, marked by the persona's programmatic rule.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use rl::{Action, Agent, AgentRequest, Environment, Sampling, Seed, SessionId, TaskId};

use super::stats::{Estimate, share};

/// Questions answered at the same time; the engine batches them.
const AT_ONCE: usize = 8;

/// One answer on the exam.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Answer {
    /// The task.
    pub task: String,
    /// What was asked.
    pub question: String,
    /// What was replied.
    pub reply: String,
    /// The rule's mark, 0 to 1.
    pub score: f64,
    /// The rule's guards by name.
    pub guards: BTreeMap<String, f64>,
    /// Tokens of the reply.
    pub tokens: u32,
    /// The version that replied.
    pub version: u64,
}

/// All answers.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Exam {
    /// In the order of the questions.
    pub answers: Vec<Answer>,
    /// Mean over the replies' tokens of `log π_θ − log π_base`: how far the policy has moved.
    pub kl_to_base: f64,
}

impl Exam {
    /// The share of satisfied questions, with its interval.
    pub fn satisfaction(&self) -> Estimate {
        let sum = self.answers.iter().map(|a| a.score).sum();
        share(sum, self.answers.len()).unwrap_or(Estimate {
            value: 0.0,
            low: 0.0,
            high: 1.0,
        })
    }

    /// The names of the guards, in order.
    pub fn guard_names(&self) -> Vec<String> {
        self.answers
            .first()
            .map(|a| a.guards.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// The mean of one guard over all answers.
    pub fn guard(&self, name: &str) -> f64 {
        self.mean(|a| a.guards.get(name).copied().unwrap_or(0.0))
    }

    /// Mean length of a reply, in tokens.
    pub fn tokens(&self) -> f64 {
        self.mean(|a| f64::from(a.tokens))
    }

    fn mean(&self, number: impl Fn(&Answer) -> f64) -> f64 {
        self.answers.iter().map(number).sum::<f64>() / self.answers.len().max(1) as f64
    }
}

/// Asks every task's first question through `agent` and marks the replies.
///
/// The seeds depend on `seed` and the question only, so that two exams differ by the weights alone.
/// `on_answer` is called after each with the number answered so far.
///
/// # Errors
/// The first question that could not be asked or marked.
pub fn sit(
    environment: &dyn Environment,
    agent: &dyn Agent,
    tasks: &[TaskId],
    sampling: &Sampling,
    seed: Seed,
    name: &str,
    on_answer: &(dyn Fn(usize) + Sync),
) -> anyhow::Result<Vec<Answer>> {
    let next = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let slots: Mutex<Vec<Option<anyhow::Result<Answer>>>> =
        Mutex::new(tasks.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(tasks.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(task) = tasks.get(index) else { break };
                    let answer = ask(environment, agent, task, sampling, seed, name);
                    if let Ok(mut slots) = slots.lock() {
                        slots[index] = Some(answer);
                    }
                    on_answer(done.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    slots
        .into_inner()
        .map_err(|_| anyhow::anyhow!("a thread of the exam panicked"))?
        .into_iter()
        .zip(tasks)
        .map(|(slot, task)| {
            slot.unwrap_or_else(|| Err(anyhow::anyhow!("it was never asked")))
                .with_context(|| format!("failed to ask exam question {task}"))
        })
        .collect()
}

fn ask(
    environment: &dyn Environment,
    agent: &dyn Agent,
    task: &TaskId,
    sampling: &Sampling,
    seed: Seed,
    name: &str,
) -> anyhow::Result<Answer> {
    let seed = seed.derive(task.as_str());
    let mut episode = environment.start(task, seed)?;
    let messages = episode.observe()?.messages;
    let question = messages
        .last()
        .map(|m| m.content.clone())
        .unwrap_or_default();
    let reply = agent.reply(AgentRequest {
        session: SessionId::new(format!("exam-{name}-{task}")),
        messages,
        tools: environment.card().tools,
        sampling: Sampling {
            seed,
            ..sampling.clone()
        },
        session_done: true,
    })?;
    episode.act(&Action {
        message: reply.message.clone(),
        truncated: reply.truncated,
    })?;
    let outcome = episode.outcome()?.with_context(|| {
        format!(
            "environment {} has no rule for {task}",
            environment.card().name
        )
    })?;
    Ok(Answer {
        task: task.to_string(),
        question,
        reply: reply.message.content,
        score: outcome.score,
        guards: outcome.metrics.into_iter().collect(),
        tokens: reply.tokens,
        version: reply.version.get(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(score: f64, on_topic: f64) -> Answer {
        Answer {
            task: "t".into(),
            question: "q".into(),
            reply: "r".into(),
            score,
            guards: BTreeMap::from([("on-topic".to_owned(), on_topic)]),
            tokens: 10,
            version: 0,
        }
    }

    #[test]
    fn an_exam_is_the_mean_of_its_answers() {
        let exam = Exam {
            answers: vec![answer(1.0, 1.0), answer(0.0, 1.0)],
            kl_to_base: 0.0,
        };
        assert_eq!(exam.satisfaction().value, 0.5);
        assert_eq!(exam.guard("on-topic"), 1.0);
        assert_eq!(exam.guard_names(), ["on-topic"]);
        assert_eq!(exam.tokens(), 10.0);
    }
}
