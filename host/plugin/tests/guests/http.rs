//! Requests over HTTP in a guest's hands: what is handed over, what is counted, and what a refusal becomes. The network here is a
//! list of answers; the real one withstands more than a guest can ask for, and is tested where it is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::park_timeout,
    time::Duration,
};

use bundled::fixtures::REACHING;
use plugin::{
    GuestEnvironment, Limits, PluginHost,
    outside::{Client, Network, Outside, Refusal, Request, Response},
};
use rl::{Action, Classification, Environment, Message, RequestView, Seed, TaskId};

use crate::support::{load, words};

/// Answers by the URL; every client has two requests, and all of them are counted.
#[derive(Clone, Default)]
struct Scripted {
    clients: Arc<AtomicUsize>,
}

struct Two(usize);

impl Network for Scripted {
    fn client(&self) -> Box<dyn Client> {
        self.clients.fetch_add(1, Ordering::SeqCst);
        Box::new(Two(2))
    }
}

impl Client for Two {
    fn fetch(&mut self, request: Request) -> Result<Response, Refusal> {
        let sent = format!("{request:?}");
        self.0 = self
            .0
            .checked_sub(1)
            .ok_or_else(|| Refusal::Invalid("2 requests were made".to_owned()))?;
        match request.url.as_str() {
            "slow" => {
                park_timeout(Duration::from_millis(400));
                self.0 = 2;
            }
            "elsewhere" => return Err(Refusal::Invalid("not\u{1b}[2J listed".to_owned())),
            "broken" => return Err(Refusal::Failed("the connection broke".to_owned())),
            _ => {}
        }
        Ok(Response {
            status: 418,
            headers: vec![("x-a".to_owned(), "1".to_owned())],
            body: sent.into_bytes(),
        })
    }
}

fn limits() -> Limits {
    Limits {
        call_ms: 500,
        outside_ms: 1_000,
        instances: 16,
        ..Limits::default()
    }
}

/// What an episode of this task answers to each of its actions.
fn answers(offers: Outside, task: &str, actions: usize) -> Vec<rl::Result<String>> {
    let host = PluginHost::with(limits(), offers).unwrap();
    let guest = load(&host, REACHING, "").unwrap();
    let environment = GuestEnvironment::new(&guest, Seed::new(1)).unwrap();
    let mut episode = environment.start(&TaskId::new(task), Seed::new(1)).unwrap();
    let action = Action {
        message: Message::assistant("go"),
        truncated: false,
    };
    let mut act = || {
        let step = episode.act(&action)?;
        Ok(step.observation.messages[0].content.clone())
    };
    (0..actions).map(|_| act()).collect()
}

fn offering(network: &Scripted) -> Outside {
    Outside {
        http: Some(Arc::new(network.clone())),
        ..Outside::default()
    }
}

fn answer(task: &str) -> rl::Result<String> {
    answers(offering(&Scripted::default()), task, 1).remove(0)
}

#[test]
fn a_request_and_its_answer_come_through_whole() {
    let said = answer("get https://a.example/b?c").unwrap();
    let sent = "Request { method: Get, url: \"https://a.example/b?c\", headers: [], body: None }";
    assert_eq!(said, format!("418 [x-a: 1] {sent}"));
    let said = answer("get-as-admin x").unwrap();
    assert!(
        said.contains("headers: [(\"Authorization\", \"Bearer mine\")]"),
        "{said}"
    );
}

#[test]
fn what_is_refused_and_what_broke_are_faults_of_their_own_kinds() {
    let said = words(answer("get elsewhere"));
    assert!(
        said.contains("refused the call") && said.contains("listed"),
        "{said}"
    );
    assert!(!said.contains('\u{1b}'), "{said}");
    let said = words(answer("get broken"));
    assert!(said.contains("the connection broke"), "{said}");
    let said = words(answers(Outside::default(), "get x", 1).remove(0));
    assert!(said.contains("no http"), "{said}");
}

#[test]
fn the_requests_of_an_episode_are_counted_together_and_those_of_another_apart() {
    let network = Scripted::default();
    for _ in 0..2 {
        let said = answers(offering(&network), "get x", 3);
        assert!(said[0].is_ok() && said[1].is_ok());
        assert!(words(said.into_iter().next_back().unwrap()).contains("2 requests were made"));
    }
    assert_eq!(network.clients.load(Ordering::SeqCst), 2);
}

#[test]
fn the_requests_of_live_traffic_are_counted_a_call() {
    let host = PluginHost::with(limits(), offering(&Scripted::default())).unwrap();
    let guest = load(&host, REACHING, "").unwrap();
    let environment = GuestEnvironment::new(&guest, Seed::new(1)).unwrap();
    let request = RequestView {
        messages: &[],
        tools: &[],
    };
    // The instance is the same, and has two requests.
    for _ in 0..4 {
        let line = environment.classify(request).unwrap();
        assert_eq!(line, Classification::Main);
    }
}

#[test]
fn waiting_for_a_server_is_time_outside_and_has_its_limit() {
    // 400 ms a request, and 500 are allowed for itself.
    let said = words(answer("get-forever slow"));
    assert!(
        said.contains("stopped") && said.contains("time outside (ms)"),
        "{said}"
    );
}

#[test]
fn a_guest_hands_over_no_more_than_its_output_may_be() {
    let task = format!("get-large {}", "x".repeat(50));
    let said = words(answer(&task));
    assert!(
        said.contains("stopped") && said.contains("output (bytes)"),
        "{said}"
    );
}
