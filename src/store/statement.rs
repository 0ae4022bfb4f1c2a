//! A statement of a `.sql` file. Values and parts of SQL have names there, as psql writes them: `:cutoff`. So a file can be tried
//! in psql, once what its head sets is set. Refused: braces, which SQL has itself, and `$1`, which says nothing.

use std::borrow::Cow;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, GenericClient, Row, RowStream};

/// A named value and its type.
pub(super) type Parameter<'a> = (&'static str, &'a (dyn ToSql + Sync), Type);

/// SQL with named parameters and named parts.
///
/// ```sql
/// SELECT count(*) FROM :partition a WHERE a."createdAt" < :cutoff
/// ```
#[derive(Debug, Clone)]
pub(super) struct Statement<'a> {
    sql: Cow<'a, str>,
    fragments: Vec<(&'static str, Cow<'a, str>)>,
    parameters: Vec<Parameter<'a>>,
}

impl<'a> Statement<'a> {
    pub(super) fn new(sql: impl Into<Cow<'a, str>>) -> Self {
        Self { sql: sql.into(), fragments: Vec::new(), parameters: Vec::new() }
    }

    /// Puts `sql` in the place of `:name`. It may have names itself.
    pub(super) fn fragment(mut self, name: &'static str, sql: impl Into<Cow<'a, str>>) -> Self {
        self.fragments.push((name, sql.into()));
        self
    }

    /// Sends `value` for `:name`; not at all where no rendered part has the name.
    pub(super) fn bind(mut self, name: &'static str, value: &'a (dyn ToSql + Sync), parameter_type: Type) -> Self {
        self.parameters.push((name, value, parameter_type));
        self
    }

    /// [`Statement::bind`] for several.
    pub(super) fn bind_all(mut self, parameters: impl IntoIterator<Item = Parameter<'a>>) -> Self {
        self.parameters.extend(parameters);
        self
    }

    pub(super) async fn query(&self, client: &impl GenericClient) -> Result<Vec<Row>, Error> {
        let (sql, parameters) = self.render();
        client.query_typed(&sql, &parameters).await
    }

    /// The rows as they come, for who may not want all of them.
    pub(super) async fn query_stream(&self, client: &impl GenericClient) -> Result<RowStream, Error> {
        let (sql, parameters) = self.render();
        client.query_typed_raw(&sql, parameters).await
    }

    /// The one row that the statement returns.
    pub(super) async fn query_one(&self, client: &impl GenericClient) -> Result<Row, Error> {
        let (sql, parameters) = self.render();
        client.query_typed_one(&sql, &parameters).await
    }

    pub(super) async fn query_opt(&self, client: &impl GenericClient) -> Result<Option<Row>, Error> {
        let (sql, parameters) = self.render();
        client.query_typed_opt(&sql, &parameters).await
    }

    /// How many rows the statement changes.
    pub(super) async fn execute(&self, client: &impl GenericClient) -> Result<u64, Error> {
        let (sql, parameters) = self.render();
        client.execute_typed(&sql, &parameters).await
    }

    /// The SQL of a statement without parameters.
    pub(super) fn text(&self) -> String {
        self.render().0
    }

