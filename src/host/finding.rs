use tracing::{info, warn};
use uuid::Uuid;

use crate::error::{Error, FindingEffect, HostFinding};

use super::{Command, HostFacts, HostTable, Reference, RelationKind};

impl From<HostFinding> for Error {
    fn from(finding: HostFinding) -> Self {
        let finding = Box::new(finding);
        match finding.code.as_str() {
            ROWS_HIDDEN => Self::RowsHidden { finding },
            LIMITS_HIDDEN => Self::LimitsHidden { finding },
            _ => Self::HostRefuses { finding },
        }
    }
}

/// The code of what row security does.
const ROWS_HIDDEN: &str = "rows_hidden";
/// The code of limits that cannot be kept.
const LIMITS_HIDDEN: &str = "limits_hidden";

impl HostFinding {
    fn new(code: &str, effect: FindingEffect, object: &str, message: String, cure: Option<String>) -> Self {
        Self { code: code.into(), effect, object: object.into(), message, cure }
    }

    /// The log has a column of a name that the archive or the view over both has for itself.
    pub(crate) fn column_name_taken(log: &str, column: &str) -> Self {
        let cure = Some(format!("ALTER TABLE {log} RENAME {} TO ...;", quote(column)));
        let object = format!("column {} of {log}", quote(column));
        // The archive stores a column of the other name like any other.
        let (effect, why) = if column == "archivedAt" {
            (FindingEffect::RefusesArchive, "the archive has a column of this name for itself: nothing is archived")
        } else {
            (
                FindingEffect::Warns,
                "\"StreamHistory\" has a column of this name for itself, and does not show the log's",
            )
        };
        Self::new("column_name_taken", effect, &object, format!("{object}: {why}"), cure)
    }

    /// The role that migrates may not make the schema of our own.
    pub(crate) fn no_schema(name: &str, role: &str) -> Self {
        let message = format!("the role {role} may not make the schema {name}, in which the service keeps its tables");
        let cure = format!("have a role with CREATE on the database run: CREATE SCHEMA {name} AUTHORIZATION {role};");
        Self::new("no_schema", FindingEffect::RefusesBoth, name, message, Some(cure))
    }

    /// Rows of the former service's table whose copies, or whose rows in the log, are not as they are.
    pub(crate) fn former_copies_differ(table: &str, ids: &[String]) -> Option<Self> {
        let message = format!("{table} has rows that are elsewhere with other contents, such as {}", ids.join(", "));
        let cure =
            "compare them, and keep the table as long as it is needed: due logs of the kind stay in \"EventLog\""
                .into();
        (!ids.is_empty()).then(|| Self::new("former_copies_differ", FindingEffect::Warns, table, message, Some(cure)))
    }

    /// Rows of the former service's table whose month or time cannot be.
    pub(crate) fn former_rows_left_out(table: &str, ids: &[String]) -> Option<Self> {
        let message =
            format!("{table} has rows whose time or month cannot be, such as {}: they are not copied", ids.join(", "));
        let cure = "give them times that can be, and migrate again".into();
        (!ids.is_empty()).then(|| Self::new("time_out_of_range", FindingEffect::Warns, table, message, Some(cure)))
    }

    /// The former service, or somebody else, goes on filling its table.
    pub(crate) fn former_table_grew(table: &str, rows: u64) -> Self {
        let message = format!("{table} has {rows} rows that the last `migrate` has not seen: they are not copied yet");
        let cure = "turn off the former service, then run `snapshots migrate`".into();
        Self::new("former_table_grew", FindingEffect::Warns, table, message, Some(cure))
    }

    /// A table that looks like a second archive of the log.
    pub(crate) fn second_archive(table: &str) -> Self {
        let message = format!(
            "{table} has the log's columns and holds rows: a job that moves logs there takes them from this archive"
        );
        let cure = Some(format!("turn off the job that fills {table}, if one does"));
        Self::new("second_archive", FindingEffect::Warns, table, message, cure)
    }

    /// Something of the service's own is not there yet, or not as it should be.
    pub(crate) fn not_migrated(effect: FindingEffect, object: &str, what: &str) -> Self {
        let (message, cure) = (format!("{object} {what}"), Some("run `snapshots migrate`".into()));
        Self::new("not_migrated", effect, object, message, cure)
    }

