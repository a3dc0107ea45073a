//! Clients with a table in place of DNS.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use sandbox::{
    Error, Result,
    http::{Client, Config, Host, Method, Request, Response, Session, Surroundings},
};

/// What the environment variable `KEY` of these tests holds.
pub(crate) const SECRET: &str = "hunter2-hunter2-hunter2";

/// Answers to the resolution of each name, in turn; the last stays.
#[derive(Clone, Default)]
pub(crate) struct Names {
    table: Arc<Mutex<BTreeMap<String, VecDeque<Vec<IpAddr>>>>>,
    asked: Arc<AtomicUsize>,
}

impl Names {
    pub(crate) fn of(name: &str, addresses: &[&[&str]]) -> Self {
        let names = Self::default();
        let parse = |text: &&str| text.parse().unwrap();
        let answers = addresses.iter().map(|a| a.iter().map(parse).collect());
        let mut table = names.table.lock().unwrap();
        table.insert(name.to_owned(), answers.collect());
        drop(table);
        names
    }

    /// How often a name was resolved.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut table = self.table.lock().unwrap();
        let answers = table.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        let answer = answers.front().cloned().unwrap_or_default();
        if answers.len() > 1 {
            answers.pop_front();
        }
        Ok(answer)
    }
}

pub(crate) fn surroundings(names: &Names) -> Surroundings {
    let names = names.clone();
    Surroundings {
        variable: |name| (name == "KEY").then(|| SECRET.to_owned()),
        resolve: Arc::new(move |name| names.resolve(name)),
    }
}

/// A session with these hosts.
pub(crate) fn session(hosts: &[(&str, Host)], names: &Names) -> Session {
    let own = |(origin, host): &(&str, Host)| ((*origin).to_owned(), host.clone());
    let config = Config {
        hosts: hosts.iter().map(own).collect(),
        ..Config::default()
    };
    Client::new(&config, surroundings(names)).unwrap().session()
}

pub(crate) fn get(url: &str) -> Request {
    Request {
        method: Method::Get,
        url: url.to_owned(),
        headers: Vec::new(),
        body: None,
    }
}

/// Why a request was refused.
pub(crate) fn refused(result: Result<Response>) -> String {
    match result {
        Err(Error::Refused { why, .. }) => why,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

/// Why a request failed.
pub(crate) fn failed(result: Result<Response>) -> String {
    match result {
        Err(Error::Failed { why, .. }) => why,
        other => panic!("expected a failure, found {other:?}"),
    }
}
