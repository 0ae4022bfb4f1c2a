use chrono::NaiveDateTime;
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::difference::LEAF_BYTES;

/// A SHA-256.
pub type Digest = [u8; 32];

/// The SHA-256 of `parts`, one behind the other.
pub fn sha256(parts: &[&[u8]]) -> Digest {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// A time as PostgreSQL writes it in ISO style: without zeros at the end of its fraction.
pub fn timestamp(time: NaiveDateTime) -> String {
    let text = time.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
    // There is a fraction of six digits, so that no zero of the seconds goes.
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What a seal says of itself, and what is hashed before its rows. Times are texts, as PostgreSQL writes them.
#[derive(Debug, Clone, Default)]
pub struct SealHeader {
    /// The month of the chain, `YYYY-MM`.
    pub month: String,
    /// Its place in the chain, from 1.
    pub sequence: i32,
    /// What its rows are: one of the kinds of `docs/SEALS.md`.
    pub kind: String,
    /// The run that made it, if one did.
    pub run: Option<String>,
    /// How many rows it has.
    pub rows: i64,
    /// `createdAt` of the first row.
    pub first_created_at: String,
    /// `id` of the first row.
    pub first_id: String,
    /// `createdAt` of the last row.
    pub last_created_at: String,
    /// `id` of the last row.
    pub last_id: String,
    /// Its rows are those whose `archivedAt` is after this; `None`: from the beginning.
    pub archived_after: Option<String>,
    /// And not after this.
    pub archived_at: Option<String>,
    /// The lowest ledger number of its rows.
    pub min_ledger: Option<i64>,
    /// The highest ledger number of its rows.
    pub max_ledger: Option<i64>,
    /// The columns that are hashed.
    pub columns: Vec<String>,
}

impl SealHeader {
    /// The digest of the seal, which follows one with the digest `previous`, and whose rows have the digest `rows`.
    pub fn digest(&self, previous: &[u8], rows: &Digest) -> Digest {
        let [sequence, count] = [self.sequence.to_string(), self.rows.to_string()];
        let [min_ledger, max_ledger] =
            [self.min_ledger, self.max_ledger].map(|ledger| ledger.map(|ledger| ledger.to_string()));
        let own = [
            Some(self.month.as_str()),
            Some(&sequence),
            Some(&self.kind),
            self.run.as_deref(),
            Some(&count),
            Some(&self.first_created_at),
            Some(&self.first_id),
            Some(&self.last_created_at),
            Some(&self.last_id),
            self.archived_after.as_deref(),
            self.archived_at.as_deref(),
            min_ledger.as_deref(),
            max_ledger.as_deref(),
        ];
        let header: Vec<_> = own.into_iter().chain(self.columns.iter().map(|column| Some(column.as_str()))).collect();
        // Nothing can fail where texts are written to memory.
        let header = serde_json::to_vec(&header).unwrap_or_default();
        sha256(&[previous, &header, rows])
    }
}

/// What stands in a seal for a row that left: all texts as PostgreSQL writes them, and the digest that the row was sealed with.
pub fn removal_digest(archived_at: &str, id: &str, created_at: &str, digest: &[u8]) -> Digest {
    let removal = [archived_at, id, created_at, &HEXLOWER.encode(digest)];
    sha256(&[&serde_json::to_vec(&removal).unwrap_or_default()])
}

/// A row as a seal has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SealedRow {
    /// As PostgreSQL writes it. Within a month the order of these texts is the order of the times.
    pub created_at: String,
    /// Its id.
    pub id: String,
    /// Its ledger number, if it has one.
    pub ledger: Option<i64>,
    /// Its digest.
    pub digest: Digest,
}

/// Rows of a seal, in order of `createdAt`, then of `id` by its bytes.
#[derive(Debug, Default)]
pub struct SealedRows {
    count: u64,
    first: Option<(String, String)>,
    last: (String, String),
    min_ledger: Option<i64>,
    max_ledger: Option<i64>,
    digests: Sha256,
    leaves: Vec<u8>,
}

impl SealedRows {
    /// Adds the next row.
    pub fn push(&mut self, row: &SealedRow) {
        let SealedRow { created_at, id, ledger, digest } = row;
        self.push_digest(digest);
        self.first.get_or_insert_with(|| (created_at.clone(), id.clone()));
        created_at.clone_into(&mut self.last.0);
        id.clone_into(&mut self.last.1);
        self.min_ledger = self.min_ledger.into_iter().chain(*ledger).min();
        self.max_ledger = self.max_ledger.max(*ledger);
    }

    /// Adds the digest of the next row, where nothing is to be said of the rows.
    pub fn push_digest(&mut self, digest: &Digest) {
        self.count += 1;
        self.digests.update(digest);
        self.leaves.extend_from_slice(&digest[..LEAF_BYTES]);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The oldest and the newest ledger number, if any row has one.
    pub fn ledgers(&self) -> Option<(i64, i64)> {
        self.min_ledger.zip(self.max_ledger)
    }

    /// The first bytes of each row's digest.
    pub fn leaves(&self) -> &[u8] {
        &self.leaves
    }

    /// The digest of all of them.
    pub fn digest(&self) -> Digest {
        self.digests.clone().finalize().into()
    }

    /// Writes what a seal says of these rows into its `header`.
    pub fn describe(&self, header: &mut SealHeader) {
        header.rows = i64::try_from(self.count).unwrap_or(i64::MAX);
        (header.first_created_at, header.first_id) = self.first.clone().unwrap_or_default();
        (header.last_created_at, header.last_id) = self.last.clone();
        (header.min_ledger, header.max_ledger) = (self.min_ledger, self.max_ledger);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RowForm, RowHasher};

    #[test]
    fn times_are_written_as_postgresql_writes_them() {
        for text in [
            "2026-01-10 00:00:00",
            "2026-01-10 00:00:10",
            "2026-01-10 00:00:05.123",
            "2026-01-10 00:00:05.1",
            "0900-01-10 00:00:05.000001",
        ] {
            let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").expect("a time");
            assert_eq!(timestamp(time), text);
        }
    }

    /// The example of `docs/SEALS.md`, whose digests another program computed.
    #[test]
    fn the_documents_example_has_the_digests_that_it_says() {
        let document = include_str!("../../docs/SEALS.md");
        let columns = [
            "amount",
            "archivedAt",
            "createdAt",
            "entry_hash",
            "eventIndex",
            "eventType",
            "id",
            "ledger",
            "ledgerClosedAt",
            "metadata",
            "parent_hash",
            "receiver",
            "sender",
            "streamId",
            "txHash",
        ]
        .map(String::from)
        .to_vec();
        let archived_at = "2026-05-31 02:00:00";
        let created = ["2026-01-10 00:00:00", "2026-01-10 00:00:05.123"];
        let rows = [
            [
                Some("1000"),
                Some(archived_at),
                Some(created[0]),
                None,
                Some("0"),
                Some("create"),
                Some("e1"),
                Some("7"),
                Some("2026-01-10T00:00:00Z"),
                Some("a \"quoted\"\ttab"),
                None,
                None,
                Some("GSENDER"),
                Some("42"),
                Some("tx1"),
            ],
            [
                None,
                Some(archived_at),
                Some(created[1]),
                None,
                Some("1"),
                Some("cancel"),
                Some("e2"),
                Some("8"),
                Some("2026-01-10T00:00:05Z"),
                None,
                None,
                None,
                None,
                Some("42"),
                Some("tx2"),
            ],
        ];
        let mut hasher = RowHasher::new(&RowForm::new(columns.clone()), &columns);
        let mut sealed = SealedRows::default();
        let mut computed = Vec::new();
        for (row, ledger) in rows.iter().zip(7..) {
            let (digest, _) = hasher.hash(row);
            computed.push(digest);
            let [created_at, id] = [2, 6].map(|place: usize| row[place].unwrap_or_default().to_owned());
            sealed.push(&SealedRow { created_at, id, ledger: Some(ledger), digest });
        }
        let mut header = SealHeader {
            month: "2026-01".into(),
            sequence: 1,
            kind: "archived".into(),
            run: Some("6c1a9be4-ae06-49fc-9c4f-1a5e6f0d8a5e".into()),
            archived_at: Some(archived_at.into()),
            columns,
            ..SealHeader::default()
        };
        sealed.describe(&mut header);
        computed.push(header.digest(&sha256(&[b"2026-01"]), &sealed.digest()));
        for digest in computed {
            let digest = HEXLOWER.encode(&digest);
            assert!(document.contains(&format!("\n{digest}\n")), "the document lacks {digest}");
        }
    }
}