    /// Rows of `Stream` that have no id, by which a snapshot could be found.
    pub(crate) fn streams_without_id(rows: u64) -> Self {
        let message = format!("{rows} rows of \"Stream\" have no id: they get no snapshot");
        let cure = Some("give each row an id".into());
        Self::new("stream_without_id", FindingEffect::Warns, "Stream", message, cure)
    }

    /// Something keeps snapshots from being written, and raises no error.
    pub(crate) fn snapshots_refused() -> Self {
        let table = "\"StreamSnapshot\"";
        let message = format!("a trigger or rule of {table} keeps snapshots from being written");
        let cure = Some(format!("ALTER TABLE {table} DISABLE TRIGGER USER;"));
        Self::new("trigger_refuses", FindingEffect::RefusesBoth, table, message, cure)
    }

    /// Something keeps restored logs from being recorded as such: the next run would archive them again.
    pub(crate) fn restored_logs_refused(rows: u64) -> Self {
        let table = "\"RestoredLog\"";
        let message =
            format!("a trigger or rule of {table} keeps {rows} logs of one batch from being recorded as restored");
        let cure = Some(format!("ALTER TABLE {table} DISABLE TRIGGER USER;"));
        Self::new("trigger_refuses", FindingEffect::RefusesArchive, table, message, cure)
    }

    /// Row security is in force on a table of the service's own that a reader asked.
    pub(crate) fn hidden_own() -> Self {
        rows_hidden_own("\"StreamSnapshot\", \"StreamArchive\" or \"StreamIdentity\"", "ask `snapshots doctor`".into())
    }

    /// What keeps archived logs from going back to the log.
    pub(crate) fn refusing_restore(facts: &HostFacts) -> Option<Self> {
        let Some(log) = &facts.log else {
            return findings(facts, HostLimits::default()).into_iter().find(|found| found.object == "EventLog");
        };
        let mut found = Vec::new();
        check_own(facts, &mut found);
        check_kind(log, &mut found);
        check_columns(log, &LOG_COLUMNS, FindingEffect::RefusesArchive, &mut found);
        if !log.hidden_commands.is_empty() {
            found.push(rows_hidden(FindingEffect::RefusesArchive, facts, &log.name));
        }
        found.into_iter().find(|found| found.effect != FindingEffect::Warns)
    }

    /// A publication, or several, with which PostgreSQL refuses to delete logs.
    pub(crate) fn publication_refuses(facts: &HostFacts) -> Self {
        let publications = facts.publications.join(", ");
        let log = facts.log.as_ref().map_or("\"EventLog\"", |log| &log.name);
        let message = format!(
            "PostgreSQL refuses to delete rows of {log} as long as it is published by {publications}: a column list, a row \
             filter or a missing key does not go with its replica identity"
        );
        let cure = format!(
            "take the column list and the row filter of {log} away, and ALTER TABLE {log} REPLICA IDENTITY FULL; or ALTER \
             PUBLICATION ... SET (publish = 'insert, update')"
        );
        Self::new("no_replica_identity", FindingEffect::RefusesArchive, &publications, message, Some(cure))
    }

    /// An event trigger that keeps the archive from getting the partition of a month.
    pub(crate) fn event_trigger_refuses(facts: &HostFacts) -> Self {
        let object = format!("event trigger {}", facts.event_triggers.join(", "));
        let message = format!("{object} keeps the archive from getting the partition of a month");
        let disable = facts.event_triggers.iter().map(|trigger| format!("ALTER EVENT TRIGGER {trigger} DISABLE;"));
        let cure = format!("have it let the service's tables pass, or {}", disable.collect::<Vec<_>>().join(" "));
        Self::new("event_trigger", FindingEffect::RefusesArchive, &object, message, Some(cure))
    }

    /// The limits that are set cannot be kept, because `role` does not see what they limit; none when no limit is set.
    pub(crate) fn limits_hidden(role: &str, limits: HostLimits) -> Option<Self> {
        let named = limits.named()?;
        let message = format!("{named} cannot be kept: the role does not see what other sessions and replicas do");
        let cure = Some(format!("GRANT pg_monitor TO {};", quote(role)));
        Some(Self::new(LIMITS_HIDDEN, FindingEffect::RefusesBoth, role, message, cure))
    }

