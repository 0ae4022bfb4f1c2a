use std::collections::HashSet;

use super::chain::{Digest, SealedRow, SealedRows};
use super::row::{EntryHash, RowHasher, Texts};

/// Hashes of rows among which a parent is looked for, at least. In an unbroken chain it is the row before.
const REMEMBERED: usize = 50_000;
/// So many parents are looked for one by one: in an unbroken chain it is that of the first row.
const FEW: usize = 10;

/// Finds rows whose parent is not among the rows before and behind them.
#[derive(Debug, Default)]
pub struct LinkTracker {
    /// Of the last rows.
    hashes: Vec<String>,
    /// Parents that are not the row before.
    wanted: Vec<String>,
}

impl LinkTracker {
    /// Adds a row with these hashes.
    pub fn add(&mut self, parent_hash: Option<&str>, entry_hash: Option<&str>) {
        if let Some(parent) = parent_hash
            && self.hashes.last().is_none_or(|last| last != parent)
        {
            self.wanted.push(parent.to_owned());
        }
        if let Some(entry_hash) = entry_hash {
            if self.hashes.len() == 2 * REMEMBERED {
                self.look_up();
                self.hashes.drain(..REMEMBERED);
            }
            self.hashes.push(entry_hash.to_owned());
        }
    }

    fn look_up(&mut self) {
        if self.wanted.is_empty() {
            return;
        }
        if self.wanted.len() <= FEW {
            self.wanted.retain(|parent| !self.hashes.contains(parent));
            return;
        }
        let known: HashSet<&str> = self.hashes.iter().map(String::as_str).collect();
        self.wanted.retain(|parent| !known.contains(parent.as_str()));
    }

    /// The parents that were not found, one for each row.
    pub fn unlinked(mut self) -> Vec<String> {
        self.look_up();
        self.wanted
    }
}

/// A row whose entry hash is not that of its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Of the row.
    pub id: String,
    /// The hash that it has.
    pub entry_hash: String,
    /// The hash of the contents.
    pub computed: String,
}

/// What the host's hash chain is like among the rows of a batch.
#[derive(Debug, Default)]
pub struct BatchFindings {
    /// Rows whose entry hash is not that of their contents.
    pub hash_mismatches: u64,
    /// The first of them.
    pub named: Vec<Mismatch>,
    /// Rows whose hash is that of what they were before the host completed them.
    pub completed_by_host: u64,
    /// Parents that are not in the batch, one for each row.
    pub unlinked: Vec<String>,
}

/// Where the columns are that a seal tells of.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    id: usize,
    created_at: usize,
    ledger: Option<usize>,
    parent_hash: Option<usize>,
    entry_hash: Option<usize>,
}

impl Places {
    /// Where they are among the columns `selected`.
    pub fn new(selected: &[String]) -> Self {
        let place = |name: &str| selected.iter().position(|column| column == name);
        // A parent can only be looked for where rows have a hash.
        let chain = place("parent_hash").zip(place("entry_hash"));
        Self {
            // The archive has both.
            id: place("id").unwrap_or_default(),
            created_at: place("createdAt").unwrap_or_default(),
            ledger: place("ledger"),
            parent_hash: chain.map(|(parent_hash, _)| parent_hash),
            entry_hash: chain.map(|(_, entry_hash)| entry_hash),
        }
    }

    /// A row of these texts, whose digest is `digest`.
    pub fn sealed_row(self, texts: &Texts<'_>, digest: Digest) -> SealedRow {
        let text = |place: usize| texts[place].unwrap_or_default().to_owned();
        let ledger = self.ledger.and_then(|place| texts[place]).and_then(whole_number);
        SealedRow { created_at: text(self.created_at), id: text(self.id), ledger, digest }
    }

    /// The row's id.
    pub fn id<'a>(self, texts: &Texts<'a>) -> &'a str {
        texts[self.id].unwrap_or_default()
    }

    /// The row's `createdAt`.
    pub fn created_at<'a>(self, texts: &Texts<'a>) -> &'a str {
        texts[self.created_at].unwrap_or_default()
    }

    /// The hash of the row's parent, if it has one.
    pub fn parent_hash<'a>(self, texts: &Texts<'a>) -> Option<&'a str> {
        self.parent_hash.and_then(|place| texts[place])
    }

    /// The row's entry hash, if it has one.
    pub fn entry_hash<'a>(self, texts: &Texts<'a>) -> Option<&'a str> {
        self.entry_hash.and_then(|place| texts[place])
    }
}

/// Rows of a batch, in whatever order they come: that of `RETURNING` is nobody's promise.
#[derive(Debug)]
pub struct Batch {
    hasher: RowHasher,
    places: Places,
    rows: Vec<SealedRow>,
    links: LinkTracker,
    findings: BatchFindings,
    most_named: usize,
}

impl Batch {
    /// A batch of rows whose texts are those of the columns `selected`. Names `most_named` rows whose hash is wrong.
    pub fn new(hasher: RowHasher, selected: &[String], most_named: usize) -> Self {
        let (rows, links, findings) = (Vec::new(), LinkTracker::default(), BatchFindings::default());
        Self { hasher, places: Places::new(selected), rows, links, findings, most_named }
    }

    /// Adds a row.
    pub fn add(&mut self, texts: &Texts<'_>) {
        let (digest, state) = self.hasher.hash(texts);
        let row = self.places.sealed_row(texts, digest);
        let entry_hash = self.places.entry_hash(texts);
        match state {
            EntryHash::Absent | EntryHash::Right => {}
            EntryHash::CompletedByHost => self.findings.completed_by_host += 1,
            EntryHash::Wrong { computed } => {
                self.findings.hash_mismatches += 1;
                if self.findings.named.len() < self.most_named {
                    let entry_hash = entry_hash.unwrap_or_default().to_owned();
                    self.findings.named.push(Mismatch { id: row.id.clone(), entry_hash, computed });
                }
            }
        }
        self.links.add(self.places.parent_hash(texts), entry_hash);
        self.rows.push(row);
    }

    /// The rows in the order of a seal, and what was found out about them.
    pub fn finish(mut self) -> (SealedRows, BatchFindings) {
        self.rows.sort_unstable();
        let mut rows = SealedRows::default();
        for row in &self.rows {
            rows.push(row);
        }
        self.findings.unlinked = self.links.unlinked();
        (rows, self.findings)
    }
}

/// The whole part of a number.
fn whole_number(text: &str) -> Option<i64> {
    text.split('.').next().and_then(|whole| whole.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_that_comes_before_or_behind_its_row_is_found_and_any_other_is_named_once_a_row() {
        let mut links = LinkTracker::default();
        for (parent, entry) in [
            (None, Some("a")),
            (Some("a"), Some("b")),
            (Some("d"), Some("c")),
            (Some("a"), Some("d")),
            (Some("gone"), Some("e")),
            (Some("gone"), None),
        ] {
            links.add(parent, entry);
        }
        assert_eq!(links.unlinked(), ["gone", "gone"]);
    }

    #[test]
    fn what_is_remembered_of_a_long_chain_is_bounded() {
        let mut links = LinkTracker::default();
        let hash = |number: usize| number.to_string();
        for number in 1..=3 * REMEMBERED {
            links.add(Some(&hash(number - 1)), Some(&hash(number)));
        }
        assert!(links.hashes.len() <= 2 * REMEMBERED);
        assert_eq!(links.unlinked(), ["0"]);
    }
}
