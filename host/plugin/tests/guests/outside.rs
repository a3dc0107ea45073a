//! Machines, pages and models in a guest's hands: what counts as its time, what it may hold, and what it is told. What is here is
//! made of nothing; the sandbox's own withstand more than a guest can ask for, and are tested where they are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::park_timeout,
    time::{Duration, Instant},
};

use bundled::fixtures::REACHING;
use plugin::{
    GuestEnvironment, Limits, PluginHost,
    outside::{
        Account, ChangeKind, Completion, CompletionRequest, Ending, Gesture, Machine, Machines,
        Models, Node, Output, Outside, Page, Pages, Refusal,
    },
};
use rl::{Action, Environment, FinishReason, Message, RequestView, Seed, TaskId};

use crate::support::{load, words};

/// How long a command of these machines takes: longer than a guest's own time.
const COMMAND: Duration = Duration::from_millis(600);

/// Machines and pages of nothing, counted.
#[derive(Clone, Default)]
struct Nothing(Arc<AtomicUsize>);

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Machines for Nothing {
    fn create(&self, _: &str) -> Result<Box<dyn Machine>, Refusal> {
        Ok(Box::new(Counted::new(&self.0)))
    }
}

impl Pages for Nothing {
    fn create(&self) -> Result<Box<dyn Page>, Refusal> {
        Ok(Box::new(Counted::new(&self.0)))
    }
}

