//! Streams: what is sent, in which order, and when.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::bench::{Client, Host, Setup, deployed, endless, hello, with};

#[tokio::test]
async fn a_stream_is_role_text_finish_usage_and_done() {
    let host = Host::scripted().await;
    let fields = json!({"stream": true, "stream_options": {"include_usage": true}});
    let reply = host.chat(with(hello("tiny:main"), fields)).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    assert_eq!(reply.header("x-policy-version"), Some("3"));
    let chunks = reply.chunks();
    let id = &chunks[0]["id"];
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(&chunk["id"], id);
        assert_eq!(chunk["model"], "tiny:main");
        assert!(
            chunk["system_fingerprint"]
                .as_str()
                .unwrap()
                .starts_with("tiny:main@v3-")
        );
    }
    let deltas: Vec<&Value> = chunks[..6]
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"])
        .collect();
    assert_eq!(deltas[0], &json!({"role": "assistant", "content": ""}));
    // Token by token, characters whole.
    let texts: Vec<&str> = deltas[1..5]
        .iter()
        .map(|delta| delta["content"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["Hello", " big", " wörld", "."]);
    assert_eq!(deltas[5], &json!({}));
    assert_eq!(chunks[5]["choices"][0]["finish_reason"], "stop");
    assert!(
        chunks[..5]
            .iter()
            .all(|chunk| chunk["choices"][0]["finish_reason"].is_null())
    );
    assert!(chunks[..6].iter().all(|chunk| chunk["usage"].is_null()));
    assert_eq!(chunks[6]["choices"], json!([]));
    assert_eq!(chunks[6]["usage"]["completion_tokens"], 5);
    assert_eq!(chunks.len(), 7);
    let plain = host
        .chat(with(hello("tiny"), json!({"stream": true})))
        .await;
    assert!(
        plain
            .chunks()
            .iter()
            .all(|chunk| chunk.get("usage").is_none())
    );
}

#[tokio::test]
async fn a_streamed_call_has_its_id_and_name_first_and_then_its_arguments() {
    let host = Host::scripted().await;
    let fields = json!({
        "stream": true, "tool_choice": "required", "logprobs": true,
        "tools": [{"type": "function", "function": {"name": "weather"}}, {"type": "function", "function": {"name": "time"}}],
    });
    let reply = host.chat(with(hello("tiny:main"), fields)).await;
    let chunks = reply.chunks();
    let calls: Vec<&Value> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].as_array())
        .flatten()
        .collect();
    assert_eq!(calls[0]["index"], 0);
    assert_eq!(calls[0]["type"], "function");
    assert_eq!(calls[0]["function"]["name"], "weather");
    let arguments: String = calls
        .iter()
        .map(|call| call["function"]["arguments"].as_str().unwrap())
        .collect();
    assert_eq!(arguments, "{\"city\": \"Oslo\"}");
    let finish = &chunks.last().unwrap()["choices"][0]["finish_reason"];
    assert_eq!(finish, "tool_calls");
    let sampled: usize = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array())
        .map(Vec::len)
        .sum();
    assert_eq!(sampled, 1);
}

#[tokio::test]
async fn the_last_piece_waits_until_the_turn_is_durable() {
    let mut host = Host::scripted().await;
    let closed = Arc::clone(&host.sink.gate).acquire_owned().await.unwrap();
    let mut stream = host
        .open_chat(&with(hello("tiny:main"), json!({"stream": true})))
        .await;
    let mut whole = host.open_chat(&hello("tiny:main")).await;
    // Both turns are complete and ask to be recorded.
    host.recorded().await;
    host.recorded().await;
    stream.until("wörld").await;
    let seen = stream.peek();
    assert!(
        !seen.contains("\"finish_reason\":\"stop\"") && !seen.contains("[DONE]"),
        "{seen}"
    );
    assert_eq!(whole.peek(), "");
    assert!(host.sink.memory.turns().is_empty());
    drop(closed);
    assert_eq!(
        stream.whole().await.chunks().last().unwrap()["choices"][0]["finish_reason"],
        "stop"
    );
    assert_eq!(whole.whole().await.status, 200);
    assert_eq!(host.sink.memory.turns().len(), 2);
}

