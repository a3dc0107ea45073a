//! Hosted episodes: played to their end, judged like anybody's turns, and brought back after a restart.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use loops::{
    records::{EPISODE, EpisodeRecord, TURN, TurnRecord},
    rollout::{Assignment, Config, Event},
};
use parking_lot::Mutex;
use rl::{
    Agent, AgentReply, AgentRequest, Done, Message, PolicyVersion, Seed, TurnSink, seam::Transcript,
};
use tokio::runtime::Handle as Runtime;

use crate::rig::{Arithmetic, Rig, config, folder, request, serve};

/// The policy in process: replies `re: <last message>` through the sink.
pub(crate) struct InProcess {
    sink: Arc<dyn TurnSink>,
    policy: Arithmetic,
    runtime: Runtime,
    /// Calls that are answered before the agent is not available any more.
    patience: AtomicU32,
}

impl Agent for InProcess {
    fn reply(&self, asked: AgentRequest) -> rl::Result<AgentReply> {
        let left = self
            .patience
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left.is_err() {
            return Err(rl::Error::Failed {
                what: "agent".into(),
                why: "on purpose".into(),
            });
        }
        let last = asked
            .messages
            .last()
            .map(|m| m.content.clone())
            .unwrap_or_default();
        let message = Message::assistant(format!("re: {last}"));
        let request = request(asked.session.as_str(), asked.messages);
        let turn = self.runtime.block_on(serve(
            &*self.sink,
            request,
            message.clone(),
            self.policy.clone(),
        ));
        Ok(AgentReply {
            turn,
            message,
            truncated: false,
            version: PolicyVersion::BASE,
            tokens: 1,
        })
    }
}

pub(crate) fn agent(rig: &Rig, patience: u32) -> Arc<dyn Agent> {
    Arc::new(InProcess {
        sink: rig.sink(),
        policy: rig.policy.clone(),
        runtime: Runtime::current(),
        patience: patience.into(),
    })
}

fn environment() -> Arc<Transcript> {
    let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
    Arc::new(Transcript::new(vec![
        lines(&["hi", "thank you", "great"]),
        lines(&["hello", "That is wrong, please look again.", "nice"]),
    ]))
}

fn assignments() -> Vec<Assignment> {
    ["0", "1"]
        .map(|task| Assignment {
            episode: format!("episode-{task}").as_str().into(),
            task: task.into(),
            seed: Seed::new(7),
            group: None,
        })
        .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn episodes_are_played_to_their_end_and_their_last_turn_is_reacted_to() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let rollout = rig
        .handle
        .rollout(Config::default(), environment(), agent(&rig, 99))
        .unwrap();
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = events.clone();
    let (_stop, shutdown) = loops::shutdown();
    let watch = Arc::new(move |event| {
        seen.lock().push(match event {
            Event::Turn(played) => format!("{} {}", played.episode, played.reply.message.content),
            Event::Ended(record) => format!("{} ended", record.episode),
            Event::Failed { episode, error } => format!("{episode} failed: {error}"),
        });
    });
    let records = rollout
        .run(assignments(), shutdown.clone(), watch.clone())
        .await
        .unwrap();
    let turns: Vec<_> = records.iter().map(|r| (r.turns.len(), r.done)).collect();
    assert_eq!(
        turns,
        [(3, Some(Done::Finished)), (3, Some(Done::Finished))]
    );
    assert_eq!(events.lock().len(), 8);
    assert_eq!(events.lock()[0], "episode-0 re: hi");
    let status = rig.until(|s| s.judged == 4).await;
    assert_eq!(
        status.reacted, 4,
        "two reactions an episode; after the last line nothing comes"
    );
    assert_eq!(rig.handle.serve().sessions(), 0);
    // Playing the same episodes again plays nothing.
    let again = rollout.run(assignments(), shutdown, watch).await.unwrap();
    assert_eq!(again, records);
    assert_eq!(rig.records::<EpisodeRecord>(EPISODE).len(), 2);
    drop(rollout);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_episode_that_the_host_cuts_short_still_gives_its_last_turn_what_came_back() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let cut = Config {
        max_turns: 1,
        ..Config::default()
    };
    let rollout = rig
        .handle
        .rollout(cut, environment(), agent(&rig, 99))
        .unwrap();
    let (_stop, shutdown) = loops::shutdown();
    let records = rollout
        .run(assignments(), shutdown, Arc::new(|_| {}))
        .await
        .unwrap();
    assert!(
        records
            .iter()
            .all(|r| r.turns.len() == 1 && r.done.is_none())
    );
    let status = rig.until(|s| s.judged == 2).await;
    assert_eq!(
        status.reacted, 2,
        "a reaction that had come was thrown away"
    );
    drop(rollout);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_episode_goes_on_after_a_restart_with_the_turns_it_had() {
    let dir = folder();
    let watch = Arc::new(|_| {});
    let (_stop, shutdown) = loops::shutdown();
    let rig = Rig::start(dir.path(), config());
    let rollout = rig
        .handle
        .rollout(Config::default(), environment(), agent(&rig, 2))
        .unwrap();
    let first = assignments().remove(0);
    let played = rollout
        .run(vec![first.clone()], shutdown.clone(), watch.clone())
        .await
        .unwrap();
    assert!(played.is_empty(), "the agent failed in the third turn");
    drop(rollout);
    rig.kill().await;
    let rig = Rig::start(dir.path(), config());
    let rollout = rig
        .handle
        .rollout(Config::default(), environment(), agent(&rig, 99))
        .unwrap();
    let records = rollout.run(vec![first], shutdown, watch).await.unwrap();
    assert_eq!(records[0].turns.len(), 3);
    assert_eq!(
        rig.records::<TurnRecord>(TURN).len(),
        3,
        "no turn was played twice"
    );
    drop(rollout);
    rig.stop().await;
}
