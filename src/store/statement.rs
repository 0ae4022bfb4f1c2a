/// Puts `parts` in the place of their names in braces, in one pass: what is put in, such as a host's column of an odd name, is
/// not looked through again.
pub(super) fn fill(sql: &str, parts: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(2 * sql.len());
    let mut rest = sql;
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        filled.push_str(before);
        let part = from.find('}').and_then(|end| {
            let (_, text) = parts.iter().find(|(name, _)| *name == &from[1..end])?;
            Some((text, &from[end + 1..]))
        });
        if let Some((text, after)) = part {
            filled.push_str(text);
            rest = after;
        } else {
            // SQL has braces of its own, such as those of an array.
            filled.push('{');
            rest = &from[1..];
        }
    }
    filled + rest
}

/// The statement without comments and indentation: RDS Proxy pins a session for a statement of more than 16 KB. Comments must be on
/// lines of their own.
pub(super) fn condense(sql: &str) -> String {
    let lines = sql.lines().map(str::trim).filter(|line| !line.starts_with("--"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_not_looked_through_again() {
        let parts = [("columns", r#"id, "{partition}""#), ("partition", "p")];
        assert_eq!(
            fill("INSERT INTO {partition} ({columns}) VALUES ('{}', '{other}'", &parts),
            r#"INSERT INTO p (id, "{partition}") VALUES ('{}', '{other}'"#
        );
    }
}
