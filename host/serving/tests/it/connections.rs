//! More connections than a host has places for: who keeps theirs, and who gets through.

use std::time::Duration;

use serde_json::json;
use serving::gateway::{self, KeyConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::bench::{Host, Setup, hello};
use crate::operators::key;

async fn host(max_connections: usize, keys: Vec<KeyConfig>) -> Host {
    Host::start(Setup {
        gateway: gateway::Config {
            max_connections,
            keys,
            ..Setup::default().gateway
        },
        ..Setup::default()
    })
    .await
}

/// A connection on which these bytes were sent.
async fn sent(host: &Host, bytes: &str) -> TcpStream {
    let mut socket = TcpStream::connect(host.addr).await.unwrap();
    socket.write_all(bytes.as_bytes()).await.unwrap();
    socket
}

#[tokio::test]
async fn half_a_head_on_each_of_many_connections_keeps_nobody_out() {
    let host = host(8, Vec::new()).await;
    let mut halves = Vec::new();
    for _ in 0..50 {
        halves.push(sent(&host, "GET /healthz HTTP/1.1\r\nhost: ").await);
    }
    assert_eq!(host.chat(hello("tiny")).await.status, 200);
    // Those that came last are open, and the metrics' is, too.
    for closed in halves.iter_mut().take(42) {
        let mut byte = [0];
        let end = timeout(Duration::from_secs(30), closed.read(&mut byte)).await;
        assert!(!matches!(end.expect("it is closed"), Ok(1..)));
    }
    let last = halves.last_mut().unwrap();
    last.write_all(b"x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let metrics = host.get("/metrics").await.body;
    let displaced = metrics
        .lines()
        .find_map(|line| line.strip_prefix("gateway_connections_displaced_total "));
    let displaced: u32 = displaced.expect(&metrics).parse().unwrap();
    assert!(displaced >= 43, "{metrics}");
    assert!(
        metrics.contains("gateway_connections_refused_total 0"),
        "{metrics}"
    );
}

#[tokio::test]
async fn requests_that_never_end_on_all_connections_of_two_tenants_keep_no_operator_out() {
    let host = host(32, vec![key("guest"), key("other"), key("ops")]).await;
    let mut stalled = Vec::new();
    let asked = hello("tiny").to_string();
    for who in ["guest", "other"] {
        let bearer = format!("Bearer {who}");
        let headers = [("authorization", bearer.as_str())];
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\n\
             content-length: 100\r\n\r\n{{"
        );
        // Until the host has seen them all, and a tenant has no more than half of the 30.
        loop {
            let answer = host
                .post_with("/v1/chat/completions", &headers, &asked)
                .await;
            if answer.status == 429 {
                break;
            }
            assert_eq!(answer.status, 200, "{answer:?}");
            stalled.push(sent(&host, &head).await);
        }
    }
    assert!(stalled.len() >= 30);
    let asked = json!({"log": {}}).to_string();
    let ops = [("authorization", "Bearer ops")];
    let answer = host.post_with("/v1/history", &ops, &asked).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_head_that_is_longer_than_any_of_the_api_is_refused() {
    let host = host(8, Vec::new()).await;
    let long = "x".repeat(8 << 10);
    let answer = host.post_with("/v1/status", &[("x-long", &long)], "").await;
    assert_eq!(answer.status, 431, "{answer:?}");
}
