//! The actions that a token allows on tables: the claims `perm` and `a`, in Turso's format
//! (<https://docs.turso.tech/sdk/authorization/fine-grained-permissions>).
//!
//! `perm` is an array of `{"t": [tables] | null, "a": [actions]}`; `a` is `rw` or `ro`. Grants add up.
//! An entry in another format grants nothing. It does not reject the token, since other providers use
//! claims of these names for other purposes, and it does not revoke other grants.

use std::borrow::Cow;

use crate::json::{Json, Object, json_string, push};
use crate::rejection::{Code, Rejection, quoted, reject};

/// An action on a table or on the whole database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read rows.
    DataRead,
    /// Insert rows.
    DataAdd,
    /// Update rows.
    DataUpdate,
    /// Delete rows.
    DataDelete,
    /// Create the table or an object that belongs to it.
    SchemaAdd,
    /// Alter the table.
    SchemaUpdate,
    /// Drop the table.
    SchemaDelete,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 7] = [
        Action::DataRead,
        Action::DataAdd,
        Action::DataUpdate,
        Action::DataDelete,
        Action::SchemaAdd,
        Action::SchemaUpdate,
        Action::SchemaDelete,
    ];

    /// The name in tokens and in SQL.
    pub const fn name(self) -> &'static str {
        match self {
            Action::DataRead => "data_read",
            Action::DataAdd => "data_add",
            Action::DataUpdate => "data_update",
            Action::DataDelete => "data_delete",
            Action::SchemaAdd => "schema_add",
            Action::SchemaUpdate => "schema_update",
            Action::SchemaDelete => "schema_delete",
        }
    }

    /// The action of exactly that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }

    /// Reads the name of an action.
    ///
    /// # Errors
    /// [`Code::Configuration`], with the names of all actions, if the name is unknown.
    pub fn expect(name: &str) -> Result<Self, Rejection> {
        Self::from_name(name).ok_or_else(|| {
            reject(Code::Configuration, "action is unknown")
                .with_detail(format!("There is no action {}.", quoted(name)))
                .with_hint(format!("The actions are {}.", Self::ALL.map(Self::name).join(", ")))
        })
    }
}

/// A set of actions, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Actions(u8);

impl Actions {
    fn all() -> Self {
        Action::ALL.into_iter().fold(Self::default(), |all, action| all.with(Self::only(action)))
    }

    const fn only(action: Action) -> Self {
        Self(1 << action as u8)
    }

    const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn has(self, action: Action) -> bool {
        self.0 & Self::only(action).0 != 0
    }
}

/// A table by its schema and its name, as in Postgres' catalogs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Table {
    schema: Box<str>,
    name: Box<str>,
}

/// The target of a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// `all`
    Everywhere,
    Table(Table),
}

impl Target {
    /// Reads `all`, `table` or `schema.table`. A table without schema is in `public`. None if the name
    /// is malformed.
    fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("all") {
            return Some(Target::Everywhere);
        }
        let (first, rest) = identifier(text)?;
        let (schema, name) = match rest.strip_prefix('.') {
            None => (Cow::Borrowed("public"), (first, rest)),
            Some(rest) => (first, identifier(rest)?),
        };
        let (name, rest) = name;
        let table = Table { schema: schema.into(), name: name.into() };
        rest.is_empty().then_some(Target::Table(table))
    }
}

/// Splits off the identifier at the beginning of a text (PostgreSQL documentation, section 4.1.1). A
/// quoted identifier is in double quotes, with `""` for a quote. In an unquoted identifier, ASCII
/// letters are folded to lower case.
fn identifier(text: &str) -> Option<(Cow<'_, str>, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut name = String::new();
        let mut rest = quoted;
        loop {
            let (part, after) = rest.split_once('"')?;
            name.push_str(part);
            let Some(more) = after.strip_prefix('"') else {
                let is_name = !name.is_empty() && !name.contains('\0');
                return is_name.then_some((name.into(), after));
            };
            name.push('"');
            rest = more;
        }
    }
    let begins = |character: char| {
        character.is_ascii_alphabetic() || character == '_' || !character.is_ascii()
    };
    let goes_on =
        |character: char| begins(character) || character.is_ascii_digit() || character == '$';
    let end = text.find(|character| !goes_on(character)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    word.starts_with(begins).then(|| (word.to_ascii_lowercase().into(), rest))
}

