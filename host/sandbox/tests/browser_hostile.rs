//! Pages that misbehave: each meets an error that names what happened, in bounded time, while other pages go on.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod needs;

use std::{
    fs, io,
    net::TcpListener,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use sandbox::{
    Error, Result,
    browser::{Browser, Config, Jail, Page},
};
use tempfile::TempDir;

/// Short, so that a page that hangs is soon over, and long enough for a machine that is busy.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest that anything may take: the time-out, the sign of life, and the closing.
const BOUND: Duration = Duration::from_secs(15);

fn with(change: impl FnOnce(&mut Config)) -> (TempDir, Browser) {
    needs::one_of(&["chromium", "chromium-browser", "google-chrome"]);
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config {
        timeout: TIMEOUT,
        ..Config::default()
    };
    change(&mut config);
    let browser = Browser::new(config, folder.path()).unwrap();
    (folder, browser)
}

fn page() -> (TempDir, Browser, Page) {
    let (folder, browser) = with(|_| {});
    let page = browser.page().unwrap();
    (folder, browser, page)
}

/// The error, which came in time.
fn error<T: std::fmt::Debug>(work: impl FnOnce() -> Result<T>) -> Error {
    let begun = Instant::now();
    let error = work().unwrap_err();
    let took = begun.elapsed();
    assert!(took < BOUND, "{took:?}: {error}");
    error
}

fn says<T: std::fmt::Debug>(words: &str, work: impl FnOnce() -> Result<T>) {
    let error = error(work);
    assert!(error.to_string().contains(words), "{error}");
}

/// The page is closed, says so, and begins anew.
fn is_closed_and_begins_anew(page: &mut Page) {
    for error in [error(|| page.tree()), error(|| page.press("a"))] {
        let error = error.to_string();
        assert!(error.contains("the page is closed"), "{error}");
    }
    works(page);
}

fn works(page: &mut Page) {
    page.show("<button>Fine</button>").unwrap();
    let tree = page.tree().unwrap();
    assert!(tree.iter().any(|node| node.name == "Fine"));
}

#[test]
fn an_endless_loop_ends_its_page_and_no_other() {
    let (_folder, browser, mut page) = page();
    let mut other = browser.page().unwrap();
    works(&mut other);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                let begun = Instant::now();
                works(&mut other);
                slowest = slowest.max(begun.elapsed());
            }
            slowest
        });
        says("the page hung", || {
            page.show("<script>while (true);</script>")
        });
        done.store(true, Ordering::Relaxed);
        let slowest = asking.join().unwrap();
        assert!(slowest < TIMEOUT, "{slowest:?}");
    });
    is_closed_and_begins_anew(&mut page);
}

#[test]
fn a_loop_in_a_handler_a_timer_or_a_promise_is_found_by_who_asks_next() {
    let (_folder, _browser, mut page) = page();
    page.show("<body onclick='while (true);'>").unwrap();
    says("the page hung", || page.click_at(50.0, 50.0));
    page.show("<script>setTimeout(() => { while (true); }, 50)</script>")
        .unwrap();
    says("the page hung", || {
        loop {
            page.screenshot_png()?;
        }
        #[expect(unreachable_code, reason = "says what the loop would be")]
        Ok(())
    });
    // It returns nothing: were it to return the promise, each would wait for the next, and memory end before the deadline.
    page.show("<script>const f = () => { Promise.resolve().then(f) }; setTimeout(f, 50)</script>")
        .unwrap();
    says("the page hung", || {
        loop {
            page.tree()?;
        }
        #[expect(unreachable_code, reason = "says what the loop would be")]
        Ok(())
    });
    works(&mut page);
}

#[test]
fn what_hangs_is_replaced_without_a_word_by_what_is_shown_next() {
    let (_folder, _browser, mut page) = page();
    page.show("<p>").unwrap();
    page.evaluate_json("setTimeout(() => { while (true); }, 0)")
        .unwrap();
    // Nobody can tell from outside when it began, without asking it.
    thread::park_timeout(Duration::from_millis(500));
    let begun = Instant::now();
    works(&mut page);
    assert!(begun.elapsed() < BOUND);
}

#[test]
fn a_script_that_does_not_end_is_ended_and_the_page_goes_on() {
    let (_folder, _browser, mut page) = page();
    page.show("<p id=kept>kept").unwrap();
    says("ran for too long and was ended", || {
        page.evaluate_json("while (true);")
    });
    says("took longer than 5s", || {
        page.evaluate_json("new Promise(() => {})")
    });
    let kept = page.evaluate_json("kept.textContent").unwrap();
    assert_eq!(kept, "\"kept\"");
}

