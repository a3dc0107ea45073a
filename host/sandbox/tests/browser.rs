//! Headless pages against a real chromium: what each operation does, and what it refuses.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod needs;

use sandbox::browser::{Browser, Config, Node, Page};
use tempfile::TempDir;

fn browser() -> (TempDir, Browser) {
    needs::one_of(&["chromium", "chromium-browser", "google-chrome"]);
    let folder = tempfile::tempdir().unwrap();
    let browser = Browser::new(Config::default(), folder.path()).unwrap();
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

fn shown(html: &str) -> (TempDir, Browser, Page) {
    let (folder, browser) = browser();
    let mut page = browser.page().unwrap();
    page.show(html).unwrap();
    (folder, browser, page)
}

#[test]
fn the_tree_names_what_a_person_sees() {
    let (_folder, _browser, mut page) = shown(
        "<title>Form</title><h1>Hello <b>you</b></h1><div><div><p>Some text</p></div></div>
        <label>Name <input value=Ada required></label>
        <select aria-label=Size><option>small<option selected>large</select>
        <input type=checkbox checked aria-label=News><input type=radio disabled aria-label=Post>
        <textarea aria-label=Note autofocus>a note</textarea>
        <div contenteditable aria-label=Free>free <b>text</b></div>
        <button>Send <i>it</i></button><a href=#x>More</a><ul><li>first</ul><img alt=Picture>
        <span hidden>unseen</span><iframe srcdoc='<button>Inner</button>'></iframe>",
    );
    let tree = page.tree().unwrap();
    let line = |n: &Node| {
        let indent = "  ".repeat(n.depth as usize);
        let line = format!(
            "{indent}{} {}|{}|{}",
            n.role,
            n.name,
            n.value,
            n.states.join(" ")
        );
        line.trim_end_matches('|').to_owned()
    };
    let lines: Vec<String> = tree.iter().map(line).collect();
    let expected = "document Form
  heading Hello you
  paragraph 
    text Some text
  text Name
  textbox Name|Ada|required
  combobox Size|large|collapsed
    option small
    option large||selected
  checkbox News||checked
  radio Post||disabled
  textbox Note|a note|focused
  textbox Free|free text
  button Send it
  link More
  list 
    listitem 
      text first
  img Picture
  iframe 
    button Inner";
    assert_eq!(lines.join("\n"), expected);
}

#[test]
fn a_node_is_where_it_is_seen() {
    let (_folder, _browser, mut page) = shown(
        "<body style='margin:0;height:3000px'><button style='position:absolute;left:100px;top:600px;width:80px;height:30px'>B</button>
        <iframe style='position:absolute;left:300px;top:500px;border:0' srcdoc='<body style=margin:0><button style=width:50px;height:20px>I</button>'></iframe>",
    );
    let place = |n: Node| (n.x, n.y, n.width, n.height);
    let outer = find(&mut page, "button", "B");
    assert_eq!(place(outer), (100.0, 600.0, 80.0, 30.0));
    let inner = find(&mut page, "button", "I");
    assert_eq!(place(inner), (300.0, 500.0, 50.0, 20.0));
    page.scroll(0.0, 250.0).unwrap();
    let outer = find(&mut page, "button", "B");
    assert_eq!(place(outer), (100.0, 350.0, 80.0, 30.0));
}

#[test]
fn ids_stay_until_the_page_changes_and_old_ones_are_refused() {
    let (_folder, _browser, mut page) = shown("<button>A</button><button>B</button>");
    let why = refused(page.click(1));
    assert!(
        why.contains("click node 1") && why.contains("read the tree"),
        "{why}"
    );
    let first = page.tree().unwrap();
    assert_eq!(first, page.tree().unwrap());
    let (a, b) = (
        find(&mut page, "button", "A"),
        find(&mut page, "button", "B"),
    );
    page.evaluate_json("document.querySelector('button').remove()")
        .unwrap();
    for why in [refused(page.click(a.id)), refused(page.fill(a.id, "x"))] {
        assert!(why.contains("no longer on the page"), "{why}");
    }
    page.click(b.id).unwrap();
    page.show("<button>C</button>").unwrap();
    let why = refused(page.click(b.id));
    assert!(why.contains("the page has changed"), "{why}");
    let c = find(&mut page, "button", "C");
    assert!(first.iter().all(|old| old.id != c.id));
    assert!(refused(page.click(4_000_000_000)).contains("read the tree first"));
}

#[test]
fn a_click_does_what_a_person_s_does() {
    let (_folder, _browser, mut page) = shown(
        "<input type=checkbox aria-label=News><input type=radio name=r aria-label=Red checked><input type=radio name=r aria-label=Blue>
        <select aria-label=Size><option>small<option>large</select><select multiple size=2 aria-label=Many><option>one<option>two</select>
        <a href=#there>Down</a><p hidden>gone</p><div style='height:2000px'></div>
        <button onclick='trusted = event.isTrusted; this.textContent = \"clicked\"'>Far</button><p id=there>",
    );
    for (role, name) in [("checkbox", "News"), ("radio", "Blue"), ("option", "large")] {
        let node = find(&mut page, role, name);
        page.click(node.id).unwrap();
    }
    assert_eq!(find(&mut page, "checkbox", "News").states, ["checked"]);
    assert!(find(&mut page, "radio", "Red").states.is_empty());
    assert_eq!(find(&mut page, "combobox", "Size").value, "large");
    let two = find(&mut page, "option", "two");
    page.click(two.id).unwrap();
    assert!(
        find(&mut page, "option", "two")
            .states
            .contains(&"selected".to_owned())
    );
    // A list that is open takes the keys.
    let size = find(&mut page, "combobox", "Size");
    page.click(size.id).unwrap();
    page.press("ArrowUp").unwrap();
    page.press("Enter").unwrap();
    assert_eq!(find(&mut page, "combobox", "Size").value, "small");
    let far = find(&mut page, "button", "Far");
    assert!(far.y > 2_000.0);
    page.click(far.id).unwrap();
    let far = find(&mut page, "button", "clicked");
    assert!(far.y < 480.0);
    assert_eq!(value(&mut page, "trusted"), "true");
    let down = find(&mut page, "link", "Down");
    page.click(down.id).unwrap();
    assert_eq!(value(&mut page, "location.hash"), "\"#there\"");
}

#[test]
fn a_node_that_is_not_drawn_is_not_clicked() {
    let (_folder, _browser, mut page) = shown(
        "<button>Now</button><div style='position:fixed;left:-500px'><button>Off</button></div>",
    );
    let node = find(&mut page, "button", "Now");
    let off = find(&mut page, "button", "Off");
    assert!(refused(page.click(off.id)).contains("cannot be scrolled into view"));
    page.evaluate_json("document.querySelector('button').style.display = 'none'")
        .unwrap();
    assert!(refused(page.click(node.id)).contains("not drawn"));
}

#[test]
fn points_are_clicked_and_dragged_between_only_on_the_page() {
    let (_folder, _browser, mut page) = shown(
        "<body style=margin:0><input type=range min=0 max=100 value=0 style='position:absolute;left:0;top:0;width:200px;margin:0'>
        <div id=from draggable=true style='position:absolute;left:0;top:100px;width:50px;height:50px' ondragstart='event.dataTransfer.setData(\"text/plain\", \"cargo\")'>take</div>
        <div id=to style='position:absolute;left:300px;top:300px;width:100px;height:100px' ondragover='event.preventDefault()'
            ondrop='event.preventDefault(); this.textContent = event.dataTransfer.getData(\"text/plain\")'>here</div>
        <script>clicks = []; onclick = e => clicks.push([e.clientX, e.clientY])</script>",
    );
    page.click_at(600.0, 400.5).unwrap();
    assert_eq!(value(&mut page, "clicks"), "[[600,400]]");
    page.drag(8.0, 8.0, 150.0, 8.0).unwrap();
    let slid: f64 = value(&mut page, "+document.querySelector('input').value")
        .parse()
        .unwrap();
    assert!((60.0..90.0).contains(&slid), "{slid}");
    page.drag(20.0, 120.0, 350.0, 350.0).unwrap();
    assert_eq!(value(&mut page, "to.textContent"), "\"cargo\"");
    page.click_at(600.0, 400.0).unwrap();
    for (x, y) in [
        (-1.0, 5.0),
        (640.0, 5.0),
        (5.0, 480.0),
        (f64::NAN, 5.0),
        (5.0, f64::INFINITY),
    ] {
        assert!(refused(page.click_at(x, y)).contains("not on the page"));
        assert!(refused(page.drag(5.0, 5.0, x, y)).contains("not on the page"));
    }
}

#[test]
fn a_field_is_filled_with_what_it_takes() {
    let (_folder, _browser, mut page) = shown(
        "<input aria-label=Text value=before><input type=number aria-label=Number><input type=date aria-label=Date>
        <input type=range aria-label=Range max=10><textarea aria-label=Area>a
b</textarea><div contenteditable aria-label=Free>free <b>text</b></div><select aria-label=Size><option value=s> small <option value=l>large<option disabled>none</select>
        <script>events = []; for (const kind of ['input', 'change']) addEventListener(kind, e => events.push(kind + ' ' + e.target.ariaLabel))</script>",
    );
    for (role, name, text) in [
        ("textbox", "Text", "héllo 'x' 😀"),
        ("spinbutton", "Number", "42"),
        ("Date", "Date", "2024-02-29"),
        ("slider", "Range", "7"),
        ("textbox", "Area", "one\ntwo"),
        ("textbox", "Free", "new"),
        ("combobox", "Size", "large"),
        ("combobox", "Size", "small"),
        ("textbox", "Text", ""),
        ("textbox", "Text", "again"),
    ] {
        let role = role.to_lowercase();
        let node = find(&mut page, &role, name);
        page.fill(node.id, text).unwrap();
        let script = format!(
            "(e => e.value === undefined ? e.textContent : e.localName === 'select' ? e.selectedOptions[0].text : e.value)(document.querySelector('[aria-label={name}]'))"
        );
        let expected = serde_json::to_string(text).unwrap();
        assert_eq!(value(&mut page, &script), expected, "{name}");
    }
    let events = value(&mut page, "events.join()");
    for expected in [
        "input Text",
        "change Text",
        "change Size",
        "input Date",
        "input Free",
    ] {
        assert!(events.contains(expected), "{expected} in {events}");
    }
}

#[test]
fn a_field_that_does_not_take_text_says_why() {
    let (_folder, _browser, mut page) = shown(
        "<input type=checkbox aria-label=Check><input disabled aria-label=Off><input readonly aria-label=Fixed>
        <input type=date aria-label=Date value=2024-01-01><select aria-label=Size><option>small<option>large<option disabled>none</select><button>Button</button>",
    );
    for (role, name, text, why) in [
        ("checkbox", "Check", "x", "click it"),
        ("textbox", "Off", "x", "disabled"),
        ("textbox", "Fixed", "x", "only to be read"),
        ("date", "Date", "tomorrow", "type date"),
        (
            "combobox",
            "Size",
            "huge",
            "no choice with that text, but: small, large, none",
        ),
        ("combobox", "Size", "none", "that choice is disabled"),
        ("button", "Button", "x", "no field"),
    ] {
        let node = find(&mut page, role, name);
        let said = refused(page.fill(node.id, text));
        assert!(said.contains(why), "{name}: {said}");
    }
    assert_eq!(find(&mut page, "date", "Date").value, "2024-01-01");
    let date = find(&mut page, "date", "Date").id;
    let said = refused(page.fill(date, &"x".repeat(10_001)));
    assert!(said.contains("10001 characters"), "{said}");
}

#[test]
fn keys_go_where_the_focus_is() {
    let (_folder, _browser, mut page) = shown(
        "<form onsubmit='event.preventDefault(); sent = a.value'><input id=a><input id=b><button hidden></button></form><textarea id=c></textarea>
        <script>keys = []; onkeydown = e => keys.push(e.key + '/' + e.code + '/' + e.keyCode)</script>",
    );
    page.press("Tab").unwrap();
    page.type_text("Ab1ä😀").unwrap();
    assert_eq!(
        value(&mut page, "keys"),
        r#"["Tab/Tab/9","A/KeyA/65","b/KeyB/66","1/Digit1/49"]"#
    );
    page.press("ArrowLeft").unwrap();
    page.press("Backspace").unwrap();
    page.press("Enter").unwrap();
    assert_eq!(value(&mut page, "sent"), "\"Ab1😀\"");
    page.type_text("\tsecond\tx\ny z").unwrap();
    assert_eq!(
        value(&mut page, "[b.value, c.value]"),
        r#"["second","x\ny z"]"#
    );
    for key in ["Return", "", "ab", "Control+a"] {
        let why = refused(page.press(key));
        assert!(
            why.contains(&format!("press `{key}`")) && why.contains("DOM names"),
            "{why}"
        );
    }
}

#[test]
fn the_wheel_turns_what_is_under_the_pointer() {
    let (_folder, _browser, mut page) = shown(
        "<body style='margin:0;height:3000px;width:3000px'><div id=list style='height:100px;width:100px;overflow:auto'><div style='height:900px'></div></div>",
    );
    page.scroll(40.0, 120.0).unwrap();
    assert_eq!(value(&mut page, "[scrollX, scrollY]"), "[40,120]");
    page.scroll(-1_000.0, -1_000.0).unwrap();
    assert_eq!(value(&mut page, "[scrollX, scrollY]"), "[0,0]");
    page.click_at(50.0, 50.0).unwrap();
    page.scroll(0.0, 70.0).unwrap();
    assert_eq!(value(&mut page, "[list.scrollTop, scrollY]"), "[70,0]");
    for by in [f64::NAN, 1e9] {
        assert!(refused(page.scroll(0.0, by)).contains("a million pixels"));
    }
}

#[test]
fn a_value_is_json_whatever_it_is() {
    let (_folder, _browser, mut page) = shown("<script>secret = {deep: [1]}</script>");
    for (script, expected) in [
        ("1 + 1", "2"),
        ("'a\"b\\n'", r#""a\"b\n""#),
        ("secret", r#"{"deep":[1]}"#),
        ("let x = 3; x * 2", "6"),
        ("undefined", "null"),
        ("null", "null"),
        ("NaN", "null"),
        ("-Infinity", "null"),
        ("-0", "0"),
        ("(() => 1)", "null"),
        ("Symbol('x')", "null"),
        ("new Date(0)", r#""1970-01-01T00:00:00.000Z""#),
        ("Promise.resolve([true])", "[true]"),
        (
            "new Promise(done => setTimeout(() => done('late'), 50))",
            "\"late\"",
        ),
        ("'a\\ud800b'", r#""a\ufffdb""#),
        ("({a: '\\ude00'})", r#"{"a":"\ufffd"}"#),
        ("document.title = 'x'", "\"x\""),
        ("'x'.repeat(65534)", &format!("\"{}\"", "x".repeat(65_534))),
    ] {
        assert_eq!(value(&mut page, script), expected, "{script}");
    }
    for (script, why) in [
        ("throw new Error('no way')", "it threw: Error: no way"),
        ("throw 'plain'", "it threw: \"plain\""),
        ("syntax error", "SyntaxError"),
        (
            "Promise.reject(new Error('later'))",
            "it threw: Error: later",
        ),
        ("let o = {}; o.o = o; o", "circular"),
        ("10n", "BigInt"),
        ("'x'.repeat(65535)", "more than 64 KiB"),
        ("Array(40000).fill(1)", "more than 64 KiB"),
        ("'ä'.repeat(40000)", "more than 64 KiB"),
    ] {
        let said = refused(page.evaluate_json(script));
        assert!(said.contains(why), "{script}: {said}");
    }
}

#[test]
fn a_screenshot_is_a_png_of_what_is_seen() {
    let (_folder, _browser, mut page) = shown("<body style='background:red'>");
    let red = page.screenshot_png().unwrap();
    assert_eq!(red[..8], *b"\x89PNG\r\n\x1a\n");
    // 640 by 480, high bytes first.
    assert_eq!(red[16..24], [0, 0, 2, 128, 0, 0, 1, 224]);
    page.show("<body style='background:blue'>").unwrap();
    assert_ne!(page.screenshot_png().unwrap(), red);
}

#[test]
fn dialogs_are_accepted_and_block_nothing() {
    let (_folder, _browser, mut page) =
        shown("<button onclick='said = [confirm(1), prompt(2, \"Ada\"), alert(3)]'>Ask</button>");
    let ask = find(&mut page, "button", "Ask");
    page.click(ask.id).unwrap();
    assert_eq!(value(&mut page, "said"), r#"[true,"Ada",null]"#);
    page.evaluate_json("onbeforeunload = e => e.preventDefault()")
        .unwrap();
    page.click_at(300.0, 300.0).unwrap();
    page.show("<p>next").unwrap();
    assert_eq!(value(&mut page, "document.body.textContent"), "\"next\"");
}

#[test]
fn too_much_html_is_refused() {
    let (_folder, _browser, mut page) = shown("<p>before");
    let html = "x".repeat(1 << 20);
    page.show(&html).unwrap();
    let why = refused(page.show(&format!("{html}x")));
    assert!(why.contains("1048577 bytes"), "{why}");
}
