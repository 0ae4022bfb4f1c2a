use std::pin::pin;

use futures_util::{Stream, TryStreamExt};
use serde::Serialize;
use tokio_postgres::Row;

use crate::error::{Error, Result};
use crate::model::{Cursor, ListPosition, MAX_PAGE_BYTES, Page, PageRequest, wire_bytes};

/// Takes rows until the page is full: by number, or by weight, since no response may pass 6 MB. Memory holds one page.
///
/// # Errors
///
/// [`Error::ResponseTooLarge`] when the page's first row alone is too heavy.
pub(super) async fn collect<T, P>(
    rows: impl Stream<Item = std::result::Result<Row, tokio_postgres::Error>>,
    request: &PageRequest<P>,
    parse: impl Fn(&Row) -> Result<(T, Cursor<P>)>,
    name: impl Fn(&T) -> String,
) -> Result<Page<T, P>>
where
    T: Serialize,
    P: ListPosition,
{
    collect_beside(0, rows, request, parse, name).await
}

/// The same, where `bytes` of the response are taken by something else.
///
/// # Errors
///
/// As [`collect`].
pub(super) async fn collect_beside<T, P>(
    mut bytes: usize,
    rows: impl Stream<Item = std::result::Result<Row, tokio_postgres::Error>>,
    request: &PageRequest<P>,
    parse: impl Fn(&Row) -> Result<(T, Cursor<P>)>,
    name: impl Fn(&T) -> String,
) -> Result<Page<T, P>>
where
    T: Serialize,
    P: ListPosition,
{
    let mut rows = pin!(rows);
    let mut page = Page { items: Vec::new(), next_cursor: None, left_out: 0 };
    let mut last = None;
    while let Some(row) = rows.try_next().await? {
        if page.items.len() == request.limit() {
            page.next_cursor = last;
            break;
        }
        let (item, cursor) = parse(&row)?;
        bytes += wire_bytes(&item)?;
        if bytes > MAX_PAGE_BYTES {
            if page.items.is_empty() {
                return Err(Error::ResponseTooLarge { item: name(&item) });
            }
            page.next_cursor = last;
            break;
        }
        page.items.push(item);
        last = Some(cursor);
    }
    Ok(page)
}
