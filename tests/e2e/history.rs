//! The weights' history at work: asked of a live host over its API, and on its folder when it has stopped.

use std::io::{BufRead as _, BufReader};
use std::path::Path;

use app::history::{
    Behaviour, BlameMethod, Event, Finding, Hex, Probe, Request, Response, Selector, Test,
    Workbench, render,
};
use app::host::Host;
use ledger::lineage::{Origin, RefKind};

use crate::support::{chat, config, until, with_host};

const QUESTION: &str = "How do I boil an egg?";
const COMPLAINT: &str = "No, that is too long. Please make it shorter.";

/// One conversation whose first reply draws a complaint; gives the reply.
fn complain(host: &Host, session: &str) -> String {
    let first = chat(host, session, &[("user", QUESTION)]);
    let history = [
        ("user", QUESTION),
        ("assistant", first.text()),
        ("user", COMPLAINT),
    ];
    let second = chat(host, session, &history);
    assert_eq!((first.status, second.status), (200, 200), "{second:?}");
    first.text().to_owned()
}

/// Two versions of two samples each; gives the reply of the first session.
fn learn(host: &Host) -> String {
    let reply = complain(host, "one");
    complain(host, "two");
    until(host, "the first version", |s| s.live.get() == 1);
    complain(host, "three");
    complain(host, "four");
    until(host, "the second version", |s| s.live.get() == 2);
    reply
}

fn post(host: &Host, key: &str, request: &Request) -> (u16, Vec<String>) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let response = agent
        .post(format!("{}/v1/history", host.url()))
        .header("authorization", format!("Bearer {key}"))
        .send_json(request)
        .unwrap();
    let status = response.status().as_u16();
    let lines = BufReader::new(response.into_body().into_reader()).lines();
    (status, lines.map(Result::unwrap).collect())
}

/// Asks a live host.
fn ask(host: &Host, request: &Request) -> Result<Response, String> {
    let (_, lines) = post(host, "", request);
    let last = lines.last().unwrap();
    match serde_json::from_str(last) {
        Ok(Event::Done(response)) => Ok(*response),
        Ok(other) => Err(format!("{other:?}")),
        Err(_) => Err(last.clone()),
    }
}

/// Asks a folder.
fn offline(data: &Path, request: Request) -> Result<Response, String> {
    let bench = Workbench::offline(data, None).map_err(|error| format!("{error:#}"))?;
    app::history::run(&bench, request, &mut |_| Ok(())).map_err(|error| format!("{error:#}"))
}

macro_rules! expect {
    ($answer:expr, $variant:path) => {
        match $answer {
            Ok($variant(inner)) => inner,
            other => panic!("{other:?}"),
        }
    };
}

fn behaviour() -> Option<Behaviour> {
    Some(Behaviour {
        prompts: vec![QUESTION.into()],
        max_tokens: 8,
    })
}

fn show(version: &str) -> Request {
    Request::Show {
        version: version.into(),
        behaviour: None,
    }
}

fn revert(version: &str) -> Request {
    Request::Revert {
        version: version.into(),
    }
}

fn tag(name: &str, version: &str) -> Request {
    Request::Name {
        kind: RefKind::Tag,
        name: name.into(),
        version: version.into(),
    }
}

fn session(name: &str, plan: bool) -> Request {
    Request::Forget {
        selector: Selector::Session {
            session: name.into(),
            tenant: None,
        },
        plan,
    }
}

