//! Packages through registries, good ones and hostile ones.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use serde_json::{Value, json};

use super::artifact::{ARTIFACT, Artifact, CONFIG, MANIFEST, PACKAGE};
use super::client::{Access, Client};
use super::command::{download, upload};
use super::credentials::Credentials;
use super::digest::Digest;
use super::reference::Reference;
use super::registry::{Answer, Registry, Seen};
use crate::plugins::package::{self, Package};

fn sealed() -> (Package, Vec<u8>) {
    let guest = bundled::BINARY_REWARD;
    let key = SigningKey::from_bytes(&[1; 32]);
    let bytes = package::seal(guest.manifest, guest.component, &key).unwrap();
    (package::open(&bytes).unwrap(), bytes)
}

fn place(registry: &Registry, rest: &str) -> Reference {
    format!("oci://{}/{rest}", registry.address)
        .parse()
        .unwrap()
}

fn ann() -> Option<Credentials> {
    Some(Credentials::new("ann", "secret"))
}

fn pushed(registry: &Registry, own: Option<Credentials>, tag: &str) -> anyhow::Result<Digest> {
    let (package, bytes) = sealed();
    let place = place(registry, &format!("ann/rule:{tag}"));
    let mut client = Client::new(&place, Access::Push, own, false)?;
    upload(&mut client, &place, &package, &bytes)
}

fn pulled_as(
    registry: &Registry,
    own: Option<Credentials>,
    rest: &str,
) -> anyhow::Result<(Package, Vec<u8>)> {
    let place = place(registry, rest);
    let mut client = Client::new(&place, Access::Pull, own, false)?;
    let (package, bytes, _) = download(&mut client, &place)?;
    Ok((package, bytes))
}

#[track_caller]
fn refused(registry: &Registry, own: Option<Credentials>, expected: &str) {
    let error = pulled_as(registry, own, "ann/rule:1").unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains(expected), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

/// A registry that holds the package under the tag 1, with its manifest changed.
fn holding(change: impl FnOnce(&mut Value)) -> Arc<Registry> {
    let registry = Registry::start();
    hold(&registry, change);
    registry
}

fn hold(registry: &Registry, change: impl FnOnce(&mut Value)) {
    let (package, bytes) = sealed();
    let mut manifest = serde_json::to_value(Artifact::of(&package, &bytes)).unwrap();
    change(&mut manifest);
    let manifest = manifest.to_string();
    registry.hold("1", MANIFEST, manifest.as_bytes(), &[&bytes, CONFIG]);
}

#[test]
fn a_package_is_pushed_and_pulled_by_tag_and_by_digest() {
    let registry = Registry::start();
    let digest = pushed(&registry, None, "latest").unwrap();
    assert_eq!(pushed(&registry, None, "0.1.0").unwrap(), digest);
    let uploads = |seen: &Seen| seen.method == "PUT" && seen.path.contains("/uploads/");
    let uploads = registry.seen().into_iter().filter(uploads).count();
    assert_eq!(uploads, 2, "what is there is not uploaded again");
    let (_, bytes) = sealed();
    for rest in ["ann/rule", "ann/rule:0.1.0", &format!("ann/rule@{digest}")] {
        assert_eq!(pulled_as(&registry, None, rest).unwrap().1, bytes, "{rest}");
    }
    let error = pulled_as(&registry, None, "ann/rule:0.2.0").unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("404") && error.contains("MANIFEST_UNKNOWN"),
        "{error}"
    );
}

#[test]
fn the_manifest_is_an_artifact_that_says_what_the_plugin_is() {
    let (package, bytes) = sealed();
    let manifest = serde_json::to_value(Artifact::of(&package, &bytes)).unwrap();
    assert_eq!(manifest["schemaVersion"], 2);
    assert_eq!(manifest["artifactType"], ARTIFACT);
    // Both are the specification's own.
    let empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    assert_eq!(
        manifest["config"],
        json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2})
    );
    assert_eq!(manifest["layers"][0]["mediaType"], PACKAGE);
    let notes = &manifest["annotations"];
    assert_eq!(notes["io.nextstate.plugin.name"], "binary-reward");
    assert_eq!(notes["io.nextstate.plugin.world"], "reward-plugin");
    assert_eq!(notes["io.nextstate.plugin.capabilities"], "config");
}