/// The actions that the claims of one token allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    everywhere: Actions,
    /// The tables, without duplicates, sorted.
    tables: Vec<(Table, Actions)>,
}

impl Permissions {
    pub(crate) fn of(claims: &Object<'_>) -> Self {
        let mut granted = Self::default();
        match claims.get("a").and_then(Json::as_str) {
            Some("rw") => granted.everywhere = Actions::all(),
            Some("ro") => granted.everywhere = Actions::only(Action::DataRead),
            _ => {}
        }
        let entries = claims.get("perm").and_then(Json::as_array).unwrap_or_default();
        for entry in entries.iter().filter_map(Json::as_object) {
            granted.add(entry);
        }
        granted.tables.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        granted.tables.dedup_by(|(table, actions), (kept, all)| {
            let same = table == kept;
            if same {
                *all = all.with(*actions);
            }
            same
        });
        granted.tables.shrink_to_fit();
        granted
    }

    /// Adds an entry of `perm`.
    fn add(&mut self, entry: &Object<'_>) {
        let actions = entry.get("a").and_then(Json::as_array).unwrap_or_default();
        let actions = actions
            .iter()
            .filter_map(|name| Action::from_name(name.as_str()?))
            .fold(Actions::default(), |all, action| all.with(Actions::only(action)));
        match entry.get("t") {
            Some(Json::Null) => self.everywhere = self.everywhere.with(actions),
            Some(Json::Array(tables)) => {
                for target in tables.iter().filter_map(|name| Target::parse(name.as_str()?)) {
                    match target {
                        Target::Everywhere => self.everywhere = self.everywhere.with(actions),
                        Target::Table(table) => push(&mut self.tables, (table, actions)),
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether the action is allowed on the table of that schema and name. For None, whether it is
    /// allowed on the whole database, which only a grant on all tables allows.
    pub fn allows(&self, action: Action, table: Option<(&str, &str)>) -> bool {
        self.everywhere.has(action)
            || table.is_some_and(|wanted| {
                let place = self
                    .tables
                    .binary_search_by(|(table, _)| (&*table.schema, &*table.name).cmp(&wanted));
                place.is_ok_and(|place| self.tables[place].1.has(action))
            })
    }

    /// The memory of the lists, in bytes, without the overhead of the allocator.
    pub fn size(&self) -> usize {
        let names: usize =
            self.tables.iter().map(|(table, _)| table.schema.len() + table.name.len()).sum();
        names + size_of_val(&*self.tables)
    }
}

/// The scopes of [`permission_claims`], and their values of the claim `a`.
const SCOPES: [(&str, &str); 2] = [("full-access", "rw"), ("read-only", "ro")];

/// The claims of a token that grants a scope and permissions, as a JSON object. A scope sets `a`.
/// Permissions such as `comments:data_add,data_update`, which are split at the last colon, set `perm`.
///
/// # Errors
/// [`Code::Configuration`] if neither is given, or if one is unknown or malformed.
pub fn permission_claims(scope: Option<&str>, permissions: &[&str]) -> Result<String, Rejection> {
    let mut members = Vec::new();
    if let Some(scope) = scope {
        let known = SCOPES.iter().find(|(name, _)| *name == scope);
        let (_, value) = known.ok_or_else(|| {
            reject(Code::Configuration, "scope is unknown")
                .with_detail(format!("There is no scope {}.", quoted(scope)))
                .with_hint(format!("The scopes are {}.", SCOPES.map(|(name, _)| name).join(", ")))
        })?;
        members.push(format!("\"a\": {}", json_string(value)));
    }
    let mut entries: Vec<(Target, &str, Vec<Action>)> = Vec::new();
    for permission in permissions {
        let (name, target, actions) = permission_parts(permission)?;
        let place = entries.iter().position(|(other, ..)| *other == target).unwrap_or_else(|| {
            entries.push((target, name, Vec::new()));
            entries.len() - 1
        });
        for action in actions {
            if !entries[place].2.contains(&action) {
                entries[place].2.push(action);
            }
        }
    }
    if !entries.is_empty() {
        let entries = entries.iter().map(|(target, name, actions)| {
            let tables = match target {
                Target::Everywhere => "null".to_owned(),
                Target::Table(_) => format!("[{}]", json_string(name)),
            };
            let actions: Vec<String> =
                actions.iter().map(|action| json_string(action.name())).collect();
            format!("{{\"t\": {tables}, \"a\": [{}]}}", actions.join(", "))
        });
        let entries: Vec<String> = entries.collect();
        members.push(format!("\"perm\": [{}]", entries.join(", ")));
    }
    if members.is_empty() {
        let scopes = SCOPES.map(|(name, _)| name).join(", ");
        let actions = Action::ALL.map(Action::name).join(", ");
        return Err(reject(Code::Configuration, "nothing is granted")
            .with_detail("Neither a scope nor permissions are given.")
            .with_hint(format!("The scopes are {scopes}; the actions are {actions}.")));
    }
    Ok(format!("{{{}}}", members.join(", ")))
}

fn permission_parts(permission: &str) -> Result<(&str, Target, Vec<Action>), Rejection> {
    let malformed = || {
        reject(Code::Configuration, "permission is malformed")
            .with_detail(format!("{} does not name a table and actions.", quoted(permission)))
            .with_hint(format!(
                "Write a table (\"all\", \"table\" or \"schema.table\", with double quotes around \
                 a name that is not a plain identifier), a colon, and actions separated by \
                 commas: {}.",
                Action::ALL.map(Action::name).join(", ")
            ))
    };
    let (name, actions) = permission.rsplit_once(':').ok_or_else(malformed)?;
    let target = Target::parse(name).ok_or_else(malformed)?;
    let actions = actions.split(',').map(Action::expect).collect::<Result<_, _>>()?;
    Ok((name, target, actions))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn permissions(claims: &str) -> Permissions {
        Permissions::of(Json::parse(claims.as_bytes()).unwrap().as_object().unwrap())
    }

    const COMMENTS: Option<(&str, &str)> = Some(("public", "comments"));
    const POSTS: Option<(&str, &str)> = Some(("public", "posts"));

    /// The names of the allowed actions.
    fn allowed(permissions: &Permissions, table: Option<(&str, &str)>) -> String {
        let all = Action::ALL.into_iter().filter(|action| permissions.allows(*action, table));
        all.map(Action::name).collect::<Vec<_>>().join(" ")
    }

    const EVERYTHING: &str =
        "data_read data_add data_update data_delete schema_add schema_update schema_delete";

    #[test]
    fn grants_add_up() {
        for (claims, comments, posts, database) in [
            (r#"{}"#, "", "", ""),
            (r#"{"a": "rw"}"#, EVERYTHING, EVERYTHING, EVERYTHING),
            (r#"{"a": "ro"}"#, "data_read", "data_read", "data_read"),
            (
                r#"{"a": "ro", "perm": [{"t": ["comments"], "a": ["data_add"]}]}"#,
                "data_read data_add",
                "data_read",
                "data_read",
            ),
            (
                r#"{"perm": [{"t": null, "a": ["data_read"]},
                          {"t": ["comments"], "a": ["data_add", "data_update"]},
                          {"t": ["posts", "comments"], "a": ["data_delete"]}]}"#,
                "data_read data_add data_update data_delete",
                "data_read data_delete",
                "data_read",
            ),
            (
                r#"{"perm": [{"t": ["ALL"], "a": ["schema_add"]}]}"#,
                "schema_add",
                "schema_add",
                "schema_add",
            ),
            (
                r#"{"perm": [{"t": ["public.comments", "COMMENTS"], "a": ["schema_add"]}]}"#,
                "schema_add",
                "",
                "",
            ),
        ] {
            let permissions = permissions(claims);
            assert_eq!(allowed(&permissions, COMMENTS), comments, "{claims}");
            assert_eq!(allowed(&permissions, POSTS), posts, "{claims}");
            assert_eq!(allowed(&permissions, None), database, "{claims}");
        }
    }

    #[test]
    fn what_is_not_understood_grants_nothing() {
        for claims in [
            r#"{"a": "RW"}"#,
            r#"{"a": "rw "}"#,
            r#"{"a": ["rw"]}"#,
            r#"{"a": true}"#,
            r#"{"perm": "rw"}"#,
            r#"{"perm": {"t": null, "a": ["data_read"]}}"#,
            r#"{"perm": [["data_read"], "data_read", null]}"#,
            r#"{"perm": [{"a": ["data_read"]}]}"#,
            r#"{"perm": [{"t": "comments", "a": ["data_read"]}]}"#,
            r#"{"perm": [{"t": "all", "a": ["data_read"]}]}"#,
            r#"{"perm": [{"t": false, "a": ["data_read"]}]}"#,
            r#"{"perm": [{"t": {}, "a": ["data_read"]}]}"#,
            r#"{"perm": [{"t": [], "a": ["data_read"]}]}"#,
            r#"{"perm": [{"t": [null, 1, ["comments"]], "a": ["data_read"]}]}"#,
            r#"{"perm": [{"t": null}]}"#,
            r#"{"perm": [{"t": null, "a": "data_read"}]}"#,
            r#"{"perm": [{"t": null, "a": ["DATA_READ", "data_", "read", "all", "rw", null]}]}"#,
            r#"{"perm": [{"t": null, "a": []}]}"#,
        ] {
            let permissions = permissions(claims);
            assert_eq!(permissions, Permissions::default(), "{claims}");
            assert_eq!(allowed(&permissions, COMMENTS), "", "{claims}");
        }
        // Valid entries beside it still grant.
        let mixed = r#"{"perm": [7, {"t": ["x y", "comments"], "a": ["nothing", "data_read"]}]}"#;
        assert_eq!(allowed(&permissions(mixed), COMMENTS), "data_read");
    }

    #[test]
    fn names() {
        let table = |schema: &str, name: &str| {
            Some(Target::Table(Table { schema: schema.into(), name: name.into() }))
        };
        for (text, target) in [
            ("comments", table("public", "comments")),
            ("Comments", table("public", "comments")),
            ("\"Comments\"", table("public", "Comments")),
            ("App.\"My \"\"Table\"\".x\"", table("app", "My \"Table\".x")),
            ("\"a.b\"", table("public", "a.b")),
            ("_x$1", table("public", "_x$1")),
            ("\u{c4}pfel", table("public", "\u{c4}pfel")),
            ("all", Some(Target::Everywhere)),
            ("aLL", Some(Target::Everywhere)),
            ("\"all\"", table("public", "all")),
            ("public.all", table("public", "all")),
            ("all.comments", table("all", "comments")),
        ] {
            assert_eq!(Target::parse(text), target, "{text}");
        }
        for text in [
            "",
            " ",
            " all",
            "all ",
            "comments ",
            " comments",
            "a b",
            "a-b",
            "1a",
            "$a",
            "a.",
            ".a",
            "a..b",
            "a.b.c",
            "a. b",
            "\"",
            "\"\"",
            "\"a",
            "a\"",
            "a\"b\"",
            "\"a\"b",
            "\"a\"\"",
            "\"a\".\"\"",
            "*",
            "a.*",
            "%",
            "comments;",
            "\"a\0\"",
            "a\0",
        ] {
            assert_eq!(Target::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn templates() {
        let both = ["all:data_read", "comments:data_add,data_update"];
        for (scope, permissions, claims) in [
            (Some("full-access"), &[][..], r#"{"a": "rw"}"#),
            (Some("read-only"), &[][..], r#"{"a": "ro"}"#),
            (
                None,
                &both[..],
                r#"{"perm": [{"t": null, "a": ["data_read"]}, {"t": ["comments"], "a": ["data_add", "data_update"]}]}"#,
            ),
            (
                Some("read-only"),
                &[
                    "b:data_add",
                    "\"x:y\":data_add",
                    "All:data_read",
                    "B:data_read,data_add",
                    "ALL:data_add",
                ],
                r#"{"a": "ro", "perm": [{"t": ["b"], "a": ["data_add", "data_read"]}, {"t": ["\u0022x:y\u0022"], "a": ["data_add"]}, {"t": null, "a": ["data_read", "data_add"]}]}"#,
            ),
        ] {
            assert_eq!(permission_claims(scope, permissions).unwrap(), claims);
        }
        for (scope, permissions) in [
            (None, &[][..]),
            (Some(""), &[]),
            (Some("rw"), &[]),
            (Some("Full-Access"), &[]),
            (None, &[""]),
            (None, &["comments"]),
            (None, &["comments:"]),
            (None, &[":data_read"]),
            (None, &["comments:data_read,"]),
            (None, &["comments:data_read, data_add"]),
            (None, &["my table:data_read"]),
            (None, &["comments:DATA_READ"]),
            (Some("full-access"), &["comments:nothing"]),
        ] {
            let refused = permission_claims(scope, permissions).unwrap_err();
            assert_eq!(refused.code(), Code::Configuration, "{scope:?} {permissions:?}");
            assert!(refused.detail().is_some() && refused.hint().is_some());
        }
    }

    /// Quotes a name as SQL's `quote_ident` does.
    fn quote(name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2_000,
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// A token allows exactly the actions that its template grants.
        #[test]
        fn templates_are_understood(
            grants in prop::collection::vec(
                (prop::option::of(("[a\" .:]{1,3}", "[a\" .:]{1,3}")), 0..7usize), 1..6),
            probe in ("[a\" .:]{1,3}", "[a\" .:]{1,3}"),
        ) {
            let written: Vec<String> = grants.iter().map(|(table, action)| {
                let name = table.as_ref().map_or_else(
                    || "all".to_owned(),
                    |(schema, name)| format!("{}.{}", quote(schema), quote(name)));
                format!("{name}:{}", Action::ALL[*action].name())
            }).collect();
            let written: Vec<&str> = written.iter().map(String::as_str).collect();
            let understood = permissions(&permission_claims(None, &written).unwrap());
            let named = grants.iter().filter_map(|(table, _)| table.clone());
            for (schema, name) in named.chain([probe]) {
                for (index, action) in Action::ALL.into_iter().enumerate() {
                    let expected = grants.iter().any(|(table, granted)| {
                        *granted == index && table.as_ref().is_none_or(
                            |table| *table == (schema.clone(), name.clone()))
                    });
                    prop_assert_eq!(understood.allows(action, Some((&schema, &name))), expected);
                }
            }
            for (index, action) in Action::ALL.into_iter().enumerate() {
                let expected =
                    grants.iter().any(|(table, granted)| table.is_none() && *granted == index);
                prop_assert_eq!(understood.allows(action, None), expected);
            }
        }

        #[test]
        fn no_name_panics(text in "[aB1_$.\" \u{e9}]{0,8}") {
            let _ = Target::parse(&text);
        }
    }
}
