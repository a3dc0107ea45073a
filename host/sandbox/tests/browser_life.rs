//! What a browser leaves behind: processes, profiles, pages that were never closed, hosts that crashed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod needs;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use sandbox::{
    Error,
    browser::{Browser, Config, Jail, Page},
};
use tempfile::TempDir;

fn with(config: Config) -> (TempDir, Browser) {
    needs::one_of(&["chromium", "chromium-browser", "google-chrome"]);
    let folder = tempfile::tempdir().unwrap();
    let browser = Browser::new(config, folder.path()).unwrap();
    (folder, browser)
}

fn shows(page: &mut Page, text: &str) {
    page.show(&format!("<p id=p>{text}</p>")).unwrap();
    let seen = page.evaluate_json("p.textContent").unwrap();
    assert_eq!(seen, format!("\"{text}\""));
}

/// The processes whose command line names this folder, and all below them.
fn processes(folder: &Path) -> Vec<u32> {
    let needle = folder.to_str().unwrap();
    let mut parents = BTreeMap::new();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        // Either is gone when the process is.
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        let mut fields = after_name.split(' ');
        if fields.next() == Some("Z") {
            continue;
        }
        if let Some(Ok(parent)) = fields.next().map(str::parse::<u32>) {
            parents.insert(id, parent);
        }
        if String::from_utf8_lossy(&line).contains(needle) {
            found.push(id);
        }
    }
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        let children = parents.iter().filter(|(_, p)| **p == parent);
        for (&child, _) in children {
            if !found.contains(&child) {
                found.push(child);
            }
        }
        at += 1;
    }
    found
}

fn alive(ids: &[u32]) -> Vec<u32> {
    let lives = |id: &&u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    ids.iter().filter(lives).copied().collect()
}

fn profiles(folder: &Path) -> usize {
    let is_one = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("profile-");
    fs::read_dir(folder)
        .unwrap()
        .flatten()
        .filter(is_one)
        .count()
}

/// Until it holds, for a while: the kernel ends processes in its own time.
fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn nothing_starts_before_the_first_page_and_nothing_stays_after_the_last_handle() {
    for jail in [Jail::Preferred, Jail::Off] {
        let (folder, browser) = with(Config {
            jail,
            ..Config::default()
        });
        assert!(processes(folder.path()).is_empty() && profiles(folder.path()) == 0);
        let mut page = browser.page().unwrap();
        shows(&mut page, "here");
        let all = processes(folder.path());
        assert!(all.len() > 4, "{all:?}");
        assert_eq!(profiles(folder.path()), 1);
        let copy = browser.clone();
        drop(browser);
        shows(&mut page, "still here");
        drop(copy);
        shows(&mut page, "and here");
        drop(page);
        soon("a process stays", || alive(&all).is_empty());
        assert_eq!(profiles(folder.path()), 0, "{jail:?}");
    }
}

#[test]
fn a_jailed_chromium_has_a_network_of_its_own_and_none_of_our_files() {
    let (folder, browser) = with(Config {
        jail: Jail::Required,
        ..Config::default()
    });
    let _page = browser.page().unwrap();
    let all = processes(folder.path());
    let network = |id: &str| fs::read_link(format!("/proc/{id}/ns/net")).ok();
    let ours = network("self");
    // The first is the jail's own keeper, outside. Any may end while we look.
    let theirs: Vec<_> = all[1..]
        .iter()
        .filter_map(|id| network(&id.to_string()))
        .collect();
    assert!(theirs.len() > 3, "{theirs:?}");
    assert!(
        theirs.iter().all(|net| Some(net) != ours.as_ref()),
        "{theirs:?}"
    );
    let files = fs::read_dir(format!("/proc/{}/root", all[2])).unwrap();
    let mut names: Vec<_> = files.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "bin", "dev", "etc", "lib", "lib64", "proc", "profile", "tmp", "usr"
        ]
    );
}

#[test]
fn fifty_pages_come_and_go_without_a_trace() {
    let (folder, browser) = with(Config::default());
    let keeper = browser.page().unwrap();
    let before = processes(folder.path()).len();
    for round in 0..50 {
        let mut page = browser.page().unwrap();
        assert_eq!(browser.live(), 2);
        if round % 10 == 0 {
            shows(&mut page, "x");
        }
    }
    assert_eq!(browser.live(), 1);
    // Chromium keeps a spare process or two.
    soon("processes stay", || {
        processes(folder.path()).len() <= before + 2
    });
    assert_eq!(profiles(folder.path()), 1);
    drop(keeper);
    assert_eq!(browser.live(), 0);
}

