//! What a user says next becomes the next version, live at once, and survives a restart.

use rl::PolicyVersion;

use crate::support::{chat, config, until, with_host};

const COMPLAINT: &str = "No, that is too long. Please make it shorter.";

/// One conversation of two turns whose first reply draws a complaint.
fn complain(host: &app::host::Host, session: &str) {
    let first = chat(host, session, &[("user", "How do I boil an egg?")]);
    assert_eq!(first.status, 200, "{first:?}");
    let history = [
        ("user", "How do I boil an egg?"),
        ("assistant", first.text()),
        ("user", COMPLAINT),
    ];
    let second = chat(host, session, &history);
    assert_eq!(second.status, 200, "{second:?}");
}

#[test]
fn a_complaint_becomes_a_version_that_serves_the_next_request_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let digest = with_host(config(folder.path()), |host| {
        assert_eq!(chat(host, "before", &[("user", "Hi")]).version, Some(0));
        complain(host, "one");
        complain(host, "two");
        let status = until(host, "the first version", |status| {
            status.live == PolicyVersion::new(1)
        });
        assert_eq!((status.trained, status.votes_absent), (2, 0));
        let reply = chat(host, "after", &[("user", "Hi")]);
        assert_eq!(reply.version, Some(1));
        let versions = ledger::lineage::Lineage::read(host.ledger())
            .unwrap()
            .all()
            .to_vec();
        assert_eq!(versions.len(), 1);
        assert_eq!(versions[0].samples.len(), 2);
        // Served and trained log-probs agree bit for bit on fresh samples.
        assert_eq!(versions[0].metrics["mismatched"], 0.0);
        let fresh = versions[0].metrics["fresh"];
        assert!(fresh > 0.0, "nothing was compared");
        let text = ureq::get(format!("{}/metrics", host.url())).call().unwrap();
        let text = text.into_body().read_to_string().unwrap();
        let counted = |name: &str| text.lines().any(|line| line == format!("nextstate_{name}"));
        assert!(
            counted(&format!("loops_fresh_tokens_total {fresh}")),
            "{text}"
        );
        assert!(counted("loops_mismatched_tokens_total 0"));
        // The replies before, of both complaints, and after: each by the weights that the ledger has for its version.
        assert!(
            counted(r#"loops_fingerprints_total{value="same"} 6"#),
            "{text}"
        );
        assert!(!text.contains(r#"loops_fingerprints_total{value="other"}"#));
        assert_eq!(versions[0].metrics["ratio_max"], 1.0);
        reply.body["system_fingerprint"].clone()
    });
    with_host(config(folder.path()), |host| {
        let reply = chat(host, "restarted", &[("user", "Hi")]);
        assert_eq!(reply.version, Some(1));
        assert_eq!(
            reply.body["system_fingerprint"], digest,
            "another adapter than before the restart"
        );
        let status = host.loops().status();
        assert_eq!(status.trained, 2, "a sample was trained twice or lost");
    });
}

#[test]
fn a_client_that_asks_for_the_base_model_is_served_and_told_why_nothing_trains() {
    let folder = tempfile::tempdir().unwrap();
    with_host(config(folder.path()), |host| {
        let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
        let body = serde_json::json!({"model": host.base_model(), "max_tokens": 4,
            "messages": [{"role": "user", "content": "Hi"}]});
        agent
            .post(format!("{}/v1/chat/completions", host.url()))
            .send_json(body)
            .unwrap();
        let status = host.loops().status();
        assert_eq!(
            status.not_trainable.get(&rl::NotTrainable::BaseWeights),
            Some(&1),
            "{status:?}"
        );
    });
}

#[test]
fn two_users_without_session_ids_are_never_merged() {
    let folder = tempfile::tempdir().unwrap();
    with_host(config(folder.path()), |host| {
        let ask = |text: &str| {
            let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
            let body = serde_json::json!({"model": host.trained_model(), "max_tokens": 4,
                "messages": [{"role": "user", "content": text}]});
            let response = agent
                .post(format!("{}/v1/chat/completions", host.url()))
                .send_json(body)
                .unwrap();
            response.headers()["x-session-id"]
                .to_str()
                .unwrap()
                .to_owned()
        };
        assert_ne!(ask("I am Ada."), ask("I am Bob."));
        assert_eq!(
            host.loops().status().reacted,
            0,
            "one user's message was taken as the other's reaction"
        );
    });
}