#[test]
fn a_live_host_tells_its_history_and_goes_back_in_it() {
    let folder = tempfile::tempdir().unwrap();
    with_host(config(folder.path()), |host| {
        learn(host);
        let log = expect!(ask(host, &Request::Log { limit: None }), Response::Log);
        let numbers: Vec<_> = log
            .versions
            .iter()
            .map(|row| (row.record.version, row.parent))
            .collect();
        assert_eq!(numbers, [(2, Some(1)), (1, None)]);
        assert!(log.versions[0].live && !log.versions[1].live);

        let shown = expect!(ask(host, &show("v1")), Response::Show);
        let sessions: Vec<&str> = shown.samples.iter().map(|s| s.session.as_str()).collect();
        assert_eq!(sessions, ["one", "two"]);
        let sample = &shown.samples[0];
        assert_eq!(
            (sample.prompt.as_str(), sample.reaction.as_str()),
            (QUESTION, COMPLAINT)
        );
        assert!(
            sample.votes.negative > 0 && sample.advantages.mean < 0.0,
            "{sample:?}"
        );

        let asked = Request::Diff {
            a: "base".into(),
            b: "head".into(),
            behaviour: behaviour(),
        };
        let diff = expect!(ask(host, &asked), Response::Diff);
        assert_eq!(
            (diff.weights.layers.len(), diff.weights.all.norm_a),
            (2, 0.0)
        );
        assert!(diff.weights.all.norm_b > 0.0);
        assert_eq!(diff.samples_between, Some(4));
        let replies = &diff.behaviour.as_ref().unwrap()[0];
        assert!(replies.divergence.unwrap().mean_kl > 0.0, "{replies:?}");

        expect!(ask(host, &tag("good", "v1")), Response::Names);
        let refused = ask(host, &tag("good", "v2")).unwrap_err();
        assert!(refused.contains("not moved"), "{refused}");
        let moved = expect!(ask(host, &revert("good")), Response::Version);
        assert_eq!((moved.record.version, moved.live), (3, true));
        assert_eq!(moved.record.origin, Origin::Reverted { to: 1 });
        assert_eq!(chat(host, "after", &[("user", "Hi")]).version, Some(3));
        let lineage = ledger::lineage::Lineage::read(host.ledger()).unwrap();
        let (old, new) = (
            lineage.get("main", 1).unwrap(),
            lineage.get("main", 3).unwrap(),
        );
        assert_eq!(old.adapter_blob, new.adapter_blob);
        assert_eq!(old.optimizer_blob, new.optimizer_blob);

        let refused = ask(host, &show("v9")).unwrap_err();
        assert!(
            refused.contains("no version `v9`") && refused.contains("good"),
            "{refused}"
        );
        let log = expect!(ask(host, &Request::Log { limit: None }), Response::Log);
        let drawn = render::graph(&log);
        assert!(
            drawn.starts_with("*  v3 ") && drawn.contains("(tag good)"),
            "{drawn}"
        );
        assert!(drawn.contains("reverted to v1"), "{drawn}");
    });
}

#[test]
fn an_adapter_goes_out_of_one_host_and_comes_into_another_as_a_version_that_answers() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (out, digest) = with_host(config(here.path()), |host| {
        learn(host);
        let version = "v1".to_owned();
        let out = expect!(ask(host, &Request::Export { version }), Response::Export);
        let lineage = ledger::lineage::Lineage::read(host.ledger()).unwrap();
        let digest = lineage.get("main", 1).unwrap().fingerprint();
        (out, digest.map(str::to_owned))
    });
    let asked = |weights: Vec<u8>| Request::Import {
        config: out.config.clone(),
        weights: Hex(weights),
        from: "elsewhere".into(),
        branch: Some("guest".into()),
        promote: true,
    };
    let same = offline(here.path(), asked(out.weights.0.clone())).unwrap_err();
    assert!(same.contains("promote v1"), "{same}");
    with_host(config(there.path()), |host| {
        let refused = ask(host, &asked(vec![1, 2, 3])).unwrap_err();
        assert!(refused.contains("elsewhere"), "{refused}");
        let moved = expect!(ask(host, &asked(out.weights.0.clone())), Response::Version);
        assert_eq!(moved.record.origin, Origin::Promoted { from: 1 });
        assert_eq!(chat(host, "after", &[("user", "Hi")]).version, Some(2));
        assert_eq!(moved.record.fingerprint(), digest.as_deref());
        let lineage = ledger::lineage::Lineage::read(host.ledger()).unwrap();
        assert_eq!(lineage.find("main", "guest").unwrap().version, 1);
        // What was imported is trained on like any other version.
        complain(host, "one");
        complain(host, "two");
        until(host, "a version of it", |s| s.live.get() == 3);
    });
}

