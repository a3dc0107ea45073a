//! Operators' requests to the application: who may ask, and how lines come back.

use std::time::Duration;

use serde_json::json;
use serving::gateway::{self, KeyConfig};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::bench::{Client, Host, Setup};

pub(crate) fn key(name: &str) -> KeyConfig {
    KeyConfig {
        name: name.into(),
        tenant: name.into(),
        sha256: Sha256::digest(name)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    }
}

#[tokio::test]
async fn an_operator_is_answered_line_by_line_and_others_are_refused_before_the_body_is_read() {
    let gateway = gateway::Config {
        keys: vec![key("guest"), key("ops")],
        ..Setup::default().gateway
    };
    let host = Host::start(Setup {
        gateway,
        ..Setup::default()
    })
    .await;
    let path = "/v1/history";
    assert_eq!(host.post_with(path, &[], "{}").await.status, 401);
    let guest = [("authorization", "Bearer guest")];
    let refused = host.post_with(path, &guest, "not json").await;
    assert_eq!(refused.error().0, 403, "{refused:?}");

    let ops = [("authorization", "Bearer ops")];
    let asked = json!({"log": {}}).to_string();
    let client = Client::send(host.addr, "POST", path, &ops, &asked).await;
    let answer = client.whole().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<&str> = answer.body.lines().collect();
    assert_eq!(lines, [r#"{"progress":1}"#, r#"{"done":{"log":{}}}"#]);
}

#[tokio::test]
async fn a_request_that_the_application_refuses_at_once_has_a_status_and_its_words() {
    let host = Host::scripted().await;
    let refused = host.post("/v1/history", &json!({"fail": true})).await;
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("it cannot be done"), "{refused:?}");
    assert_eq!(host.post_with("/v1/history", &[], "{").await.status, 400);
}

#[tokio::test]
async fn what_an_operator_asked_for_hears_that_its_client_has_gone() {
    let host = Host::scripted().await;
    let asked = json!({ "endless": true }).to_string();
    let mut client = Client::send(host.addr, "POST", "/v1/history", &[], &asked).await;
    client.until("progress").await;
    assert_eq!(host.gone.available_permits(), 0);
    drop(client);
    let heard = tokio::time::timeout(Duration::from_secs(60), host.gone.acquire()).await;
    assert!(heard.is_ok_and(|permit| permit.is_ok()));
}

#[tokio::test]
async fn an_operators_request_may_be_larger_than_a_clients_up_to_what_the_application_says() {
    let host = Host::start(Setup {
        gateway: gateway::Config {
            max_body_bytes: 1000,
            body_bytes: 1000,
            ..Setup::default().gateway
        },
        ..Setup::default()
    })
    .await;
    let text = |bytes: usize| json!({ "weights": "0".repeat(bytes) });
    assert_eq!(host.post("/v1/history", &text(900)).await.status, 200);
    assert_eq!(host.post("/v1/history", &text(100_000)).await.status, 200);
    let refused = host.post("/v1/history", &text(2 << 20)).await;
    assert_eq!(refused.status, 413);
    assert!(
        refused.body.contains("larger than 1048576 bytes"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn bodies_that_never_arrive_keep_out_neither_another_tenant_nor_an_operator() {
    let host = Host::start(Setup {
        gateway: gateway::Config {
            keys: vec![key("guest"), key("other"), key("ops")],
            max_body_bytes: 4 << 10,
            body_bytes: 8 << 10,
            max_body_wait: Duration::from_millis(200),
            ..Setup::default().gateway
        },
        ..Setup::default()
    })
    .await;
    let chat =
        json!({"model": "tiny", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]});
    let chat = chat.to_string();
    let ask = async |who: &str, path: &str, body: &str| {
        let bearer = format!("Bearer {who}");
        host.post_with(path, &[("authorization", &bearer)], body)
            .await
    };
    // As much as the guest gets, and then all that is left.
    let mut stalled = Vec::new();
    for who in ["guest", "other"] {
        let answer = ask(who, "/v1/chat/completions", &chat).await;
        assert_eq!(answer.status, 200, "{who}: {answer:?}");
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {who}\r\n\
             content-length: 4096\r\n\r\n{{"
        );
        // Until the host has seen it; one that came before the room was free again is turned away.
        loop {
            let mut socket = TcpStream::connect(host.addr).await.unwrap();
            socket.write_all(head.as_bytes()).await.unwrap();
            stalled.push(socket);
            if ask(who, "/v1/chat/completions", &chat).await.status == 503 {
                break;
            }
        }
    }
    let history = ask("ops", "/v1/history", r#"{"log": {}}"#).await;
    assert_eq!(history.status, 200, "{history:?}");
}
