//! Sites of files: what a page gets of one, and what it does not.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod needs;

use std::{fs, os::unix::fs::symlink, path::Path};

use sandbox::browser::{Browser, Config, Node, Page};
use tempfile::TempDir;

fn with(sites: &[(&str, &Path)]) -> (TempDir, Browser) {
    needs::one_of(&["chromium", "chromium-browser", "google-chrome"]);
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    for (name, files) in sites {
        config.sites.insert((*name).to_owned(), files.to_path_buf());
    }
    let browser = Browser::new(config, folder.path()).unwrap();
    (folder, browser)
}

fn find(page: &mut Page, role: &str, name: &str) -> Node {
    let tree = page.tree().unwrap();
    let found = tree.iter().find(|n| n.role == role && n.name == name);
    found
        .unwrap_or_else(|| panic!("no {role} `{name}` in {tree:#?}"))
        .clone()
}

fn value(page: &mut Page, script: &str) -> String {
    page.evaluate_json(script).unwrap()
}

fn refused<T: std::fmt::Debug>(outcome: sandbox::Result<T>) -> String {
    let error = outcome.unwrap_err();
    assert!(error.is_refusal(), "{error}");
    error.to_string()
}

#[test]
fn a_site_is_its_folder_and_its_links_work() {
    let site = tempfile::tempdir().unwrap();
    fs::create_dir(site.path().join("sub")).unwrap();
    for (file, content) in [
        (
            "start.html",
            "<link rel=stylesheet href=/style.css><script src=sub/code.js></script><p id=p>start</p><a href='sub/next page.html?q=1#h'>Next</a><a href=/gone.html>Gone</a><img src=dot.svg>",
        ),
        ("style.css", "p { color: rgb(1, 2, 3) }"),
        ("sub/code.js", "code = 'ran'"),
        (
            "sub/next page.html",
            "<title>Next</title><a href=../start.html>Back</a><form method=post><button>Post</button></form>",
        ),
        ("data.json", "{\"n\": 5}"),
        (
            "dot.svg",
            "<svg xmlns='http://www.w3.org/2000/svg' width='3' height='3'/>",
        ),
        ("blob.xyz", "binary"),
    ] {
        fs::write(site.path().join(file), content).unwrap();
    }
    let (_folder, browser) = with(&[("shop", site.path())]);
    let mut page = browser.page().unwrap();
    page.open("shop", "start.html").unwrap();
    assert_eq!(
        value(
            &mut page,
            "[code, getComputedStyle(p).color, document.images[0].naturalWidth]"
        ),
        r#"["ran","rgb(1, 2, 3)",3]"#
    );
    assert_eq!(
        value(&mut page, "fetch('/data.json?x').then(r => r.json())"),
        r#"{"n":5}"#
    );
    assert_eq!(
        value(&mut page, "fetch('no.json').then(r => r.status)"),
        "404"
    );
    assert_eq!(
        value(&mut page, "location.href"),
        "\"https://shop.test/start.html\""
    );
    let next = find(&mut page, "link", "Next");
    page.click(next.id).unwrap();
    assert_eq!(
        value(
            &mut page,
            "[document.title, location.search, document.readyState]"
        ),
        r#"["Next","?q=1","complete"]"#
    );
    let post = find(&mut page, "button", "Post");
    page.click(post.id).unwrap();
    assert_eq!(
        value(&mut page, "document.body.textContent"),
        "\"POST is not answered here: only GET is\""
    );
    page.open("shop", "sub/next page.html").unwrap();
    let back = find(&mut page, "link", "Back");
    page.click(back.id).unwrap();
    assert_eq!(value(&mut page, "p.textContent"), "\"start\"");
    for (site, path, why) in [
        (
            "bank",
            "start.html",
            "there is no such site; there are: shop",
        ),
        ("shop", "none.html", "there is no such file"),
        ("shop", "../start.html", "without `.` and `..`"),
        ("shop", "blob.xyz", "not something that a page can show"),
    ] {
        let said = refused(page.open(site, path));
        assert!(said.contains(why) && said.contains(path), "{said}");
    }
    page.open("shop", "start.html").unwrap();
}

#[test]
fn a_site_gives_nothing_from_outside_its_folder() {
    let base = tempfile::tempdir().unwrap();
    let site = base.path().join("site");
    fs::create_dir_all(site.join(".git")).unwrap();
    fs::write(base.path().join("secret.txt"), "secret").unwrap();
    for file in ["a.html", ".env", ".git/config"] {
        fs::write(site.join(file), "x").unwrap();
    }
    symlink("../secret.txt", site.join("link.txt")).unwrap();
    symlink("/", site.join("root")).unwrap();
    let (_folder, browser) = with(&[("shop", &site), ("bank", Path::new("/etc"))]);
    let mut page = browser.page().unwrap();
    for path in [
        "../secret.txt",
        "/etc/passwd",
        ".env",
        ".git/config",
        "link.txt",
        "root/etc/passwd",
        "a.html/..",
        "%2e%2e/secret.txt",
    ] {
        refused(page.open("shop", path));
    }
    page.open("shop", "a.html").unwrap();
    for path in [
        "../secret.txt",
        "..%2fsecret.txt",
        "%2e%2e%2fsecret.txt",
        ".env",
        ".git/config",
        "link.txt",
        "root/etc/passwd",
        "%2froot%2fetc/passwd",
        "..%5csecret.txt",
    ] {
        let status = page
            .evaluate_json(&format!("fetch('/{path}').then(r => r.status)"))
            .unwrap();
        assert_eq!(status, "404", "{path}");
    }
    let other = page.evaluate_json("fetch('https://bank.test/passwd', {mode: 'no-cors'}).then(() => 'reached', () => 'failed')").unwrap();
    assert_eq!(other, "\"failed\"");
}