#[test]
fn a_storm_of_dialogs_ends_its_page() {
    let (_folder, _browser, mut page) = page();
    says("the page hung", || {
        page.show("<script>while (true) alert('x'.repeat(100000))</script>")
    });
    is_closed_and_begins_anew(&mut page);
    page.show("<script>for (let i = 0; i < 20; i++) alert(i); done = 1</script>")
        .unwrap();
    assert_eq!(page.evaluate_json("done").unwrap(), "1");
}

#[test]
fn a_huge_document_gives_a_cut_tree_or_a_refusal() {
    let (_folder, _browser, mut page) = page();
    let fill = |count: usize| {
        format!(
            "<script>let t = ''; for (let i = 0; i < {count}; i++) t += '<p>p' + i; document.write(t)</script>"
        )
    };
    page.show(&fill(3_000)).unwrap();
    let tree = page.tree().unwrap();
    assert_eq!(tree.len(), 2_000);
    assert_eq!(tree[1_998].name, "p998");
    page.show(&fill(30_000)).unwrap();
    says("more than 10000", || page.tree());
    // A page that lies about its size gives a cut tree, or meets the limit of a message or of time.
    let lie = "<script>document.getElementsByTagName = () => []</script>";
    page.show(&format!("{}{lie}", fill(30_000))).unwrap();
    let begun = Instant::now();
    let tree = page.tree();
    assert!(begun.elapsed() < BOUND);
    if let Ok(tree) = tree {
        assert_eq!(tree.len(), 2_000);
    }
    works(&mut page);
}

#[test]
fn a_deep_document_gives_a_tree() {
    let (_folder, _browser, mut page) = page();
    page.show(
        "<script>let at = document.body; for (let i = 0; i < 3000; i++) { const e = document.createElement('section'); e.ariaLabel = 's' + i; at.append(e); at = e; }</script>",
    )
    .unwrap();
    // Chromium itself may give up on it; it must not take long, nor take the host with it.
    let begun = Instant::now();
    let outcome = page.tree();
    assert!(begun.elapsed() < BOUND);
    if let Ok(tree) = outcome {
        assert!(tree.len() <= 2_000);
    }
    works(&mut page);
}

#[test]
fn long_texts_are_cut_and_halves_of_characters_replaced() {
    let (_folder, _browser, mut page) = page();
    page.show("<button>b</button><input aria-label=i><script>document.querySelector('button').textContent = 'a\\ud800b'; document.querySelector('input').value = 'x'.repeat(3000000)</script>")
        .unwrap();
    let tree = page.tree().unwrap();
    let button = tree.iter().find(|node| node.role == "button").unwrap();
    assert_eq!(button.name, "a\u{fffd}b");
    let input = tree.iter().find(|node| node.role == "textbox").unwrap();
    assert_eq!(input.value.len(), 1_000);
}

#[test]
fn a_huge_value_is_refused_without_being_read() {
    let (_folder, _browser, mut page) = page();
    page.show("<p>").unwrap();
    for script in [
        "'x'.repeat(200000000)",
        "Array(3000000).fill('abc')",
        "({toJSON() { return 'x'.repeat(100000) }})",
    ] {
        let error = error(|| page.evaluate_json(script));
        assert!(error.is_refusal(), "{script}: {error}");
    }
    // A page that meddles with our own words.
    page.evaluate_json("JSON.stringify = () => 'x'.repeat(5000000); 1")
        .unwrap_err();
    assert!(error(|| page.evaluate_json("[1]")).is_refusal());
    page.evaluate_json("JSON.stringify = () => { while (true); }")
        .unwrap_err();
    says("ran for too long and was ended", || {
        page.evaluate_json("[1]")
    });
    error(|| page.evaluate_json("Promise.resolve([1])"));
    works(&mut page);
}