#[tokio::test]
async fn a_reply_that_could_not_be_recorded_is_not_acknowledged() {
    let host = Host::scripted().await;
    host.sink.gate.close();
    assert_eq!(host.chat(hello("tiny:main")).await.error().0, 500);
    let stream = host
        .chat(with(hello("tiny:main"), json!({"stream": true})))
        .await;
    let events = stream.events();
    assert!(
        !events
            .iter()
            .any(|event| event == "[DONE]" || event.contains("\"stop\""))
    );
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["error"]["type"], "server_error");
}

#[tokio::test]
async fn a_client_that_goes_away_stops_the_computation_and_its_turn_is_recorded() {
    let mut host = Host::random().await;
    let mut stream = host.open_chat(&endless(4000)).await;
    stream.until("\"content\":").await;
    drop(stream);
    let served = host.recorded().await;
    assert_eq!(served.finish, rl::FinishReason::Cancelled);
    assert!(served.response.len() < 4000);
    assert_eq!(served.response.len(), served.logprobs.len());
    // Without a stream the connection's end is noticed, too.
    let whole = host
        .open_chat(&with(endless(4000), json!({"stream": false})))
        .await;
    while host.sink.begun.lock().len() < 2 {
        tokio::task::yield_now().await;
    }
    drop(whole);
    let served = host.recorded().await;
    assert_eq!(served.finish, rl::FinishReason::Cancelled);
    // The next request finds the place free.
    let next = host.chat(endless(3)).await;
    assert_eq!(
        next.chunks().last().unwrap()["choices"][0]["finish_reason"],
        "length"
    );
    assert_eq!(host.engine.stats().cancelled, 2);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_its_turn_is_recorded() {
    let mut host = Host::random().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let socket = socket.connect(host.addr).await.unwrap();
    let body = with(endless(4000), json!({"logprobs": true, "top_logprobs": 20}));
    let path = "/v1/chat/completions";
    let stalled = Client::send_on(socket, "POST", path, &[], &body.to_string()).await;
    let served = host.recorded().await;
    assert_eq!(served.finish, rl::FinishReason::Cancelled);
    assert!(served.response.len() < 4000);
    assert_eq!(served.response.len(), served.logprobs.len());
    // The next request finds the place free.
    assert_eq!(host.chat(endless(3)).await.status, 200);
    assert_eq!(host.engine.stats().cancelled, 1);
    let metrics = host.get("/metrics").await.body;
    assert!(
        metrics.contains("gateway_turns_unread_total 1"),
        "{metrics}"
    );
    // If it reads after all it is told.
    let reply = stalled.whole().await;
    let events = reply.events();
    assert!(
        events.last().unwrap().contains("reply_unread"),
        "{events:?}"
    );
}

#[tokio::test]
async fn streams_in_flight_keep_their_version_while_others_are_published() {
    let host = Host::random().await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = host.open_chat(&endless(300)).await;
        stream.until("\"content\":").await;
        streams.push(stream);
    }
    for version in 4..20 {
        host.slot.publish(deployed(&host.model, version));
        let reply = host.chat(endless(2)).await;
        assert_eq!(
            reply.header("x-policy-version"),
            Some(version.to_string().as_str())
        );
    }
    for stream in streams {
        let reply = stream.whole().await;
        assert_eq!(
            (reply.status, reply.header("x-policy-version")),
            (200, Some("3"))
        );
        assert_eq!(
            reply.chunks().last().unwrap()["choices"][0]["finish_reason"],
            "length"
        );
    }
}

#[tokio::test]
async fn a_silent_stream_is_kept_alive_by_comments() {
    let gateway = serving::gateway::Config {
        keep_alive: std::time::Duration::from_millis(5),
        ..Setup::default().gateway
    };
    let mut host = Host::start(Setup {
        gateway,
        ..Setup::default()
    })
    .await;
    let closed = Arc::clone(&host.sink.gate).acquire_owned().await.unwrap();
    let mut stream = host
        .open_chat(&with(hello("tiny"), json!({"stream": true})))
        .await;
    host.recorded().await;
    stream.until(": keep-alive\n\n").await;
    drop(closed);
    assert_eq!(stream.whole().await.chunks().len(), 6);
}