    /// Tells of it in the log, by its code, and of the run that met it.
    pub(crate) fn log(&self, run: Option<Uuid>) {
        let Self { code, object, message, cure, .. } = self;
        let run = run.map(tracing::field::display);
        if self.effect == FindingEffect::Holds {
            info!(run, code, object, message, "the host's database");
        } else {
            warn!(run, code, object, message, cure, "the host's database");
        }
    }

    /// That row security hides streams from whoever reads them.
    pub(crate) fn hidden_streams(facts: &HostFacts) -> Option<Self> {
        Self::hidden(FindingEffect::RefusesBoth, facts, facts.streams.as_ref())
    }

    /// That row security hides logs from whoever reads them.
    pub(crate) fn hidden_logs(facts: &HostFacts) -> Option<Self> {
        Self::hidden(FindingEffect::RefusesArchive, facts, facts.log.as_ref())
    }

    fn hidden(effect: FindingEffect, facts: &HostFacts, table: Option<&HostTable>) -> Option<Self> {
        let hidden = table.filter(|table| table.hidden_commands.contains(&Command::Read))?;
        Some(rows_hidden(effect, facts, &hidden.name))
    }

    /// A trigger of the log that kept `rows` logs from being deleted, or raised an error, found out by deleting them. Which one
    /// of several it was nobody says.
    pub(crate) fn trigger_refuses(facts: &HostFacts, rows: Option<u64>) -> Self {
        let triggers: Vec<_> =
            facts.log.iter().flat_map(|log| &log.triggers).filter(|trigger| trigger.on_delete).collect();
        let named: Vec<_> =
            triggers.iter().map(|trigger| format!("trigger {} of {}", trigger.name, trigger.table)).collect();
        let object = if named.is_empty() { "EventLog".into() } else { named.join(", ") };
        let message = match rows {
            Some(rows) => format!("{object} kept {rows} logs of one batch from being deleted"),
            None => format!("{object} raised an error when logs were deleted; the service's log has its text"),
        };
        let disable: Vec<_> = triggers
            .iter()
            .map(|trigger| format!("ALTER TABLE {} DISABLE TRIGGER {};", trigger.table, trigger.name))
            .collect();
        let cure = match (rows, disable.len()) {
            (_, 0) => None,
            (Some(_), 1) => Some(format!("{} or let its function return OLD", disable[0])),
            (None, 1) => Some(format!("{} or mend what its function says", disable[0])),
            _ => Some(format!("mend the one that refuses, or disable it: {}", disable.join(" or "))),
        };
        Self::new("trigger_refuses", FindingEffect::RefusesArchive, &object, message, cure)
    }

    /// A trigger of the archive raised an error when logs entered it.
    pub(crate) fn archive_raises(facts: &HostFacts) -> Self {
        let triggers = facts.own_triggers.iter().filter(|trigger| trigger.is_of_archive);
        let named: Vec<_> =
            triggers.clone().map(|trigger| format!("trigger {} of {}", trigger.name, trigger.table)).collect();
        let disable: Vec<_> = triggers
            .map(|trigger| format!("ALTER TABLE {} DISABLE TRIGGER {};", trigger.table, trigger.name))
            .collect();
        let object = named.join(", ");
        let message = format!("{object} raised an error when logs were archived; the service's log has its text");
        Self::new("trigger_refuses", FindingEffect::RefusesArchive, &object, message, Some(disable.join(" or ")))
    }

    /// A trigger altered `rows` logs of one batch on their way into `partition` of the archive.
    pub(crate) fn archive_alters(partition: &str, rows: u64) -> Self {
        let message =
            format!("a trigger of {partition} altered {rows} logs of one batch on their way into the archive");
        let cure = Some(format!("ALTER TABLE {partition} DISABLE TRIGGER USER;"));
        Self::new("trigger_refuses", FindingEffect::RefusesArchive, partition, message, cure)
    }

