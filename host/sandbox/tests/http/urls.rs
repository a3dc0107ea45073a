//! URLs that want to reach what the operator did not list: each row is a trick of its own, and ends in a refusal that names it.

use sandbox::http::{Host, Method, Request};

use crate::support::{Names, get, refused, session};

const UNLISTED: &str = "is not one of the hosts";
const ODD: &str = "white space, a control character or a backslash";
const USER: &str = "a user or a password";
const SCHEME: &str = "its scheme is";
const NO_URL: &str = "it is no URL";
const OUTSIDE: &str = "is not below `/v1/`";
const DECODED: &str = "once it is decoded";

/// Only `https://api.example.com/v1/` is listed.
const TRICKS: &[(&str, &str)] = &[
    // Another host.
    ("https://evil.example/v1/", UNLISTED),
    ("https://api.example.com.evil.example/v1/", UNLISTED),
    ("https://evilapi.example.com/v1/", UNLISTED),
    ("https://sub.api.example.com/v1/", UNLISTED),
    ("https://example.com/v1/", UNLISTED),
    ("https://api.example.com./v1/", UNLISTED),
    ("https://api.example.co/v1/", UNLISTED),
    ("https://api-example.com/v1/", UNLISTED),
    ("https://аpi.example.com/v1/", "xn--"),
    ("https://api.example.com%2eevil.example/v1/", UNLISTED),
    ("https://evil.example/https://api.example.com/v1/", UNLISTED),
    ("https://evil.example?https://api.example.com/v1/", UNLISTED),
    ("https://evil.example#https://api.example.com/v1/", UNLISTED),
    ("https://evil.example#@api.example.com/v1/", UNLISTED),
    ("https://evil.example/@api.example.com/v1/", UNLISTED),
    ("https://evil。example/v1/", UNLISTED),
    // Users and passwords.
    ("https://api.example.com@evil.example/v1/", USER),
    ("https://api.example.com:443@evil.example/v1/", USER),
    ("https://api.example.com%40evil.example/v1/", NO_URL),
    ("https://user@api.example.com/v1/", USER),
    ("https://user:password@api.example.com/v1/", USER),
    ("https://:password@api.example.com/v1/", USER),
    (
        "https://evil.example@api.example.com@evil.example/v1/",
        USER,
    ),
    // Slashes and what is taken for one.
    ("https://evil.example\\@api.example.com/v1/", ODD),
    ("https:\\\\evil.example/v1/", ODD),
    ("https://api.example.com\\.evil.example/v1/", ODD),
    ("https:/evil.example/v1/", UNLISTED),
    ("https:///evil.example/v1/", UNLISTED),
    ("//api.example.com/v1/", NO_URL),
    ("/v1/", NO_URL),
    ("api.example.com/v1/", NO_URL),
    ("", NO_URL),
    // What parsers drop.
    ("https://evil.exa\tmple/v1/", ODD),
    ("https://api.example.com\n.evil.example/v1/", ODD),
    ("\u{0}https://api.example.com/v1/", ODD),
    (" https://api.example.com/v1/", ODD),
    ("https://api.example.com/v1/\0", ODD),
    ("https://api.example.com\u{2028}/v1/", ODD),
    ("https://api.example.com/v1/\r\nhost: evil.example", ODD),
    ("https://evil.exam\u{ad}ple/v1/", UNLISTED),
    ("https://api.example.com%00.evil.example/v1/", NO_URL),
    ("https://api.example.com%0d%0a/v1/", NO_URL),
    // Other ports.
    ("https://api.example.com:80/v1/", UNLISTED),
    ("https://api.example.com:8443/v1/", UNLISTED),
    ("https://api.example.com:22/v1/", UNLISTED),
    ("https://api.example.com:65979/v1/", NO_URL),
    ("https://api.example.com:443443/v1/", NO_URL),
    ("https://api.example.com:-443/v1/", NO_URL),
    ("https://api.example.com:443:22/v1/", NO_URL),
    // Other schemes.
    ("http://api.example.com/v1/", UNLISTED),
    ("http://api.example.com:443/v1/", UNLISTED),
    ("ftp://api.example.com/v1/", SCHEME),
    ("file:///etc/passwd", SCHEME),
    ("file://api.example.com/etc/passwd", SCHEME),
    ("gopher://127.0.0.1:6379/_FLUSHALL", SCHEME),
    ("dict://127.0.0.1:11211/stat", SCHEME),
    ("ldap://127.0.0.1/", SCHEME),
    ("data:text/plain,hello", SCHEME),
    ("javascript:fetch('https://evil.example')", SCHEME),
    ("jar:https://api.example.com/v1/!/", SCHEME),
    ("view-source:https://api.example.com/v1/", SCHEME),
    ("blob:https://api.example.com/v1/", SCHEME),
    ("wss://api.example.com/v1/", SCHEME),
    ("unix:///var/run/docker.sock", SCHEME),
    ("https+unix://api.example.com/v1/", SCHEME),
    // Addresses in every notation, of which none is listed.
    ("https://127.0.0.1/v1/", "https://127.0.0.1 is"),
    ("https://2130706433/v1/", "https://127.0.0.1 is"),
    ("https://0x7f000001/v1/", "https://127.0.0.1 is"),
    ("https://017700000001/v1/", "https://127.0.0.1 is"),
    ("https://0177.0.0.1/v1/", "https://127.0.0.1 is"),
    ("https://0x7f.0x0.0x0.0x1/v1/", "https://127.0.0.1 is"),
    ("https://127.1/v1/", "https://127.0.0.1 is"),
    ("https://127.0.1/v1/", "https://127.0.0.1 is"),
    ("https://127.0.0.1./v1/", "https://127.0.0.1 is"),
    ("https://%31%32%37.0.0.1/v1/", "https://127.0.0.1 is"),
    ("https://１２７.0.0.1/v1/", "https://127.0.0.1 is"),
    ("https://①②⑦.⓪.⓪.①/v1/", "https://127.0.0.1 is"),
    ("https://127。0。0。1/v1/", "https://127.0.0.1 is"),
    ("https://0/v1/", "https://0.0.0.0 is"),
    ("https://0xa9fea9fe/v1/", "https://169.254.169.254 is"),
    ("https://169.254.43518/v1/", "https://169.254.169.254 is"),
    ("https://127.0.0.256/v1/", NO_URL),
    ("https://127.0.0.0x1g/v1/", UNLISTED),
    ("https://4294967296/v1/", NO_URL),
    ("https://1.2.3.4.5/v1/", NO_URL),
    ("https://[::1]/v1/", "https://[::1] is"),
    ("https://[0:0:0:0:0:0:0:1]/v1/", "https://[::1] is"),
    ("https://[::]/v1/", "https://[::] is"),
    (
        "https://[::ffff:127.0.0.1]/v1/",
        "https://[::ffff:7f00:1] is",
    ),
    ("https://[::127.0.0.1]/v1/", "https://[::7f00:1] is"),
    (
        "https://[64:ff9b::7f00:1]/v1/",
        "https://[64:ff9b::7f00:1] is",
    ),
    ("https://[2002:7f00:1::]/v1/", "https://[2002:7f00:1::] is"),
    ("https://[fe80::1%25eth0]/v1/", NO_URL),
    ("https://[::1/v1/", NO_URL),
    ("https://localhost/v1/", "https://localhost is"),
    (
        "https://metadata.google.internal/computeMetadata/v1/",
        UNLISTED,
    ),
    // Out of the path.
    ("https://api.example.com/", OUTSIDE),
    ("https://api.example.com/v1", OUTSIDE),
    ("https://api.example.com/v1/../admin", OUTSIDE),
    ("https://api.example.com/v1/%2e%2e/admin", OUTSIDE),
    ("https://api.example.com/v1/.%2E/admin", OUTSIDE),
    ("https://api.example.com//v1/", OUTSIDE),
    ("https://api.example.com/V1/", OUTSIDE),
    ("https://api.example.com/%76%31/", OUTSIDE),
    ("https://api.example.com/v1/..%2fadmin", DECODED),
    ("https://api.example.com/v1/%252e%252e/admin", DECODED),
    ("https://api.example.com/v1/..%5cadmin", DECODED),
    ("https://api.example.com/v1/..;x/admin", DECODED),
    ("https://api.example.com/v1/..%3bx/admin", DECODED),
    ("https://api.example.com/v1/%c0%ae%c0%ae/admin", DECODED),
    ("https://api.example.com/v1/．．/admin", DECODED),
    ("https://api.example.com/v1/a%00b", DECODED),
];

