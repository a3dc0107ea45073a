//! What is answered, what is refused and how.

use rl::{AdapterName, SessionId, TurnKind};
use serde_json::{Value, json};
use serving::gateway::{self, KeyConfig};
use sha2::{Digest, Sha256};

use crate::bench::{Client, Host, Setup, deployed, hello, with};
use crate::tiny;

fn weather() -> Value {
    json!([{"type": "function", "function": {
        "name": "weather", "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }}])
}

#[tokio::test]
async fn a_whole_reply_has_the_shape_that_clients_expect() {
    let host = Host::scripted().await;
    let reply = host.chat(hello("tiny:main")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let digest = deployed(&host.model, 3).adapter.unwrap().digest();
    let body = reply.json();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "tiny:main");
    assert_eq!(body["created"], 1_700_000_000);
    assert_eq!(
        body["system_fingerprint"],
        format!("tiny:main@v3-{}", &digest[..12])
    );
    assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-"));
    let choice = &body["choices"][0];
    assert_eq!(choice["message"]["content"], "Hello big wörld.");
    assert_eq!(choice["message"]["role"], "assistant");
    assert_eq!(choice["finish_reason"], "stop");
    assert!(choice["logprobs"].is_null() && choice["message"].get("tool_calls").is_none());
    let usage = &body["usage"];
    assert_eq!(usage["completion_tokens"], 5);
    let total = usage["prompt_tokens"].as_u64().unwrap() + 5;
    assert_eq!(usage["total_tokens"], total);
    assert_eq!(reply.header("x-policy-version"), Some("3"));
    assert_eq!(reply.header("x-adapter-digest"), Some(digest.as_str()));
    assert_eq!(reply.header("x-session-id"), Some("local-local"));

    let base = host.chat(hello("tiny")).await;
    assert_eq!(base.header("x-policy-version"), Some("0"));
    assert_eq!(base.header("x-adapter-digest"), None);
    assert_eq!(base.json()["system_fingerprint"], "tiny@v0");

    let turns = host.sink.memory.turns();
    let (ticket, served) = &turns[0];
    assert_eq!(ticket.turn.as_str(), body["id"].as_str().unwrap());
    assert_eq!(served.response, [258, 259, 260, 265, tiny::END]);
    assert_eq!(served.logprobs.len(), 5);
    assert_eq!(served.reply.content, "Hello big wörld.");
    assert_eq!(served.adapter_digest, digest);
    assert_eq!(turns[1].1.adapter_digest, "");
    let begun = host.sink.begun.lock();
    assert_eq!(begun[0].adapter, Some(AdapterName::from("main")));
    assert_eq!(begun[1].adapter, None);
}

#[tokio::test]
async fn every_wrong_request_gets_its_own_openai_shaped_error() {
    let host = Host::scripted().await;
    for line in include_str!("wrong_requests.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let mut fields = case["fields"].clone();
        if let Some(message) = case.get("message") {
            fields = json!({ "messages": [message] });
        }
        if case.get("long").is_some() {
            fields["messages"][0]["content"] = "x".repeat(2000).into();
        }
        let reply = host.chat(with(hello("tiny"), fields)).await;
        let wanted = |name: &str| case[name].as_str().unwrap_or_default().to_owned();
        let status = case["status"].as_u64().unwrap_or(400);
        let error = (
            u16::try_from(status).unwrap(),
            wanted("code"),
            wanted("param"),
        );
        assert_eq!(reply.error(), error, "{line}");
    }
    let unknown = host.chat(hello("gpt-4")).await.json();
    assert!(
        unknown["error"]["message"]
            .as_str()
            .unwrap()
            .contains("tiny, tiny:main")
    );
    assert!(host.sink.begun.lock().is_empty());
}

#[tokio::test]
async fn the_person_behind_a_request_is_recorded_as_the_client_names_them() {
    let host = Host::scripted().await;
    let longest = "ü".repeat(128);
    for user in [json!("ada"), json!(longest), json!(""), json!(null)] {
        let reply = host
            .chat(with(hello("tiny"), json!({ "user": user })))
            .await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    let begun = host.sink.begun.lock();
    let users: Vec<Option<&str>> = begun.iter().map(|turn| turn.user.as_deref()).collect();
    assert_eq!(users, [Some("ada"), Some(longest.as_str()), None, None]);
}

#[tokio::test]
async fn a_session_keeps_its_side_of_a_trial_and_every_reply_names_the_weights_that_gave_it() {
    let host = Host::scripted().await;
    let candidate = deployed(&host.model, 7);
    let digest = candidate.adapter.as_ref().unwrap().digest();
    host.slot.try_out(candidate, 0.5);
    let mut sides = Vec::new();
    for session in 0..12 {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let name = format!("session-{session}");
            let body = with(hello("tiny:main"), json!({ "session_id": name }));
            let reply = host.chat(body).await;
            let version = reply.header("x-policy-version").unwrap().to_owned();
            let is_candidate = reply.header("x-adapter-digest") == Some(digest.as_str());
            assert_eq!(version == "7", is_candidate, "{reply:?}");
            seen.push(version);
        }
        assert_eq!(seen[0], seen[1]);
        sides.push(seen.swap_remove(0));
    }
    assert!(sides.contains(&"3".to_owned()) && sides.contains(&"7".to_owned()));
    host.slot.end_trial();
    let reply = host.chat(hello("tiny:main")).await;
    assert_eq!(reply.header("x-policy-version"), Some("3"));
}

#[tokio::test]
async fn a_candidate_is_no_model_that_a_client_could_ask_for() {
    let host = Host::scripted().await;
    let reply = host.chat(hello("tiny:main@candidate")).await;
    assert_eq!(reply.error().0, 404);
    assert!(!host.get("/v1/models").await.body.contains("candidate"));
    // The gate asks it all the same.
    let candidate = rl::Weights::Adapter(rl::candidate_of(&"main".into()));
    assert!(host.engine.deployed(&candidate).is_ok());
}

#[tokio::test]
async fn a_body_a_path_or_a_method_that_is_wrong_is_told_so() {
    let gateway = gateway::Config {
        max_body_bytes: 10_000,
        ..Setup::default().gateway
    };
    let host = Host::start(Setup {
        gateway,
        ..Setup::default()
    })
    .await;
    let path = "/v1/chat/completions";
    for body in ["", "{", "[]", "\u{1}"] {
        let reply = host.post_with(path, &[], body).await;
        assert_eq!(
            reply.error(),
            (400, "invalid_body".into(), String::new()),
            "{body:?}"
        );
    }
    let deep = "[".repeat(5000);
    assert_eq!(host.post_with(path, &[], &deep).await.status, 400);
    let large = "x".repeat(20_000);
    assert_eq!(host.post_with(path, &[], &large).await.error().0, 413);
    assert_eq!(
        host.get("/v2").await.error(),
        (404, "route_not_found".into(), String::new())
    );
    assert_eq!(host.get(path).await.error().0, 405);
    for (header, value) in [("x-turn-type", "maybe"), ("x-session-done", "perhaps")] {
        let reply = host
            .post_with(path, &[(header, value)], &hello("tiny").to_string())
            .await;
        assert_eq!(
            reply.error(),
            (400, "invalid_request_error".into(), header.into())
        );
    }
}

#[tokio::test]
async fn unknown_and_neutral_fields_do_not_matter() {
    let host = Host::scripted().await;
    let fields = json!({
        "user": "u", "store": true, "n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {},
        "response_format": {"type": "text"}, "parallel_tool_calls": true, "vendor": {"deep": [1]}, "top_k": -1,
        "stop": null, "seed": null, "tools": [], "max_tokens": null, "service_tier": "auto",
    });
    let reply = host.chat(with(hello("tiny"), fields)).await;
    assert_eq!(
        reply.json()["choices"][0]["message"]["content"],
        "Hello big wörld."
    );
    let parts = json!([{"role": "developer", "content": "Be kind."}, {"role": "user", "content": [
        {"type": "text", "text": "one"}, {"type": "text", "text": "two"},
    ]}]);
    host.chat(with(hello("tiny"), json!({ "messages": parts })))
        .await;
    let begun = host.sink.begun.lock();
    assert_eq!(begun[1].messages[1].content, "one\ntwo");
    assert_eq!(begun[1].messages[0].role, rl::Role::System);
}

#[tokio::test]
async fn the_session_comes_from_the_header_before_the_body() {
    let host = Host::scripted().await;
    let all = json!({
        "session_id": "body", "metadata": {"session_id": "meta"}, "prompt_cache_key": "cache", "user": "u",
    });
    let mut fields = all.as_object().unwrap().clone();
    let mut seen = Vec::new();
    let headers = [
        ("x-session-id", "header"),
        ("x-turn-type", "side"),
        ("x-session-done", "true"),
    ];
    let body = with(hello("tiny"), all.clone()).to_string();
    let reply = host
        .post_with("/v1/chat/completions", &headers, &body)
        .await;
    assert_eq!(reply.header("x-session-id"), Some("header"));
    assert_eq!(reply.header("x-turn-type"), Some("side"));
    for name in ["session_id", "metadata", "prompt_cache_key"] {
        host.chat(with(hello("tiny"), Value::from(fields.clone())))
            .await;
        fields.remove(name);
    }
    host.chat(with(hello("tiny"), Value::from(fields))).await;
    for request in &*host.sink.begun.lock() {
        seen.push(request.session.as_ref().map(SessionId::to_string));
    }
    let wanted = [
        Some("header"),
        Some("body"),
        Some("meta"),
        Some("cache"),
        None,
    ];
    assert_eq!(seen, wanted.map(|id| id.map(str::to_owned)));
    let begun = host.sink.begun.lock();
    assert_eq!(begun[0].kind, Some(TurnKind::Side));
    assert!(begun[0].session_done && !begun[1].session_done);
    assert_eq!(begun[1].kind, None);
}

#[tokio::test]
async fn limits_and_stops_are_kept_and_none_is_silent() {
    let gateway = gateway::Config {
        default_max_tokens: 3,
        ..Setup::default().gateway
    };
    let host = Host::start(Setup {
        gateway,
        ..Setup::default()
    })
    .await;
    let finish = async |fields: Value| {
        let body = host.chat(with(hello("tiny"), fields)).await.json();
        let choice = &body["choices"][0];
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        (
            word(&choice["message"]["content"]),
            word(&choice["finish_reason"]),
        )
    };
    let pair = |text: &str, finish: &str| (text.to_owned(), finish.to_owned());
    assert_eq!(finish(json!({})).await, pair("Hello big wörld", "length"));
    assert_eq!(
        finish(json!({"max_tokens": 1})).await,
        pair("Hello", "length")
    );
    assert_eq!(
        finish(json!({"max_completion_tokens": 2, "max_tokens": 1})).await,
        pair("Hello big", "length")
    );
    assert_eq!(
        finish(json!({"max_tokens": 100_000})).await,
        pair("Hello big wörld.", "stop")
    );
    assert_eq!(
        finish(json!({"max_tokens": 9, "stop": "g w"})).await,
        pair("Hello bi", "stop")
    );
    assert_eq!(
        finish(json!({"max_tokens": 9, "stop": ["zzz", "wö"]})).await,
        pair("Hello big ", "stop")
    );
}

#[tokio::test]
async fn log_probs_come_with_bytes_and_alternatives() {
    let host = Host::scripted().await;
    let asked = json!({"logprobs": true, "top_logprobs": 2});
    let body = host.chat(with(hello("tiny"), asked)).await.json();
    let tokens = body["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    // The end token is no part of the text.
    assert_eq!(tokens.len(), 4);
    assert_eq!(tokens[2]["token"], " wörld");
    assert_eq!(tokens[2]["bytes"], json!(" wörld".as_bytes()));
    assert!(tokens[2]["logprob"].as_f64().unwrap() > -1e-3);
    let top = tokens[2]["top_logprobs"].as_array().unwrap();
    assert_eq!(top.len(), 2);
    assert_eq!(top[0]["token"], " wörld");
    assert!(top[1]["logprob"].as_f64().unwrap() < -10.0);
}

#[tokio::test]
async fn a_seed_repeats_a_reply_and_without_one_replies_differ() {
    let host = Host::random().await;
    let say = async |fields: Value| {
        let base = json!({
            "model": "tiny:main", "messages": [{"role": "user", "content": "say"}], "max_tokens": 24,
            "logit_bias": {tiny::END.to_string(): -100},
        });
        let reply = host.chat(with(base, fields)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        host.sink.memory.turns().last().unwrap().1.response.clone()
    };
    let first = say(json!({"seed": 5})).await;
    assert_eq!(say(json!({"seed": 5})).await, first);
    assert_ne!(say(json!({"seed": -5})).await, first);
    assert_ne!(say(json!({})).await, say(json!({})).await);
}

#[tokio::test]
async fn a_forced_call_comes_back_structured() {
    let host = Host::scripted().await;
    let named = json!({"type": "function", "function": {"name": "weather"}});
    for choice in [json!("required"), named] {
        let tools = with(
            hello("tiny:main"),
            json!({
                "tools": [weather()[0], {"type": "function", "function": {"name": "time"}}], "tool_choice": choice,
            }),
        );
        let reply = host.chat(tools).await;
        let message = &reply.json()["choices"][0]["message"];
        assert_eq!(
            reply.json()["choices"][0]["finish_reason"],
            "tool_calls",
            "{reply:?}"
        );
        assert!(message["content"].is_null());
        let call = &message["tool_calls"][0];
        assert_eq!(call["type"], "function");
        assert_eq!(call["function"]["name"], "weather");
        assert_eq!(call["function"]["arguments"], "{\"city\": \"Oslo\"}");
        assert!(call["id"].as_str().unwrap().starts_with("call_"));
    }
    let turns = host.sink.memory.turns();
    let (_, served) = turns.last().unwrap();
    assert_eq!(served.finish, rl::FinishReason::ToolCalls);
    // What was sampled, and nothing of what was begun for the model.
    assert_eq!(served.response, [262]);
    assert_eq!(served.reply.tool_calls[0].name, "weather");

    // The history of a call renders, and `none` shows no tools to the model.
    let history = json!({"tools": weather(), "tool_choice": "none", "messages": [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
        ]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]});
    let reply = host.chat(with(hello("tiny"), history)).await;
    assert_eq!(
        reply.json()["choices"][0]["message"]["content"],
        "Hello big wörld."
    );
}

#[tokio::test]
async fn models_name_what_there_is_and_the_version_that_serves() {
    let host = Host::scripted().await;
    let list = host.get("/v1/models").await.json();
    let ids: Vec<&str> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_str().unwrap())
        .collect();
    assert_eq!(
        (list["object"].as_str(), ids),
        (Some("list"), vec!["tiny", "tiny:main"])
    );
    let one = host.get("/v1/models/tiny:main").await.json();
    assert_eq!(
        (one["object"].as_str(), one["policy_version"].as_u64()),
        (Some("model"), Some(3))
    );
    host.slot.publish(deployed(&host.model, 4));
    assert_eq!(
        host.get("/v1/models/tiny:main").await.json()["policy_version"],
        4
    );
    assert_eq!(host.get("/v1/models/other").await.error().0, 404);
}

#[tokio::test]
async fn feedback_reaches_the_sink_and_an_unknown_reply_is_unknown() {
    let host = Host::scripted().await;
    let id = host.chat(hello("tiny:main")).await.json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let give = |fields: Value| with(json!({ "id": id }), fields);
    for good in [
        json!({"rating": "up"}),
        json!({"rating": "down", "correction": "Shorter."}),
        json!({"correction": "x"}),
    ] {
        let reply = host.post("/v1/feedback", &give(good)).await;
        assert_eq!(
            (reply.status, reply.json()["recorded"].as_bool()),
            (200, Some(true))
        );
    }
    for bad in [
        json!({}),
        json!({"rating": "meh"}),
        json!({"rating": 1}),
        json!({"correction": "  "}),
    ] {
        assert_eq!(host.post("/v1/feedback", &give(bad)).await.error().0, 400);
    }
    let unknown = json!({"id": "chatcmpl-none", "rating": "up"});
    let error = host.post("/v1/feedback", &unknown).await.error();
    assert_eq!(error, (404, "reply_not_found".into(), "id".into()));
}

#[tokio::test]
async fn keys_separate_tenants_and_guard_everything_but_health() {
    let key = |name: &str, secret: &str| KeyConfig {
        name: name.into(),
        tenant: format!("tenant-{name}").as_str().into(),
        sha256: sha2_hex(secret),
    };
    let gateway = gateway::Config {
        keys: vec![key("a", "sk-a"), key("b", "sk-b")],
        ..Setup::default().gateway
    };
    let host = Host::start(Setup {
        gateway,
        ..Setup::default()
    })
    .await;
    let body = hello("tiny").to_string();
    let path = "/v1/chat/completions";
    assert_eq!(
        host.post_with(path, &[], &body).await.error(),
        (401, "invalid_api_key".into(), String::new())
    );
    let wrong = [("authorization", "Bearer sk-c")];
    assert_eq!(host.post_with(path, &wrong, &body).await.error().0, 401);
    for guarded in ["/v1/models", "/v1/models/tiny", "/v1/status", "/metrics"] {
        assert_eq!(host.get(guarded).await.status, 401, "{guarded}");
    }
    for open in ["/healthz", "/readyz"] {
        assert_eq!(host.get(open).await.status, 200, "{open}");
    }
    let right = [("authorization", "Bearer sk-b")];
    assert_eq!(host.post_with(path, &right, &body).await.status, 200);
    let begun = host.sink.begun.lock()[0].clone();
    assert_eq!(
        (begun.tenant.as_str(), begun.key.as_str()),
        ("tenant-b", "b")
    );
    let status = Client::send(host.addr, "GET", "/v1/status", &right, "")
        .await
        .whole()
        .await;
    assert_eq!(status.json(), json!({"tenant": "tenant-b"}));
}

fn sha2_hex(secret: &str) -> String {
    Sha256::digest(secret)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[tokio::test]
async fn metrics_count_requests_and_hold_no_text() {
    let host = Host::scripted().await;
    host.chat(with(
        hello("tiny"),
        json!({"messages": [{"role": "user", "content": "a secret"}]}),
    ))
    .await;
    host.chat(hello("gpt-4")).await;
    let text = host.get("/metrics").await.body;
    for line in [
        "gateway_http_requests_total{route=\"chat\",status=\"200\"} 1",
        "gateway_http_requests_total{route=\"chat\",status=\"404\"} 1",
        "engine_sampled_tokens_total 5",
        "gateway_turns_in_flight 0",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert!(!text.contains("secret"));
}