    /// Something kept `rows` logs of one batch from entering `partition` of the archive.
    pub(crate) fn archive_refuses(partition: &str, rows: u64) -> Self {
        let message = format!("a trigger of {partition} kept {rows} logs of one batch from entering the archive");
        let cure = Some(format!("ALTER TABLE {partition} DISABLE TRIGGER ALL;"));
        Self::new("trigger_refuses", FindingEffect::RefusesArchive, partition, message, cure)
    }
}

/// The limits of the settings that have to be seen to be kept.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HostLimits {
    pub(crate) max_replica_lag: bool,
    pub(crate) max_active_sessions: bool,
}

impl HostLimits {
    fn named(self) -> Option<&'static str> {
        match (self.max_replica_lag, self.max_active_sessions) {
            (true, true) => Some("MAX_REPLICA_LAG_SECONDS and MAX_ACTIVE_SESSIONS"),
            (true, false) => Some("MAX_REPLICA_LAG_SECONDS"),
            (false, true) => Some("MAX_ACTIVE_SESSIONS"),
            (false, false) => None,
        }
    }
}

/// What of the host refuses, holds or warns; refusals first.
pub(crate) fn findings(facts: &HostFacts, limits: HostLimits) -> Vec<HostFinding> {
    let mut found = Vec::new();
    // Without streams nothing is archived either; without the log there are snapshots all the same.
    for (name, table, effect) in [
        ("Stream", &facts.streams, FindingEffect::RefusesBoth),
        ("EventLog", &facts.log, FindingEffect::RefusesArchive),
    ] {
        if table.is_none() {
            let message = format!("there is no table \"{name}\" that the role sees in its schema");
            let cure = Some("run the host's own migrations first, or name the schema in DATABASE_URL".into());
            found.push(HostFinding::new("host_table_missing", effect, name, message, cure));
        }
    }
    check_own(facts, &mut found);
    check_limits(facts, limits, &mut found);
    check_definitions(facts, &mut found);
    if let Some(streams) = &facts.streams {
        check_streams(facts, streams, &mut found);
    }
    if let Some(log) = &facts.log {
        check_log(facts, log, &mut found);
        check_publications(facts, log, &mut found);
        check_indexes(log, &mut found);
        check_triggers(log, &mut found);
    }
    for reference in &facts.references {
        check_reference(facts, reference, &mut found);
    }
    found.sort_by_key(|finding| match finding.effect {
        FindingEffect::RefusesBoth => 0,
        FindingEffect::RefusesArchive => 1,
        FindingEffect::Holds => 2,
        FindingEffect::Warns => 3,
    });
    found
}

fn check_publications(facts: &HostFacts, log: &HostTable, found: &mut Vec<HostFinding>) {
    for publication in &facts.publications {
        let message = format!("subscribers of {publication} delete the logs that are archived, too");
        let cure =
            format!("ALTER PUBLICATION {publication} SET (publish = 'insert, update'), if they are to keep them");
        found.push(HostFinding::new("published", FindingEffect::Warns, publication, message, Some(cure)));
    }
    if facts.publications.is_empty() {
        return;
    }
    for table in &log.without_identity {
        let message =
            format!("{table} is published and has no replica identity: PostgreSQL lets nobody delete its rows");
        let cure = Some(format!("ALTER TABLE {table} REPLICA IDENTITY FULL;"));
        found.push(HostFinding::new("no_replica_identity", FindingEffect::RefusesArchive, table, message, cure));
    }
}

/// What concerns the tables that the service makes for itself.
fn check_definitions(facts: &HostFacts, found: &mut Vec<HostFinding>) {
    if let Some(schema) = &facts.open_schema {
        let message = format!("everybody may make tables in the schema {schema}, where the service looks for its own");
        let cure = Some(format!("REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC;"));
        found.push(HostFinding::new("open_schema", FindingEffect::Warns, schema, message, cure));
    }
    for trigger in &facts.event_triggers {
        let object = format!("event trigger {trigger}");
        let message = format!("{object} fires when `migrate` or a run makes a table or an index, and may refuse it");
        let cure = Some(format!(
            "have its function let the service's objects pass, or ALTER EVENT TRIGGER {trigger} DISABLE;"
        ));
        found.push(HostFinding::new("event_trigger", FindingEffect::Warns, &object, message, cure));
    }
}