#[test]
fn pages_share_nothing() {
    let site = tempfile::tempdir().unwrap();
    fs::write(site.path().join("a.html"), "<p>a").unwrap();
    let mut config = Config::default();
    config
        .sites
        .insert("shop".to_owned(), site.path().to_owned());
    let (_folder, browser) = with(config);
    let mut pages = [browser.page().unwrap(), browser.page().unwrap()];
    for page in &mut pages {
        page.open("shop", "a.html").unwrap();
    }
    let keep = "document.cookie = 'c=1'; localStorage.k = 'v'; new Promise(done => { const r = indexedDB.open('d'); r.onsuccess = () => done(0) })";
    pages[0].evaluate_json(keep).unwrap();
    let look =
        "indexedDB.databases().then(all => [document.cookie, localStorage.k || null, all.length])";
    assert_eq!(pages[0].evaluate_json(look).unwrap(), r#"["c=1","v",1]"#);
    assert_eq!(pages[1].evaluate_json(look).unwrap(), r#"["",null,0]"#);
    let broadcast = "new Promise(done => { const c = new BroadcastChannel('x'); c.onmessage = () => done(true); c.postMessage(1); setTimeout(() => done(false), 200) })";
    pages[1].evaluate_json("heard = false; channel = new BroadcastChannel('x'); channel.onmessage = () => heard = true; 0").unwrap();
    pages[0].evaluate_json(broadcast).unwrap();
    assert_eq!(pages[1].evaluate_json("heard").unwrap(), "false");
    let [first, _second] = pages;
    drop(first);
    let mut third = browser.page().unwrap();
    third.open("shop", "a.html").unwrap();
    assert_eq!(third.evaluate_json(look).unwrap(), r#"["",null,0]"#);
}

#[test]
fn there_are_as_many_pages_as_the_operator_allows() {
    let (_folder, browser) = with(Config {
        pages: 2,
        ..Config::default()
    });
    let one = browser.page().unwrap();
    let _two = browser.page().unwrap();
    let error = browser.page().unwrap_err();
    assert!(
        error.is_refusal() && error.to_string().contains("2 pages are open"),
        "{error}"
    );
    drop(one);
    browser.page().unwrap();
}

#[test]
fn a_chromium_that_dies_is_replaced_and_its_pages_begin_anew() {
    let (folder, browser) = with(Config::default());
    let mut page = browser.page().unwrap();
    shows(&mut page, "before");
    let all = processes(folder.path());
    let killed = Command::new("kill")
        .arg("-9")
        .arg(all[0].to_string())
        .status();
    assert!(killed.unwrap().success());
    soon("it lives on", || page.tree().is_err());
    let error = page.tree().unwrap_err().to_string();
    assert!(
        error.contains("chromium ended") && error.contains("begin anew"),
        "{error}"
    );
    soon("a process stays", || alive(&all).is_empty());
    shows(&mut page, "after");
    shows(&mut browser.page().unwrap(), "another");
    soon("a profile stays", || profiles(folder.path()) == 1);
}

#[test]
fn pages_are_used_from_many_threads() {
    let (_folder, browser) = with(Config::default());
    thread::scope(|scope| {
        for worker in 0..4 {
            let browser = browser.clone();
            scope.spawn(move || {
                let mut page = browser.page().unwrap();
                for round in 0..5 {
                    shows(&mut page, &format!("{worker} {round}"));
                }
            });
        }
    });
    assert_eq!(browser.live(), 0);
}

#[test]
fn a_folder_belongs_to_one_browser_and_is_cleared_of_leftovers() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("profile-left/Default")).unwrap();
    fs::write(folder.path().join("profile-left/Default/Cookies"), "x").unwrap();
    fs::write(folder.path().join("notes.txt"), "not ours").unwrap();
    needs::one_of(&["chromium", "chromium-browser", "google-chrome"]);
    let browser = Browser::new(Config::default(), folder.path()).unwrap();
    assert_eq!(profiles(folder.path()), 0);
    assert!(folder.path().join("notes.txt").exists());
    let error = Browser::new(Config::default(), folder.path()).unwrap_err();
    assert!(
        error.to_string().contains("another browser uses it"),
        "{error}"
    );
    drop(browser);
    Browser::new(Config::default(), folder.path()).unwrap();
}

#[test]
fn a_browser_that_is_not_there_or_does_not_start_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("chromium");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    for (binary, why) in [
        (
            Path::new("/no/such/chromium"),
            "/no/such/chromium, which is not there",
        ),
        (&script, "name the program itself"),
    ] {
        let binary = Some(binary.to_owned());
        let config = Config {
            binary,
            ..Config::default()
        };
        let error = Browser::new(config, folder.path()).unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
    // A program, but no browser.
    let config = Config {
        binary: Some("/usr/bin/true".into()),
        ..Config::default()
    };
    let browser = Browser::new(config, folder.path()).unwrap();
    let error = browser.page().unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(
        error.to_string().contains("does not start: chromium ended"),
        "{error}"
    );
    assert_eq!((browser.live(), profiles(folder.path())), (0, 0));
}