#[test]
fn a_page_that_leads_away_stays_and_says_so() {
    let (_folder, _browser, mut page) = page();
    for target in [
        "https://evil.test/",
        "http://127.0.0.1/",
        "mailto:a@b.c",
        "file:///etc/passwd",
        "chrome://version",
        "view-source:https://shown.invalid/",
        "javascript:void 0",
    ] {
        page.show(&format!("<p id=p>here</p><a href='{target}'>Away</a>"))
            .unwrap();
        let away = page
            .tree()
            .unwrap()
            .into_iter()
            .find(|node| node.role == "link")
            .unwrap();
        let outcome = page.click(away.id);
        if !["javascript:", "file:", "chrome:", "view-source:"]
            .iter()
            .any(|s| target.starts_with(s))
        {
            let error = outcome.unwrap_err();
            let words = error.to_string();
            assert!(
                error.is_refusal() && words.contains(target) && words.contains("cannot reach"),
                "{words}"
            );
        }
        let here = page
            .evaluate_json("[p.textContent, location.href]")
            .unwrap();
        assert_eq!(here, r#"["here","https://shown.invalid/"]"#, "{target}");
    }
    for leaving in [
        "<p id=p>here</p><script>location = 'https://evil.test/'</script>",
        "<p id=p>here</p><meta http-equiv=refresh content='0;url=https://evil.test/'>",
        "<p id=p>here</p><script>setTimeout(() => { location = 'https://evil.test/' }, 0)</script>",
        "<p id=p>here</p><form action=https://evil.test method=post></form><script>document.forms[0].submit()</script>",
        "<p id=p>here</p><script>history.back(); history.go(-3)</script>",
        "<p id=p>here</p><iframe src=https://evil.test/></iframe><iframe src=file:///etc/passwd></iframe>",
    ] {
        page.show(leaving).unwrap();
        let here = page.evaluate_json("p.textContent").unwrap();
        assert_eq!(here, "\"here\"", "{leaving}");
    }
    works(&mut page);
}

#[test]
fn a_page_that_closes_itself_or_reloads_without_end_harms_itself_only() {
    let (_folder, _browser, mut page) = page();
    for html in [
        "<script>window.close(); close(); open('', '_self').close()</script>",
        "<script>onload = () => window.close()</script>",
        "<script>setTimeout(() => location.reload(), 0)</script>",
        "<script>location.reload()</script>",
        "<meta http-equiv=refresh content=0>",
        "<script>for (let i = 0; i < 100000; i++) history.pushState({}, '', '/?' + i)</script>",
        "<script>onbeforeunload = () => 'stay'; onunload = () => { while (true); }</script>",
        "<script>setInterval(() => print(), 0); print()</script>",
    ] {
        let begun = Instant::now();
        let outcome = page.show(html).and_then(|()| page.tree()).map(drop);
        let took = begun.elapsed();
        assert!(took < BOUND, "{took:?} for {html}: {outcome:?}");
        let begun = Instant::now();
        if let Err(error) = page.show("<p>next") {
            assert!(error.to_string().contains("begin anew"), "{html}: {error}");
        }
        assert!(begun.elapsed() < BOUND, "{html}");
        works(&mut page);
    }
}

#[test]
fn a_page_that_eats_memory_ends_and_others_go_on() {
    let (_folder, browser) = with(|config| config.memory_mib = 512);
    let mut page = browser.page().unwrap();
    let mut other = browser.page().unwrap();
    works(&mut other);
    for hog in [
        "const all = []; while (true) all.push([all.length, {}]);",
        "while (true) document.body.append('x'.repeat(100000) + Math.random());",
        "const all = []; while (true) all.push(new Uint8Array(1 << 24).fill(1));",
        "const all = []; while (true) { const c = new OffscreenCanvas(4000, 4000); c.getContext('2d').fillRect(0, 0, 4000, 4000); all.push(c); }",
    ] {
        let begun = Instant::now();
        let outcome = page.show(&format!("<body><script>{hog}</script>"));
        assert!(begun.elapsed() < BOUND, "{hog}");
        if let Err(error) = outcome {
            assert!(error.to_string().contains("begin anew"), "{hog}: {error}");
        }
        works(&mut other);
        works(&mut page);
    }
}

#[test]
fn popups_are_closed_and_a_flood_of_requests_is_survived() {
    // Twenty threads that spin leave little of two cores to the page beside them.
    let (_folder, browser) = with(|config| config.timeout = TIMEOUT * 4);
    let mut page = browser.page().unwrap();
    page.show("<button onclick='opened = []; for (let i = 0; i < 20; i++) opened.push(window.open(\"https://evil.test/\" + i))'>Open</button><a target=_blank rel=noopener href=/?new>New</a>")
        .unwrap();
    let tree = page.tree().unwrap();
    for role in ["button", "link"] {
        let node = tree.iter().find(|node| node.role == role).unwrap();
        page.click(node.id).unwrap();
    }
    let closed = "new Promise(done => setInterval(() => opened.filter(Boolean).every(w => w.closed) && done(opened.filter(Boolean).length > 0), 20))";
    assert_eq!(page.evaluate_json(closed).unwrap(), "true");
    let seen = page.evaluate_json("document.links[0].textContent").unwrap();
    assert_eq!(seen, "\"New\"");
    let mut other = browser.page().unwrap();
    for flood in [
        "for (let i = 0; i < 20000; i++) fetch('/?' + i).catch(() => 0)",
        "for (let i = 0; i < 100; i++) fetch('/', {method: 'POST', body: 'x'.repeat(1000000)}).catch(() => 0)",
        "for (let i = 0; i < 20; i++) new Worker('data:text/javascript,while(true);')",
    ] {
        let begun = Instant::now();
        let outcome = page.show(&format!("<script>{flood}</script>"));
        assert!(begun.elapsed() < BOUND * 4, "{flood}: {outcome:?}");
        works(&mut other);
        if page.show("<p>next").is_err() {
            works(&mut page);
        }
    }
}

#[test]
fn nothing_of_a_page_reaches_the_network() {
    let site = tempfile::tempdir().unwrap();
    fs::write(site.path().join("a.html"), "secret of the site").unwrap();
    for jail in [Jail::Preferred, Jail::Off] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let at = listener.local_addr().unwrap();
        let (_folder, browser) = with(|config| {
            config.jail = jail;
            config
                .sites
                .insert("shop".to_owned(), site.path().to_owned());
        });
        let mut page = browser.page().unwrap();
        page.show(&format!(
            "<link rel=stylesheet href=http://{at}/a.css><link rel=preconnect href=http://{at}><link rel=dns-prefetch href=http://{at}>
            <link rel=prefetch href=http://{at}/p><img src=http://{at}/a.png><iframe src=http://{at}/></iframe>
            <script src=http://{at}/a.js></script><video src=http://{at}/v.mp4></video><object data=http://{at}/o></object>
            <form id=f action=http://{at}/ method=post target=_blank><input></form>
            <script>
            tried = [];
            const reach = async (name, work) => tried.push([name, await Promise.resolve().then(work).then(() => 'reached', () => 'failed')]);
            const code = `fetch('http://{at}/w').then(() => postMessage('reached'), () => postMessage('failed'))`;
            all = Promise.all([
                reach('fetch', () => fetch('http://{at}/', {{mode: 'no-cors'}})),
                reach('localhost', () => fetch('http://localhost:{port}/', {{mode: 'no-cors'}})),
                reach('file', () => fetch('file:///etc/passwd')),
                reach('site', () => fetch('https://shop.test/a.html', {{mode: 'no-cors'}})),
                reach('websocket', () => new Promise((yes, no) => {{ const s = new WebSocket('ws://{at}/'); s.onopen = yes; s.onerror = no; }})),
                reach('worker', () => new Promise((yes, no) => {{ const w = new Worker(URL.createObjectURL(new Blob([code]))); w.onmessage = m => m.data === 'reached' ? yes() : no(); }})),
                reach('events', () => new Promise((yes, no) => {{ const s = new EventSource('http://{at}/'); s.onopen = yes; s.onerror = no; }})),
                reach('service worker', () => navigator.serviceWorker.register('/w.js')),
                reach('camera', () => navigator.mediaDevices.getUserMedia({{video: true}})),
                reach('place', () => new Promise((yes, no) => navigator.geolocation.getCurrentPosition(yes, no))),
                reach('clipboard', () => navigator.clipboard.readText()),
                reach('notification', async () => {{ if (await Notification.requestPermission() !== 'granted') throw 0; }}),
            ]);
            navigator.sendBeacon('http://{at}/b', 'x');
            const peer = new RTCPeerConnection({{iceServers: [{{urls: 'turn:{at}?transport=tcp', username: 'u', credential: 'c'}}]}});
            peer.createDataChannel('x'); peer.createOffer().then(o => peer.setLocalDescription(o));
            document.getElementById('f').submit();
            </script>",
            port = at.port(),
        ))
        .unwrap();
        let tried = page.evaluate_json("all.then(() => tried)").unwrap();
        assert!(!tried.contains("reached"), "{jail:?}: {tried}");
        assert_eq!(tried.matches("failed").count(), 12, "{jail:?}: {tried}");
        let accepted = listener.accept().map(|(_, from)| from);
        let nobody = accepted.unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock, "{jail:?}");
    }
}