fn check_limits(facts: &HostFacts, limits: HostLimits, found: &mut Vec<HostFinding>) {
    if !facts.sees_statistics {
        found.extend(HostFinding::limits_hidden(&facts.role, limits));
    }
    if limits.max_replica_lag {
        for slot in &facts.gone_standbys {
            let message = format!("no standby uses the replication slot {slot}: its lag is not known");
            let cure = format!("start the standby again, or SELECT pg_drop_replication_slot('{slot}');");
            found.push(HostFinding::new("standby_gone", FindingEffect::Warns, slot, message, Some(cure)));
        }
    }
}

/// What streams are not seen is not known to be held either, so nothing is archived.
fn check_streams(facts: &HostFacts, streams: &HostTable, found: &mut Vec<HostFinding>) {
    let name = &streams.name;
    check_columns(streams, &["id"], FindingEffect::RefusesBoth, found);
    if !streams.is_populated {
        let message = format!("the materialized view {name} has never been filled");
        let cure = Some(format!("REFRESH MATERIALIZED VIEW {name};"));
        found.push(HostFinding::new("not_populated", FindingEffect::RefusesBoth, name, message, cure));
    }
    if !streams.may_read {
        let message = format!("the role may not read {name}");
        found.push(grant_missing(FindingEffect::RefusesBoth, facts, name, "SELECT", message));
    }
    if streams.hidden_commands.contains(&Command::Read) {
        found.push(rows_hidden(FindingEffect::RefusesBoth, facts, name));
    }
}

/// Columns of the log without which there is nothing to archive by.
const LOG_COLUMNS: [&str; 6] = ["id", "eventType", "streamId", "txHash", "ledger", "createdAt"];

/// Columns that are missing.
fn check_columns(table: &HostTable, wanted: &[&str], effect: FindingEffect, found: &mut Vec<HostFinding>) {
    for column in wanted.iter().filter(|column| !table.has_column(column)) {
        let object = format!("column {} of {}", quote(column), table.name);
        let message = format!("there is no {object}");
        let cure = Some(format!("ALTER TABLE {} RENAME ... TO {}; or add it again", table.name, quote(column)));
        found.push(HostFinding::new("column_missing", effect, &object, message, cure));
    }
}

