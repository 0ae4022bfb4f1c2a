use std::borrow::Cow;
use std::fmt;

use data_encoding::HEXLOWER;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::chain::{Digest, sha256};

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

/// Where metadata is among them.
const METADATA: usize = 5;

/// The key that a job of the host's adds to metadata after the row was hashed (host case 34).
const COMPLETED_KEY: &str = "__eventHash";

/// A digest in hexadecimal.
type HexDigest = [u8; 64];

/// The texts of a row, one for each column that was selected.
pub type Texts<'a> = [Option<&'a str>];

/// The form of an archived row that its digest is computed over: which columns it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowForm {
    /// All columns of the archive, in the order of their names' bytes.
    columns: Vec<String>,
    /// What each is called now; `None` for one that is gone and was empty.
    present: Vec<Option<String>>,
}

impl RowForm {
    /// The form of rows with these columns.
    pub fn new(columns: Vec<String>) -> Self {
        Self::renamed(columns, None)
    }

    /// The form of rows that were sealed with these `columns`, which are called `present` now where any has another name.
    pub fn renamed(columns: Vec<String>, present: Option<Vec<Option<String>>>) -> Self {
        let present = present.unwrap_or_else(|| columns.iter().cloned().map(Some).collect());
        let mut named: Vec<_> = columns.into_iter().zip(present).collect();
        named.sort_unstable();
        named.dedup();
        let (columns, present) = named.into_iter().unzip();
        Self { columns, present }
    }

    /// Names of the columns, as they are sealed.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Names that they have now.
    pub fn present_columns(&self) -> impl Iterator<Item = &String> {
        self.present.iter().flatten()
    }

    fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column == name)
    }

    /// Whether rows are chained by entry hashes.
    pub fn has_entry_hashes(&self) -> bool {
        self.has("entry_hash") && self.has("parent_hash") && HASHED.iter().all(|name| self.has(name))
    }
}

/// What a row's entry hash is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryHash {
    /// The row has none, or its host has none.
    Absent,
    /// That of the row's contents.
    Right,
    /// That of the contents which the row had before the host completed its metadata (host case 34).
    CompletedByHost,
    /// Another one than that of the contents.
    Wrong {
        /// That of the contents.
        computed: String,
    },
}

/// Where the columns of an entry hash are among the texts of a row; `None` for one that is gone.
#[derive(Debug)]
struct Hashed {
    fields: [Option<usize>; HASHED.len()],
    parent_hash: Option<usize>,
    entry_hash: Option<usize>,
}

/// Hashes rows of one form.
#[derive(Debug)]
pub struct RowHasher {
    /// None where the host has no hashes.
    hashed: Option<Hashed>,
    /// Where the other columns are.
    rest: Vec<Option<usize>>,
    /// Columns that the form has not.
    excess: Vec<usize>,
    buffer: Vec<u8>,
}

impl RowHasher {
    /// Hashes rows of the form `form` whose texts are those of the columns `selected`, in this order.
    pub fn new(form: &RowForm, selected: &[String]) -> Self {
        let place = |present: &Option<String>| {
            present.as_ref().and_then(|present| selected.iter().position(|column| column == present))
        };
        let named: Vec<_> = form.columns.iter().zip(form.present.iter().map(place)).collect();
        let place_of =
            |name: &str| named.iter().find_map(|(column, place)| (*column == name).then_some(*place)).flatten();
        let hashed = form.has_entry_hashes().then(|| Hashed {
            fields: HASHED.map(place_of),
            parent_hash: place_of("parent_hash"),
            entry_hash: place_of("entry_hash"),
        });
        let is_rest = |name: &str| hashed.is_none() || !HASHED.contains(&name);
        let rest = named.iter().filter(|(name, _)| is_rest(name)).map(|(_, place)| *place).collect();
        let is_excess = |index: &usize| !form.present_columns().any(|present| *present == selected[*index]);
        let excess = (0..selected.len()).filter(is_excess).collect();
        Self { hashed, rest, excess, buffer: Vec::new() }
    }