#[test]
fn blame_finds_the_samples_and_bisect_the_version_that_lost_a_behaviour() {
    let folder = tempfile::tempdir().unwrap();
    let reply = with_host(config(folder.path()), learn);
    let blame = |method| Request::Blame {
        prompt: QUESTION.into(),
        reply: Some(reply.clone()),
        at: "head".into(),
        method,
        top: 2,
    };
    let found = expect!(
        offline(folder.path(), blame(BlameMethod::Gradient)),
        Response::Blame
    );
    assert_eq!(
        (found.looked_at, found.samples.len(), found.erased),
        (4, 2, 0)
    );
    assert!(
        found.logprob < found.logprob_base,
        "a complaint makes a reply rarer: {found:?}"
    );
    let own = &found.samples[0];
    assert!(
        own.sample.session == "one" && own.gradient < 0.0,
        "{found:?}"
    );
    let exact = expect!(
        offline(folder.path(), blame(BlameMethod::Replay)),
        Response::Blame
    );
    let own = exact.samples.iter().find(|s| s.sample.session == "one");
    assert!(own.unwrap().replay.unwrap() < 0.0, "{exact:?}");

    let tokens = app::host::Loaded::from_config(&crate::support::tiny())
        .unwrap()
        .tokenizer
        .encode(&reply, policy::Special::Plain)
        .unwrap()
        .len() as f64;
    let bisect = |min_logprob| Request::Bisect {
        probe: Probe {
            prompt: QUESTION.into(),
            test: Test::Likely {
                reply: reply.clone(),
                min_logprob,
            },
            max_tokens: 8,
        },
        good: "base".into(),
        bad: "head".into(),
    };
    let just_below = tokens * (found.logprob_base - 1e-7);
    let bad = expect!(offline(folder.path(), bisect(just_below)), Response::Bisect);
    assert_eq!((bad.good.as_str(), bad.bad.record.version), ("base", 1));
    assert!(
        !matches!(bad.finding, Finding::Erased | Finding::NotAStep),
        "{bad:?}"
    );
    let never = offline(folder.path(), bisect(1.0)).unwrap_err();
    assert!(
        never.contains("base fails the probe already (the log-prob is"),
        "{never}"
    );
    let always = offline(folder.path(), bisect(-1e9)).unwrap_err();
    assert!(always.contains("nothing to find"), "{always}");
}

fn told(id: &str) -> Request {
    Request::Episode { id: id.into() }
}

#[test]
fn a_conversation_is_told_turn_by_turn_with_what_was_made_of_each_reply_until_it_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let reply = with_host(config(data), |host| {
        let reply = learn(host);
        let shown = expect!(ask(host, &told("one")), Response::Episode);
        let version = shown.turns.iter().map(|turn| turn.trained);
        assert_eq!(version.collect::<Vec<_>>(), [Some(1), None]);
        reply
    });
    let shown = expect!(offline(data, told("one")), Response::Episode);
    assert_eq!((shown.session.as_str(), shown.turns.len()), ("one", 2));
    let (first, second) = (&shown.turns[0], &shown.turns[1]);
    let texts = |messages: &[rl::Message]| -> Vec<String> {
        messages.iter().map(|one| one.content.clone()).collect()
    };
    assert_eq!(texts(&first.seen), [QUESTION]);
    assert_eq!(first.reply.as_ref().unwrap().content, reply);
    assert_eq!(first.next.as_ref().unwrap().text, COMPLAINT);
    // Of what the second was shown, only the complaint is new.
    assert_eq!(texts(&second.seen), [COMPLAINT]);
    assert!(!second.forked && second.trained.is_none());
    let value = first.sample.verdict.map(|verdict| verdict.value);
    assert_eq!(value, Some(rl::VoteValue::Negative));
    let page = render::text(&Response::Episode(shown.clone()));
    for part in [
        "session one",
        "verdict    negative by judge",
        "trained into v1",
        COMPLAINT,
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    // A reply's id names its conversation.
    let by_reply = offline(data, told(&second.sample.turn));
    assert_eq!(expect!(by_reply, Response::Episode), shown);
    let none = offline(data, told("nobody's")).unwrap_err();
    assert!(
        none.contains("no episode, session or reply `nobody's`"),
        "{none}"
    );
    assert_eq!(
        expect!(
            offline(data, Request::Episodes { limit: 9 }),
            Response::Episodes
        ),
        []
    );

    expect!(offline(data, session("one", false)), Response::Forgotten);
    let gone = offline(data, told("one")).unwrap_err();
    assert!(gone.contains("its text was forgotten"), "{gone}");
    let gone = offline(data, told(&second.sample.turn)).unwrap_err();
    assert!(gone.contains("its text was forgotten"), "{gone}");
}

