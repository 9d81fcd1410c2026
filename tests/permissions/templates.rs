//! `auth.jwt_template()`: templates for tokens.

use harness::{Code, Preload};
use serde_json::{Value, json};

use super::fixture::*;

#[test]
fn templates_grant_what_they_say() {
    let fixture = SITES.beside_others(Preload::Shared);
    let mut client = fixture.client();
    for (arguments, claims) in [
        ("'full-access'", json!({"a": "rw"})),
        ("'read-only'", json!({"a": "ro"})),
        ("permissions => '{all:data_read,\"comments:data_add,data_update\"}'",
         json!({"perm": Code::Configuration.sqlstate()})),
        ("permissions => ARRAY['all:data_read', 'comments:data_add,data_update']",
         json!({"perm": [{"t": null, "a": ["data_read"]},
                         {"t": ["comments"], "a": ["data_add", "data_update"]}]})),
        ("'read-only', ARRAY['\"Comments\":data_add', '\"all\":data_update', 'hidden.comments:data_add',
                             'Hidden.Comments:data_delete', '\"Comments\":data_add']",
         json!({"a": "ro", "perm": [{"t": ["\"Comments\""], "a": ["data_add"]},
                                    {"t": ["\"all\""], "a": ["data_update"]},
                                    {"t": ["hidden.comments"], "a": ["data_add", "data_delete"]}]})),
    ] {
        let found = answer(&mut client, &format!("SELECT auth.jwt_template({arguments})"));
        if claims["perm"] == Code::Configuration.sqlstate() {
            // Two elements, for the comma stands in quotes.
            assert!(found.contains("data_update"), "{found}");
            continue;
        }
        let found: Value = serde_json::from_str(&found).expect(arguments);
        assert_eq!(found, claims, "{arguments}");
        fixture.be(&mut client, &found);
    }
    for (action, table, allowed) in [
        ("data_read", "'secrets'", "t"),
        ("data_add", "'\"Comments\"'", "t"),
        ("data_add", "'comments'", "f"),
        ("data_update", "'\"all\"'", "t"),
        ("data_update", "'comments'", "f"),
        ("data_update", "NULL", "f"),
        ("data_delete", "'hidden.comments'", "t"),
    ] {
        assert_eq!(allows(&mut client, action, table), allowed, "{action} {table}");
    }
    for arguments in [
        "",
        "NULL, NULL",
        "NULL, '{}'",
        "'rw'",
        "''",
        "NULL, '{NULL}'",
        "NULL, '{comments}'",
        "NULL, '{comments:}'",
        "NULL, '{:data_read}'",
        "NULL, '{a b:data_read}'",
        "NULL, '{comments:data_reed}'",
        "'full-access', '{x.y.z:data_read}'",
    ] {
        let error = client.query(&format!("SELECT auth.jwt_template({arguments})"), &[]);
        let error = error.expect_err(arguments);
        let error = error.as_db_error().expect("the server's error");
        assert_eq!(error.code().code(), Code::Configuration.sqlstate(), "{arguments}");
        assert!(error.detail().is_some(), "{arguments}");
    }
}
