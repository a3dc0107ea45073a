//! The worker's side of what its guest asks for outside: it asks the host, under the number of the call that runs on this thread.

use std::{cell::RefCell, sync::Arc, time::Duration};

use crossbeam_channel::Receiver;
use plugin::{
    Capability,
    outside::{
        Account, ChangeKind, Client, Completion, CompletionRequest, Gesture, Machine, Machines,
        Models, Network, Node, Output, Outside, Page, Pages, Refusal, Request, Response, Store,
        Stores,
    },
};
use rl::store::Session;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

use crate::{
    child::Link,
    wire::{Ask, FromWorker, MachineAsk, PageAsk, StoreAsk, decode},
};

/// What the host says to an ask.
pub(crate) type Got = Result<ByteBuf, Refusal>;

/// The call that runs on a thread.
pub(crate) struct Current {
    pub(crate) link: Arc<Link>,
    pub(crate) id: u64,
    pub(crate) got: Receiver<Got>,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// Says which call runs on this thread, until the next word.
pub(crate) fn set(current: Option<Current>) {
    CURRENT.set(current);
}

/// What the host offers, by name, as its guest sees it.
pub(crate) fn outside(offers: &[Capability]) -> Outside {
    let offered = |capability| offers.contains(&capability);
    Outside {
        shell: offered(Capability::Shell).then(|| Arc::new(Remote) as Arc<dyn Machines>),
        browser: offered(Capability::Browser).then(|| Arc::new(Remote) as Arc<dyn Pages>),
        http: offered(Capability::Http).then(|| Arc::new(Remote) as Arc<dyn Network>),
        model: offered(Capability::Model).then(|| Arc::new(Remote) as Arc<dyn Models>),
        store: offered(Capability::Store).then(|| Arc::new(Remote) as Arc<dyn Stores>),
    }
}

fn ask<T: DeserializeOwned>(ask: Ask) -> Result<T, Refusal> {
    let failed = |why: &str| Refusal::Failed(why.to_owned());
    CURRENT.with_borrow(|current| {
        let current = current
            .as_ref()
            .ok_or_else(|| failed("no call is under way"))?;
        let id = current.id;
        let sent = current.link.send(&FromWorker::Ask { id, ask });
        sent.map_err(|error| failed(&error.to_string()))?;
        let got = current.got.recv().map_err(|_| failed("the host is gone"))?;
        decode(&got?).map_err(|error| failed(&error.to_string()))
    })
}

struct Remote;

impl Machines for Remote {
    fn create(&self, image: &str) -> Result<Box<dyn Machine>, Refusal> {
        Ok(Box::new(Thing(ask(Ask::CreateMachine(image.to_owned()))?)))
    }
}

impl Pages for Remote {
    fn create(&self) -> Result<Box<dyn Page>, Refusal> {
        Ok(Box::new(Thing(ask(Ask::CreatePage)?)))
    }
}

impl Models for Remote {
    fn account(&self) -> Box<dyn Account> {
        Box::new(Remote)
    }
}

impl Network for Remote {
    fn client(&self) -> Box<dyn Client> {
        Box::new(Remote)
    }
}

impl Client for Remote {
    fn fetch(&mut self, request: Request) -> Result<Response, Refusal> {
        ask(Ask::Fetch(request))
    }
}

impl Account for Remote {
    fn complete(&mut self, request: CompletionRequest) -> Result<Completion, Refusal> {
        ask(Ask::Complete(request))
    }
}

impl Stores for Remote {
    /// The session that counts is the host's: what is opened here is nothing.
    fn open(&self, _: Session) -> Box<dyn Store> {
        Box::new(Remote)
    }
}

impl Store for Remote {
    fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, Refusal> {
        let value: Option<ByteBuf> = ask(Ask::Store(StoreAsk::Get(key.to_owned())))?;
        Ok(value.map(ByteBuf::into_vec))
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), Refusal> {
        let value = ByteBuf::from(value);
        ask(Ask::Store(StoreAsk::Put(key.to_owned(), value)))
    }

    fn remove(&mut self, key: &str) -> Result<(), Refusal> {
        ask(Ask::Store(StoreAsk::Remove(key.to_owned())))
    }

    fn keys(&mut self, prefix: &str) -> Result<Vec<String>, Refusal> {
        ask(Ask::Store(StoreAsk::Keys(prefix.to_owned())))
    }
}

/// A machine or a page, by its number.
struct Thing(u64);

impl Drop for Thing {
    fn drop(&mut self) {
        // Without a call under way the episode is over, and the host has let go of it by itself.
        if CURRENT.with_borrow(Option::is_some) {
            let _ = ask::<()>(Ask::LetGo(self.0));
        }
    }
}

impl Thing {
    fn machine<T: DeserializeOwned>(&self, what: MachineAsk) -> Result<T, Refusal> {
        ask(Ask::Machine(self.0, what))
    }

    fn page<T: DeserializeOwned>(&self, what: PageAsk) -> Result<T, Refusal> {
        ask(Ask::Page(self.0, what))
    }
}

impl Machine for Thing {
    fn run(&mut self, command: &str, folder: &str, timeout: Duration) -> Result<Output, Refusal> {
        self.machine(MachineAsk::Run {
            command: command.to_owned(),
            folder: folder.to_owned(),
            timeout,
        })
    }

    fn write_file(&mut self, path: &str, content: &[u8], executable: bool) -> Result<(), Refusal> {
        self.machine(MachineAsk::WriteFile {
            path: path.to_owned(),
            content: ByteBuf::from(content),
            executable,
        })
    }

    fn read_file(&mut self, path: &str) -> Result<Option<Vec<u8>>, Refusal> {
        let content: Option<ByteBuf> = self.machine(MachineAsk::ReadFile(path.to_owned()))?;
        Ok(content.map(ByteBuf::into_vec))
    }

    fn snapshot(&mut self) -> Result<u32, Refusal> {
        self.machine(MachineAsk::Snapshot)
    }

    fn roll_back(&mut self, snapshot: u32) -> Result<(), Refusal> {
        self.machine(MachineAsk::RollBack(snapshot))
    }

    fn changes(&mut self, since: u32) -> Result<Vec<(String, ChangeKind)>, Refusal> {
        self.machine(MachineAsk::Changes(since))
    }
}

impl Page for Thing {
    fn show(&mut self, html: &str) -> Result<(), Refusal> {
        self.page(PageAsk::Show(html.to_owned()))
    }

    fn open(&mut self, site: &str, path: &str) -> Result<(), Refusal> {
        self.page(PageAsk::Open(site.to_owned(), path.to_owned()))
    }

    fn tree(&mut self) -> Result<Vec<Node>, Refusal> {
        self.page(PageAsk::Tree)
    }

    fn act(&mut self, gesture: Gesture) -> Result<(), Refusal> {
        self.page(PageAsk::Act(gesture))
    }

    fn evaluate_json(&mut self, script: &str) -> Result<String, Refusal> {
        self.page(PageAsk::EvaluateJson(script.to_owned()))
    }

    fn screenshot_png(&mut self) -> Result<Vec<u8>, Refusal> {
        let png: ByteBuf = self.page(PageAsk::ScreenshotPng)?;
        Ok(png.into_vec())
    }
}