/// Listed names (and addresses) that stand for what no request may reach.
const NEAR: &[(&str, &[&str], &str)] = &[
    ("https://127.0.0.1", &[], "loopback"),
    ("https://[::1]", &[], "loopback"),
    ("https://169.254.169.254", &[], "link-local"),
    ("https://[::ffff:a9fe:a9fe]", &[], "IPv4-mapped"),
    ("https://localhost", &["127.0.0.1"], "loopback"),
    ("https://127.0.0.1.nip.example", &["127.0.0.1"], "loopback"),
    ("https://10-0-0-1.wild.example", &["10.0.0.1"], "private"),
    ("https://lan.example", &["192.168.1.1"], "private"),
    ("https://office.example", &["172.16.0.1"], "private"),
    ("https://carrier.example", &["100.64.0.1"], "shared"),
    (
        "https://metadata.google.internal",
        &["169.254.169.254"],
        "link-local",
    ),
    ("https://azure.example", &["168.63.129.16"], "metadata"),
    ("https://alibaba.example", &["100.100.100.200"], "metadata"),
    ("https://oracle.example", &["192.0.0.192"], "metadata"),
    ("https://aws6.example", &["fd00:ec2::254"], "metadata"),
    ("https://this.example", &["0.0.0.0"], "unspecified"),
    ("https://this6.example", &["::"], "unspecified"),
    ("https://loop6.example", &["::1"], "loopback"),
    (
        "https://mapped.example",
        &["::ffff:10.0.0.1"],
        "IPv4-mapped",
    ),
    (
        "https://compatible.example",
        &["::10.0.0.1"],
        "IPv4-compatible",
    ),
    (
        "https://translated.example",
        &["::ffff:0:10.0.0.1"],
        "IPv4-translated",
    ),
    ("https://nat64.example", &["64:ff9b::a00:1"], "NAT64"),
    (
        "https://nat64-local.example",
        &["64:ff9b:1::a00:1"],
        "NAT64",
    ),
    ("https://sixtofour.example", &["2002:a00:1::"], "6to4"),
    ("https://teredo.example", &["2001:0:a00:1::"], "Teredo"),
    ("https://ula.example", &["fd12:3456::1"], "unique local"),
    ("https://link6.example", &["fe80::1"], "link-local"),
    ("https://site6.example", &["fec0::1"], "site-local"),
    ("https://group.example", &["224.0.0.251"], "multicast"),
    ("https://group6.example", &["ff02::1"], "multicast"),
    ("https://all.example", &["255.255.255.255"], "broadcast"),
    ("https://future.example", &["240.0.0.1"], "reserved"),
    (
        "https://documents.example",
        &["203.0.113.1"],
        "documentation",
    ),
    (
        "https://documents6.example",
        &["2001:db8::1"],
        "documentation",
    ),
    ("https://bench.example", &["198.18.0.1"], "benchmarking"),
    // One that is public before one that is not: the second is what is wanted.
    (
        "https://both.example",
        &["93.184.215.14", "10.0.0.1"],
        "private",
    ),
];