#[test]
fn a_version_is_never_replaced_and_other_tags_move() {
    let registry = holding(|_| {});
    let (package, bytes) = sealed();
    let mut other = serde_json::to_value(Artifact::of(&package, &bytes)).unwrap();
    other["annotations"]["x"] = json!("y");
    for tag in ["0.1.0", "latest"] {
        registry.hold(tag, MANIFEST, other.to_string().as_bytes(), &[]);
    }
    let error = format!("{:#}", pushed(&registry, None, "0.1.0").unwrap_err());
    assert!(error.contains("never replaced"), "{error}");
    pushed(&registry, None, "latest").unwrap();
}

#[test]
fn what_is_no_plugin_is_refused_before_its_layer_is_fetched() {
    let check = |change: fn(&mut Value), expected: &str| {
        let registry = holding(change);
        refused(&registry, None, expected);
        let blobs = |seen: &Seen| seen.path.contains("/blobs/");
        assert!(!registry.seen().iter().any(blobs), "{expected}");
    };
    check(
        |manifest| manifest["artifactType"] = json!("application/x\u{1b}[2J"),
        "no plugin but `application/x [2J`",
    );
    check(|manifest| manifest["layers"] = json!([]), "0 layers");
    check(
        |manifest| manifest["layers"][0]["mediaType"] = json!("application/x-tar"),
        "its layer is `application/x-tar`",
    );
    check(
        |manifest| manifest["layers"][0]["size"] = json!(u64::MAX),
        "a package has at most",
    );
    check(
        |manifest| manifest["layers"][0]["digest"] = json!("sha256:../../../etc"),
        "no SHA-256 digest",
    );
    check(
        |manifest| manifest["layers"][0]["digest"] = json!("\u{1b}[2J"),
        "` [2J` is no SHA-256 digest",
    );
    check(|manifest| *manifest = json!([1]), "no image manifest");
    check(|manifest| manifest["config"] = json!(1), "damaged");
}

#[test]
fn a_manifest_of_another_media_type_is_refused() {
    let registry = Registry::start();
    let index = "application/vnd.oci.image.index.v1+json";
    registry.hold("1", index, b"{}", &[]);
    refused(&registry, None, index);
}

#[test]
fn a_layer_that_is_not_what_was_promised_is_refused() {
    let (_, bytes) = sealed();
    let mut changed = bytes.clone();
    changed[100] ^= 1;
    let instead = |answer: Answer| {
        let registry =
            Registry::twisted(move |seen| seen.path.contains("/blobs/").then(|| answer.clone()));
        hold(&registry, |_| {});
        registry
    };
    refused(&instead(Answer::new(200, &changed)), None, "was promised");
    refused(
        &instead(Answer::new(200, &bytes[..99])),
        None,
        "has 99 bytes, and its manifest says",
    );
    refused(
        &instead(Answer::new(200, &[7; 4096]).endless()),
        None,
        "sends more than",
    );
}

#[test]
fn a_manifest_that_does_not_end_or_is_not_what_its_digest_says_is_refused() {
    let instead = |answer: Answer| {
        Registry::twisted(move |seen| seen.path.contains("/manifests/").then(|| answer.clone()))
    };
    let endless = Answer::new(200, &[b' '; 4096]).with("content-type", MANIFEST);
    refused(&instead(endless.endless()), None, "sends more than");
    let other = Answer::new(200, b"{}").with("content-type", MANIFEST);
    let wrong = Digest::of(b"x").to_string();
    let named = other.clone().with("docker-content-digest", &wrong);
    refused(&instead(named), None, &wrong);
    let error = pulled_as(&instead(other), None, &format!("ann/rule@{wrong}")).unwrap_err();
    assert!(format!("{error:#}").contains("was promised"), "{error:#}");
}

#[test]
fn a_package_is_what_the_registry_shows_people_it_is() {
    let registry = holding(|manifest| {
        manifest["annotations"]["io.nextstate.plugin.name"] = json!("something-harmless");
    });
    refused(&registry, None, "shows it as `something-harmless`");
}

