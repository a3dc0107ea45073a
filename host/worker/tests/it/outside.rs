//! Machines and pages of the host in the hands of a guest in a worker.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bundled::fixtures::REACHING;
use plugin::outside::{
    Account, ChangeKind, Client, Completion, CompletionRequest, Ending, Gesture, Machine, Machines,
    Models, Network, Node, Output, Outside, Page, Pages, Refusal, Request, Response,
};
use rl::{Environment as _, Episode, FinishReason, Message, RequestView, Seed, TaskId};
use worker::{SealedEnvironment, Workers};

use crate::rig::{config, given, program, reply};

/// Machines of nothing, counted.
#[derive(Clone, Default)]
struct Nothing(Arc<AtomicUsize>);

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Machines for Nothing {
    fn create(&self, _: &str) -> Result<Box<dyn Machine>, Refusal> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Counted(Arc::clone(&self.0))))
    }
}

impl Pages for Nothing {
    fn create(&self) -> Result<Box<dyn Page>, Refusal> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Counted(Arc::clone(&self.0))))
    }
}

impl Page for Counted {
    fn show(&mut self, _: &str) -> Result<(), Refusal> {
        Ok(())
    }
    fn open(&mut self, _: &str, _: &str) -> Result<(), Refusal> {
        Ok(())
    }
    fn tree(&mut self) -> Result<Vec<Node>, Refusal> {
        let named = |name: &str| Node {
            name: name.to_owned(),
            ..Node::default()
        };
        Ok(vec![named("one"), named("two")])
    }
    fn act(&mut self, _: Gesture) -> Result<(), Refusal> {
        Ok(())
    }
    fn evaluate_json(&mut self, _: &str) -> Result<String, Refusal> {
        Ok("null".into())
    }
    fn screenshot_png(&mut self) -> Result<Vec<u8>, Refusal> {
        Ok(Vec::new())
    }
}

impl Network for Nothing {
    fn client(&self) -> Box<dyn Client> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::new(Counted(Arc::clone(&self.0)))
    }
}

impl Client for Counted {
    fn fetch(&mut self, request: Request) -> Result<Response, Refusal> {
        Ok(Response {
            status: 200,
            headers: Vec::new(),
            body: request.url.into_bytes(),
        })
    }
}

impl Models for Nothing {
    fn account(&self) -> Box<dyn Account> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::new(Counted(Arc::clone(&self.0)))
    }
}

impl Account for Counted {
    fn complete(&mut self, request: CompletionRequest) -> Result<Completion, Refusal> {
        Ok(Completion {
            text: format!("to {}", request.messages.len()),
            finish: FinishReason::Stop,
            tokens: 3,
            left: 5,
        })
    }
}

impl Machine for Counted {
    fn run(&mut self, command: &str, _: &str, timeout: Duration) -> Result<Output, Refusal> {
        // Longer than the shortest limit of a test, so that host and worker both find it used up.
        std::thread::park_timeout(Duration::from_millis(5));
        Ok(Output {
            ending: Ending::Exited(0),
            stdout: format!(
                "{command} for {timeout:?} on {:?}",
                std::thread::current().id()
            ),
            stderr: String::new(),
            cut: false,
        })
    }
    fn write_file(&mut self, _: &str, _: &[u8], _: bool) -> Result<(), Refusal> {
        Ok(())
    }
    fn read_file(&mut self, path: &str) -> Result<Option<Vec<u8>>, Refusal> {
        Err(Refusal::Invalid(format!("{path} leads outside")))
    }
    fn snapshot(&mut self) -> Result<u32, Refusal> {
        Ok(0)
    }
    fn roll_back(&mut self, _: u32) -> Result<(), Refusal> {
        Ok(())
    }
    fn changes(&mut self, _: u32) -> Result<Vec<(String, ChangeKind)>, Refusal> {
        Ok(Vec::new())
    }
}

fn environment(nothing: &Nothing) -> SealedEnvironment {
    let offers = Outside {
        shell: Some(Arc::new(nothing.clone())),
        browser: Some(Arc::new(nothing.clone())),
        http: Some(Arc::new(nothing.clone())),
        model: Some(Arc::new(nothing.clone())),
        store: None,
    };
    let workers = Workers::start(given(REACHING, ""), offers, program(), config()).unwrap();
    SealedEnvironment::new(workers).unwrap()
}

fn begun(environment: &SealedEnvironment, task: &str) -> Box<dyn Episode> {
    environment.start(&TaskId::new(task), Seed::new(1)).unwrap()
}

fn said(episode: &mut dyn Episode) -> rl::Result<String> {
    let step = episode.act(&reply("go"))?;
    Ok(step.observation.messages[0].content.clone())
}

#[test]
fn a_guest_in_a_worker_reaches_what_it_was_granted_on_the_thread_that_plays_it() {
    let nothing = Nothing::default();
    let environment = environment(&nothing);
    let here = std::thread::current().id();
    // Recordings find an episode by its thread.
    assert_eq!(
        said(&mut *begun(&environment, "sleep")).unwrap(),
        format!("sleep for 1s on {here:?}")
    );
    assert_eq!(nothing.0.load(Ordering::SeqCst), 0, "it let go of it");
    let error = said(&mut *begun(&environment, "elsewhere"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("/etc/shadow leads outside"), "{error}");
    assert_eq!(said(&mut *begun(&environment, "tree")).unwrap(), "one two");
    let asked = said(&mut *begun(&environment, "ask")).unwrap();
    assert_eq!(asked, "to 1 3 5 to 1 3 5");
    let got = said(&mut *begun(&environment, "get https://a.test/b")).unwrap();
    assert_eq!(got, "200 [] https://a.test/b");
    // A budget is an episode's: traffic has none.
    let view = RequestView {
        messages: &[Message::user("hello")],
        tools: &[],
    };
    environment.classify(view).unwrap_err();
}

#[test]
fn a_guest_that_met_its_limit_outside_costs_its_worker_nothing() {
    let nothing = Nothing::default();
    let offers = Outside {
        shell: Some(Arc::new(nothing.clone())),
        ..Outside::default()
    };
    let mut hurried = given(REACHING, "");
    hurried.limits.outside_ms = 1;
    let workers = Workers::start(hurried, offers, program(), config()).unwrap();
    let environment = SealedEnvironment::new(workers).unwrap();
    let before = environment.workers().pid().unwrap();
    let error = said(&mut *begun(&environment, "sleep-forever")).unwrap_err();
    assert!(error.to_string().contains("time outside (ms)"), "{error}");
    assert_eq!(nothing.0.load(Ordering::SeqCst), 0);
    assert_eq!(environment.workers().pid().unwrap(), before);
}

#[test]
fn what_an_episode_holds_goes_with_it_or_with_its_worker() {
    let nothing = Nothing::default();
    let environment = environment(&nothing);
    let mut episode = begun(&environment, "keep-one");
    assert_eq!(said(&mut *episode).unwrap(), "kept");
    assert_eq!(nothing.0.load(Ordering::SeqCst), 1);
    drop(episode);
    assert_eq!(nothing.0.load(Ordering::SeqCst), 0);
    let mut hoard = begun(&environment, "hoard");
    let error = said(&mut *hoard).unwrap_err().to_string();
    assert!(error.contains("machines and pages held"), "{error}");
    drop(hoard);
    assert_eq!(nothing.0.load(Ordering::SeqCst), 0);
}
