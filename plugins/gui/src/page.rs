//! Puts a task's content into a page's HTML.
//!
//! A page is one document without any address in it: style, kit, body and content are all inside. Content is only ever a block of JSON
//! that the page's script reads; it cannot end that block.

use serde_json::Value;

const STYLE: &str = include_str!("../pages/common.css");
const KIT: &str = include_str!("../pages/common.js");

/// The document of a body (markup and script) with this content.
pub fn document(body: &str, parameters: &Value) -> String {
    let parameters = in_script(parameters);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Page</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main></main>\n\
         <script type=\"application/json\" id=\"parameters\">{parameters}</script>\n\
         <script>\n{KIT}</script>\n{body}</body>\n</html>\n"
    )
}

/// JSON that can stand in a script element: no `<`, `>` or `&`, and none of the two characters that end a line in JavaScript only.
fn in_script(value: &Value) -> String {
    let mut safe = String::new();
    for c in value.to_string().chars() {
        match c {
            '<' => safe.push_str("\\u003c"),
            '>' => safe.push_str("\\u003e"),
            '&' => safe.push_str("\\u0026"),
            '\u{2028}' => safe.push_str("\\u2028"),
            '\u{2029}' => safe.push_str("\\u2029"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn content_cannot_end_its_block_and_comes_back_as_it_was() {
        let evil =
            json!({"a": "</script><script>alert(1)</script><!-- & \u{2028}", "b": "{parameters}"});
        let text = in_script(&evil);
        assert!(!text.contains(['<', '>', '&', '\u{2028}']));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), evil);
        let scripts = document("", &evil).matches("</script>").count();
        assert_eq!(
            scripts,
            document("", &json!({})).matches("</script>").count()
        );
    }

    #[test]
    fn a_page_has_no_address_in_it() {
        for family in crate::families::ALL {
            let page = document(family.body, &json!({}));
            for address in ["http:", "https:", "//", "src=", "url(", "@import", "fetch("] {
                let found = page
                    .lines()
                    .find(|line| line.contains(address) && !line.trim_start().starts_with("//"));
                assert_eq!(found, None, "{}: {address}", family.name);
            }
        }
    }
}