#[test]
fn a_layer_that_is_no_signed_package_is_refused() {
    let registry = Registry::start();
    let (package, bytes) = sealed();
    let mut changed = bytes;
    let last = changed.len() - 1;
    changed[last] ^= 1;
    let manifest = serde_json::to_vec(&Artifact::of(&package, &changed)).unwrap();
    registry.hold("1", MANIFEST, &manifest, &[&changed]);
    refused(&registry, None, "changed after it was signed");
}

/// A registry that is opened by this header only, and asks with this challenge otherwise.
fn locked(challenge: String, key: &'static str) -> Arc<Registry> {
    Registry::twisted(move |seen| {
        let open = seen.authorization.as_deref() == Some(key);
        (!open).then(|| Answer::new(401, b"").with("www-authenticate", &challenge))
    })
}

#[test]
fn a_registry_that_asks_for_a_password_gets_it() {
    let registry = locked("Basic realm=\"x\"".to_owned(), "Basic YW5uOnNlY3JldA==");
    pushed(&registry, ann(), "1").unwrap();
    pulled_as(&registry, ann(), "ann/rule:1").unwrap();
    refused(
        &registry,
        None,
        "set NEXTSTATE_OCI_REGISTRY, NEXTSTATE_OCI_USER",
    );
    let other = Some(Credentials::new("ann", "other"));
    refused(&registry, other, "401");
    assert!(
        registry.seen()[0].authorization.is_none(),
        "nobody is told anything unasked"
    );
}

