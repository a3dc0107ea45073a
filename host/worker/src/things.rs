//! The host's side of what a worker's guest holds outside: machines and pages, by number.

use std::{
    collections::HashMap,
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use plugin::outside::{Account, Client, Machine, Outside, Page, Refusal, Store};
use rl::store::Session;
use serde::Serialize;
use serde_bytes::ByteBuf;

use crate::wire::{Ask, MachineAsk, PageAsk, StoreAsk, encode};

/// Most machines and pages that one episode, or one call on live traffic, holds at once. The plugin host's own limit is below.
const MOST: usize = 16;

/// No two machines or pages have one number: an instance that reads live traffic may remember one of an earlier call.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// What one episode, or one call on live traffic, holds. It goes when this is dropped, whatever the worker does.
pub(crate) struct Things {
    offers: Outside,
    /// Whether they are an episode's.
    hosted: bool,
    /// What has been asked of models; none before the first question.
    account: Option<Box<dyn Account>>,
    /// What has been asked over `http`; none before the first request.
    client: Option<Box<dyn Client>>,
    /// What its plugin stored. Attack: a worker that asks for another's; it names none, and gets that of its call.
    store: Option<Box<dyn Store>>,
    machines: HashMap<u64, Box<dyn Machine>>,
    pages: HashMap<u64, Box<dyn Page>>,
}

impl Things {
    pub(crate) fn new(offers: Outside, hosted: bool) -> Self {
        Self {
            offers,
            hosted,
            account: None,
            client: None,
            store: None,
            machines: HashMap::new(),
            pages: HashMap::new(),
        }
    }

    /// The same with what its plugin stored.
    pub(crate) fn lending(mut self, session: Option<Session>) -> Self {
        let stores = self.offers.store.as_ref();
        self.store = session
            .zip(stores)
            .map(|(session, stores)| stores.open(session));
        self
    }

    /// Whether an ask gives back what is held: always allowed, and as often as there are things.
    pub(crate) fn frees(&self, ask: &Ask) -> bool {
        let held = |number| self.machines.contains_key(number) || self.pages.contains_key(number);
        matches!(ask, Ask::LetGo(number) if held(number))
    }

    /// Does what a guest asks for. Blocks as long as that takes.
    pub(crate) fn answer(&mut self, ask: Ask) -> Result<ByteBuf, Refusal> {
        match ask {
            Ask::CreateMachine(image) => {
                let machines = self
                    .offers
                    .shell
                    .clone()
                    .ok_or_else(|| not_offered("shell"))?;
                let number = self.number()?;
                self.machines.insert(number, machines.create(&image)?);
                given(&number)
            }
            Ask::CreatePage => {
                let pages = self
                    .offers
                    .browser
                    .clone()
                    .ok_or_else(|| not_offered("browser"))?;
                let number = self.number()?;
                self.pages.insert(number, pages.create()?);
                given(&number)
            }
            Ask::Machine(number, ask) => {
                let machine = self.machines.get_mut(&number).ok_or_else(gone)?;
                on_machine(machine.as_mut(), ask)
            }
            Ask::Page(number, ask) => {
                let page = self.pages.get_mut(&number).ok_or_else(gone)?;
                on_page(page.as_mut(), ask)
            }
            Ask::Complete(request) => given(&self.account()?.complete(request)?),
            Ask::Fetch(request) => given(&self.client()?.fetch(request)?),
            Ask::Store(ask) => {
                let store = self.store.as_mut().ok_or_else(|| not_offered("store"))?;
                on_store(store.as_mut(), ask)
            }
            Ask::LetGo(number) => {
                drop((self.machines.remove(&number), self.pages.remove(&number)));
                given(&())
            }
        }
    }

    /// Attack: a budget is an episode's, and a worker that asks during live traffic would have a fresh one each time.
    fn account(&mut self) -> Result<&mut Box<dyn Account>, Refusal> {
        let offered = self.offers.model.as_ref().filter(|_| self.hosted);
        let models = offered.ok_or_else(|| not_offered("model"))?;
        Ok(self.account.get_or_insert_with(|| models.account()))
    }

    fn client(&mut self) -> Result<&mut Box<dyn Client>, Refusal> {
        let network = self.offers.http.as_ref();
        let network = network.ok_or_else(|| not_offered("http"))?;
        Ok(self.client.get_or_insert_with(|| network.client()))
    }

    /// The next number. Attack: a worker that is in its guest's hands counts nothing.
    fn number(&mut self) -> Result<u64, Refusal> {
        if self.machines.len() + self.pages.len() >= MOST {
            let why = format!("{MOST} machines and pages are held already");
            return Err(Refusal::Failed(why));
        }
        Ok(NUMBERS.fetch_add(1, Ordering::Relaxed))
    }
}

fn not_offered(what: &str) -> Refusal {
    Refusal::Unsupported(format!("this host offers no {what}"))
}

fn gone() -> Refusal {
    Refusal::Failed("it is gone: what a call on live traffic holds goes with the call, what an episode holds with the episode".into())
}

fn given(value: &impl Serialize) -> Result<ByteBuf, Refusal> {
    let failed = |error: io::Error| Refusal::Failed(error.to_string());
    encode(value).map(ByteBuf::from).map_err(failed)
}

fn on_machine(machine: &mut dyn Machine, ask: MachineAsk) -> Result<ByteBuf, Refusal> {
    match ask {
        MachineAsk::Run {
            command,
            folder,
            timeout,
        } => given(&machine.run(&command, &folder, timeout)?),
        MachineAsk::WriteFile {
            path,
            content,
            executable,
        } => {
            machine.write_file(&path, &content, executable)?;
            given(&())
        }
        MachineAsk::ReadFile(path) => given(&machine.read_file(&path)?.map(ByteBuf::from)),
        MachineAsk::Snapshot => given(&machine.snapshot()?),
        MachineAsk::RollBack(snapshot) => {
            machine.roll_back(snapshot)?;
            given(&())
        }
        MachineAsk::Changes(since) => given(&machine.changes(since)?),
    }
}

fn on_store(store: &mut dyn Store, ask: StoreAsk) -> Result<ByteBuf, Refusal> {
    match ask {
        StoreAsk::Get(key) => return given(&store.get(&key)?.map(ByteBuf::from)),
        StoreAsk::Keys(prefix) => return given(&store.keys(&prefix)?),
        StoreAsk::Put(key, value) => store.put(&key, &value)?,
        StoreAsk::Remove(key) => store.remove(&key)?,
    }
    given(&())
}

fn on_page(page: &mut dyn Page, ask: PageAsk) -> Result<ByteBuf, Refusal> {
    match ask {
        PageAsk::Show(html) => page.show(&html)?,
        PageAsk::Open(site, path) => page.open(&site, &path)?,
        PageAsk::Act(gesture) => page.act(gesture)?,
        PageAsk::Tree => return given(&page.tree()?),
        PageAsk::EvaluateJson(script) => return given(&page.evaluate_json(&script)?),
        PageAsk::ScreenshotPng => return given(&ByteBuf::from(page.screenshot_png()?)),
    }
    given(&())
}

#[cfg(test)]
mod tests {
    use plugin::outside::{Completion, CompletionRequest, Models};

    use super::*;

    struct Nobody;

    impl Models for Nobody {
        fn account(&self) -> Box<dyn Account> {
            Box::new(Self)
        }
    }

    impl Account for Nobody {
        fn complete(&mut self, _: CompletionRequest) -> Result<Completion, Refusal> {
            Err(Refusal::Failed("asked".into()))
        }
    }

    #[test]
    fn a_model_is_an_episodes_to_ask() {
        let request = || CompletionRequest {
            model: "user".into(),
            messages: Vec::new(),
            max_tokens: 1,
            temperature: 0.0,
            stop: Vec::new(),
            seed: rl::Seed::new(1),
        };
        let asked = |hosted| {
            let offers = Outside {
                model: Some(std::sync::Arc::new(Nobody)),
                ..Outside::default()
            };
            let mut things = Things::new(offers, hosted);
            things
                .answer(Ask::Complete(request()))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(asked(true), "asked");
        assert_eq!(asked(false), "this host offers no model");
    }
}
