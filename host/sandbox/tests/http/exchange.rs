//! What an allowed request sends, and what of the answer its guest sees.

use std::time::Duration;

use sandbox::{
    Error,
    http::{Client, Config, Host, Method, Request},
};

use crate::{
    server::Server,
    support::{Names, SECRET, failed, get, refused, session, surroundings},
};

fn near() -> Host {
    Host {
        private: true,
        methods: vec![Method::Get, Method::Head, Method::Post, Method::Delete],
        ..Host::default()
    }
}

fn with_secret() -> Host {
    let secrets = [("authorization".to_owned(), "Bearer env:KEY".to_owned())];
    Host {
        secrets: secrets.into(),
        ..near()
    }
}

#[test]
fn an_allowed_request_goes_out_as_it_was_asked_and_comes_back() {
    let server = Server::saying(
        "HTTP/1.1 404 Not Found\r\nx-a: 1\r\nX-A: 2\r\nset-cookie: id=1\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",
    );
    let name = format!("http://near.example:{}", server.port);
    let names = Names::of("near.example", &[&["127.0.0.1"]]);
    let mut session = session(&[(&name, near())], &names);
    let response = session
        .fetch(&Request {
            method: Method::Post,
            headers: vec![("X-Mine".to_owned(), "yes".to_owned())],
            body: Some(b"body".to_vec()),
            ..get(&format!("{name}/a/./b?c=d e#f").replace(' ', "%20"))
        })
        .unwrap();
    assert_eq!(
        (response.status, response.body.as_slice()),
        (404, &b"hello"[..])
    );
    let headers: Vec<_> = response
        .headers
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    assert_eq!(headers, [("x-a", "1"), ("x-a", "2")]);
    let seen = server.seen().remove(0);
    assert!(seen.starts_with("POST /a/b?c=d%20e HTTP/1.1\r\n"), "{seen}");
    for part in [
        &format!("host: near.example:{}\r\n", server.port),
        "x-mine: yes\r\n",
        "accept-encoding: identity\r\n",
        "content-length: 4\r\n",
        "\r\n\r\nbody",
    ] {
        assert!(seen.contains(part), "{part} in {seen}");
    }
}

#[test]
fn a_secret_of_one_host_is_masked_in_what_another_says() {
    let own = Server::saying("HTTP/1.1 204 No Content\r\n\r\n");
    let other = Server::saying(format!(
        "HTTP/1.1 200 OK\r\nx-a: {SECRET}\r\ncontent-length: 25\r\n\r\n<{SECRET}>"
    ));
    let hosts = [(&*own.origin(), with_secret()), (&*other.origin(), near())];
    let mut session = session(&hosts, &Names::default());
    let response = session.fetch(&get(&other.origin())).unwrap();
    assert_eq!(response.body, b"<***>");
    assert_eq!(response.headers[0].1, "***");
}

#[test]
fn every_method_goes_out_with_the_body_it_has() {
    let server = Server::saying("HTTP/1.1 204 No Content\r\n\r\n");
    let mut session = session(&[(&server.origin(), near())], &Names::default());
    for (method, body, expected) in [
        (Method::Head, None, "HEAD / "),
        (Method::Post, None, "content-length: 0\r\n"),
        (Method::Delete, None, "DELETE / "),
        (Method::Delete, Some(b"x".to_vec()), "content-length: 1\r\n"),
    ] {
        let request = Request {
            method,
            body,
            ..get(&server.origin())
        };
        assert_eq!(session.fetch(&request).unwrap().status, 204);
        let seen = server.seen().pop().unwrap();
        assert!(seen.contains(expected), "{seen}");
    }
}

#[test]
fn methods_bodies_and_requests_have_limits_of_the_operators() {
    let server = Server::saying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let host = Host {
        request_bytes: 4,
        requests: 2,
        path: "/v1/".to_owned(),
        ..near()
    };
    let mut session = session(&[(&server.origin(), host)], &Names::default());
    let url = format!("{}/v1/a", server.origin());
    let post = |body: &[u8]| Request {
        method: Method::Post,
        body: Some(body.to_vec()),
        ..get(&url)
    };
    let put = Request {
        method: Method::Put,
        ..get(&url)
    };
    let with_body = Request {
        body: Some(Vec::new()),
        ..get(&url)
    };
    assert!(refused(session.fetch(&put)).contains("no PUT"));
    assert!(refused(session.fetch(&post(b"12345"))).contains("5 bytes"));
    assert!(refused(session.fetch(&with_body)).contains("no body"));
    assert!(refused(session.fetch(&get(&server.origin()))).contains("not below `/v1/`"));
    session.fetch(&post(b"1234")).unwrap();
    session.fetch(&get(&url)).unwrap();
    assert!(refused(session.fetch(&get(&url))).contains("2 requests were made"));
    assert_eq!(server.seen().len(), 2, "what is refused is never sent");
}

