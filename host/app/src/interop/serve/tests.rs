//! A server of ours and clients that mean well or do not; the official client is in `tests/interop`.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use rl::{
    Action, Classification, Done, Environment, Episode, Error, Message, ModalityCard, NextState,
    Observation, Outcome, RequestView, Result, Seed, Step, TaskId, Turn, seam::conformance,
};
use serde_json::{Value, json};

use super::{Handle, Limits, Server};
use crate::interop::openenv;

/// Says a word; whoever repeats it scores 1. Two turns.
struct Parrot;

struct Word {
    word: String,
    turns: u32,
    right: bool,
}

impl Environment for Parrot {
    fn card(&self) -> ModalityCard {
        ModalityCard {
            name: "parrot".into(),
            version: "1.0".into(),
            tools: Vec::new(),
        }
    }

    fn classify(&self, _request: RequestView<'_>) -> Result<Classification> {
        Ok(Classification::Main)
    }

    fn next_state(&self, _turn: &Turn, _new: &[Message]) -> Result<Option<NextState>> {
        Ok(None)
    }

    fn session_ends(&self, _messages: &[Message]) -> Result<bool> {
        Ok(false)
    }

    fn tasks(&self, split: &str) -> Result<Vec<TaskId>> {
        match split {
            "train" => Ok(vec!["kea".into(), "macaw".into()]),
            "held-out" => Ok(vec!["kakapo".into()]),
            _ => Err(Error::Refused {
                what: "parrot".into(),
                why: "no such split".into(),
            }),
        }
    }

    fn start(&self, task: &TaskId, _seed: Seed) -> Result<Box<dyn Episode>> {
        Ok(Box::new(Word {
            word: task.to_string(),
            turns: 0,
            right: false,
        }))
    }
}

impl Episode for Word {
    fn observe(&mut self) -> Result<Observation> {
        Ok(Observation {
            messages: vec![Message::user(format!("Say {}.", self.word))],
        })
    }

    fn act(&mut self, action: &Action) -> Result<Step> {
        self.turns += 1;
        self.right |= action.message.content == self.word;
        Ok(Step {
            observation: Observation {
                messages: vec![Message::user("Again.")],
            },
            done: (self.turns == 2).then_some(Done::Finished),
        })
    }

    fn outcome(&mut self) -> Result<Option<Outcome>> {
        Ok(Some(Outcome {
            score: f64::from(u8::from(self.right)),
            metrics: Vec::new(),
        }))
    }

