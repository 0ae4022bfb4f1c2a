use tokio_postgres::GenericClient;

use super::archive_columns::{list_archive_columns, quote};
use crate::error::Result;

/// The columns that an entry hash covers, in the order of its JSON (domain: the hash chain).
const HASHED: [&str; 10] = [
    "amount",
    "eventIndex",
    "eventType",
    "ledger",
    "ledgerClosedAt",
    "metadata",
    "receiver",
    "sender",
    "streamId",
    "txHash",
];

/// The form of an archived row that its digest is computed over (`docs/SEALS.md`): SQL for PostgreSQL to compute it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowForm {
    /// All columns of the archive, in the order of their names' bytes.
    columns: Vec<String>,
    /// What each is called now; `None` for one that is gone and was empty.
    present: Vec<Option<String>>,
}

impl RowForm {
    /// The form that rows have now.
    pub(crate) async fn load(client: &impl GenericClient) -> Result<Self> {
        Ok(Self::new(list_archive_columns(client).await?))
    }

    /// The form of rows with these columns.
    pub(crate) fn new(columns: Vec<String>) -> Self {
        Self::renamed(columns, None)
    }

    /// The form of rows that were sealed with these `columns`, which are called `present` now where any has another name.
    pub(crate) fn renamed(columns: Vec<String>, present: Option<Vec<Option<String>>>) -> Self {
        let present = present.unwrap_or_else(|| columns.iter().cloned().map(Some).collect());
        let mut named: Vec<_> = columns.into_iter().zip(present).collect();
        named.sort_unstable();
        named.dedup();
        let (columns, present) = named.into_iter().unzip();
        Self { columns, present }
    }

    /// Names of the columns, as they are sealed.
    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Names that they have now.
    pub(super) fn present_columns(&self) -> impl Iterator<Item = &String> {
        self.present.iter().flatten()
    }

    fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column == name)
    }

    /// SQL for the value of the column that was sealed as `name`.
    fn value(&self, prefix: &str, name: &str) -> String {
        let present =
            self.columns.iter().zip(&self.present).find_map(|(column, present)| (column == name).then_some(present));
        match present.and_then(Option::as_ref) {
            Some(present) => format!("{prefix}{}", quote(present)),
            None => "NULL".into(),
        }
    }

    /// Whether rows are chained by entry hashes.
    pub(crate) fn has_entry_hashes(&self) -> bool {
        self.has("entry_hash") && self.has("parent_hash") && HASHED.iter().all(|name| self.has(name))
    }

    /// SQL for what a row's entry hash should be, its columns behind `prefix`: the SHA-256 of its content in hexadecimal. Empty
    /// where the host has no hashes.
    pub(crate) fn content_hash(&self, prefix: &str) -> String {
        if !self.has_entry_hashes() {
            return "''".into();
        }
        let fields = HASHED.map(|name| {
            let value = self.value(prefix, name);
            let value = match name {
                "amount" => format!(r#"'"' || {value}::text || '"'"#),
                "eventIndex" | "ledger" => format!("{value}::text"),
                _ => format!("to_json({value}::text)::text"),
            };
            format!(r#""{name}":' || COALESCE({value}, 'null')"#)
        });
        let fields = fields.join(" || ',");
        format!(
            "encode(sha256(convert_to('{{{fields} || '}}' || COALESCE({}, ''), 'UTF8')), 'hex')",
            self.value(prefix, "parent_hash")
        )
    }

    /// SQL for the stored entry hash; NULL where the host has no hashes.
    pub(crate) fn entry_hash(&self, prefix: &str) -> String {
        if self.has_entry_hashes() {
            format!("{}::text", self.value(prefix, "entry_hash"))
        } else {
            "NULL::text".into()
        }
    }

    /// SQL for the text of the columns that the content leaves out.
    fn rest(&self, prefix: &str) -> String {
        let is_rest = |name: &&String| !(self.has_entry_hashes() && HASHED.contains(&name.as_str()));
        let rest = self.columns.iter().filter(is_rest);
        let values: Vec<_> = rest.map(|name| format!("{}::text", self.value(prefix, name))).collect();
        format!("to_json(ARRAY[{}])::text", values.join(", "))
    }

    /// SQL for the row's digest.
    pub(crate) fn digest(&self, prefix: &str) -> String {
        self.digest_of(&self.content_hash(prefix), prefix)
    }

    fn digest_of(&self, content_hash: &str, prefix: &str) -> String {
        format!("sha256(convert_to({content_hash} || {}, 'UTF8'))", self.rest(prefix))
    }

    /// SQL for the row's digest, 32 bytes; where its entry hash is not that of its contents, followed by what the hash should
    /// be, 64 bytes, and by the hash.
    pub(crate) fn proof(&self, prefix: &str) -> String {
        if !self.has_entry_hashes() {
            return self.digest(prefix);
        }
        let (content_hash, entry_hash) = (self.content_hash(prefix), self.entry_hash(prefix));
        // CASE computes what it compares once. It is repeated for rows that are not as they should be, which are few.
        format!(
            "CASE {content_hash} WHEN {entry_hash} THEN {} ELSE {} || COALESCE(convert_to({content_hash} || {entry_hash}, 'UTF8'), '') END",
            self.digest_of(&entry_hash, prefix),
            self.digest(prefix)
        )
    }

    /// SQL for what the seal of a batch is made of, to be returned by the statement that writes its rows. The content's hash is
    /// computed once, whether it is the row's entry hash or not.
    pub(crate) fn hashed_columns(&self, prefix: &str) -> String {
        format!(
            r#"{prefix}id, {prefix}"createdAt", {prefix}ledger, {} AS content_hash, {} AS entry_hash, {} AS rest"#,
            self.content_hash(prefix),
            self.entry_hash(prefix),
            self.rest(prefix)
        )
    }

    /// SQL for what a verification looks at.
    pub(crate) fn proof_columns(&self, prefix: &str) -> String {
        format!(r#"{prefix}id::text AS id, {prefix}"createdAt", {prefix}ledger, {} AS proof"#, self.proof(prefix))
    }
}