#[test]
fn a_secret_is_sent_and_seen_by_nobody() {
    let server = Server::echoing();
    let mut session = session(&[(&server.origin(), with_secret())], &Names::default());
    let response = session.fetch(&get(&server.origin())).unwrap();
    let seen = server.seen().remove(0);
    assert!(
        seen.contains(&format!("authorization: Bearer {SECRET}\r\n")),
        "{seen}"
    );
    let body = String::from_utf8(response.body).unwrap();
    assert!(body.contains("authorization: Bearer ***\r\n"), "{body}");
    for name in ["authorization", "Authorization", "AUTHORIZATION"] {
        let request = Request {
            headers: vec![(name.to_owned(), "Bearer mine".to_owned())],
            ..get(&server.origin())
        };
        assert!(refused(session.fetch(&request)).contains("is the operator's"));
    }
    assert!(!format!("{session:?}").contains("hunter2"));
}

#[test]
fn a_secret_in_a_redirect_or_a_header_is_masked_and_the_redirect_is_not_followed() {
    let elsewhere = Server::saying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let to = format!("{}/?key={SECRET}", elsewhere.origin());
    let answer = format!(
        "HTTP/1.1 302 Found\r\nlocation: {to}\r\nx-{SECRET}: {SECRET}\r\ncontent-length: 2\r\n\r\nhi"
    );
    let server = Server::saying(answer);
    let mut session = session(&[(&server.origin(), with_secret())], &Names::default());
    let response = session.fetch(&get(&server.origin())).unwrap();
    assert_eq!(
        (response.status, response.body.as_slice()),
        (302, &b"hi"[..])
    );
    assert_eq!(
        response.headers,
        [
            (
                "location".to_owned(),
                format!("{}/?key=***", elsewhere.origin())
            ),
            ("x-***".to_owned(), "***".to_owned()),
        ]
    );
    assert!(elsewhere.seen().is_empty());
    let again = session.fetch(&get(&response.headers[0].1));
    assert!(refused(again).contains("not one of the hosts"));
}

#[test]
fn a_request_is_checked_and_connected_to_one_resolution() {
    let server = Server::saying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let name = format!("http://rebind.example:{}", server.port);
    let names = Names::of("rebind.example", &[&["127.0.0.1"], &["169.254.169.254"]]);
    let mut session = session(&[(&name, near())], &names);
    session.fetch(&get(&name)).unwrap();
    assert_eq!((names.asked(), server.seen().len()), (1, 1));
    assert!(refused(session.fetch(&get(&name))).contains("link-local"));
    assert_eq!((names.asked(), server.seen().len()), (2, 1));
}

#[test]
fn a_host_that_is_not_there_is_a_failure_in_words_of_ours() {
    let server = Server::saying("");
    let origin = server.origin();
    let mut session = session(
        &[
            (&origin, near()),
            ("https://unknown.example", Host::default()),
        ],
        &Names::default(),
    );
    let why = failed(session.fetch(&get("https://unknown.example")));
    assert!(why.contains("cannot be resolved"), "{why}");
    let why = failed(session.fetch(&get(&origin)));
    assert!(why.contains("the connection broke"), "{why}");
    drop(server);
    failed(session.fetch(&get(&origin)));
}

#[test]
fn without_hosts_or_a_secret_there_is_no_http_and_the_reason_names_no_secret() {
    let none = Client::new(&Config::default(), surroundings(&Names::default()));
    let words = none.unwrap_err().to_string();
    assert!(words.contains("no host is listed"), "{words}");
    let secrets = [("authorization".to_owned(), "env:MISSING".to_owned())];
    let host = Host {
        secrets: secrets.into(),
        ..Host::default()
    };
    let config = Config {
        hosts: [("https://a.example".to_owned(), host)].into(),
        ..Config::default()
    };
    let error = Client::new(&config, surroundings(&Names::default())).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(!error.to_string().contains("MISSING"), "{error}");
}

#[test]
fn a_server_that_cannot_prove_who_it_is_gets_no_secret() {
    let server = Server::saying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let name = format!("https://tls.example:{}", server.port);
    let names = Names::of("tls.example", &[&["127.0.0.1"]]);
    let host = Host {
        timeout: Duration::from_secs(2),
        ..with_secret()
    };
    let mut session = session(&[(&name, host)], &names);
    failed(session.fetch(&get(&name)));
    drop(session);
    let seen = server.seen().concat();
    assert!(!seen.contains("hunter2") && !seen.contains("GET"), "{seen}");
}
