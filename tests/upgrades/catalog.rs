//! The catalogs of a database as text, without OIDs, so that two databases can be compared.

use harness::send;
use postgres::Client;

/// Queries of one column. An object is one that a user or an extension has created.
const QUERIES: &[&str] = &[
    "SELECT concat_ws(' ', 'extension', extname, extowner::regrole, extnamespace::regnamespace,
            extrelocatable, extversion, extconfig::regclass[], extcondition)
     FROM pg_extension WHERE extname = 'pg_session_jwt'",
    "SELECT concat_ws(' ', 'schema', nspname, nspowner::regrole,
            ARRAY(SELECT unnest(nspacl)::text ORDER BY 1))
     FROM pg_namespace WHERE nspname IN ('auth', 'public')",
    "SELECT concat_ws(' ', 'function', p.oid::regprocedure, proowner::regrole, pg_get_functiondef(p.oid),
            to_jsonb(p) - '{oid, pronamespace, proowner, prolang, prorettype, proargtypes, proallargtypes,
                            prosqlbody, proargdefaults}'::text[])
     FROM pg_proc p WHERE pronamespace IN ('auth'::regnamespace, 'public'::regnamespace)",
    "SELECT concat_ws(' ', 'relation', c.oid::regclass, relowner::regrole, am.amname,
            to_jsonb(c) - '{oid, relnamespace, relowner, relam, reltype, reloftype, relfilenode, relpages,
                            reltuples, relallvisible, relallfrozen, reltoastrelid, relfrozenxid,
                            relminmxid}'::text[])
     FROM pg_class c LEFT JOIN pg_am am ON am.oid = relam
     WHERE relnamespace IN ('auth'::regnamespace, 'public'::regnamespace)",
    "SELECT concat_ws(' ', 'column', attrelid::regclass, format_type(atttypid, atttypmod),
            attcollation::regcollation, pg_get_expr(d.adbin, d.adrelid),
            ARRAY(SELECT o FROM unnest(attoptions) o WHERE o NOT LIKE 'pg\\_attver=%'),
            to_jsonb(a) - '{attrelid, atttypid, attcollation, attcacheoff, attoptions}'::text[])
     FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
     LEFT JOIN pg_attrdef d ON d.adrelid = attrelid AND d.adnum = attnum
     WHERE relnamespace IN ('auth'::regnamespace, 'public'::regnamespace)",
    "SELECT concat_ws(' ', 'type', t.oid::regtype, typowner::regrole, typelem::regtype,
            to_jsonb(t) - '{oid, typnamespace, typowner, typrelid, typelem, typarray, typbasetype,
                            typcollation}'::text[])
     FROM pg_type t WHERE typnamespace IN ('auth'::regnamespace, 'public'::regnamespace)",
    "SELECT concat_ws(' ', 'cast', castsource::regtype, casttarget::regtype, castfunc::regprocedure,
            castcontext, castmethod)
     FROM pg_cast WHERE oid >= 16384",
    "SELECT concat_ws(' ', 'constraint', conname, conrelid::regclass, convalidated, pg_get_constraintdef(oid))
     FROM pg_constraint WHERE connamespace IN ('auth'::regnamespace, 'public'::regnamespace)",
    "SELECT concat_ws(' ', 'index', pg_get_indexdef(indexrelid), indisvalid, indnullsnotdistinct)
     FROM pg_index WHERE indexrelid >= 16384 AND indrelid::regclass::text NOT LIKE 'pg_toast%'",
    "SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(oid), tgenabled) FROM pg_trigger WHERE NOT tgisinternal",
    "SELECT concat_ws(' ', 'rule', ev_class::regclass, rulename, ev_enabled, pg_get_ruledef(oid))
     FROM pg_rewrite WHERE oid >= 16384",
    "SELECT concat_ws(' ', 'policy', p) FROM pg_policies p",
    "SELECT concat_ws(' ', 'event trigger', evtname, evtevent, evtowner::regrole, evtfoid::regproc,
            evtenabled, evttags)
     FROM pg_event_trigger",
    "SELECT concat_ws(' ', 'comment', pg_describe_object(classoid, objoid, objsubid), description)
     FROM pg_description WHERE objoid >= 16384
        AND (classoid <> 'pg_extension'::regclass
             OR objoid = (SELECT oid FROM pg_extension WHERE extname = 'pg_session_jwt'))",
    "SELECT concat_ws(' ', 'initial privileges', pg_describe_object(classoid, objoid, objsubid), privtype,
            initprivs)
     FROM pg_init_privs WHERE objoid >= 16384",
    "SELECT concat_ws(' ', 'dependency', pg_describe_object(classid, objid, objsubid), deptype,
            pg_describe_object(refclassid, refobjid, refobjsubid))
     FROM pg_depend WHERE objid >= 16384",
    "SELECT concat_ws(' ', 'shared dependency', pg_describe_object(classid, objid, objsubid), deptype,
            pg_describe_object(refclassid, refobjid, 0))
     FROM pg_shdepend JOIN pg_database d ON d.oid = dbid WHERE d.datname = current_database()",
];

/// The lines, sorted.
pub fn catalog(client: &mut Client) -> Vec<String> {
    let mut lines: Vec<String> = QUERIES
        .iter()
        .flat_map(|query| {
            // The names of TOAST tables and of triggers of foreign keys contain OIDs.
            let query = format!(
                "SELECT regexp_replace(x, '(pg_toast|RI_ConstraintTrigger_[ac])_\\d+', '\\1', 'g')
                 FROM ({query}) q (x)"
            );
            send(client, &query).unwrap_or_else(|code| panic!("{query}: {code}")).lines(" ")
        })
        .collect();
    lines.sort();
    assert!(lines.len() > 100, "the catalogs have {} lines", lines.len());
    lines
}

/// The lines that are missing, with a minus, and those that are surplus, with a plus. Both lists are sorted.
pub fn differences(expected: &[String], found: &[String]) -> Vec<String> {
    let without = |lines: &[String], others: &[String]| {
        let mut others = others.to_vec();
        let mut left = lines.to_vec();
        left.retain(|line| match others.iter().position(|other| other == line) {
            Some(place) => {
                others.swap_remove(place);
                false
            }
            None => true,
        });
        left
    };
    let missing = without(expected, found).into_iter().map(|line| format!("- {line}"));
    missing.chain(without(found, expected).into_iter().map(|line| format!("+ {line}"))).collect()
}

/// Fails with the lines that differ.
pub fn assert_same(expected: &[String], found: &[String], label: &str) {
    let differences = differences(expected, found);
    assert!(differences.is_empty(), "{label}: {differences:#?}");
}