#[test]
fn a_url_that_was_not_listed_is_refused_by_its_trick_and_nothing_is_resolved() {
    let host = Host {
        path: "/v1/".to_owned(),
        ..Host::default()
    };
    let names = Names::default();
    let mut session = session(&[("https://api.example.com", host)], &names);
    for (url, expected) in TRICKS {
        let why = refused(session.fetch(&get(url)));
        assert!(why.contains(expected), "{url:?}: {why}");
    }
    let long = format!("https://api.example.com/v1/{}", "a".repeat(9_000));
    assert!(refused(session.fetch(&get(&long))).contains("8192"));
    assert_eq!(names.asked(), 0);
    assert!(TRICKS.len() + NEAR.len() >= 60);
}

#[test]
fn a_listed_name_that_stands_for_something_near_is_refused_by_its_kind() {
    for (origin, addresses, expected) in NEAR {
        let name = origin.trim_start_matches("https://");
        let names = Names::of(name, &[addresses]);
        let mut session = session(&[(origin, Host::default())], &names);
        let why = refused(session.fetch(&get(origin)));
        assert!(why.contains(expected), "{origin}: {why}");
        // The kind of an address is all that a guest learns of it.
        assert!(
            addresses.iter().all(|address| !why.contains(address)),
            "{why}"
        );
    }
}

#[test]
fn a_refused_url_cannot_rewrite_a_terminal_or_fill_a_log() {
    let mut session = session(
        &[("https://api.example.com", Host::default())],
        &Names::default(),
    );
    let url = format!("https://evil.example/\u{1b}[2J{}", "a".repeat(4_000));
    let request = Request {
        method: Method::Get,
        ..get(&url)
    };
    let words = session.fetch(&request).unwrap_err().to_string();
    assert!(!words.contains('\u{1b}') && words.len() < 500, "{words}");
}
