use serde::Deserialize;

/// What the catalogue says of the host's two tables and of the session's role, at one instant.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HostFacts {
    /// The session's role.
    pub(crate) role: String,
    /// `Stream`; none where there is no such relation.
    pub(crate) streams: Option<HostTable>,
    /// `EventLog`; none where there is no such relation.
    pub(crate) log: Option<HostTable>,
    /// Keys of other tables to the log.
    pub(crate) references: Vec<Reference>,
    /// Publications that tell their subscribers of rows deleted from the log.
    pub(crate) publications: Vec<String>,
    /// Whether the role may write the service's own tables and call its functions, as far as they are there.
    pub(crate) may_maintain: bool,
    /// Triggers of the host's on tables of the service's own.
    pub(crate) own_triggers: Vec<OwnTrigger>,
    /// Tables of the service's own that row security is in force on.
    pub(crate) hidden_own: Vec<String>,
    /// Whether the role sees what other sessions do and how far replicas are.
    pub(crate) sees_statistics: bool,
    /// Physical replication slots that no standby uses.
    pub(crate) gone_standbys: Vec<String>,
    /// The schema that the service's tables are in, when everybody may make tables there.
    pub(crate) open_schema: Option<String>,
    /// Event triggers that fire when tables or indexes are made, altered or dropped.
    pub(crate) event_triggers: Vec<String>,
}

/// A table of the host, or what is in its place.
#[expect(clippy::struct_excessive_bools, reason = "answers to questions that have nothing to do with each other")]
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HostTable {
    /// Schema and name, as SQL writes them.
    pub(crate) name: String,
    /// What it is.
    pub(crate) kind: RelationKind,
    /// Whether it is an ordinary table that others inherit from.
    pub(crate) is_inherited_from: bool,
    /// Its partitions that are foreign tables.
    pub(crate) foreign_partitions: Vec<String>,
    /// Names of the plain columns that decide which partition has a row, at any level, and are never NULL.
    pub(crate) partition_keys: Vec<String>,
    /// What row security filters for the role.
    pub(crate) hidden_commands: Vec<Command>,
    pub(crate) may_read: bool,
    pub(crate) may_delete: bool,
    /// Whether the role may lock rows.
    pub(crate) may_lock: bool,
    /// Whether an index begins with `createdAt`.
    pub(crate) has_time_index: bool,
    /// Whether an index begins with `streamId`.
    pub(crate) has_stream_index: bool,
    /// Whether PostgreSQL makes a primary key of it: not by a partition key that is an expression or may be NULL.
    pub(crate) may_have_key: bool,
    /// Whether it has been filled, as a materialized view is by its first refresh.
    pub(crate) is_populated: bool,
    /// Schemas of its columns' types in which the role may name nothing.
    pub(crate) closed_schemas: Vec<String>,
    /// Whether no two rows have the same `id`, `createdAt` and partition key.
    pub(crate) has_id_key: bool,
    /// Whether no two rows have the same `id`.
    pub(crate) has_id_key_alone: bool,
    /// Its tables with rows that a subscriber could not tell apart when one is deleted.
    pub(crate) without_identity: Vec<String>,
    /// Its columns, in order.
    pub(crate) columns: Vec<HostColumn>,
    /// Triggers that fire when rows are deleted or inserted.
    pub(crate) triggers: Vec<HostTrigger>,
    /// Rules that rewrite deletions or insertions.
    pub(crate) rules: Vec<HostRule>,
}

impl HostTable {
    /// Columns, as SQL writes them, that a key of one log must have: PostgreSQL wants the partition key in it.
    pub(crate) fn key_columns(&self) -> Vec<String> {
        let keys = self.partition_keys.iter().filter(|key| *key != "id");
        std::iter::once("id".into()).chain(keys.map(|key| format!("\"{}\"", key.replace('"', "\"\"")))).collect()
    }

    /// Whether it has a column of this name.
    pub(crate) fn has_column(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.name == name)
    }
}

/// `pg_class.relkind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum RelationKind {
    #[serde(rename = "r")]
    Table,
    #[serde(rename = "p")]
    Partitioned,
    #[serde(rename = "v")]
    View,
    #[serde(rename = "m")]
    MaterializedView,
    #[serde(rename = "f")]
    ForeignTable,
    /// A sequence or a type, which holds no rows.
    #[serde(other)]
    Other,
}

/// What a statement does with rows, as `pg_policy.polcmd` writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Command {
    #[serde(rename = "r")]
    Read,
    #[serde(rename = "w")]
    Lock,
    #[serde(rename = "d")]
    Delete,
    #[serde(rename = "a")]
    Insert,
}

/// A column of a table of the host.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HostColumn {
    pub(crate) name: String,
    /// Its type, as SQL writes it.
    #[serde(rename = "type")]
    pub(crate) data_type: String,
    /// Whether its type is the host's.
    pub(crate) is_foreign: bool,
    /// Whether its values are dates or instants.
    pub(crate) is_time: bool,
    /// How its values leave in JSON.
    pub(crate) wire: WireForm,
}

/// How a column's values leave in JSON (domain rule 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WireForm {
    /// As PostgreSQL writes them.
    Plain,
    /// Numbers that may exceed 2^53, as strings.
    Number,
    /// Times without a zone, which are UTC, as RFC 3339.
    Timestamp,
    /// Instants, as RFC 3339 in UTC.
    Timestamptz,
}

/// A trigger of the host's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HostTrigger {
    pub(crate) name: String,
    /// The table that has it: the log, or one of its partitions.
    pub(crate) table: String,
    pub(crate) on_delete: bool,
    pub(crate) on_insert: bool,
    pub(crate) is_before: bool,
}

/// A trigger of the host's on a table of the service's own.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OwnTrigger {
    pub(crate) name: String,
    pub(crate) table: String,
    /// Whether the table holds archived logs.
    pub(crate) is_of_archive: bool,
}

/// A rule of the host's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HostRule {
    pub(crate) name: String,
    /// The table that has it.
    pub(crate) table: String,
    pub(crate) on_delete: bool,
    pub(crate) on_insert: bool,
}

/// A foreign key of another table to the log.
#[expect(clippy::struct_excessive_bools, reason = "as above")]
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reference {
    /// The constraint's name.
    pub(crate) constraint: String,
    /// The table that references the log, with its schema.
    pub(crate) table: String,
    /// Whether that is the log itself.
    pub(crate) is_self: bool,
    /// Names of the log's columns that are referenced, without quotes.
    pub(crate) log_columns: Vec<String>,
    /// The columns that reference them, in the same order.
    pub(crate) columns: Vec<String>,
    /// The operators that compare the two, the log's column on the left.
    pub(crate) operators: Vec<String>,
    /// The table's schema, when the role may name nothing in it.
    pub(crate) closed_schema: Option<String>,
    /// Whether the role may read the columns.
    pub(crate) may_read: bool,
    /// Whether row security hides rows of the table.
    pub(crate) is_hidden: bool,
    /// Whether an index finds rows by one of the columns.
    pub(crate) has_index: bool,
}