/// The service's own tables, which nobody else has rows in.
fn check_own(facts: &HostFacts, found: &mut Vec<HostFinding>) {
    if !facts.may_maintain {
        let role = quote(&facts.role);
        let message = format!("the role {role} may not write the service's own tables, or not call its functions");
        let cure = Some(format!("GRANT snapshot_service_maintain TO {role};"));
        found.push(HostFinding::new("grant_missing", FindingEffect::RefusesBoth, &facts.role, message, cure));
    }
    for trigger in &facts.own_triggers {
        let object = format!("trigger {} of {}", trigger.name, trigger.table);
        let message = format!("{object} fires on a table of the service's own; nothing there is to be altered");
        let cure = Some(format!("ALTER TABLE {} DISABLE TRIGGER {};", trigger.table, trigger.name));
        found.push(HostFinding::new("own_trigger", FindingEffect::Warns, &object, message, cure));
    }
    if facts.hidden_own.is_empty() {
        return;
    }
    let disable = facts.hidden_own.iter().map(|table| format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY;"));
    found.push(rows_hidden_own(&facts.hidden_own.join(", "), disable.collect::<Vec<_>>().join(" ")));
}

fn rows_hidden_own(tables: &str, cure: String) -> HostFinding {
    let message = format!("row security is in force on the service's own tables {tables}");
    HostFinding::new(ROWS_HIDDEN, FindingEffect::RefusesBoth, tables, message, Some(cure))
}

/// What is in the log's place.
fn check_kind(log: &HostTable, found: &mut Vec<HostFinding>) {
    let name = &log.name;
    let mut refuse = |code: &str, object: &str, message: String, cure: String| {
        found.push(HostFinding::new(code, FindingEffect::RefusesArchive, object, message, Some(cure)));
    };
    match log.kind {
        RelationKind::Table | RelationKind::Partitioned => {}
        RelationKind::View | RelationKind::MaterializedView => refuse(
            "not_a_table",
            name,
            format!("{name} is a view: its rows cannot be locked and moved"),
            "name the table beneath it \"EventLog\"".into(),
        ),
        RelationKind::ForeignTable | RelationKind::Other => refuse(
            "not_a_table",
            name,
            format!("{name} is not a table of this database: its rows cannot be locked and moved"),
            "run the service on the database that has the table".into(),
        ),
    }
}

fn check_log(facts: &HostFacts, log: &HostTable, found: &mut Vec<HostFinding>) {
    let name = &log.name;
    check_kind(log, found);
    check_columns(log, &LOG_COLUMNS, FindingEffect::RefusesArchive, found);
    for schema in &log.closed_schemas {
        let message = format!(
            "the role may name nothing in the schema {schema}, which has the type of a column of {name}: archived logs cannot be restored"
        );
        let cure = Some(format!("GRANT USAGE ON SCHEMA {schema} TO {};", quote(&facts.role)));
        found.push(HostFinding::new("grant_missing", FindingEffect::Warns, schema, message, cure));
    }
    let mut refuse = |code: &str, object: &str, message: String, cure: String| {
        found.push(HostFinding::new(code, FindingEffect::RefusesArchive, object, message, Some(cure)));
    };
    if log.is_inherited_from {
        refuse(
            "inherited",
            name,
            format!("other tables inherit from {name}: one that is restored would lose its table"),
            format!("make them partitions, or ALTER TABLE ... NO INHERIT {name};"),
        );
    }
    for partition in &log.foreign_partitions {
        refuse(
            "foreign_partition",
            partition,
            format!("the partition {partition} of {name} is a foreign table: its rows cannot be locked"),
            format!("ALTER TABLE {name} DETACH PARTITION {partition};"),
        );
    }
    for rule in log.rules.iter().filter(|rule| rule.on_delete) {
        let object = format!("rule {} of {}", rule.name, rule.table);
        refuse(
            "delete_rule",
            &object,
            format!("{object} rewrites deletions: logs cannot be moved by one statement"),
            format!("DROP RULE {} ON {}; a trigger can do the same", rule.name, rule.table),
        );
    }
    let is_table = matches!(log.kind, RelationKind::Table | RelationKind::Partitioned);
    for name in ["archivedAt", "tier"].into_iter().filter(|name| log.has_column(name)) {
        found.push(HostFinding::column_name_taken(&log.name, name));
    }
    let mut refuse = |code: &str, object: &str, message: String, cure: String| {
        found.push(HostFinding::new(code, FindingEffect::RefusesArchive, object, message, Some(cure)));
    };
    if is_table && !log.has_id_key && log.has_column("id") {
        let cure = if log.may_have_key {
            format!("ALTER TABLE {name} ADD PRIMARY KEY ({});", log.key_columns().join(", "))
        } else {
            "partition it by columns that are NOT NULL: PostgreSQL makes no primary key of others".into()
        };
        refuse("no_key", name, format!("no unique index of {name} says that each id is there once"), cure);
    }
    let missing = [(log.may_read, "SELECT"), (log.may_delete, "DELETE"), (log.may_lock, "UPDATE (\"ledgerClosedAt\")")];
    for (_, privilege) in missing.into_iter().filter(|(may, _)| is_table && !may) {
        let message = format!("the role lacks {privilege} on {name}");
        found.push(grant_missing(FindingEffect::RefusesArchive, facts, name, privilege, message));
    }
    if log.hidden_commands.iter().any(|command| *command != Command::Insert) {
        found.push(rows_hidden(FindingEffect::RefusesArchive, facts, name));
    }
}

fn check_indexes(log: &HostTable, found: &mut Vec<HostFinding>) {
    let name = &log.name;
    // An index of a partitioned table cannot be built concurrently.
    let concurrently = if log.kind == RelationKind::Table { "CONCURRENTLY " } else { "" };
    let mut warn = |code: &str, message: String, columns: &str| {
        let cure = format!("CREATE INDEX {concurrently}ON {name} ({columns});");
        found.push(HostFinding::new(code, FindingEffect::Warns, name, message, Some(cure)));
    };
    let is_table = matches!(log.kind, RelationKind::Table | RelationKind::Partitioned);
    if is_table && !log.has_time_index && log.has_column("createdAt") {
        let message = format!(
            "no index of {name} begins with \"createdAt\": each batch reads the whole table, so archiving is slow"
        );
        warn("no_time_index", message, r#""createdAt""#);
    }
    if is_table && !log.has_stream_index && log.has_column("streamId") {
        let message = format!("no index of {name} begins with \"streamId\": a stream's timeline reads the whole table");
        warn("no_stream_index", message, r#""streamId", "createdAt" DESC"#);
    }
}

fn check_triggers(log: &HostTable, found: &mut Vec<HostFinding>) {
    for trigger in &log.triggers {
        let object = format!("trigger {} of {}", trigger.name, trigger.table);
        let when = match (trigger.on_delete, trigger.on_insert) {
            (true, true) => "archived or restored",
            (true, false) => "archived",
            _ => "restored",
        };
        let message = format!("{object} fires for each log that is {when}; what it does is the host's");
        found.push(HostFinding::new("trigger_fires", FindingEffect::Warns, &object, message, None));
    }
    for rule in log.rules.iter().filter(|rule| rule.on_insert) {
        let object = format!("rule {} of {}", rule.name, rule.table);
        let message = format!("{object} rewrites insertions: archived logs cannot be restored while it is there");
        let cure = Some(format!("DROP RULE {} ON {}; before a restore", rule.name, rule.table));
        found.push(HostFinding::new("insert_rule", FindingEffect::Warns, &object, message, cure));
    }
}

fn check_reference(facts: &HostFacts, reference: &Reference, found: &mut Vec<HostFinding>) {
    let Reference { constraint, table, columns, .. } = reference;
    let object = format!("constraint {constraint} of {table}");
    if reference.is_self {
        let message = format!("{object} makes logs reference other logs: the referenced ones could never leave");
        let cure = Some(format!("ALTER TABLE {table} DROP CONSTRAINT {constraint};"));
        found.push(HostFinding::new("self_reference", FindingEffect::RefusesArchive, &object, message, cure));
        return;
    }
    let message = format!("{table} references logs by {constraint}: a log that it references stays where it is");
    found.push(HostFinding::new("referenced", FindingEffect::Holds, &object, message, None));
    if !reference.may_read {
        let message = format!("the role may not read which logs {table} references by {constraint}");
        let privilege = format!("SELECT ({})", columns.join(", "));
        let mut finding = grant_missing(FindingEffect::RefusesArchive, facts, table, &privilege, message);
        if let (Some(schema), Some(cure)) = (&reference.closed_schema, finding.cure.as_mut()) {
            *cure = format!("GRANT USAGE ON SCHEMA {schema} TO {}; {cure}", quote(&facts.role));
        }
        found.push(finding);
    }
    if reference.is_hidden {
        found.push(rows_hidden(FindingEffect::RefusesArchive, facts, table));
    }
    if !reference.has_index {
        let message =
            format!("no index of {table} finds the rows that reference a log: each batch reads the whole table");
        let cure = Some(format!("CREATE INDEX ON {table} ({});", columns.join(", ")));
        found.push(HostFinding::new("reference_without_index", FindingEffect::Warns, table, message, cure));
    }
}

fn grant_missing(
    effect: FindingEffect,
    facts: &HostFacts,
    table: &str,
    privilege: &str,
    message: String,
) -> HostFinding {
    let cure = format!("GRANT {privilege} ON {table} TO {};", quote(&facts.role));
    HostFinding::new("grant_missing", effect, table, message, Some(cure))
}

fn rows_hidden(effect: FindingEffect, facts: &HostFacts, table: &str) -> HostFinding {
    let role = quote(&facts.role);
    let message = format!("row security hides rows of {table} from the role {role}");
    let cure = format!("CREATE POLICY {role} ON {table} TO {role} USING (true); or ALTER ROLE {role} BYPASSRLS;");
    HostFinding::new(ROWS_HIDDEN, effect, table, message, Some(cure))
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