    fn snapshot(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// A server of parrots, stopped when dropped.
struct Hosted(Handle);

impl Hosted {
    fn new(limits: Limits) -> Self {
        let any = "127.0.0.1:0".parse().unwrap();
        let server = Server::bind(any, Arc::new(Parrot), limits).unwrap();
        let handle = server.handle();
        thread::spawn(move || server.run());
        Self(handle)
    }

    fn addr(&self) -> SocketAddr {
        self.0.addr()
    }

    /// The status and the body of the answer to a request as it stands.
    fn raw(&self, request: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.addr()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    fn post(&self, route: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let length = body.len();
        self.raw(&format!(
            "POST {route} HTTP/1.1\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
    }

    fn get(&self, route: &str) -> (u16, Value) {
        self.raw(&format!("GET {route} HTTP/1.1\r\n\r\n"))
    }

    fn remote(&self, section: &str) -> openenv::Remote {
        let address = format!("http://{}", self.addr());
        openenv::open(&address, &section.parse().unwrap()).unwrap()
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn say(text: &str) -> Action {
    Action {
        message: Message::assistant(text),
        truncated: false,
    }
}

#[test]
fn what_is_hosted_here_is_an_environment_there() {
    let hosted = Hosted::new(Limits::default());
    let remote = hosted.remote("");
    assert_eq!(remote.card().name, "openenv/parrot");
    conformance::environment(&remote, "train").unwrap();
    // Seed 1 is the second task: macaw.
    let mut episode = remote.start(&"seed-1".into(), Seed::new(5)).unwrap();
    let first = episode.observe().unwrap().messages;
    assert!(first[0].content.ends_with("Say macaw."), "{first:?}");
    assert_eq!(episode.outcome().unwrap(), None);
    assert_eq!(episode.act(&say("macaw")).unwrap().done, None);
    assert_eq!(episode.outcome().unwrap(), None);
    let last = episode.act(&say("x")).unwrap();
    assert_eq!(last.done, Some(Done::Finished));
    assert_eq!(episode.outcome().unwrap().unwrap().score, 1.0);
}

#[test]
fn a_reset_table_chooses_the_split_there_and_max_turns_ends_an_episode_here() {
    let hosted = Hosted::new(Limits::default());
    let remote = hosted.remote("max-turns = 1\nreset = { split = \"held-out\" }");
    let mut episode = remote.start(&"seed-3".into(), Seed::new(1)).unwrap();
    let first = episode.observe().unwrap().messages;
    assert!(first[0].content.ends_with("Say kakapo."), "{first:?}");
    let step = episode.act(&say("x")).unwrap();
    assert_eq!(step.done, Some(Done::TurnLimit));
}

#[test]
fn an_episode_over_http_is_known_by_its_name_until_it_is_over() {
    let hosted = Hosted::new(Limits::default());
    let (status, begun) = hosted.post("/reset", &json!({"task": "kea", "episode_id": "mine"}));
    assert_eq!(
        (status, &begun["observation"]["text"]),
        (200, &json!("Say kea."))
    );
    let step = json!({"action": {"message": "kea"}, "episode_id": "mine"});
    let (_, first) = hosted.post("/step", &step);
    assert_eq!(
        (&first["done"], &first["reward"]),
        (&json!(false), &Value::Null)
    );
    assert_eq!(first["metadata"]["score"], 1.0);
    let (_, state) = hosted.get("/state?episode_id=mine");
    assert_eq!(state["step_count"], 1);
    let (_, last) = hosted.post("/step", &step);
    assert_eq!(
        (&last["done"], &last["reward"]),
        (&json!(true), &json!(1.0))
    );
    assert_eq!(hosted.post("/step", &step).0, 404);
}

#[test]
fn what_cannot_be_answered_is_refused_with_the_reason() {
    let hosted = Hosted::new(Limits::default());
    let oversized = format!("POST /step HTTP/1.1\r\ncontent-length: {}\r\n\r\n", 2 << 20);
    for ((status, said), wanted, named) in [
        (hosted.get("/nothing"), 404, "no such route"),
        (hosted.post("/reset", &json!({"seed": "x"})), 422, "`seed`"),
        (
            hosted.post("/step", &json!({"action": {"message": ""}})),
            422,
            "episode_id",
        ),
        (hosted.post("/step", &json!({})), 422, "no object"),
        (hosted.post("/reset", &json!([])), 422, "no object"),
        (
            hosted.post("/reset", &json!({"split": "x"})),
            404,
            "no such split",
        ),
        (
            hosted.raw("POST /reset HTTP/1.1\r\ncontent-length: 1\r\n\r\n{"),
            400,
            "not JSON",
        ),
        (hosted.raw(&oversized), 413, "too long"),
        (
            hosted.raw("GET /health HTTP/1.1\r\norigin: http://evil.example\r\n\r\n"),
            403,
            "web pages",
        ),
    ] {
        assert_eq!(status, wanted, "{said}");
        assert!(said["detail"].as_str().unwrap().contains(named), "{said}");
    }
}

#[test]
fn its_tasks_can_be_listed() {
    let hosted = Hosted::new(Limits::default());
    assert_eq!(hosted.get("/list_environments").1, json!(["parrot"]));
    assert_eq!(hosted.get("/parrot/splits").1[1]["name"], "held-out");
    let split = json!({"split": "train"});
    assert_eq!(
        hosted.post("/parrot/tasks", &split).1["tasks"],
        json!(["kea", "macaw"])
    );
    assert_eq!(hosted.post("/parrot/num_tasks", &split).1["num_tasks"], 2);
}

#[test]
fn there_are_only_so_many_episodes_and_a_session_that_ends_gives_its_back() {
    let hosted = Hosted::new(Limits {
        episodes: 1,
        ..Limits::default()
    });
    let remote = hosted.remote("sessions = 2");
    let first = remote.start(&"seed-0".into(), Seed::new(1)).unwrap();
    let full = remote
        .start(&"seed-0".into(), Seed::new(1))
        .map(drop)
        .unwrap_err();
    assert!(
        full.is_retryable() && full.to_string().contains("1 of 1 episodes"),
        "{full}"
    );
    assert_eq!(hosted.post("/reset", &json!({})).0, 503);
    drop(first);
    drop(remote.start(&"seed-0".into(), Seed::new(1)).unwrap());
    // Named episodes that nobody plays hold their places, too.
    assert_eq!(hosted.post("/reset", &json!({"episode_id": "a"})).0, 200);
    assert_eq!(hosted.post("/reset", &json!({"episode_id": "b"})).0, 503);
}

#[test]
fn whoever_says_nothing_is_given_up() {
    let hosted = Hosted::new(Limits {
        episodes: 1,
        idle: Duration::from_millis(100),
        request: Duration::from_millis(100),
        ..Limits::default()
    });
    // A connection that sends half a request is closed.
    let mut half = TcpStream::connect(hosted.addr()).unwrap();
    half.write_all(b"GET /hea").unwrap();
    assert_eq!(half.read(&mut [0; 1]).unwrap(), 0);
    // A session that says nothing is closed, and its episode's place is free.
    let remote = hosted.remote("");
    let mut silent = remote.start(&"seed-0".into(), Seed::new(1)).unwrap();
    let free = (0..200).any(|_| {
        thread::park_timeout(Duration::from_millis(20));
        hosted.post("/reset", &json!({"episode_id": "named"})).0 == 200
    });
    assert!(free);
    assert!(silent.act(&say("late")).is_err());
    // A named episode that nobody plays makes room for another.
    let free = (0..200).any(|_| {
        thread::park_timeout(Duration::from_millis(20));
        hosted.post("/reset", &json!({"episode_id": "other"})).0 == 200
    });
    assert!(free);
}

#[test]
fn a_message_that_is_too_long_ends_its_session_and_no_other() {
    let hosted = Hosted::new(Limits {
        body_bytes: 4096,
        ..Limits::default()
    });
    let remote = hosted.remote("sessions = 2");
    let mut loud = remote.start(&"seed-0".into(), Seed::new(1)).unwrap();
    let mut quiet = remote.start(&"seed-0".into(), Seed::new(1)).unwrap();
    assert!(loud.act(&say(&"x".repeat(100_000))).is_err());
    quiet.act(&say("kea")).unwrap();
}

#[test]
fn other_machines_are_not_listened_to() {
    let all = "0.0.0.0:0".parse().unwrap();
    let error = Server::bind(all, Arc::new(Parrot), Limits::default()).unwrap_err();
    assert!(error.to_string().contains("proxy"), "{error}");
}