#[test]
fn a_registry_that_asks_for_a_token_gets_one_for_what_is_done_and_no_more() {
    let tokens = Registry::twisted(|_| Some(Answer::new(200, br#"{"access_token": "t"}"#)));
    let challenge = format!(
        "Bearer realm=\"http://{}/token?a=b\",service=\"a registry\",scope=\"repository:other:*\"",
        tokens.address
    );
    let registry = locked(challenge, "Bearer t");
    pushed(&registry, ann(), "1").unwrap();
    pulled_as(&registry, None, "ann/rule:1").unwrap();
    let seen = tokens.seen();
    assert_eq!(seen.len(), 2, "a token serves a whole command");
    assert_eq!(
        seen[0].path,
        "/token?a=b&scope=repository:ann/rule:pull,push&service=a%20registry"
    );
    let basic = Some("Basic YW5uOnNlY3JldA==");
    assert_eq!(seen[0].authorization.as_deref(), basic);
    assert!(seen[1].path.contains("scope=repository:ann/rule:pull&"));
    assert_eq!(seen[1].authorization, None);
    let all = registry.seen();
    assert!(
        all.iter()
            .all(|seen| seen.authorization.as_deref() != basic)
    );
}

#[test]
fn a_token_is_found_under_either_name_and_under_both() {
    for body in [
        &br#"{"token": "t"}"#[..],
        br#"{"token": "t", "access_token": "t", "expires_in": 300}"#,
        br#"{"token": "", "access_token": "t"}"#,
        br#"{"token": null, "access_token": "t"}"#,
    ] {
        let tokens = Registry::twisted(move |_| Some(Answer::new(200, body)));
        let challenge = format!("Bearer realm=\"http://{}/\"", tokens.address);
        let registry = locked(challenge, "Bearer t");
        hold(&registry, |_| {});
        pulled_as(&registry, None, "ann/rule:1").unwrap();
    }
}

#[test]
fn a_challenge_to_another_host_does_not_get_the_password() {
    let stranger = Registry::twisted(|_| Some(Answer::new(403, b"")));
    // Another name of this machine: to a client, another host.
    let realm = stranger.address.replace("127.0.0.1", "localhost");
    let registry = locked(format!("Bearer realm=\"http://{realm}/\""), "Bearer t");
    refused(&registry, ann(), "another site than the registry");
    assert_eq!(stranger.seen()[0].authorization, None);
    for realm in [
        "http://tokens.example.org/",
        "ftp://127.0.0.1/",
        "/token",
        "http://ann@127.0.0.1/",
    ] {
        let registry = locked(format!("Bearer realm=\"{realm}\""), "Bearer t");
        refused(&registry, ann(), realm);
        assert_eq!(registry.seen().len(), 1);
    }
}

#[test]
fn a_token_that_is_none_is_an_error_that_does_not_show_it() {
    for body in [
        &b"secret"[..],
        b"{\"token\": \"secret\\n\"}",
        b"{\"token\": 1}",
        b"{}",
        b"{\"token\": \"\"}",
    ] {
        let body = body.to_vec();
        let tokens = Registry::twisted(move |_| Some(Answer::new(200, &body)));
        let challenge = format!("Bearer realm=\"http://{}/\"", tokens.address);
        refused(&locked(challenge, "Bearer t"), ann(), "failed to");
    }
    let endless = Registry::twisted(|_| Some(Answer::new(200, &[b'a'; 4096]).endless()));
    let challenge = format!("Bearer realm=\"http://{}/\"", endless.address);
    refused(&locked(challenge, "Bearer t"), ann(), "sends more than");
}

#[test]
fn a_redirect_elsewhere_is_followed_without_the_token() {
    let (_, bytes) = sealed();
    let store = Registry::twisted(move |_| Some(Answer::new(200, &bytes)));
    let location = format!("http://{}/blob", store.address);
    let registry = Registry::twisted(move |seen| {
        if seen.authorization.is_none() {
            return Some(Answer::new(401, b"").with("www-authenticate", "Basic realm=\"x\""));
        }
        let blob = seen.method == "GET" && seen.path.contains("/blobs/");
        blob.then(|| Answer::new(307, b"").with("location", &location))
    });
    hold(&registry, |_| {});
    pulled_as(&registry, ann(), "ann/rule:1").unwrap();
    assert_eq!(store.seen().len(), 1);
    assert_eq!(store.seen()[0].authorization, None);
}

#[test]
fn a_redirect_in_the_clear_in_circles_or_to_nowhere_is_refused() {
    let leading = |location: &'static str| {
        let registry = Registry::twisted(move |seen| {
            let blob = seen.path.contains("/blobs/") || seen.path.contains("/again");
            blob.then(|| Answer::new(302, b"").with("location", location))
        });
        hold(&registry, |_| {});
        registry
    };
    refused(&leading("http://example.org/blob"), None, "without TLS");
    refused(&leading("/again"), None, "on and on");
    refused(&leading(""), None, "no location");
    refused(&leading("file:///etc/passwd"), None, "is no address");
    refused(&leading("ftp://example.org/x"), None, "neither an https");
    refused(&leading("//example.org/x"), None, "neither an https");
}

#[test]
fn an_upload_elsewhere_goes_without_the_token_and_never_in_the_clear() {
    let store = Registry::twisted(|_| Some(Answer::new(201, b"")));
    let uploads_to = |location: String| {
        Registry::twisted(move |seen| {
            if seen.authorization.is_none() {
                return Some(Answer::new(401, b"").with("www-authenticate", "Basic realm=\"x\""));
            }
            let post = seen.method == "POST";
            post.then(|| Answer::new(202, b"").with("location", &location))
        })
    };
    let registry = uploads_to(format!("http://{}/up", store.address));
    pushed(&registry, ann(), "1").unwrap();
    assert!(store.seen().iter().all(|seen| seen.authorization.is_none()));
    let registry = uploads_to("http://example.org/up".to_owned());
    let error = format!("{:#}", pushed(&registry, ann(), "1").unwrap_err());
    assert!(error.contains("without TLS"), "{error}");
}

#[test]
fn a_registry_that_is_not_this_machine_is_asked_by_tls_unless_the_person_says_otherwise() {
    let base = |text: &str, plain: bool| {
        let place: Reference = text.parse().unwrap();
        let client = Client::new(&place, Access::Pull, None, plain).unwrap();
        format!("{client:?}")
    };
    assert!(base("ghcr.io/a", false).contains("https://ghcr.io"));
    assert!(base("ghcr.io/a", true).contains("http://ghcr.io"));
    assert!(base("[::1]:5000/a", false).contains("http://[::1]:5000"));
    assert!(base("localhost/a", false).contains("http://localhost"));
    assert!(base("localhost.example.org/a", false).contains("https://"));
}
