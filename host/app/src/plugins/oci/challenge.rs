//! What a registry asks for with its 401: the header `WWW-Authenticate`.

const BLANK: [char; 2] = [' ', '\t'];

/// How somebody shows who they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Challenge {
    /// By name and password.
    Basic,
    /// By a token that is given out elsewhere.
    Bearer {
        /// Where.
        realm: String,
        /// What the registry is called there.
        service: Option<String>,
    },
}

/// The challenges of one header that are understood. What the registry says of the scope is not read: the scope is what we mean to do.
pub fn challenges(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = split(rest, |c| c.is_ascii_alphanumeric() || "-_.~+/".contains(c));
        if word.is_empty() {
            break;
        }
        let Some(value) = after.trim_start_matches(BLANK).strip_prefix('=') else {
            found.push((word.to_ascii_lowercase(), Vec::new()));
            rest = after;
            continue;
        };
        let (value, after) = read(value.trim_start_matches(BLANK));
        if let Some((_, pairs)) = found.last_mut() {
            pairs.push((word.to_ascii_lowercase(), value));
        }
        rest = after;
    }
    found.into_iter().filter_map(understood).collect()
}

fn understood((scheme, pairs): (String, Vec<(String, String)>)) -> Option<Challenge> {
    let get = |name: &str| {
        let pair = pairs.iter().find(|(key, _)| key == name);
        pair.map(|(_, value)| value.clone())
    };
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: get("realm")?,
            service: get("service"),
        }),
        _ => None,
    }
}

/// A value, quoted or not, and what follows it.
fn read(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, after) = split(text, |c| !",\" \t".contains(c));
        return (word.to_owned(), after);
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => value.extend(chars.next()),
            c => value.push(c),
        }
    }
    (value, chars.as_str())
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        }
    }

    #[test]
    fn what_registries_send_is_understood() {
        let check = |header: &str, expected: &[Challenge]| {
            assert_eq!(challenges(header), expected, "{header}");
        };
        check("Basic realm=\"a, b\"", &[Challenge::Basic]);
        check(
            "Bearer realm=\"https://auth.example.org/token\",service=\"r\",scope=\"repository:a:pull\"",
            &[bearer("https://auth.example.org/token", Some("r"))],
        );
        check(
            "Negotiate, bearer realm=https://a/t , service = x, BASIC",
            &[bearer("https://a/t", Some("x")), Challenge::Basic],
        );
        check(
            "Bearer realm=\"a\\\"b\" service=\"\"",
            &[bearer("a\"b", Some(""))],
        );
    }

    #[test]
    fn what_nobody_should_send_is_nothing_and_ends() {
        for header in [
            "",
            ",,,",
            "=",
            "realm=x",
            "Bearer",
            "Bearer service=x",
            "\"",
            "Bearer realm",
            "\u{e9}=1",
            "a=\"b",
        ] {
            assert_eq!(challenges(header), [], "{header}");
        }
    }
}
