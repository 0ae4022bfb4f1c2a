use std::collections::{HashMap, HashSet};

use super::chain::Digest;

/// How much of a row's digest a seal keeps, to tell which row is altered.
pub(crate) const LEAF_BYTES: usize = 8;

type Leaf = [u8; LEAF_BYTES];

/// Where a seal and its rows differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SealDifference {
    /// Rows that the seal has, by their place in it, from 1, and that are not there as they were. The first of them.
    pub sealed: Vec<i64>,
    /// Rows that the seal has not: where they are among the rows, from 1, and their ids. The first of them.
    pub present: Vec<(i64, String)>,
    /// How many differences that makes: a row in the place of another is one.
    pub count: u64,
}

/// Compares the leaves of a seal with its rows.
#[derive(Debug)]
pub struct SealedLeaves<'a> {
    sealed: &'a [u8],
    known: HashSet<Leaf>,
    found: HashSet<Leaf>,
    /// Rows that were added.
    rows: i64,
    /// Of these, those that the seal has not.
    differing: i64,
    /// How many rows and how many leaves differ behind so many rows that are as they were.
    gaps: HashMap<i64, (u64, u64)>,
    most_named: usize,
    difference: SealDifference,
}

impl<'a> SealedLeaves<'a> {
    /// The leaves `sealed`; of either kind of difference `most_named` are named.
    pub fn new(sealed: &'a [u8], most_named: usize) -> Self {
        Self {
            sealed,
            known: leaves(sealed).collect(),
            found: HashSet::new(),
            rows: 0,
            differing: 0,
            gaps: HashMap::new(),
            most_named,
            difference: SealDifference::default(),
        }
    }

    /// Adds the next row, in the order of the seal. Returns whether the seal has it.
    pub fn add(&mut self, id: &str, digest: &Digest) -> bool {
        let mut leaf = Leaf::default();
        leaf.copy_from_slice(&digest[..LEAF_BYTES]);
        self.rows += 1;
        self.found.insert(leaf);
        if self.known.contains(&leaf) {
            return true;
        }
        self.differing += 1;
        self.gaps.entry(self.rows - self.differing).or_default().0 += 1;
        if self.difference.present.len() < self.most_named {
            self.difference.present.push((self.rows, id.to_owned()));
        }
        false
    }

    /// Where they differ.
    pub fn finish(mut self) -> SealDifference {
        let mut differing = 0;
        for (place, leaf) in (1_i64..).zip(leaves(self.sealed)) {
            if self.found.contains(&leaf) {
                continue;
            }
            differing += 1;
            self.gaps.entry(place - differing).or_default().1 += 1;
            if self.difference.sealed.len() < self.most_named {
                self.difference.sealed.push(place);
            }
        }
        // Between two rows that are as they were, each row stands for a leaf, as far as there are as many.
        self.difference.count = self.gaps.values().map(|(rows, leaves)| rows.max(leaves)).sum();
        self.difference
    }
}

fn leaves(bytes: &[u8]) -> impl Iterator<Item = Leaf> {
    bytes.chunks_exact(LEAF_BYTES).filter_map(|leaf| leaf.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(sealed: &[u8], rows: &[u8]) -> SealDifference {
        let sealed: Vec<u8> = sealed.iter().flat_map(|byte| [*byte; LEAF_BYTES]).collect();
        let mut leaves = SealedLeaves::new(&sealed, 10);
        for row in rows {
            leaves.add(&row.to_string(), &[*row; 32]);
        }
        leaves.finish()
    }

    #[test]
    fn a_row_in_the_place_of_another_is_one_difference() {
        let found = |sealed: &[i64], present: &[(i64, &str)], count| SealDifference {
            sealed: sealed.into(),
            present: present.iter().map(|(place, id)| (*place, (*id).to_owned())).collect(),
            count,
        };
        assert_eq!(difference(&[1, 2, 3], &[1, 2, 3]), SealDifference::default());
        assert_eq!(difference(&[1, 2, 3], &[1, 9, 3]), found(&[2], &[(2, "9")], 1));
        assert_eq!(difference(&[1, 2, 3], &[1, 3]), found(&[2], &[], 1));
        assert_eq!(difference(&[1, 2, 3], &[1, 2, 8, 9, 3]), found(&[], &[(3, "8"), (4, "9")], 2));
        assert_eq!(difference(&[1, 2, 3, 4], &[9, 2, 3]), found(&[1, 4], &[(1, "9")], 2));
    }
}
