//! Names of nodes: small numbers that a caller can use, each for one node of one document.
//!
//! Numbers are never used twice on a page: an old one is refused and never means another node. Whether a node
//! is still on the page is chromium's to say.

use std::collections::HashMap;

/// Most nodes that are remembered of one document; beyond, only the last tree's are.
const MOST: usize = 20_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    document: u64,
    last: u32,
    ids: HashMap<i64, u32>,
    nodes: HashMap<u32, i64>,
}

impl Nodes {
    /// A tree of this document is about to be read.
    pub(super) fn begin(&mut self, document: u64) {
        if self.document != document || self.nodes.len() > MOST {
            self.ids.clear();
            self.nodes.clear();
            self.document = document;
        }
    }

    /// The number of a node: always the same for the same node of the same document.
    pub(super) fn name(&mut self, node: i64) -> u32 {
        *self.ids.entry(node).or_insert_with(|| {
            self.last += 1;
            self.nodes.insert(self.last, node);
            self.last
        })
    }

    /// The node that a number names on this document; or why none.
    pub(super) fn find(&self, id: u32, document: u64) -> Result<i64, String> {
        match self.nodes.get(&id) {
            Some(&node) if self.document == document => Ok(node),
            _ if id > self.last || id == 0 => {
                Err("no tree of this page has such a node; read the tree first".to_owned())
            }
            _ => Err("the page has changed since; read the tree again".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_names_one_node_of_one_document_for_ever() {
        let mut nodes = Nodes::default();
        nodes.begin(1);
        assert_eq!([nodes.name(70), nodes.name(80), nodes.name(70)], [1, 2, 1]);
        assert_eq!(nodes.find(2, 1), Ok(80));
        assert!(nodes.find(2, 2).unwrap_err().contains("changed"));
        assert!(
            nodes
                .find(3, 1)
                .unwrap_err()
                .contains("read the tree first")
        );
        assert!(nodes.find(0, 1).is_err());
        nodes.begin(2);
        assert_eq!(nodes.name(80), 3);
        assert!(nodes.find(2, 2).unwrap_err().contains("changed"));
        assert_eq!(nodes.find(3, 2), Ok(80));
    }

    #[test]
    fn a_document_that_grows_without_end_is_not_remembered_whole() {
        let mut nodes = Nodes::default();
        for tree in 0..30 {
            nodes.begin(1);
            for node in 0..2_000 {
                nodes.name(tree * 2_000 + node);
            }
        }
        assert!(nodes.nodes.len() <= MOST + 2_000);
        assert_eq!(nodes.find(60_000, 1), Ok(59_999));
    }
}