impl Machine for Counted {
    fn run(&mut self, command: &str, _: &str, _: Duration) -> Result<Output, Refusal> {
        park_timeout(COMMAND);
        Ok(Output {
            ending: Ending::Exited(0),
            stdout: command.to_owned(),
            stderr: String::new(),
            cut: false,
        })
    }
    fn write_file(&mut self, _: &str, _: &[u8], _: bool) -> Result<(), Refusal> {
        Ok(())
    }
    fn read_file(&mut self, path: &str) -> Result<Option<Vec<u8>>, Refusal> {
        Err(Refusal::Invalid(format!("{path} leads\u{1b}[2J outside")))
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

impl Models for Nothing {
    fn account(&self) -> Box<dyn Account> {
        Box::new(Counted::new(&self.0))
    }
}

impl Account for Counted {
    fn complete(&mut self, request: CompletionRequest) -> Result<Completion, Refusal> {
        if request.model != "user" {
            let why = format!("no model `{}`; there is: user", request.model);
            return Err(Refusal::Invalid(why));
        }
        let count = request.messages.len();
        Ok(Completion {
            text: format!("{count}/{:x}", request.seed.get()),
            finish: FinishReason::Stop,
            tokens: 3,
            left: 5,
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

/// What an episode of this task answers to its first action, and how many machines and pages are left while it lives.
fn act(nothing: &Nothing, task: &str) -> (rl::Result<String>, usize) {
    let offers = Outside {
        shell: Some(Arc::new(nothing.clone())),
        browser: Some(Arc::new(nothing.clone())),
        model: Some(Arc::new(nothing.clone())),
        ..Outside::default()
    };
    let host = PluginHost::with(limits(), offers).unwrap();
    answer(&host, nothing, task)
}

fn answer(host: &PluginHost, nothing: &Nothing, task: &str) -> (rl::Result<String>, usize) {
    let guest = load(host, REACHING, "").unwrap();
    let environment = GuestEnvironment::new(&guest, Seed::new(1)).unwrap();
    let mut episode = environment.start(&TaskId::new(task), Seed::new(1)).unwrap();
    let action = Action {
        message: Message::assistant("go"),
        truncated: false,
    };
    let said = episode
        .act(&action)
        .map(|step| step.observation.messages[0].content.clone());
    let held = nothing.0.load(Ordering::SeqCst);
    (said, held)
}

#[test]
fn time_outside_is_not_the_guests_own_and_has_a_limit_of_its_own() {
    let nothing = Nothing::default();
    let (said, held) = act(&nothing, "sleep");
    // 600 ms of a command, and 500 are allowed for itself.
    assert_eq!((said.unwrap(), held), ("sleep".to_owned(), 0));
    let said = words(act(&nothing, "sleep-forever").0);
    assert!(
        said.contains("stopped") && said.contains("time outside (ms)") && said.contains("of 1000"),
        "{said}"
    );
}

#[test]
fn a_guest_that_spins_after_a_command_gets_no_more_time_than_any_other() {
    let started = Instant::now();
    let said = words(act(&Nothing::default(), "sleep-then-spin").0);
    assert!(said.contains("time (ms)"), "{said}");
    // 600 outside, 500 of its own, and the rest for a busy machine; what was spent outside is not a credit.
    assert!(started.elapsed() < COMMAND + Duration::from_secs(2));
}

#[test]
fn a_guest_can_hold_few_machines_and_all_of_them_go_with_it() {
    let nothing = Nothing::default();
    let (said, _) = act(&nothing, "hoard");
    let said = words(said);
    assert!(
        said.contains("stopped") && said.contains("machines and pages held: 9 of 8"),
        "{said}"
    );
    assert_eq!(nothing.0.load(Ordering::SeqCst), 0, "none is left behind");
    let (said, held) = act(&nothing, "keep-one");
    assert_eq!((said.unwrap(), held), ("kept".to_owned(), 1));
    assert_eq!(
        nothing.0.load(Ordering::SeqCst),
        0,
        "it goes with its episode"
    );
}

#[test]
fn what_is_refused_is_a_fault_that_cannot_rewrite_a_terminal() {
    let said = words(act(&Nothing::default(), "too-long").0);
    assert!(
        said.contains("refused") && said.contains("time-out"),
        "{said}"
    );
    let said = words(act(&Nothing::default(), "elsewhere").0);
    assert!(said.contains("/etc/shadow leads"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said}");
}

#[test]
fn a_tree_comes_through_in_order() {
    let (said, held) = act(&Nothing::default(), "tree");
    assert_eq!((said.unwrap(), held), ("one two".to_owned(), 0));
}

#[test]
fn a_host_without_machines_says_so_in_a_fault() {
    let host = PluginHost::new(limits()).unwrap();
    let nothing = Nothing::default();
    for (task, what) in [
        ("sleep", "no shell"),
        ("tree", "no browser"),
        ("ask", "no model"),
    ] {
        let said = words(answer(&host, &nothing, task).0);
        assert!(said.contains("said no") && said.contains(what), "{said}");
    }
}

#[test]
fn a_model_is_asked_with_a_seed_of_the_episode_and_the_question() {
    let nothing = Nothing::default();
    let (said, held) = act(&nothing, "ask");
    let said = said.unwrap();
    let parts: Vec<_> = said.split(' ').collect();
    assert_eq!((parts.len(), parts[1], parts[2]), (6, "3", "5"), "{said}");
    assert_ne!(parts[0], parts[3], "two questions have two seeds");
    assert_eq!(
        act(&nothing, "ask").0.unwrap(),
        said,
        "and a replay the same"
    );
    // The account is the episode's, and goes with it.
    assert_eq!((held, nothing.0.load(Ordering::SeqCst)), (1, 0));
}

#[test]
fn what_no_model_should_be_asked_is_a_fault_that_says_what_is_allowed() {
    for (task, what) in [
        ("ask-nobody", "there is: user"),
        ("ask-too-much", "1 to 4096 are allowed"),
        ("ask-hotly", "0 to 2 are allowed"),
        ("ask-as-a-tool", "a message of a tool"),
    ] {
        let said = words(act(&Nothing::default(), task).0);
        assert!(said.contains("refused") && said.contains(what), "{said}");
    }
    let said = words(act(&Nothing::default(), "ask-for-ever").0);
    assert!(said.contains("stopped"), "{said}");
}

#[test]
fn live_traffic_asks_no_model() {
    let nothing = Nothing::default();
    let offers = Outside {
        model: Some(Arc::new(nothing.clone())),
        ..Outside::default()
    };
    let host = PluginHost::with(limits(), offers).unwrap();
    let guest = load(&host, REACHING, "").unwrap();
    let environment = GuestEnvironment::new(&guest, Seed::new(1)).unwrap();
    let messages = [Message::user("hello")];
    let view = RequestView {
        messages: &messages,
        tools: &[],
    };
    let said = words(environment.classify(view));
    assert!(said.contains("not for live traffic"), "{said}");
}

#[test]
fn a_machine_by_a_number_that_was_made_up_or_used_already_is_a_trap() {
    let nothing = Nothing::default();
    for task in ["forge", "drop-twice"] {
        let said = words(act(&nothing, task).0);
        assert!(
            said.contains("broke") && said.contains("handle"),
            "{task}: {said}"
        );
        assert_eq!(nothing.0.load(Ordering::SeqCst), 0, "{task}");
    }
}
