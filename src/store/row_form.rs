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

/// The form of an archived row that its digest is computed over (`docs/LEDGER.md`): SQL for PostgreSQL to compute it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowForm {
    /// All columns of the archive, in the order of their names' bytes.
    columns: Vec<String>,
}

impl RowForm {
    /// The form that rows have now.
    pub(crate) async fn load(client: &impl GenericClient) -> Result<Self> {
        Ok(Self::new(list_archive_columns(client).await?))
    }

    /// The form of rows with these columns.
    pub(crate) fn new(mut columns: Vec<String>) -> Self {
        columns.sort_unstable();
        columns.dedup();
        Self { columns }
    }

    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column == name)
    }

    /// Whether rows are chained by entry hashes.
    pub(crate) fn has_entry_hashes(&self) -> bool {
        self.has("entry_hash") && self.has("parent_hash") && HASHED.iter().all(|name| self.has(name))
    }

    /// SQL for the SHA-256 that a row's entry hash writes in hexadecimal, its columns behind `prefix`. Of no bytes at all
    /// where the host has no hashes.
    pub(crate) fn content(&self, prefix: &str) -> String {
        if !self.has_entry_hashes() {
            return "''::bytea".into();
        }
        let fields = HASHED.map(|name| {
            let value = match name {
                "amount" => format!(r#"'"' || {prefix}amount || '"'"#),
                "eventIndex" | "ledger" => format!("{prefix}{}::text", quote(name)),
                _ => format!("to_json({prefix}{}::text)::text", quote(name)),
            };
            format!(r#"'"{name}":' || COALESCE({value}, 'null')"#)
        });
        let fields = fields.join(" || ',' || ");
        format!("sha256(convert_to('{{' || {fields} || '}}' || COALESCE({prefix}parent_hash, ''), 'UTF8'))")
    }

    /// SQL for the text of the columns that the content leaves out.
    pub(crate) fn rest(&self, prefix: &str) -> String {
        let is_rest = |name: &&String| !(self.has_entry_hashes() && HASHED.contains(&name.as_str()));
        let rest = self.columns.iter().filter(is_rest);
        let values: Vec<_> = rest.map(|name| format!("{prefix}{}::text", quote(name))).collect();
        format!("to_json(ARRAY[{}])::text", values.join(", "))
    }

    /// SQL for the row's digest, of what [`content`](Self::content) and [`rest`](Self::rest) gave.
    pub(crate) fn digest_of(content: &str, rest: &str) -> String {
        format!("sha256(convert_to(encode({content}, 'hex') || {rest}, 'UTF8'))")
    }

    /// SQL for the row's digest.
    pub(crate) fn digest(&self) -> String {
        Self::digest_of(&self.content(""), &self.rest(""))
    }

    /// SQL for what the proof of a batch is computed from, to be returned by the statement that writes its rows.
    pub(crate) fn proof_columns(&self, prefix: &str) -> String {
        let entry_hash = if self.has_entry_hashes() { &format!("{prefix}entry_hash") } else { "NULL::text" };
        let (content, rest) = (self.content(prefix), self.rest(prefix));
        format!(
            r#"{prefix}id, {prefix}"createdAt", {prefix}ledger, {entry_hash} AS entry_hash, {content} AS content, {rest} AS rest"#
        )
    }
}