    /// Whether the row has a value in a column that the form has not.
    pub fn has_excess(&self, texts: &Texts<'_>) -> bool {
        self.excess.iter().any(|index| texts[*index].is_some())
    }

    /// What the row's entry hash is. The buffer has what it should be afterwards, in hexadecimal; nothing where the host has no hashes.
    pub fn check_entry_hash(&mut self, texts: &Texts<'_>) -> EntryHash {
        self.buffer.clear();
        let Some(hashed) = &self.hashed else { return EntryHash::Absent };
        let text = |place: Option<usize>| place.and_then(|place| texts[place]);
        let fields = hashed.fields.map(text);
        let parent_hash = text(hashed.parent_hash);
        let computed = hash_content(&mut self.buffer, &fields, parent_hash);
        let entry_hash = match text(hashed.entry_hash) {
            None => EntryHash::Absent,
            Some(entry_hash) if entry_hash.as_bytes() == computed => EntryHash::Right,
            Some(entry_hash) => {
                let is_completed = fields[METADATA].and_then(before_completion).is_some_and(|before| {
                    before.iter().any(|metadata| {
                        let mut fields = fields;
                        fields[METADATA] = metadata.as_deref();
                        hash_content(&mut self.buffer, &fields, parent_hash) == entry_hash.as_bytes()
                    })
                });
                if is_completed {
                    EntryHash::CompletedByHost
                } else {
                    EntryHash::Wrong { computed: String::from_utf8_lossy(&computed).into_owned() }
                }
            }
        };
        self.buffer.clear();
        self.buffer.extend_from_slice(&computed);
        entry_hash
    }

    /// The row's digest, and what its entry hash is.
    pub fn hash(&mut self, texts: &Texts<'_>) -> (Digest, EntryHash) {
        let entry_hash = self.check_entry_hash(texts);
        self.buffer.push(b'[');
        for (number, place) in self.rest.iter().enumerate() {
            if number > 0 {
                self.buffer.push(b',');
            }
            write_json(&mut self.buffer, place.and_then(|place| texts[place]));
        }
        self.buffer.push(b']');
        (sha256(&[&self.buffer]), entry_hash)
    }
}

/// The SHA-256, in hexadecimal, of what an entry hash covers.
fn hash_content(buffer: &mut Vec<u8>, fields: &[Option<&str>; HASHED.len()], parent_hash: Option<&str>) -> HexDigest {
    buffer.clear();
    let mut separator = b'{';
    for (name, text) in HASHED.iter().zip(fields) {
        buffer.push(separator);
        separator = b',';
        buffer.push(b'"');
        buffer.extend_from_slice(name.as_bytes());
        buffer.extend_from_slice(b"\":");
        match (*name, text) {
            ("eventIndex" | "ledger", Some(number)) => buffer.extend_from_slice(number.as_bytes()),
            (_, text) => write_json(buffer, *text),
        }
    }
    buffer.push(b'}');
    buffer.extend_from_slice(parent_hash.unwrap_or_default().as_bytes());
    let mut hexadecimal = [0; 64];
    HEXLOWER.encode_mut(&sha256(&[buffer]), &mut hexadecimal);
    hexadecimal
}

/// A text as PostgreSQL's `to_json(text)` writes it, or null. Nearly all of it is copied in one piece.
fn write_json(buffer: &mut Vec<u8>, text: Option<&str>) {
    let Some(text) = text else {
        buffer.extend_from_slice(b"null");
        return;
    };
    let bytes = text.as_bytes();
    buffer.push(b'"');
    if has_escaped(bytes) {
        write_escaped(buffer, bytes);
    } else {
        buffer.extend_from_slice(bytes);
    }
    buffer.push(b'"');
}

