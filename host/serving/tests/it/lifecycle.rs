//! Starting, overload and stopping, as clients see them.

use std::time::Duration;

use serde_json::json;
use serving::engine;
use serving::gateway::{self, Gateway};
use tokio::sync::Semaphore;

use crate::bench::{Host, Setup, endless, hello, with};

#[tokio::test]
async fn a_starting_host_says_try_again_and_then_serves() {
    let mut host = Host::start(Setup {
        open: false,
        ..Setup::default()
    })
    .await;
    let reply = host.chat(hello("tiny")).await;
    assert_eq!(reply.error(), (503, "starting".into(), String::new()));
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(host.get("/readyz").await.status, 503);
    assert_eq!(host.get("/healthz").await.body, "ok");
    host.gateway.open(host.backend.take().unwrap());
    assert_eq!(host.get("/readyz").await.body, "ready");
    assert_eq!(host.chat(hello("tiny")).await.status, 200);
}

#[tokio::test]
async fn a_ledger_without_room_is_503_before_anything_is_computed() {
    let host = Host::scripted().await;
    let full = rl::Error::Unavailable {
        what: "the ledger".into(),
        why: "the disk is full".into(),
    };
    *host.sink.refusal.lock() = Some(full);
    for body in [
        hello("tiny"),
        with(hello("tiny"), json!({ "stream": true })),
    ] {
        let refused = host.chat(body).await;
        assert_eq!(refused.error(), (503, "overloaded".into(), String::new()));
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    assert_eq!(host.engine.stats().steps, 0);
    assert_eq!(host.engine.stats().waiting, 0, "its place is given back");
    assert!(host.sink.memory.turns().is_empty());
    *host.sink.refusal.lock() = None;
    assert_eq!(host.chat(hello("tiny")).await.status, 200);
}

#[tokio::test]
async fn a_request_whose_body_finds_no_room_is_503_until_another_ones_turn_is_durable() {
    let gateway = gateway::Config {
        max_body_bytes: 1024,
        body_bytes: 1024,
        max_body_wait: Duration::ZERO,
        ..Setup::default().gateway
    };
    let mut host = Host::start(Setup {
        gateway,
        ..Setup::default()
    })
    .await;
    host.sink.gate.forget_permits(Semaphore::MAX_PERMITS);
    let first = host.open_chat(&hello("tiny")).await;
    host.recorded().await;
    let refused = host.chat(hello("tiny")).await;
    assert_eq!(refused.error(), (503, "overloaded".into(), String::new()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(host.sink.begun.lock().len(), 1);
    host.sink.gate.add_permits(2);
    assert_eq!(first.whole().await.status, 200);
    while host.gateway.turns_in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(host.chat(hello("tiny")).await.status, 200);
}

#[tokio::test]
async fn a_full_queue_is_429_and_a_long_wait_is_503_and_both_say_when_to_retry() {
    let engine = engine::Config {
        max_waiting: 1,
        max_wait: Duration::ZERO,
        ..engine::Config::default()
    };
    let mut host = Host::start(Setup {
        engine,
        running: false,
        ..Setup::default()
    })
    .await;
    let waiting = host.open_chat(&hello("tiny")).await;
    while host.sink.begun.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    let refused = host.chat(hello("tiny")).await;
    assert_eq!(
        refused.error(),
        (429, "rate_limit_exceeded".into(), String::new())
    );
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(host.sink.begun.lock().len(), 1);
    let running = host.idle.take().unwrap().start().unwrap();
    let late = waiting.whole().await;
    assert_eq!(late.error(), (503, "overloaded".into(), String::new()));
    assert_eq!(late.header("retry-after"), Some("1"));
    // A turn that has begun always ends.
    let served = host.recorded().await;
    assert_eq!(served.finish, rl::FinishReason::Cancelled);
    tokio::task::spawn_blocking(|| running.shutdown())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_stopping_host_finishes_its_streams() {
    let mut host = Host::random().await;
    let mut stream = host.open_chat(&endless(500)).await;
    stream.until("\"content\":").await;
    host.stop();
    let reply = stream.whole().await;
    assert_eq!(
        reply.chunks().last().unwrap()["choices"][0]["finish_reason"],
        "length"
    );
    assert_eq!(host.sink.memory.turns().len(), 1);
    host.stopped().await;
}

#[tokio::test]
async fn a_drain_that_takes_too_long_cuts_streams_off_and_still_records_them() {
    let gateway = gateway::Config {
        drain: Duration::ZERO,
        ..Setup::default().gateway
    };
    let mut host = Host::start(Setup {
        gateway,
        scripted: false,
        ..Setup::default()
    })
    .await;
    let mut stream = host.open_chat(&endless(4000)).await;
    stream.until("\"content\":").await;
    host.stop();
    let served = host.recorded().await;
    assert_eq!(served.finish, rl::FinishReason::Cancelled);
    host.stopped().await;
}

#[tokio::test]
async fn a_public_address_without_keys_is_refused_before_it_is_bound() {
    let config = gateway::Config {
        listen: ([0, 0, 0, 0], 0).into(),
        ..gateway::Config::default()
    };
    let built = Gateway::build(config, Default::default(), std::sync::Arc::new(|| 0)).await;
    assert!(matches!(
        built.unwrap_err(),
        serving::Error::KeysRequired { .. }
    ));
}

#[tokio::test]
async fn an_engine_that_stopped_is_an_error_and_not_a_hang() {
    let mut host = Host::start(Setup {
        running: false,
        ..Setup::default()
    })
    .await;
    let waiting = host
        .open_chat(&with(hello("tiny"), json!({"stream": true})))
        .await;
    while host.engine.stats().waiting == 0 {
        tokio::task::yield_now().await;
    }
    let running = host.idle.take().unwrap().start().unwrap();
    drop(running);
    let reply = waiting.whole().await;
    assert!(reply.status == 200 || reply.status == 500, "{reply:?}");
    assert_eq!(host.chat(hello("tiny")).await.error().0, 500);
}
