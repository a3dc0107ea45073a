//! Texts of a bearable length. Pure; see [`crate::session`] for when they are shown.

/// A text of at most `limit` characters and a mark: its beginning and its end.
pub fn cut(text: &str, limit: usize) -> String {
    let count = text.chars().count();
    if count <= limit {
        return text.to_owned();
    }
    let head = limit / 2;
    let begin: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(count - (limit - head)).collect();
    let left_out = count - limit;
    format!("{begin}[... {left_out} characters left out ...]{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_in_the_middle() {
        assert_eq!(cut("abcdef", 4), "ab[... 2 characters left out ...]ef");
        assert_eq!(cut("ääää", 4), "ääää");
    }
}