    /// What is sent: SQL without comments and indentation, for RDS Proxy pins a session for a statement of more than 16 KB, and
    /// the parameters in the order of their numbers.
    fn render(&self) -> (String, Vec<(&'a (dyn ToSql + Sync), Type)>) {
        let mut sql = String::with_capacity(2 * self.sql.len());
        let mut numbered = Vec::new();
        self.render_part(&self.sql, &mut sql, &mut numbered);
        let parameters = numbered.into_iter().map(|index| {
            let (_, value, parameter_type) = &self.parameters[index];
            (*value, parameter_type.clone())
        });
        (sql, parameters.collect())
    }

    fn render_part(&self, part: &str, sql: &mut String, numbered: &mut Vec<usize>) {
        for token in tokens(part) {
            let name = match token {
                Token::Text(text) => {
                    sql.push_str(text);
                    continue;
                }
                Token::Name(name) => name,
            };
            if let Some((_, fragment)) = self.fragments.iter().find(|(known, _)| *known == name) {
                self.render_part(fragment, sql, numbered);
            } else if let Some(index) = self.parameters.iter().position(|(known, ..)| *known == name) {
                let number = numbered.iter().position(|known| *known == index).unwrap_or_else(|| {
                    numbered.push(index);
                    numbered.len() - 1
                });
                sql.push('$');
                *sql += &(number + 1).to_string();
            } else {
                debug_assert!(false, "no value for :{name} of {part}");
                // PostgreSQL refuses the statement and says where.
                sql.push(':');
                sql.push_str(name);
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    Text(&'a str),
    /// A name, without its colon.
    Name(&'a str),
}

/// The parts of `sql`. Quoted text and names in quotes are left alone; comments and indentation are left out.
fn tokens(sql: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut start = 0;
    let mut at = 0;
    let push = |tokens: &mut Vec<_>, from: usize, to: usize| {
        if from < to {
            tokens.push(Token::Text(&sql[from..to]));
        }
    };
    while at < sql.len() {
        let rest = &sql[at..];
        if let Some(length) = quoted(rest, sql[..at].ends_with(['E', 'e'])) {
            at += length;
        } else if rest.starts_with("--") {
            push(&mut tokens, start, at);
            at += rest.find('\n').unwrap_or(rest.len());
            start = at;
        } else if rest.starts_with('\n') {
            push(&mut tokens, start, at);
            tokens.push(Token::Text("\n"));
            at += rest.len() - rest.trim_start().len();
            start = at;
        } else if rest.starts_with("::") {
            at += 2;
        } else if let Some(name) = rest.strip_prefix(':').map(name).filter(|name| !name.is_empty()) {
            push(&mut tokens, start, at);
            tokens.push(Token::Name(name));
            at += 1 + name.len();
            start = at;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    push(&mut tokens, start, at);
    tokens
}

/// The name at the beginning of `text`; empty if there is none.
fn name(text: &str) -> &str {
    let end = text.find(|c: char| !(c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())).unwrap_or(text.len());
    if text.starts_with(|c: char| c.is_ascii_digit()) { "" } else { &text[..end] }
}

/// The length of the text in quotes at the beginning of `sql`, if there is one.
fn quoted(sql: &str, has_escapes: bool) -> Option<usize> {
    let first = sql.chars().next()?;
    if first == '$' {
        let tag = &sql[..sql[1..].find('$')? + 2];
        if !tag[1..tag.len() - 1].chars().all(|c| c == '_' || c.is_alphanumeric()) {
            return None;
        }
        return Some(sql[tag.len()..].find(tag).map_or(sql.len(), |end| end + 2 * tag.len()));
    }
    if !['\'', '"'].contains(&first) {
        return None;
    }
    let mut is_escaped = false;
    for (at, c) in sql.char_indices().skip(1) {
        if is_escaped {
            is_escaped = false;
        } else if c == '\\' && has_escapes {
            is_escaped = true;
        } else if c == first {
            // A doubled one begins the next text in quotes, with nothing between.
            return Some(at + 1);
        }
    }
    Some(sql.len())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::Path;

    use local_postgres::{Options, Server};

    use super::*;
    use crate::database;
    use crate::error::chain;

    fn render(sql: &str, fragments: &[(&'static str, &'static str)], parameters: &[&'static str]) -> String {
        let statement = fragments.iter().fold(Statement::new(sql), |all, (name, part)| all.fragment(name, *part));
        parameters.iter().fold(statement, |all, name| all.bind(name, &1, Type::INT4)).text()
    }

    #[test]
    fn names_are_replaced_outside_of_quotes_and_comments() {
        let sql = "-- :never\nSELECT ':a', \":b\", $$:c$$, $x$:d $$ $x$, E'\\':e', 'it''s :f',\n    :g::text, a[1:2], :g, :h -- :i\n";
        assert_eq!(
            render(sql, &[], &["g", "h"]),
            "\nSELECT ':a', \":b\", $$:c$$, $x$:d $$ $x$, E'\\':e', 'it''s :f',\n$1::text, a[1:2], $1, $2 \n"
        );
    }

    #[test]
    fn what_is_put_in_may_have_names_and_quotes_of_its_own() {
        let fragments =
            [("columns", r#"id, ":partition""#), ("partition", "p"), ("rows", "SELECT :columns WHERE :limit")];
        assert_eq!(
            render("INSERT INTO :partition (:rows) LIMIT :limit", &fragments, &["unused", "limit"]),
            r#"INSERT INTO p (SELECT id, ":partition" WHERE $1) LIMIT $1"#
        );
    }

    /// The files of `sql/` by their names.
    fn files() -> BTreeMap<String, String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/sql");
        let file = |entry: fs::DirEntry| {
            (entry.file_name().into_string().expect("a plain name"), fs::read_to_string(entry.path()).expect("SQL"))
        };
        fs::read_dir(folder).expect("sql").map(|entry| file(entry.expect("a file"))).collect()
    }

    /// What the head of a file sets for psql: `-- \set name value`, and for a part that is a file, `` -- \set name `cat file` ``.
    fn settings(sql: &str) -> BTreeMap<&str, String> {
        fn setting(line: &str) -> Option<(&str, String)> {
            let (name, value) = line.strip_prefix("-- \\set ")?.split_once(' ')?;
            let quoted = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\''));
            let file = value.strip_prefix("`cat ").and_then(|value| value.strip_suffix('`'));
            let value = match (quoted, file) {
                (Some(quoted), _) => quoted.replace("''", "'"),
                (None, Some(file)) => files().remove(file).unwrap_or_else(|| panic!("{line}: no such file")),
                (None, None) => value.into(),
            };
            Some((name, value))
        }
        sql.lines().take_while(|line| line.starts_with("--")).filter_map(setting).collect()
    }

    fn names_in(sql: &str) -> BTreeSet<&str> {
        let name = |token| if let Token::Name(name) = token { Some(name) } else { None };
        tokens(sql).into_iter().filter_map(name).collect()
    }

    /// A file that is put in the place of a name in others sets nothing.
    fn is_part(sql: &str) -> bool {
        sql.starts_with("-- Part of ")
    }

    #[test]
    fn the_head_of_each_file_sets_what_the_statement_needs() {
        let mut wrong = Vec::new();
        for (file, sql) in files() {
            assert!(sql.starts_with("-- "), "{file} does not say what it is for");
            if is_part(&sql) {
                continue;
            }
            let settings = settings(&sql);
            let parts = settings.values().flat_map(|part| names_in(part));
            let needed: BTreeSet<_> = names_in(&sql).into_iter().chain(parts).collect();
            let set: BTreeSet<_> = settings.keys().copied().collect();
            if set != needed {
                let (missing, unused) = (&needed - &set, &set - &needed);
                wrong.push(format!("{file}: lacks {missing:?}, does not need {unused:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn each_file_is_used() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
        let sources =
            fs::read_dir(folder).expect("store").filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
        let sources: String = sources.collect();
        for file in files().keys() {
            assert!(sources.contains(&format!("include_str!(\"sql/{file}\")")), "{file}");
        }
    }

    /// What is set for psql makes each statement one that PostgreSQL can plan, or run.
    #[tokio::test]
    async fn each_file_can_be_tried_as_its_head_says() {
        let server =
            tokio::task::spawn_blocking(|| Server::start_ephemeral(&Options::default())).await.expect("thread");
        let server = server.expect("PostgreSQL");
        let url = server.url("postgres").parse().expect("a URL");
        let pool = database::connect_pool(&url, "statements", 1).await.expect("a pool");
        let client = pool.get().await.expect("a connection");
        client
            .batch_execute(include_str!("../../tools/snapshots/src/host-schema.sql"))
            .await
            .expect("the host's tables");
        drop(client);
        database::migrate(&pool).await.expect("migrated");
        let client = pool.get().await.expect("a connection");
        client.batch_execute(TRIAL).await.expect("a month");
        let mut failed = Vec::new();
        for (file, sql) in files().into_iter().filter(|(_, sql)| !is_part(sql)) {
            let settings = settings(&sql);
            let statement = settings.iter().fold(Statement::new(sql.as_str()), |statement, (name, value)| {
                statement.fragment(String::from(*name).leak(), value.clone())
            });
            let text = statement.text();
            let is_single =
                ["SELECT", "WITH", "INSERT", "UPDATE", "DELETE"].iter().any(|verb| text.trim_start().starts_with(verb));
            let explain = if is_single { "EXPLAIN " } else { "" };
            client.batch_execute("BEGIN; SAVEPOINT batch").await.expect("a transaction");
            let tried = client.batch_execute(&format!("{explain}{}", text.trim_start())).await;
            client.batch_execute("ROLLBACK").await.expect("rolled back");
            if let Err(error) = tried {
                failed.push(format!("{file}: {}", chain(&error)));
            }
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
    }

    /// What the heads of the files name.
    const TRIAL: &str = "SET search_path = snapshot_service, public; SELECT stream_archive_create_partition('2026-01-01'); \
        SELECT set_config('snapshot_service.insertion', 'SELECT $1::tid[]', false), set_config('snapshot_service.places', '{}', false)";
}
