-- Replaces the functions auth.uid(), auth.jwt(), auth.role() and auth.email() of Supabase by those of
-- pg_session_jwt, and creates the extension. The functions keep their OIDs and privileges: policies, column
-- defaults and views continue to use them. A superuser runs it with psql:
--
--     psql -X -d DATABASE -f pg_session_jwt_supabase.sql                dry run: all steps, and ROLLBACK
--     psql -X -d DATABASE -v apply=on -f pg_session_jwt_supabase.sql    the same, and COMMIT
--
-- docs/upgrading.md describes the conditions.

\set ON_ERROR_STOP on
\if :{?apply}
\else
    \set apply off
\endif

BEGIN;
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL client_min_messages = warning;

-- The functions get other names for the time of the transaction, so that the extension can be created.
DO $rename$
DECLARE
    existing record;
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        RAISE EXCEPTION 'must be superuser to replace functions of the schema auth'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_session_jwt') THEN
        RAISE EXCEPTION 'extension "pg_session_jwt" already exists'
            USING ERRCODE = 'duplicate_object',
                  HINT = 'The script replaces functions in a database without the extension.';
    END IF;
    FOR existing IN
        SELECT wanted.name, wanted.type, p.*, e.extname
        FROM (VALUES ('uid', 'uuid'::regtype), ('jwt', 'jsonb'), ('role', 'text'), ('email', 'text'))
            wanted (name, type)
        JOIN pg_proc p ON p.oid = to_regprocedure('auth.' || wanted.name || '()')
        LEFT JOIN pg_depend d ON d.classid = p.tableoid AND d.objid = p.oid AND d.deptype = 'e'
        LEFT JOIN pg_extension e ON e.oid = d.refobjid
    LOOP
        IF existing.prokind <> 'f' OR existing.proretset OR existing.prorettype <> existing.type THEN
            RAISE EXCEPTION 'function does not return what the function of the extension returns'
                USING ERRCODE = 'invalid_function_definition',
                      DETAIL = format('Function auth.%s() must be a function that returns %s.',
                                      existing.name, existing.type),
                      HINT = 'Rename the function, as described in docs/migration.md.';
        END IF;
        IF existing.extname IS NOT NULL THEN
            RAISE EXCEPTION 'function is a member of another extension'
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      DETAIL = format('Function auth.%s() belongs to extension %s.',
                                      existing.name, existing.extname),
                      HINT = 'Use ALTER EXTENSION ... DROP FUNCTION first.';
        END IF;
        EXECUTE format('ALTER FUNCTION auth.%I() RENAME TO %I', existing.name,
                       'pg_session_jwt_' || existing.name);
    END LOOP;
END
$rename$;

CREATE EXTENSION pg_session_jwt;

-- Each function gets its name back and the definition of the extension's function, whose member it becomes.
DO $replace$
DECLARE
    own record;
BEGIN
    FOR own IN
        SELECT p.proname AS name, pg_get_functiondef(p.oid) AS definition,
               obj_description(p.oid, 'pg_proc') AS comment
        FROM pg_proc p
        WHERE p.oid IN (to_regprocedure('auth.uid()'), to_regprocedure('auth.jwt()'),
                        to_regprocedure('auth.role()'), to_regprocedure('auth.email()'))
          AND to_regprocedure('auth.pg_session_jwt_' || p.proname || '()') IS NOT NULL
    LOOP
        EXECUTE format('ALTER EXTENSION pg_session_jwt DROP FUNCTION auth.%I()', own.name);
        EXECUTE format('DROP FUNCTION auth.%I()', own.name);
        EXECUTE format('ALTER FUNCTION auth.%I() RENAME TO %I', 'pg_session_jwt_' || own.name, own.name);
        EXECUTE own.definition;
        EXECUTE format('ALTER FUNCTION auth.%I() OWNER TO CURRENT_USER', own.name);
        EXECUTE format('COMMENT ON FUNCTION auth.%I() IS %L', own.name, own.comment);
        EXECUTE format('ALTER EXTENSION pg_session_jwt ADD FUNCTION auth.%I()', own.name);
        -- Postgres has recorded the function's privileges as those that CREATE EXTENSION gives. A dump would
        -- lack them.
        DELETE FROM pg_init_privs
            WHERE classoid = 'pg_proc'::regclass
              AND objoid = to_regprocedure(format('auth.%I()', own.name));
        DELETE FROM pg_shdepend
            WHERE classid = 'pg_proc'::regclass
              AND objid = to_regprocedure(format('auth.%I()', own.name))
              AND deptype = 'i'
              AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database());
    END LOOP;
END
$replace$;

\echo 'Objects that use the functions:'
SELECT p.oid::regprocedure AS function, pg_describe_object(d.classid, d.objid, d.objsubid) AS object
FROM pg_proc p
LEFT JOIN pg_depend d
    ON d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid AND d.classid <> 'pg_extension'::regclass
WHERE p.oid IN (to_regprocedure('auth.uid()'), to_regprocedure('auth.jwt()'),
                to_regprocedure('auth.role()'), to_regprocedure('auth.email()'))
ORDER BY 1, 2;

\if :apply
    COMMIT;
    \echo 'The functions are replaced. Sessions need a token from now on.'
\else
    ROLLBACK;
    \echo 'Dry run: nothing is changed. Use -v apply=on to replace the functions.'
\endif
