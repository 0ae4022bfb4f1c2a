//! Rows as texts, from which the program computes their digests.

use seal::RowForm;
use tokio_postgres::{GenericClient, Row};

use super::archive_columns::{list_archive_columns, quote};
use crate::error::Result;

/// The form that archived rows have now.
pub(crate) async fn load_form(client: &impl GenericClient) -> Result<RowForm> {
    Ok(RowForm::new(list_archive_columns(client).await?))
}

/// SQL for the texts of `columns`, each behind `prefix`.
pub(super) fn texts_of<'a>(columns: impl IntoIterator<Item = &'a String>, prefix: &str) -> String {
    let texts = columns.into_iter().map(|column| format!("{prefix}{}::text", quote(column)));
    texts.collect::<Vec<_>>().join(", ")
}

/// The same of rows that are being archived: "archivedAt", which is the same in all of them, is `:archived_at_text`.
pub(super) fn texts_of_archived<'a>(columns: impl IntoIterator<Item = &'a String>) -> String {
    let text = |column: &String| match column.as_str() {
        "archivedAt" => ":archived_at_text".into(),
        name => format!("{}::text", quote(name)),
    };
    columns.into_iter().map(text).collect::<Vec<_>>().join(", ")
}

/// Names for so many texts.
pub(super) fn names_of(texts: usize) -> String {
    (1..=texts).map(|number| format!("text_{number}")).collect::<Vec<_>>().join(", ")
}

/// The texts that `row` has from its column `from` on.
pub(super) fn read_texts(row: &Row, from: usize) -> Result<Vec<Option<&str>>> {
    // Not collected from results: that would grow piece by piece, for every row.
    let mut texts = Vec::with_capacity(row.len() - from);
    for column in from..row.len() {
        texts.push(row.try_get(column)?);
    }
    Ok(texts)
}