#[test]
fn what_is_forgotten_on_a_folder_is_gone_and_the_rest_replays_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    with_host(config(data), learn);
    let replay = expect!(
        offline(data, Request::Replay { to: None }),
        Response::Replay
    );
    assert!(replay.exact && replay.steps.len() == 2, "{replay:?}");

    let plan = expect!(offline(data, session("three", true)), Response::Plan);
    assert_eq!(
        (plan.turns, plan.trained, plan.versions.as_slice()),
        (2, 1, &[2][..])
    );
    let gone = expect!(offline(data, session("three", false)), Response::Forgotten);
    assert_eq!((gone.before, gone.erased.as_slice()), (2, &[2][..]));
    let nobody = offline(data, session("three", false)).unwrap_err();
    assert!(!nobody.is_empty());

    let version = "v2".to_owned();
    let refused = offline(data, Request::Export { version }).unwrap_err();
    assert!(refused.contains("erased"), "{refused}");
    let shown = expect!(offline(data, show("v2")), Response::Show);
    assert!(shown.row.erased);
    let sound = expect!(
        offline(data, Request::Verify { replay: true }),
        Response::Verify
    );
    assert!(
        sound.sound && sound.replay.is_some(),
        "{}",
        render::text(&Response::Verify(sound))
    );

    // A host that starts on it answers with what is left, and one can go back further.
    with_host(config(data), |host| {
        assert_eq!(
            chat(host, "later", &[("user", "Hi")]).version,
            Some(gone.after)
        );
        let moved = expect!(ask(host, &revert("base")), Response::Version);
        assert_eq!(
            chat(host, "base", &[("user", "Hi")]).version,
            Some(moved.record.version)
        );
    });
}

#[test]
fn a_folder_says_why_it_cannot_be_worked_on_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let log = || Request::Log { limit: None };
    let none = offline(folder.path(), log()).unwrap_err();
    assert!(none.contains("there is no ledger"), "{none}");
    with_host(config(folder.path()), |_| {
        let held = offline(folder.path(), log()).unwrap_err();
        assert!(held.contains("leave --data out"), "{held}");
        // Checking every byte needs nobody's leave.
        let checked = expect!(
            offline(folder.path(), Request::Verify { replay: false }),
            Response::Verify
        );
        assert!(checked.sound, "{checked:?}");
    });
    let config = folder.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let elsewhere = text.replace("tiny-llama", "no-such-model");
    assert_ne!(text, elsewhere);
    std::fs::write(&config, elsewhere).unwrap();
    let diff = Request::Diff {
        a: "base".into(),
        b: "head".into(),
        behaviour: behaviour(),
    };
    let missing = offline(folder.path(), diff).unwrap_err();
    assert!(missing.contains("--model"), "{missing}");
    std::fs::write(&config, "{}x").unwrap();
    let broken = offline(folder.path(), log()).unwrap_err();
    assert!(broken.contains("config.json"), "{broken}");
}

#[test]
fn only_operators_may_ask_for_the_history() {
    let folder = tempfile::tempdir().unwrap();
    with_host(crate::tenants::shared(folder.path()), |host| {
        let (status, lines) = post(host, "key-of-ada", &Request::Log { limit: None });
        assert_eq!(status, 403, "{lines:?}");
        let (status, lines) = post(host, "key-of-ops", &Request::Log { limit: None });
        assert_eq!(status, 200, "{lines:?}");
        let (status, _) = post(host, "key-of-nobody", &Request::Log { limit: None });
        assert_eq!(status, 401);
        let (status, lines) = post(host, "key-of-ops", &show("v7"));
        assert_eq!((status, lines.len()), (400, 1), "{lines:?}");
        assert!(lines[0].contains("no version `v7`"), "{lines:?}");
    });
}