/// Whether any byte is written otherwise. Looks at eight bytes at a time: this is most of what hashing costs beside SHA-256, and a build
/// for size does not do it by itself.
fn has_escaped(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    // The high bit of a byte is set where the byte is less than `limit`; of some others only behind such a one.
    let less = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGH;
    let equal = |word: u64, byte: u8| less(word ^ (ONES * u64::from(byte)), 1);
    let (words, rest) = bytes.as_chunks();
    words.iter().any(|word| {
        let word = u64::from_ne_bytes(*word);
        less(word, b' ') | equal(word, b'"') | equal(word, b'\\') != 0
    }) || rest.iter().any(|byte| is_escaped(*byte))
}

fn is_escaped(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

fn write_escaped(buffer: &mut Vec<u8>, bytes: &[u8]) {
    for piece in bytes.chunk_by(|one, next| !is_escaped(*one) && !is_escaped(*next)) {
        let short = match piece[0] {
            plain if !is_escaped(plain) => {
                buffer.extend_from_slice(piece);
                continue;
            }
            byte @ (b'"' | b'\\') => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            8 => b'b',
            12 => b'f',
            control => {
                buffer.extend_from_slice(format!("\\u{control:04x}").as_bytes());
                continue;
            }
        };
        buffer.extend_from_slice(&[b'\\', short]);
    }
}

/// What metadata may have been before a job of the host's completed it: compact JSON without the key, or NULL where nothing else is in it.
/// `None` when the key is not in it.
fn before_completion(metadata: &str) -> Option<Vec<Option<String>>> {
    if !metadata.contains(COMPLETED_KEY) {
        return None;
    }
    let Members(mut members) = serde_json::from_str(metadata).ok()?;
    let all = members.len();
    members.retain(|(name, _)| name != COMPLETED_KEY);
    if members.len() == all {
        return None;
    }
    let mut before = Vec::with_capacity(metadata.len());
    before.push(b'{');
    for (number, (name, value)) in members.iter().enumerate() {
        if number > 0 {
            before.push(b',');
        }
        write_json(&mut before, Some(name));
        before.push(b':');
        before.extend(without_spaces(value.get()));
    }
    before.push(b'}');
    let before = String::from_utf8(before).ok()?;
    Some(if members.is_empty() { vec![None, Some(before)] } else { vec![Some(before)] })
}

/// The members of a JSON object, in their order.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// The bytes of a JSON text but for the spaces between its parts.
fn without_spaces(json: &str) -> impl Iterator<Item = u8> {
    let (mut is_text, mut is_escaped) = (false, false);
    json.bytes().filter(move |byte| {
        if is_text {
            is_text = is_escaped || *byte != b'"';
            is_escaped = !is_escaped && *byte == b'\\';
            return true;
        }
        is_text = *byte == b'"';
        !byte.is_ascii_whitespace()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const VECTORS: &str = include_str!("../../tests/it/fixtures/chain-vectors.json");

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    /// The columns of a row with hashes, by their bytes.
    fn columns() -> Vec<String> {
        let mut columns = names(&HASHED);
        columns.extend(names(&["archivedAt", "createdAt", "entry_hash", "id", "parent_hash"]));
        columns.sort_unstable();
        columns
    }

    fn check(row: &[(&str, Option<&str>)]) -> EntryHash {
        let columns = columns();
        let text = |name: &String| row.iter().find(|(column, _)| column == name).and_then(|(_, text)| *text);
        let texts: Vec<_> = columns.iter().map(text).collect();
        RowHasher::new(&RowForm::new(columns.clone()), &columns).check_entry_hash(&texts)
    }

    #[test]
    fn the_hosts_vectors_have_the_entry_hashes_that_they_say() {
        let vectors: Value = serde_json::from_str(VECTORS).expect("JSON");
        for vector in vectors["rows"].as_array().expect("rows") {
            let text = |name: &str| match &vector[name] {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
            let mut texts: Vec<_> = HASHED.iter().map(|name| (*name, text(name))).collect();
            texts.push(("parent_hash", text("parentHash")));
            texts.push(("entry_hash", text("entryHash")));
            let row: Vec<_> = texts.iter().map(|(name, text)| (*name, text.as_deref())).collect();
            assert_eq!(check(&row), EntryHash::Right, "{vector}");
        }
    }

    #[test]
    fn json_is_written_as_serde_json_and_postgresql_write_it() {
        let written = |text: &str| {
            let mut buffer = Vec::new();
            write_json(&mut buffer, Some(text));
            assert_eq!(String::from_utf8(buffer).expect("a text"), serde_json::to_string(text).expect("JSON"));
        };
        for text in ["", "plain", "\"quoted\" \\ \u{7f} é 🦀", "\u{0001}\u{8}\t\n\u{b}\u{c}\r\u{1f} end"] {
            written(text);
        }
        // Each character in each place of a word, and behind one.
        for character in (0..=0x100_u32).filter_map(char::from_u32) {
            for place in 0..10 {
                written(&format!("{}{character}{}", "a".repeat(place), "b".repeat(10 - place)));
            }
        }
    }

    #[test]
    fn a_row_that_the_host_completed_has_the_hash_of_what_it_was() {
        let hash = |metadata: Option<&str>| {
            let EntryHash::Wrong { computed } = check(&[("metadata", metadata), ("entry_hash", Some("?"))]) else {
                panic!("the hash is none");
            };
            computed
        };
        let completed = |before: Option<&str>, after: &str| {
            check(&[("metadata", Some(after)), ("entry_hash", Some(&hash(before)))])
        };
        for (before, after) in [
            (Some(r#"{"b":1.50,"a":[1,{"c":" x \" "}]}"#), r#"{"b":1.50,"a":[1,{"c":" x \" "}],"__eventHash":"h"}"#),
            (Some(r#"{"b":1,"a":2}"#), r#"{"__eventHash": "h", "b": 1, "a": 2}"#),
            (Some(r#"{"a":"é\n"}"#), r#"{"a":"é\n","__eventHash":null}"#),
            (None, r#"{"__eventHash":"h"}"#),
            (Some("{}"), r#"{"__eventHash":"h"}"#),
        ] {
            assert_eq!(completed(before, after), EntryHash::CompletedByHost, "{before:?} {after}");
        }
        for (before, after) in [
            (Some(r#"{"a":1}"#), r#"{"a":2,"__eventHash":"h"}"#),
            (Some(r#"{"a":1,"b":2}"#), r#"{"b":2,"a":1,"__eventHash":"h"}"#),
            (Some("no JSON"), r#"{"__eventHash":"h"}"#),
            (None, r#"{"a":{"__eventHash":"h"}}"#),
            (None, r#""__eventHash""#),
            (None, r#"["__eventHash"]"#),
            (None, "__eventHash"),
        ] {
            assert!(matches!(completed(before, after), EntryHash::Wrong { .. }), "{before:?} {after}");
        }
    }

    #[test]
    fn a_column_that_is_gone_or_renamed_leaves_the_digest_as_it_was() {
        let digest = |form: &RowForm, selected: &[&str], texts: &[Option<&str>]| {
            RowHasher::new(form, &names(selected)).hash(texts).0
        };
        let before = RowForm::new(names(&["id", "memo", "old"]));
        let was = digest(&before, &["id", "memo", "old"], &[Some("1"), Some("m"), None]);
        let renamed =
            RowForm::renamed(names(&["id", "memo", "old"]), Some(vec![Some("id".into()), Some("note".into()), None]));
        assert_eq!(digest(&renamed, &["note", "new", "id"], &[Some("m"), None, Some("1")]), was);
        let hasher = RowHasher::new(&renamed, &names(&["note", "new", "id"]));
        assert!(!hasher.has_excess(&[Some("m"), None, Some("1")]));
        assert!(hasher.has_excess(&[Some("m"), Some(""), Some("1")]));
    }
}
