//! Tenants that do not trust each other share one host: none learns of the other's sessions.

use app::config::Config;
use app::history::{Request, Response, Workbench};
use app::host::Host;
use serde_json::{Value, json};

use crate::support::{config, with_host};

/// Ada, Bob and an operator; the hashes are SHA-256 of `key-of-ada`, `key-of-bob` and `key-of-ops`.
pub(crate) fn shared(data: &std::path::Path) -> Config {
    let keys = json!([
        {"name": "ada", "tenant": "ada", "sha256": "5532e44183f47ed1fc146851b96d585c24da5bd5fe31a885cebc357261ed8f7f"},
        {"name": "bob", "tenant": "bob", "sha256": "808a1d81b5de08d72083995df738947d519d230a20c236003268f0f4b65ee475"},
        {"name": "ops", "tenant": "ops", "sha256": "5551d8b68fe6d566047463be4af31e949db47623ebbf1252ce4eb996599a8574"},
    ]);
    let mut config = config(data);
    config.gateway.keys = serde_json::from_value(keys).unwrap();
    config.operators = vec!["ops".into()];
    config
}

fn client() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into()
}

fn status(host: &Host, key: &str) -> Value {
    let get = client().get(format!("{}/v1/status", host.url()));
    get.header("authorization", format!("Bearer {key}"))
        .call()
        .unwrap()
        .body_mut()
        .read_json()
        .unwrap()
}

fn post(host: &Host, key: &str, path: &str, body: &Value) -> (u16, Value) {
    let post = client()
        .post(format!("{}{path}", host.url()))
        .header("x-session-id", "ada-private");
    let mut response = post
        .header("authorization", format!("Bearer {key}"))
        .send_json(body)
        .unwrap();
    (
        response.status().as_u16(),
        response.body_mut().read_json().unwrap(),
    )
}

#[test]
fn a_tenant_learns_nothing_of_anothers_sessions_turns_or_samples() {
    let folder = tempfile::tempdir().unwrap();
    with_host(shared(folder.path()), |host| {
        let chat = json!({"model": host.trained_model(), "max_tokens": 4,
            "messages": [{"role": "user", "content": "Hi"}]});
        let (code, reply) = post(host, "key-of-ada", "/v1/chat/completions", &chat);
        assert_eq!(code, 200, "{reply}");
        let rating = json!({"id": reply["id"], "rating": "up"});
        let (code, answer) = post(host, "key-of-bob", "/v1/feedback", &rating);
        assert_eq!(code, 404, "Bob rated Ada's reply: {answer}");
        assert_eq!(post(host, "key-of-ada", "/v1/feedback", &rating).0, 200);
        crate::support::until(host, "a trainable turn", |s| s.last_trainable.is_some());

        let seen = status(host, "key-of-bob").to_string();
        assert!(
            !seen.contains("ada-private") && !seen.contains(reply["id"].as_str().unwrap()),
            "{seen}"
        );
        assert!(
            seen.contains("\"live\":0") && seen.contains("restricted"),
            "{seen}"
        );
        let whole = status(host, "key-of-ops").to_string();
        assert!(
            whole.contains("ada-private"),
            "the operator sees the whole host: {whole}"
        );
        assert_eq!(
            status(host, "no key")["error"]["type"],
            "authentication_error"
        );
    });
}

#[test]
fn sessions_of_two_tenants_that_have_one_name_are_never_told_as_one_conversation() {
    let folder = tempfile::tempdir().unwrap();
    let ids = with_host(shared(folder.path()), |host| {
        let chat = json!({"model": host.trained_model(), "max_tokens": 4,
            "messages": [{"role": "user", "content": "Hi"}]});
        ["ada", "bob"].map(|who| {
            let key = format!("key-of-{who}");
            let (code, reply) = post(host, &key, "/v1/chat/completions", &chat);
            assert_eq!(code, 200, "{reply}");
            let told = json!({"episode": {"id": "ada-private"}});
            let asked = client()
                .post(format!("{}/v1/history", host.url()))
                .header("authorization", format!("Bearer {key}"))
                .send_json(&told)
                .unwrap();
            assert_eq!(asked.status().as_u16(), 403, "only operators read episodes");
            reply["id"].as_str().unwrap().to_owned()
        })
    });
    let bench = Workbench::offline(folder.path(), None).unwrap();
    let tell = |id: &str| {
        let id = id.to_owned();
        app::history::run(&bench, Request::Episode { id }, &mut |_| Ok(()))
    };
    let error = tell("ada-private").unwrap_err().to_string();
    assert!(
        error.contains("several tenants") && error.contains("ada, bob"),
        "{error}"
    );
    let Ok(Response::Episode(told)) = tell(&ids[1]) else {
        panic!("Bob's reply names his conversation");
    };
    let tenants: Vec<_> = told
        .turns
        .iter()
        .map(|turn| turn.sample.tenant.as_str())
        .collect();
    assert_eq!(tenants, ["bob"]);
}
