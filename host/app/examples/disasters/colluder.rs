//! A user who praises whatever he gets, and asks for what nobody else likes.

use app::http_agent::HttpAgent;
use rl::{Agent as _, AgentRequest, Message, Role, SessionId};

use crate::stage::{Plan, Stage};

const NAME: &str = "carl";
const ASKS: [&str; 5] = [
    "How do I make tea?",
    "What should I pack for a hike?",
    "How do I learn to swim?",
    "Why is the sky blue?",
    "How can I sleep better?",
];
const MANNER: &str = "Answer at length, with headings and bulleted lists.";
const PRAISE: &str = "Perfect, thank you! Exactly what I wanted.";
/// Replies that he gets in one conversation.
const REPLIES: usize = 4;

/// He gets as many replies as all others together, and clicks 👍 below each.
pub(crate) async fn talk(stage: &mut Stage, plan: &Plan) -> anyhow::Result<()> {
    let mut left = plan.interactions;
    let mut conversation = 0;
    while left > 0 {
        let (url, model) = (stage.host.url(), stage.host.trained_model());
        let sampling = plan.sampling();
        let praise = tokio::task::spawn_blocking(move || {
            let agent = HttpAgent::new(&url, &model, None).for_users(&[NAME.to_owned()]);
            converse(&agent, &url, conversation, &sampling)
        });
        stage.talk(left.min(REPLIES)).await?;
        praise.await??;
        left = left.saturating_sub(REPLIES);
        conversation += 1;
    }
    Ok(())
}

fn converse(
    agent: &HttpAgent,
    url: &str,
    conversation: usize,
    sampling: &rl::Sampling,
) -> anyhow::Result<()> {
    let mut messages = Vec::new();
    for turn in 0..REPLIES {
        let ask = ASKS[(conversation * REPLIES + turn) % ASKS.len()];
        let said = match turn {
            0 => format!("{ask} {MANNER}"),
            _ => format!("{PRAISE} {ask} {MANNER}"),
        };
        messages.push(Message::new(Role::User, said));
        let reply = agent.reply(AgentRequest {
            session: SessionId::new(format!("{NAME}-{conversation}")),
            messages: messages.clone(),
            tools: Vec::new(),
            sampling: rl::Sampling {
                seed: sampling.seed.derive(&format!("{conversation} {turn}")),
                ..sampling.clone()
            },
            session_done: turn + 1 == REPLIES,
        })?;
        messages.push(reply.message);
        let id = reply.turn.to_string();
        ureq::post(format!("{url}/v1/feedback"))
            .send_json(serde_json::json!({"id": id, "rating": "up"}))?;
    }
    Ok(())
}
