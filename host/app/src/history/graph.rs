//! A history drawn with characters, as `git log --graph` draws it. Knows nothing of versions.

/// One line of history.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Who it is.
    pub(crate) id: u64,
    /// Who it was made from; a parent comes after all of its children.
    pub(crate) parent: Option<u64>,
    /// What stands beside it, one or more lines.
    pub(crate) text: Vec<String>,
}

/// Draws nodes from the newest to the oldest.
pub(crate) fn draw(nodes: &[Node]) -> String {
    let mut lines = Vec::new();
    // What each column waits for, from left to right.
    let mut columns: Vec<u64> = Vec::new();
    for node in nodes {
        let at = match columns.iter().position(|id| *id == node.id) {
            Some(at) => at,
            None => {
                columns.push(node.id);
                columns.len() - 1
            }
        };
        while let Some(from) = columns.iter().rposition(|id| *id == node.id)
            && from > at
        {
            lines.push(joined(columns.len(), at, from));
            columns.remove(from);
        }
        let mut text = node.text.iter();
        let first = text.next().map_or("", String::as_str);
        lines.push(format!("{}  {first}", row(columns.len(), at, '*')));
        let below = if node.parent.is_some() { '|' } else { ' ' };
        for more in text {
            lines.push(format!("{}  {more}", row(columns.len(), at, below)));
        }
        match node.parent {
            Some(parent) => columns[at] = parent,
            None => {
                columns.remove(at);
                if at < columns.len() {
                    lines.push(closed(columns.len() + 1, at));
                }
            }
        }
    }
    let trimmed = lines.iter().map(|line| line.trim_end());
    let mut drawn = trimmed.collect::<Vec<_>>().join("\n");
    drawn.push('\n');
    drawn
}

fn row(columns: usize, at: usize, sign: char) -> String {
    let signs: Vec<String> = (0..columns)
        .map(|column| if column == at { sign } else { '|' }.to_string())
        .collect();
    signs.join(" ")
}

/// Column `from` runs into column `at`; those right of it move one to the left.
fn joined(columns: usize, at: usize, from: usize) -> String {
    let mut line = vec![' '; 2 * columns];
    for column in 0..from {
        line[2 * column] = '|';
    }
    for column in at..from.saturating_sub(1) {
        line[2 * column + 1] = '_';
    }
    for column in from..columns {
        line[2 * column - 1] = '/';
    }
    line.into_iter().collect()
}

/// Column `at` ends; those right of it move one to the left.
fn closed(columns: usize, at: usize) -> String {
    let mut line = vec![' '; 2 * columns];
    for column in 0..at {
        line[2 * column] = '|';
    }
    for column in at + 1..columns {
        line[2 * column - 1] = '/';
    }
    line.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(nodes: &[(u64, Option<u64>)], expected: &str) {
        let nodes: Vec<Node> = nodes
            .iter()
            .map(|(id, parent)| Node {
                id: *id,
                parent: *parent,
                text: vec![format!("v{id}")],
            })
            .collect();
        let drawn = draw(&nodes);
        assert_eq!(drawn.trim(), expected.trim(), "\n{drawn}");
    }

    #[test]
    fn a_straight_line_is_a_column_of_stars() {
        check(
            &[(2, Some(1)), (1, Some(0)), (0, None)],
            "*  v2\n*  v1\n*  v0",
        );
    }

    #[test]
    fn a_version_beside_the_line_branches_off_its_parent() {
        check(
            &[(4, Some(2)), (3, Some(2)), (2, Some(0)), (0, None)],
            "*  v4\n| *  v3\n|/\n*  v2\n*  v0",
        );
    }

    #[test]
    fn lines_that_meet_far_away_cross_what_is_between() {
        check(
            &[
                (6, Some(5)),
                (5, Some(1)),
                (4, Some(3)),
                (2, Some(1)),
                (3, Some(0)),
                (1, Some(0)),
                (0, None),
            ],
            "*  v6\n*  v5\n| *  v4\n| | *  v2\n| * |  v3\n|_|/\n* |  v1\n|/\n*  v0",
        );
    }

    #[test]
    fn a_root_in_the_middle_ends_its_column() {
        check(
            &[(3, Some(1)), (2, None), (1, Some(0)), (0, None)],
            "*  v3\n| *  v2\n*  v1\n*  v0",
        );
        check(&[(3, None), (2, Some(0)), (0, None)], "*  v3\n*  v2\n*  v0");
    }

    #[test]
    fn every_line_beside_a_star_is_kept() {
        let node = Node {
            id: 1,
            parent: Some(0),
            text: vec!["v1".into(), "   second line".into()],
        };
        assert_eq!(draw(&[node]), "*  v1\n|     second line\n");
    }
}
