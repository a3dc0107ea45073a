//! The labelled reactions: complete, balanced, and none of them an example of the prompts.

#[test]
fn sixty_reactions_half_of_them_good_and_none_in_the_prompts() {
    let data = include_str!("../data/reactions.jsonl");
    let manifest = include_str!("../plugin.toml");
    let field = |line: &str, name: &str| {
        let start = format!("\"{name}\": \"");
        let (_, rest) = line
            .split_once(&start)
            .unwrap_or_else(|| panic!("{name} in {line}"));
        rest.split("\", \"")
            .next()
            .unwrap()
            .trim_end_matches("\"}")
            .to_owned()
    };
    let rows: Vec<_> = data.lines().collect();
    assert_eq!(rows.len(), 60);
    let good = rows
        .iter()
        .filter(|row| field(row, "label") == "good")
        .count();
    let bad = rows
        .iter()
        .filter(|row| field(row, "label") == "bad")
        .count();
    assert_eq!((good, bad), (30, 30));
    let reactions: std::collections::BTreeSet<_> =
        rows.iter().map(|row| field(row, "reaction")).collect();
    assert_eq!(reactions.len(), 60);
    assert!(
        reactions
            .iter()
            .all(|reaction| !manifest.contains(reaction.as_str()))
    );
    for row in rows {
        assert!(!field(row, "request").is_empty() && !field(row, "response").is_empty());
    }
}
