\echo Use "ALTER EXTENSION pg_session_jwt UPDATE" to load this file. \quit

-- From Neon's extension of the same name. Its functions are in the schema auth, which is a member of the
-- extension, and keep their OIDs: policies, column defaults and views continue to use them. The extension
-- itself is in another schema, which @extschema@ would mean here.

-- Objects of other roles, in the schema of the extension or in auth, are not found.
SET LOCAL search_path = pg_catalog, pg_temp;

-- No other role may own the schema auth or create objects in it, as for a new extension.
DO $check$
BEGIN
    IF EXISTS (
        SELECT FROM pg_extension e
        JOIN pg_namespace n ON n.nspname = 'auth'
        LEFT JOIN LATERAL aclexplode(n.nspacl) a ON a.privilege_type = 'CREATE'
        JOIN pg_database d ON true
        LEFT JOIN pg_roles r ON r.oid = n.nspowner OR r.oid = a.grantee
        WHERE e.extname = 'pg_session_jwt' AND d.datname = current_database()
          AND (a.grantee = 0 OR r.oid <> e.extowner AND r.oid <> d.datdba AND NOT r.rolsuper)
    ) THEN
        RAISE EXCEPTION 'other roles own schema auth or can create objects in it'
            USING ERRCODE = '42501',
                  DETAIL = 'Only superusers, the owner of the database and the owner of the extension may own '
                           'the schema or have the CREATE privilege on it.',
                  HINT = 'Use ALTER SCHEMA auth OWNER TO or REVOKE CREATE ON SCHEMA auth.';
    END IF;
END
$check$;

-- Of the names that the extension needs, the schema has the functions of Neon's extension only. Such a
-- function is a member of the extension, and has the arguments of Neon's.
DO $check$
DECLARE
    functions CONSTANT pg_catalog.name[] := '{
        add_provider, added_provider, allows, check_ddl_drop, check_ddl_end, check_ddl_start, check_provider,
        check_revocation, claim, claim_jsonb, demand, email, explain_access, explain_access_of, has_acr, has_amr,
        has_role, has_scope, health, in_group, init, inspect, is_new, jwt, jwt_session_init, jwt_template, jwt_verify,
        keep_revocations, logout, organization, organization_id, policy_condition, policy_findings, protect,
        protect_schema, provider_findings, provider_keys, prune_revocations, refresh_provider, remove_provider,
        require_fresh, require_scope, revoke, role, role_findings, sample, server_findings, session, session_list,
        session_variable, signed_in_within, stats, stats_reset, table_of, texts_in, texts_out, try_all, try_as, uid,
        unprotect, unprotect_schema, unrevoke, user_id, verify_logout, whoami
    }';
    relations CONSTANT pg_catalog.name[] := '{
        added_provider, provider_status, providers, providers_issuer_key, providers_pkey,
        revocation_status, revocations, revocations_id_seq, revocations_key_idx, revocations_pkey, sessions
    }';
    -- Besides the row types of relations.
    types CONSTANT pg_catalog.name[] := '{texts}';
    existing record;
BEGIN
    FOR existing IN
        SELECT o.code, o.kind, string_agg(i.type || ' ' || i.identity, ', ' ORDER BY i.identity) AS names
        FROM (
            SELECT 1 AS place, '42723' AS code, 'functions' AS kind, p.tableoid, p.oid
            FROM pg_proc p
            WHERE p.pronamespace = 'auth'::regnamespace AND p.proname = ANY (functions)
              AND NOT (
                  p.oid = ANY (array_remove(ARRAY[
                      to_regprocedure('auth.init()'), to_regprocedure('auth.jwt_session_init(text)'),
                      to_regprocedure('auth.user_id()'), to_regprocedure('auth.uid()'),
                      to_regprocedure('auth.session()'), to_regprocedure('auth.jwt()'),
                      to_regprocedure('auth.organization()'), to_regprocedure('auth.organization_id()'),
                      -- Of version 0.0.1.
                      to_regprocedure('auth.init(bigint, jsonb)'), to_regprocedure('auth.session(text)')
                  ]::oid[], NULL))
                  AND EXISTS (
                      SELECT FROM pg_depend m JOIN pg_extension e ON e.oid = m.refobjid
                      WHERE e.extname = 'pg_session_jwt' AND m.refclassid = 'pg_extension'::regclass
                        AND m.deptype = 'e' AND m.classid = p.tableoid AND m.objid = p.oid))
            UNION ALL
            SELECT 2, '42P07', 'relations', c.tableoid, c.oid
            FROM pg_class c
            WHERE c.relnamespace = 'auth'::regnamespace AND c.relname = ANY (relations)
            UNION ALL
            -- Without the row types of relations, which the query above covers.
            SELECT 3, '42710', 'types', t.tableoid, t.oid
            FROM pg_type t
            WHERE t.typnamespace = 'auth'::regnamespace AND t.typname = ANY (types || relations)
              AND t.typrelid = 0
        ) o, LATERAL pg_identify_object(o.tableoid, o.oid, 0) i
        GROUP BY o.place, o.code, o.kind
        ORDER BY o.place
    LOOP
        RAISE EXCEPTION '%', format('schema auth already contains %s with names that the extension needs', existing.kind)
            USING ERRCODE = existing.code,
                  DETAIL = format('They are: %s.', existing.names),
                  HINT = 'Drop or rename them, as described in docs/migration.md.';
    END LOOP;
END
$check$;

-- Two functions of version 0.0.1, which the updates to 0.5.0 leave in place. Objects that use
-- auth.session(text) keep it, as a function that is not a member of the extension.
DO $drop$
DECLARE
    claim CONSTANT oid := (
        SELECT m.objid FROM pg_depend m
        WHERE m.classid = 'pg_proc'::regclass AND m.objid = to_regprocedure('auth.session(text)')
          AND m.deptype = 'e');
BEGIN
    DROP FUNCTION IF EXISTS auth.init(bigint, jsonb);
    IF EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_proc'::regclass AND refobjid = claim) THEN
        CREATE OR REPLACE FUNCTION auth.session(s text) RETURNS jsonb
            LANGUAGE sql STABLE PARALLEL SAFE
            RETURN auth.session() -> s;
        ALTER FUNCTION auth.session(text) OWNER TO CURRENT_USER;
        ALTER EXTENSION pg_session_jwt DROP FUNCTION auth.session(text);
        RAISE WARNING 'function auth.session(text) is not part of the extension any more'
            USING DETAIL = 'Policies, defaults or views use it. It returns a claim of auth.session().',
                  HINT = 'Use auth.claim_jsonb(text) instead, and drop the function.';
    ELSIF claim IS NOT NULL THEN
        DROP FUNCTION auth.session(text);
    END IF;
END
$drop$;

-- The schema is no member, and the extension is in it, as where CREATE EXTENSION creates it.
DO $adopt$
DECLARE
    extension record;
    function regprocedure;
    restricted text;
BEGIN
    SELECT e.oid, pg_get_userbyid(e.extowner) AS owner INTO extension
        FROM pg_extension e WHERE e.extname = 'pg_session_jwt';
    IF EXISTS (SELECT FROM pg_depend
               WHERE classid = 'pg_namespace'::regclass AND objid = 'auth'::regnamespace
                 AND refclassid = 'pg_extension'::regclass AND refobjid = extension.oid AND deptype = 'e')
    THEN
        ALTER EXTENSION pg_session_jwt DROP SCHEMA auth;
        EXECUTE format('ALTER SCHEMA auth OWNER TO %I', extension.owner);
    END IF;
    UPDATE pg_extension SET extnamespace = 'auth'::regnamespace WHERE oid = extension.oid;
    DELETE FROM pg_depend
        WHERE classid = 'pg_extension'::regclass AND objid = extension.oid
          AND refclassid = 'pg_namespace'::regclass;
    INSERT INTO pg_depend (classid, objid, objsubid, refclassid, refobjid, refobjsubid, deptype)
        VALUES ('pg_extension'::regclass, extension.oid, 0,
                'pg_namespace'::regclass, 'auth'::regnamespace, 0, 'n');
    -- The superuser owns the functions, so that no other role replaces them. Other members may be functions
    -- of the extension's owner, and remain the owner's.
    FOR function IN
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = 'auth'::regnamespace
          AND p.proname = ANY ('{init, jwt_session_init, user_id, uid, session, jwt, organization,
                                organization_id}')
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO CURRENT_USER', function);
        IF NOT has_function_privilege('public', function, 'EXECUTE') THEN
            restricted := concat_ws(', ', restricted, function);
        END IF;
    END LOOP;
    IF restricted IS NOT NULL THEN
        RAISE WARNING 'functions of the extension are not executable by PUBLIC'
            USING DETAIL = format('They keep their privileges: %s. The new functions are executable by PUBLIC.',
                                  restricted),
                  HINT = 'Check the privileges of the new functions in the schema auth.';
    END IF;
END
$adopt$;

COMMENT ON EXTENSION pg_session_jwt IS
    'verified JWT identities for sessions and row-level security';

-- The rest is that of the install script. The functions of Neon's extension are replaced.

GRANT USAGE ON SCHEMA auth TO PUBLIC;
-- pg_dump dumps the privileges that differ from the initial ones. Postgres has recorded all privileges of the
-- schema as initial ones, also those from before. A dump would lack these.
UPDATE pg_catalog.pg_init_privs p
    SET initprivs = pg_catalog.acldefault('n', n.nspowner)
        || pg_catalog.makeaclitem(0, n.nspowner, 'USAGE', false)
    FROM pg_catalog.pg_namespace n
    WHERE n.oid = 'auth'::pg_catalog.regnamespace
      AND p.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND p.objoid = n.oid;
-- Since version 17, roles with initial privileges have an entry here, and cannot be dropped.
DELETE FROM pg_catalog.pg_shdepend d
    USING pg_catalog.pg_namespace n
    WHERE n.oid = 'auth'::pg_catalog.regnamespace AND d.refobjid <> n.nspowner
      AND d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.objid = n.oid
      AND d.deptype = 'i'
      AND d.dbid = (SELECT oid FROM pg_catalog.pg_database
                    WHERE datname = pg_catalog.current_database());

-- Functions that present tokens. They are volatile and parallel unsafe, because they change the session.

CREATE OR REPLACE FUNCTION auth.init() RETURNS void
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'pg_session_jwt_init';
COMMENT ON FUNCTION auth.init() IS
    'loads and checks the keys of the settings, and raises an error if they are invalid';

CREATE OR REPLACE FUNCTION auth.jwt_session_init(jwt text) RETURNS void
    LANGUAGE c VOLATILE COST 100
    AS 'MODULE_PATHNAME', 'pg_session_jwt_session_init';
COMMENT ON FUNCTION auth.jwt_session_init(text) IS
    'verifies a token and sets the identity of the session; NULL or an empty string clears the identity';

CREATE FUNCTION auth.jwt_session_init(jwt text, is_local boolean) RETURNS void
    LANGUAGE c VOLATILE COST 100
    AS 'MODULE_PATHNAME', 'pg_session_jwt_session_init';
COMMENT ON FUNCTION auth.jwt_session_init(text, boolean) IS
    'verifies a token and sets the identity of the session, or of the transaction if is_local is true; NULL or an empty string clears the identity';

CREATE FUNCTION auth.jwt_verify(jwt text) RETURNS jsonb
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 1000
    AS 'MODULE_PATHNAME', 'pg_session_jwt_verify';
COMMENT ON FUNCTION auth.jwt_verify(text) IS
    'verifies a token and returns its claims, without setting the identity';

-- Functions that read the identity. They are not leakproof: an error may reveal that a token has expired.

CREATE OR REPLACE FUNCTION auth.user_id() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_user_id';
COMMENT ON FUNCTION auth.user_id() IS
    'user id: the claim sub, or the claim that the provider names; NULL without an identity';

CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_uid';
COMMENT ON FUNCTION auth.uid() IS
    'user id as a UUID; NULL if it is not a UUID, and without an identity';

CREATE OR REPLACE FUNCTION auth.session() RETURNS jsonb
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_session';
COMMENT ON FUNCTION auth.session() IS
    'all claims of the session''s token; NULL without an identity';

CREATE OR REPLACE FUNCTION auth.jwt() RETURNS jsonb
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_session';
COMMENT ON FUNCTION auth.jwt() IS
    'all claims of the session''s token; NULL without an identity';

CREATE FUNCTION auth.role() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_role';
COMMENT ON FUNCTION auth.role() IS
    'role in the token: the claim role, or the claim or the default role that the provider names; NULL without an identity';

CREATE FUNCTION auth.email() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_email';
COMMENT ON FUNCTION auth.email() IS
    'claim email; NULL without an identity';

CREATE FUNCTION auth.claim(path text) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_claim';
COMMENT ON FUNCTION auth.claim(text) IS
    'a claim as text, by name, or by JSON Pointer if the path begins with a slash; NULL if the claim is missing';

CREATE FUNCTION auth.claim_jsonb(path text) RETURNS jsonb
    LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_claim_jsonb';
COMMENT ON FUNCTION auth.claim_jsonb(text) IS
    'a claim as jsonb, by name or JSON Pointer; NULL if the claim is missing or is a JSON null';

CREATE FUNCTION auth.session_variable(name text) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_session_variable';
COMMENT ON FUNCTION auth.session_variable(text) IS
    'a Hasura session variable such as x-hasura-org-id, ignoring case; NULL if it is missing';

CREATE OR REPLACE FUNCTION auth.organization() RETURNS jsonb
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_organization';
COMMENT ON FUNCTION auth.organization() IS
    'organization that the user acts for: the claim o if it is an object, otherwise NULL';

CREATE OR REPLACE FUNCTION auth.organization_id() RETURNS uuid
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_organization_id';
COMMENT ON FUNCTION auth.organization_id() IS
    'id in the claim o as a UUID; NULL if it is not a UUID';

CREATE FUNCTION auth.whoami(
    OUT user_id text, OUT issuer text, OUT provider text, OUT role text, OUT scope text,
    OUT expires_in interval, OUT reason text
)
    LANGUAGE c STABLE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_session_jwt_whoami';
COMMENT ON FUNCTION auth.whoami() IS
    'identity of the session in one row, or the reason why it has none; the role is the one that the token names, and the scope says how long the identity lasts';

-- The providers of this database; the settings name further ones. The functions read the table directly,
-- without the privileges of the calling role, and identify its columns by position.

CREATE TABLE auth.providers (
    name text COLLATE "C" NOT NULL,
    issuer text COLLATE "C",
    audience text[],
    jwks json,
    secret text,
    jwks_url text,
    algorithms text[],
    leeway integer,
    required_claims text[],
    user_id_claim text,
    role_claim text,
    default_role text,
    allowed_roles text[],
    allowed_roles_claim text,
    claims_namespace text,
    monotonic_jti boolean,
    typ text[],
    keep_keys integer,
    public_key text,
    require jsonb,
    max_token_age integer,
    -- The background worker writes the following columns.
    fetched_jwks json,
    fetched_from text,
    keys_url text,
    etag text,
    last_modified text,
    last_fetch timestamptz,
    fetch_began timestamptz,
    last_demand timestamptz,
    next_refresh timestamptz,
    last_success timestamptz,
    failures integer,
    last_error text,
    passed_over text,
    CONSTRAINT providers_pkey PRIMARY KEY (name),
    -- At most one provider has no issuer.
    CONSTRAINT providers_issuer_key UNIQUE NULLS NOT DISTINCT (issuer)
);
REVOKE ALL ON auth.providers FROM PUBLIC;
REVOKE ALL ON TYPE auth.providers FROM PUBLIC;
-- pg_dump does not use the initial privileges of a table's row type, and warns about them.
DELETE FROM pg_catalog.pg_init_privs
    WHERE classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid
      AND objoid OPERATOR(pg_catalog.=) 'auth.providers'::pg_catalog.regtype::pg_catalog.oid;
-- The owner of the extension can then dump the database.
DO $grant$
BEGIN
    EXECUTE pg_catalog.format('GRANT SELECT ON auth.providers TO %I', (
        SELECT pg_catalog.pg_get_userbyid(e.extowner) FROM pg_catalog.pg_extension e
        WHERE e.extname OPERATOR(pg_catalog.=) 'pg_session_jwt'::pg_catalog.name));
END
$grant$;
SELECT pg_catalog.pg_extension_config_dump('auth.providers', '');
COMMENT ON TABLE auth.providers IS
    'identity providers whose tokens the database accepts, and their fetched keys';
COMMENT ON COLUMN auth.providers.fetched_jwks IS 'usable keys of the last successful fetch';
COMMENT ON COLUMN auth.providers.fetched_from IS 'URL that the fetch requested';
COMMENT ON COLUMN auth.providers.keys_url IS
    'URL of the fetched keys; it differs from fetched_from if discovery named it';
COMMENT ON COLUMN auth.providers.last_fetch IS 'time of the last fetch';
COMMENT ON COLUMN auth.providers.fetch_began IS
    'start of the fetch whose result is not recorded yet; NULL if there is none';
COMMENT ON COLUMN auth.providers.last_demand IS
    'last time that keys were requested because no known key verified a token; NULL after the first successful fetch';
COMMENT ON COLUMN auth.providers.next_refresh IS
    'time from which the next presented token starts a fetch';
COMMENT ON COLUMN auth.providers.last_success IS 'time of the last successful fetch';
COMMENT ON COLUMN auth.providers.failures IS 'number of failed fetches since last_success';
COMMENT ON COLUMN auth.providers.last_error IS 'reason of the last failed fetch';
COMMENT ON COLUMN auth.providers.passed_over IS 'fetched keys that cannot be used, and the reasons';

CREATE FUNCTION auth.check_provider() RETURNS trigger
    LANGUAGE c
    AS 'MODULE_PATHNAME', 'pg_session_jwt_check_provider';
REVOKE ALL ON FUNCTION auth.check_provider() FROM PUBLIC;
COMMENT ON FUNCTION auth.check_provider() IS
    'checks a provider, and makes every session check its token again after a change';
CREATE TRIGGER check_provider BEFORE INSERT OR UPDATE OR DELETE ON auth.providers
    FOR EACH ROW EXECUTE FUNCTION auth.check_provider();
-- The trigger also fires if a logical replication worker writes a row.
ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER check_provider;

-- A list of texts, for the parameters of auth.add_provider(): an array, or a plain text, which stands for an
-- array of one element.
CREATE TYPE auth.texts;
CREATE FUNCTION auth.texts_in(input cstring) RETURNS auth.texts
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_session_jwt_texts_in';
COMMENT ON FUNCTION auth.texts_in(cstring) IS 'I/O';
CREATE FUNCTION auth.texts_out(list auth.texts) RETURNS cstring
    LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE
    AS 'array_out';
COMMENT ON FUNCTION auth.texts_out(auth.texts) IS 'I/O';
CREATE TYPE auth.texts (
    INPUT = auth.texts_in, OUTPUT = auth.texts_out,
    INTERNALLENGTH = VARIABLE, ALIGNMENT = int4, STORAGE = extended
);
COMMENT ON TYPE auth.texts IS 'an array of texts; a text that is not an array is its only element';
CREATE CAST (text[] AS auth.texts) WITH INOUT AS IMPLICIT;
CREATE CAST (text AS auth.texts) WITH INOUT AS IMPLICIT;
CREATE CAST (auth.texts AS text[]) WITH INOUT AS ASSIGNMENT;

-- What auth.add_provider() returns.
CREATE TYPE auth.added_provider AS (name text, issuer text, keys text, warnings text[]);

CREATE FUNCTION auth.added_provider(name text) RETURNS auth.added_provider
    LANGUAGE c VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'pg_session_jwt_added_provider';
COMMENT ON FUNCTION auth.added_provider(text) IS
    'what auth.add_provider() returns: the keys of a provider, and warnings about checks that it lacks; needs the privilege INSERT on auth.providers';

-- The parameter jwks accepts json, jsonb and text. A text that is not JSON is stored as a JSON string, so that
-- the trigger raises an error that says what the text is.
CREATE FUNCTION auth.add_provider(
    name text,
    issuer text DEFAULT NULL,
    jwks_url text DEFAULT NULL,
    jwks anycompatible DEFAULT NULL,
    secret text DEFAULT NULL,
    audience auth.texts DEFAULT NULL,
    algorithms auth.texts DEFAULT NULL,
    leeway integer DEFAULT NULL,
    required_claims auth.texts DEFAULT NULL,
    user_id_claim text DEFAULT NULL,
    role_claim text DEFAULT NULL,
    allowed_roles auth.texts DEFAULT NULL,
    monotonic_jti boolean DEFAULT NULL,
    typ auth.texts DEFAULT NULL,
    keep_keys integer DEFAULT NULL,
    default_role text DEFAULT NULL,
    allowed_roles_claim text DEFAULT NULL,
    claims_namespace text DEFAULT NULL,
    public_key text DEFAULT NULL,
    require jsonb DEFAULT NULL,
    max_token_age integer DEFAULT NULL
) RETURNS auth.added_provider
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    -- A row, so that the context of an error has a short statement.
    provider auth.providers;
BEGIN
    IF NOT has_table_privilege('auth.providers', 'INSERT') THEN
        RAISE EXCEPTION 'permission denied for table providers' USING
            ERRCODE = 'insufficient_privilege',
            HINT = format('Have a superuser run GRANT SELECT, INSERT, UPDATE, DELETE ON auth.providers TO %I.', current_user);
    END IF;
    BEGIN
        provider.jwks := jwks::text::json;
    EXCEPTION WHEN invalid_text_representation OR untranslatable_character THEN
        provider.jwks := to_json(jwks::text);
    END;
    provider.name := name;
    provider.issuer := issuer;
    provider.audience := audience;
    provider.secret := secret;
    provider.jwks_url := jwks_url;
    provider.algorithms := algorithms;
    provider.leeway := leeway;
    provider.required_claims := required_claims;
    provider.user_id_claim := user_id_claim;
    provider.role_claim := role_claim;
    provider.default_role := default_role;
    provider.allowed_roles := allowed_roles;
    provider.allowed_roles_claim := allowed_roles_claim;
    provider.claims_namespace := claims_namespace;
    provider.monotonic_jti := monotonic_jti;
    provider.typ := typ;
    provider.keep_keys := keep_keys;
    provider.public_key := public_key;
    provider.require := require;
    provider.max_token_age := max_token_age;
    INSERT INTO auth.providers VALUES (provider.*);
    RETURN auth.added_provider(name);
END
$$;
COMMENT ON FUNCTION auth.add_provider IS
    'adds an identity provider, which other sessions trust after the commit; needs the privilege INSERT on auth.providers';

CREATE FUNCTION auth.remove_provider(name text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    DELETE FROM auth.providers p WHERE p.name = remove_provider.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'provider does not exist' USING
            ERRCODE = 'undefined_object',
            DETAIL = pg_catalog.format('No row of auth.providers has the name %I.', remove_provider.name);
    END IF;
END
$$;
COMMENT ON FUNCTION auth.remove_provider(text) IS
    'removes an identity provider; needs the privileges SELECT and DELETE on auth.providers';

CREATE FUNCTION auth.refresh_provider(name text) RETURNS jsonb
    LANGUAGE c VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'pg_session_jwt_refresh_provider';
COMMENT ON FUNCTION auth.refresh_provider(text) IS
    'fetches a provider''s keys, and returns the key ids that were added, removed, changed (another key with the same key id) and kept; needs the privileges SELECT and UPDATE on auth.providers';

CREATE FUNCTION auth.provider_keys(name text) RETURNS jsonb
    LANGUAGE c STABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_session_jwt_provider_keys';
REVOKE ALL ON FUNCTION auth.provider_keys(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION auth.provider_keys(text) TO pg_monitor;
COMMENT ON FUNCTION auth.provider_keys(text) IS
    'key ids and algorithms of the keys that verify a provider''s tokens';

CREATE VIEW auth.provider_status AS
    SELECT
        name,
        issuer,
        CASE
            WHEN jwks_url IS NOT NULL THEN 'jwks_url'
            WHEN jwks IS NOT NULL THEN 'jwks'
            WHEN public_key IS NOT NULL THEN 'public_key'
            WHEN secret IS NOT NULL THEN 'secret'
            ELSE 'discovery'
        END AS source,
        audience,
        CASE
            WHEN jwks_url IS NULL AND (jwks IS NOT NULL OR public_key IS NOT NULL OR secret IS NOT NULL)
            THEN 'own keys'
            -- The secret is one item of keys.
            WHEN last_success IS NULL OR pg_catalog.jsonb_array_length(keys) OPERATOR(pg_catalog.=)
                 CASE WHEN secret IS NULL THEN 0 ELSE 1 END THEN
                CASE WHEN failures OPERATOR(pg_catalog.>) 0 THEN 'failing' ELSE 'waiting' END
            WHEN last_success OPERATOR(pg_catalog.+) pg_catalog.make_interval(
                     secs => coalesce(keep_keys, 86400)) OPERATOR(pg_catalog.<=)
                 pg_catalog.clock_timestamp() THEN 'too old'
            WHEN failures OPERATOR(pg_catalog.>) 0 THEN 'failing'
            ELSE 'good'
        END AS state,
        keys,
        passed_over,
        last_fetch,
        last_success,
        CASE
            WHEN pg_catalog.isfinite(last_success)
            THEN pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) last_success
        END AS keys_age,
        next_refresh,
        coalesce(failures, 0) AS failures,
        CASE
            WHEN fetch_began IS NULL THEN last_error
            ELSE 'The keys are being fetched, or the fetch was interrupted.'
        END AS last_error
    FROM auth.providers, LATERAL auth.provider_keys(name) AS keys;
REVOKE ALL ON auth.provider_status FROM PUBLIC;
GRANT SELECT ON auth.provider_status TO pg_monitor;
COMMENT ON VIEW auth.provider_status IS
    'identity providers, the ids of their keys, and the state of their fetches; without secrets';

-- Revocations. The functions read the table directly, as they read auth.providers.

CREATE TABLE auth.revocations (
    id bigint GENERATED BY DEFAULT AS IDENTITY,
    issuer text COLLATE "C",
    subject text COLLATE "C",
    jti text COLLATE "C",
    sid text COLLATE "C",
    before timestamptz NOT NULL DEFAULT pg_catalog.now(),
    reason text,
    expires timestamptz,
    created timestamptz NOT NULL DEFAULT pg_catalog.now(),
    created_by text NOT NULL DEFAULT session_user,
    -- Rows are found by the most special of the values that they name, with their issuer.
    key bigint GENERATED ALWAYS AS (
        pg_catalog.hashtextextended(
            coalesce(jti, sid, subject, issuer),
            CASE WHEN coalesce(jti, sid, subject) IS NULL OR issuer IS NULL THEN 0
                 ELSE pg_catalog.hashtextextended(issuer, 0) END)
    ) STORED,
    CONSTRAINT revocations_pkey PRIMARY KEY (id)
);
CREATE INDEX revocations_key_idx ON auth.revocations (key, before);
REVOKE ALL ON auth.revocations FROM PUBLIC;
REVOKE ALL ON TYPE auth.revocations FROM PUBLIC;
DELETE FROM pg_catalog.pg_init_privs
    WHERE classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid
      AND objoid OPERATOR(pg_catalog.=) 'auth.revocations'::pg_catalog.regtype::pg_catalog.oid;
DO $grant$
BEGIN
    EXECUTE pg_catalog.format('GRANT SELECT ON auth.revocations, auth.revocations_id_seq TO %I', (
        SELECT pg_catalog.pg_get_userbyid(e.extowner) FROM pg_catalog.pg_extension e
        WHERE e.extname OPERATOR(pg_catalog.=) 'pg_session_jwt'::pg_catalog.name));
END
$grant$;
SELECT pg_catalog.pg_extension_config_dump('auth.revocations', '');
SELECT pg_catalog.pg_extension_config_dump('auth.revocations_id_seq', '');
COMMENT ON TABLE auth.revocations IS
    'tokens that are revoked: those that have all values of a row, and were issued until its time';
COMMENT ON COLUMN auth.revocations.issuer IS 'iss; NULL for any';
COMMENT ON COLUMN auth.revocations.subject IS
    'sub, or the user id where the provider takes it from another claim; NULL for any';
COMMENT ON COLUMN auth.revocations.jti IS 'jti; NULL for any';
COMMENT ON COLUMN auth.revocations.sid IS 'sid, or session_id where that is absent; NULL for any';
COMMENT ON COLUMN auth.revocations.before IS
    'latest iat of the tokens that are revoked; tokens without iat are revoked too';
COMMENT ON COLUMN auth.revocations.expires IS
    'time from which auth.prune_revocations() removes the row; NULL for never';
COMMENT ON COLUMN auth.revocations.key IS 'hash of the first of jti, sid, subject and issuer that is not NULL, and of the issuer';

CREATE FUNCTION auth.check_revocation() RETURNS trigger
    LANGUAGE c
    AS 'MODULE_PATHNAME', 'pg_session_jwt_check_revocation';
COMMENT ON FUNCTION auth.check_revocation() IS
    'checks a revocation, and makes every session look its identity up again';
CREATE TRIGGER check_revocation BEFORE INSERT OR UPDATE OR DELETE ON auth.revocations
    FOR EACH ROW EXECUTE FUNCTION auth.check_revocation();
ALTER TABLE auth.revocations ENABLE ALWAYS TRIGGER check_revocation;

CREATE FUNCTION auth.keep_revocations() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    RAISE EXCEPTION 'table of revocations cannot be truncated' USING
        ERRCODE = 'object_not_in_prerequisite_state',
        DETAIL = 'All revoked tokens would be accepted again.',
        HINT = 'Use DELETE, auth.unrevoke() or auth.prune_revocations().';
END
$$;
COMMENT ON FUNCTION auth.keep_revocations() IS 'rejects TRUNCATE on auth.revocations';
CREATE TRIGGER keep_revocations BEFORE TRUNCATE ON auth.revocations
    FOR EACH STATEMENT EXECUTE FUNCTION auth.keep_revocations();
ALTER TABLE auth.revocations ENABLE ALWAYS TRIGGER keep_revocations;

-- The functions run as their owner, so that a role that may revoke tokens needs no privilege on the table.
CREATE FUNCTION auth.revoke(
    issuer text DEFAULT NULL,
    subject text DEFAULT NULL,
    jti text DEFAULT NULL,
    sid text DEFAULT NULL,
    before timestamptz DEFAULT now(),
    reason text DEFAULT NULL,
    expires timestamptz DEFAULT NULL
) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    -- The role that SET ROLE or a token has set.
    role CONSTANT text := current_setting('role');
    added bigint;
BEGIN
    INSERT INTO auth.revocations (issuer, subject, jti, sid, before, reason, expires, created_by)
    VALUES (revoke.issuer, revoke.subject, revoke.jti, revoke.sid, coalesce(revoke.before, now()), revoke.reason,
            revoke.expires, CASE role WHEN 'none' THEN session_user ELSE role END)
    RETURNING id INTO added;
    IF added IS NULL THEN
        RAISE EXCEPTION 'revocation was not stored' USING
            ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'Another trigger on auth.revocations has skipped the row.',
            HINT = 'Drop the trigger.';
    END IF;
    -- A driver may have sent NULL in place of a value.
    IF coalesce(revoke.subject, revoke.jti, revoke.sid) IS NULL THEN
        RAISE WARNING 'tokens of all users of the issuer are revoked' USING
            HINT = format('To take this back, run: SELECT auth.unrevoke(%s);', added);
    END IF;
    RETURN added;
END
$$;
COMMENT ON FUNCTION auth.revoke IS
    'revokes the tokens that have all given values and were issued until the given time, for every session after the commit';

CREATE FUNCTION auth.unrevoke(id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    DELETE FROM auth.revocations r WHERE r.id = unrevoke.id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'revocation does not exist' USING
            ERRCODE = 'undefined_object',
            DETAIL = format('No row of auth.revocations has the id %s.', coalesce(unrevoke.id::text, 'NULL'));
    END IF;
END
$$;
COMMENT ON FUNCTION auth.unrevoke(bigint) IS
    'removes a revocation: its tokens are accepted again, until they expire';

CREATE FUNCTION auth.prune_revocations() RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    pruned bigint;
BEGIN
    DELETE FROM auth.revocations WHERE expires <= clock_timestamp();
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END
$$;
COMMENT ON FUNCTION auth.prune_revocations() IS
    'removes the revocations that have expired, and returns their number';

CREATE FUNCTION auth.verify_logout(
    token text, audience text, OUT issuer text, OUT subject text, OUT sid text, OUT issued text
)
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'pg_session_jwt_verify_logout';
COMMENT ON FUNCTION auth.verify_logout(text, text) IS
    'claims of a verified logout token; issued is its iat in seconds since 1970';

CREATE FUNCTION auth.logout(
    logout_token text,
    audience text DEFAULT NULL,
    everywhere boolean DEFAULT false,
    expires timestamptz DEFAULT NULL
) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    claims record;
    until timestamptz;
    known bigint;
BEGIN
    SELECT * INTO claims FROM auth.verify_logout(logout_token, audience);
    IF everywhere THEN
        IF claims.subject IS NULL THEN
            RAISE EXCEPTION 'logout token has no sub' USING
                ERRCODE = 'invalid_parameter_value',
                DETAIL = 'It names a session, and not the user whose sessions are to end everywhere.',
                HINT = 'Leave out the argument everywhere.';
        END IF;
        claims.sid := NULL;
    END IF;
    until := to_timestamp(claims.issued::bigint);
    -- A user who signs out again and again has one row, and so has a token that the provider sends twice.
    UPDATE auth.revocations r
    SET before = greatest(r.before, until),
        expires = CASE WHEN r.expires IS NOT NULL AND logout.expires IS NOT NULL
                       THEN greatest(r.expires, logout.expires) END
    WHERE r.key = hashtextextended(
              coalesce(claims.sid, claims.subject) COLLATE "C",
              coalesce(hashtextextended(claims.issuer COLLATE "C", 0), 0))
      AND r.issuer IS NOT DISTINCT FROM claims.issuer AND r.subject IS NOT DISTINCT FROM claims.subject
      AND r.sid IS NOT DISTINCT FROM claims.sid
      AND r.jti IS NULL AND r.reason = 'logout token'
    RETURNING r.id INTO known;
    RETURN coalesce(known, auth.revoke(issuer => claims.issuer, subject => claims.subject, sid => claims.sid,
                                              before => until, reason => 'logout token',
                                              expires => logout.expires));
END
$$;
COMMENT ON FUNCTION auth.logout(text, text, boolean, timestamptz) IS
    'verifies an OpenID Connect back-channel logout token, and revokes the tokens of the session or the user that it names';

REVOKE ALL ON FUNCTION
    auth.check_revocation(), auth.keep_revocations(),
    auth.revoke(text, text, text, text, timestamptz, text, timestamptz), auth.unrevoke(bigint),
    auth.prune_revocations(), auth.verify_logout(text, text), auth.logout(text, text, boolean, timestamptz)
    FROM PUBLIC;

-- Without the values that name a person.
CREATE VIEW auth.revocation_status AS
    SELECT id, issuer, pg_catalog.concat_ws(', ',
               CASE WHEN jti IS NOT NULL THEN 'jti' END,
               CASE WHEN sid IS NOT NULL THEN 'sid' END,
               CASE WHEN subject IS NOT NULL THEN 'subject' END,
               CASE WHEN issuer IS NOT NULL THEN 'issuer' END) AS names,
           before, expires, created
    FROM auth.revocations;
REVOKE ALL ON auth.revocation_status FROM PUBLIC;
GRANT SELECT ON auth.revocation_status TO pg_monitor;
COMMENT ON VIEW auth.revocation_status IS 'revocations without the values that name a person';

-- Permissions of tokens on tables: the claims perm and a. The functions are not leakproof, because an error
-- may reveal that a token has expired.

CREATE FUNCTION auth.allows(action text, "table" regclass) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_allows';
COMMENT ON FUNCTION auth.allows(text, regclass) IS
    'whether the session''s token allows an action on a table, or on the whole database if the table is NULL; false without an identity';

CREATE FUNCTION auth.demand(action text, "schema" text, "table" text) RETURNS void
    LANGUAGE c STABLE
    AS 'MODULE_PATHNAME', 'pg_session_jwt_demand';
COMMENT ON FUNCTION auth.demand(text, text, text) IS
    'raises an error unless the session''s token allows an action on the named table, or on the whole database if the name is NULL';

-- Scopes, roles, groups, and the sign-in of the user. No function is strict, so that NULL is false also where a
-- policy negates the answer. Postgres may evaluate a stable function for an estimate before it runs the plan: the
-- demands are volatile, so that it evaluates them where the statement calls them, and nowhere else.

CREATE FUNCTION auth.has_scope(scope text) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_has_scope';
COMMENT ON FUNCTION auth.has_scope(text) IS
    'whether the claim scope, scp or permissions has this scope; false without an identity and for NULL';

CREATE FUNCTION auth.has_role(role text) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_has_role';
COMMENT ON FUNCTION auth.has_role(text) IS
    'whether this role is in the claims with roles that the provider names; false without an identity and for NULL';

CREATE FUNCTION auth.in_group("group" text) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_in_group';
COMMENT ON FUNCTION auth.in_group(text) IS
    'whether the claim groups or cognito:groups has this group; false without an identity and for NULL';

CREATE FUNCTION auth.has_acr(acr text) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_has_acr';
COMMENT ON FUNCTION auth.has_acr(text) IS
    'whether the claim acr is this class of sign-in; false without an identity and for NULL';

CREATE FUNCTION auth.has_amr(method text) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_has_amr';
COMMENT ON FUNCTION auth.has_amr(text) IS
    'whether the claim amr has this method of sign-in; false without an identity and for NULL';

CREATE FUNCTION auth.signed_in_within(span interval) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_signed_in_within';
COMMENT ON FUNCTION auth.signed_in_within(interval) IS
    'whether the claim auth_time is at most this long before the start of the statement; false without an identity and for NULL';

CREATE FUNCTION auth.require_scope(scope text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_session_jwt_require_scope';
COMMENT ON FUNCTION auth.require_scope(text) IS
    'raises 28J13 unless the session''s token has this scope; the detail says, as JSON, what the client must request';

CREATE FUNCTION auth.require_fresh(max_age interval, acr text DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_session_jwt_require_fresh';
COMMENT ON FUNCTION auth.require_fresh(interval, text) IS
    'raises 28J13 unless the user signed in within this time, and in this class if it is not NULL; the detail says, as JSON, what the client must request';

CREATE FUNCTION auth.jwt_template(scope text DEFAULT NULL, permissions text[] DEFAULT NULL)
    RETURNS jsonb
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_session_jwt_template';
COMMENT ON FUNCTION auth.jwt_template(text, text[]) IS
    'claims that grant a scope (full-access, read-only), or permissions such as comments:data_add,data_update';

CREATE FUNCTION auth.protect("table" regclass, restrictive boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    policy record;
    others text;
BEGIN
    IF "table" IS NULL OR restrictive IS NULL THEN
        RAISE EXCEPTION 'argument of auth.protect must not be null' USING
            ERRCODE = 'null_value_not_allowed',
            DETAIL = 'The function needs a table, and a value for restrictive.';
    END IF;
    -- This statement fails unless the current role owns the table. Its lock prevents concurrent changes of
    -- the policies.
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', "table");
    FOR policy IN
        SELECT 'pg_session_jwt_' || action AS name, p.oid IS NOT NULL AS is_there, action, command,
               -- The condition contains the OID of the table, which does not change with its name.
               format('auth.allows(%L, %L::pg_catalog.regclass)', action, "table"::oid)
                   AS condition
        FROM (VALUES ('data_read', 'SELECT'), ('data_add', 'INSERT'), ('data_update', 'UPDATE'),
                     ('data_delete', 'DELETE')) wanted (action, command)
        LEFT JOIN pg_policy p
            ON p.polrelid = "table" AND p.polname = 'pg_session_jwt_' || action
    LOOP
        IF policy.is_there THEN
            EXECUTE format('DROP POLICY %I ON %s', policy.name, "table");
        END IF;
        EXECUTE format(
            'CREATE POLICY %I ON %s AS %s FOR %s %s (%s)',
            policy.name, "table",
            CASE WHEN restrictive THEN 'RESTRICTIVE' ELSE 'PERMISSIVE' END,
            policy.command,
            CASE WHEN policy.command = 'INSERT' THEN 'WITH CHECK' ELSE 'USING' END,
            policy.condition);
    END LOOP;
    IF NOT restrictive THEN
        SELECT string_agg(quote_ident(p.polname), ', ' ORDER BY p.polname) INTO others
        FROM pg_policy p
        WHERE p.polrelid = "table" AND p.polpermissive
          AND p.polname NOT IN ('pg_session_jwt_data_read', 'pg_session_jwt_data_add',
                                'pg_session_jwt_data_update', 'pg_session_jwt_data_delete');
        IF others IS NOT NULL THEN
            RAISE WARNING 'table has other permissive policies' USING
                DETAIL = format('These policies allow rows without the permissions of the token: %s.', others),
                HINT = 'Use restrictive => true to require the permissions of the token as well.';
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION auth.protect(regclass, boolean) IS
    'enables row-level security on a table, and creates policies that check auth.allows() for each action; restrictive ones also limit what other policies allow';

CREATE FUNCTION auth.unprotect("table" regclass) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    policy name;
BEGIN
    FOR policy IN
        SELECT polname FROM pg_policy
        WHERE polrelid = "table"
          AND polname IN ('pg_session_jwt_data_read', 'pg_session_jwt_data_add',
                          'pg_session_jwt_data_update', 'pg_session_jwt_data_delete')
    LOOP
        EXECUTE format('DROP POLICY %I ON %s', policy, "table");
    END LOOP;
    IF (SELECT relrowsecurity FROM pg_class WHERE oid = "table") THEN
        RAISE NOTICE 'row-level security is still enabled' USING
            DETAIL = 'Other policies of the table still apply. If there are none, only its owner and roles '
                     'that bypass row-level security can read its rows.';
    END IF;
END
$$;
COMMENT ON FUNCTION auth.unprotect(regclass) IS
    'drops the policies that auth.protect() created, and leaves row-level security enabled';

-- Permissions of tokens for data definition. auth.protect_schema() installs event triggers, which run as the
-- role that executes the command. Superusers and temporary objects are exempt.
--
-- CREATE TABLE needs schema_add, and DROP TABLE needs schema_delete. Every other change to a table needs
-- schema_update on it. This includes changes to its columns, policies, triggers and other parts, whether they
-- are created, altered or dropped, and new links from other tables, such as foreign keys and inheritance.

CREATE FUNCTION auth.is_new(class oid, object oid) RETURNS boolean
    LANGUAGE c VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'pg_session_jwt_is_new';
COMMENT ON FUNCTION auth.is_new(oid, oid) IS
    'whether the current transaction created the object with this catalog and OID';

CREATE FUNCTION auth.table_of(class oid, object oid) RETURNS oid
    LANGUAGE sql STABLE
RETURN CASE class
    WHEN 'pg_catalog.pg_class'::pg_catalog.regclass THEN coalesce(
        (SELECT i.indrelid FROM pg_catalog.pg_index i WHERE i.indexrelid = object), object)
    WHEN 'pg_catalog.pg_constraint'::pg_catalog.regclass THEN
        (SELECT c.conrelid FROM pg_catalog.pg_constraint c WHERE c.oid = object)
    WHEN 'pg_catalog.pg_trigger'::pg_catalog.regclass THEN
        (SELECT t.tgrelid FROM pg_catalog.pg_trigger t WHERE t.oid = object)
    WHEN 'pg_catalog.pg_policy'::pg_catalog.regclass THEN
        (SELECT p.polrelid FROM pg_catalog.pg_policy p WHERE p.oid = object)
    WHEN 'pg_catalog.pg_rewrite'::pg_catalog.regclass THEN
        (SELECT r.ev_class FROM pg_catalog.pg_rewrite r WHERE r.oid = object)
    WHEN 'pg_catalog.pg_attrdef'::pg_catalog.regclass THEN
        (SELECT d.adrelid FROM pg_catalog.pg_attrdef d WHERE d.oid = object)
    WHEN 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass THEN
        (SELECT s.stxrelid FROM pg_catalog.pg_statistic_ext s WHERE s.oid = object)
    END;
COMMENT ON FUNCTION auth.table_of(oid, oid) IS
    'OID of the relation that the object with this catalog and OID is, or is a part of; NULL for other objects';

CREATE FUNCTION auth.check_ddl_start() RETURNS event_trigger
    LANGUAGE c
    AS 'MODULE_PATHNAME', 'pg_session_jwt_check_ddl_start';
COMMENT ON FUNCTION auth.check_ddl_start() IS
    'rejects commands that change the meaning of names, unless the token allows them';

-- The calls have the types of the functions: another function that fits is then not called.
CREATE FUNCTION auth.check_ddl_end() RETURNS event_trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    command record;
    target record;
    other record;
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = current_user AND rolsuper)
        -- Where it fires event triggers, check_ddl_start has checked it before it ran. It changes no object.
        OR tg_tag = 'REINDEX'
    THEN
        RETURN;
    END IF;
    FOR command IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP
        -- The relation that the command changes, or whose part the command changes. A sequence is a part of
        -- its column's table if the same command creates or alters that table.
        SELECT c.oid, n.nspname, c.relname, c.relpersistence INTO target
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm')
          AND c.oid = coalesce(
              (SELECT d.refobjid FROM pg_depend d JOIN pg_class s ON s.oid = d.objid
               WHERE d.classid = 'pg_class'::regclass AND d.objid = command.objid
                 AND command.classid = 'pg_class'::regclass
                 AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
                 AND d.deptype IN ('a', 'i') AND s.relkind = 'S'
                 AND tg_tag IN ('CREATE SCHEMA', 'CREATE TABLE', 'CREATE FOREIGN TABLE',
                                'ALTER TABLE', 'ALTER FOREIGN TABLE')),
              auth.table_of(command.classid, command.objid));
        -- Existing tables that the command refers to: parents of a new table, tables that a new foreign key
        -- references, tables of a new publication, and the table whose column owns a new sequence.
        FOR other IN
            SELECT n.nspname, c.relname
            FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND c.relpersistence <> 't'
              AND c.oid IN (
                  SELECT inhparent FROM pg_inherits
                  WHERE inhrelid = target.oid AND auth.is_new('pg_class'::regclass::oid, inhrelid)
                  UNION ALL
                  -- Without foreign keys that a partition inherits from its parent.
                  SELECT confrelid FROM pg_constraint
                  WHERE conrelid = target.oid AND contype = 'f' AND conparentid = 0
                    AND auth.is_new('pg_constraint'::regclass::oid, oid)
                  UNION ALL
                  SELECT prrelid FROM pg_publication_rel
                  WHERE command.command_tag = 'CREATE PUBLICATION'
                    AND command.classid = 'pg_publication'::regclass AND prpubid = command.objid
                  UNION ALL
                  SELECT refobjid FROM pg_depend
                  WHERE command.command_tag = 'CREATE SEQUENCE'
                    AND classid = 'pg_class'::regclass AND objid = command.objid
                    AND refclassid = 'pg_class'::regclass AND refobjsubid > 0)
              AND NOT auth.is_new('pg_class'::regclass::oid, c.oid)
        LOOP
            PERFORM auth.demand('schema_update'::text, other.nspname::text, other.relname::text);
        END LOOP;
        CONTINUE WHEN target.relpersistence = 't'
            -- pg_temp stands for the session's temporary schema. No role can create a schema of that name.
            OR target.oid IS NULL AND command.schema_name = 'pg_temp';
        PERFORM auth.demand(
            CASE
            WHEN target.oid IS NOT NULL THEN
                CASE WHEN auth.is_new('pg_class'::regclass::oid, target.oid)
                    THEN 'schema_add' ELSE 'schema_update' END
            WHEN command.command_tag LIKE 'CREATE%'
                AND auth.is_new(command.classid, command.objid) THEN 'schema_add'
            ELSE 'schema_update'
            END,
            target.nspname::text, target.relname::text);
    END LOOP;
END
$$;
COMMENT ON FUNCTION auth.check_ddl_end() IS
    'rejects commands that create or alter objects, unless the token allows them';

-- The function is stable. Its queries then use the snapshot of the statement, in which the dropped objects
-- still exist.
CREATE FUNCTION auth.check_ddl_drop() RETURNS event_trigger
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    object record;
    is_relation boolean;
    target record;
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = current_user AND rolsuper) THEN
        RETURN;
    END IF;
    FOR object IN SELECT * FROM pg_event_trigger_dropped_objects() LOOP
        is_relation :=
            object.object_type IN ('table', 'foreign table', 'view', 'materialized view');
        -- A part of another object is dropped with that object. A table is always checked for itself.
        CONTINUE WHEN object.is_temporary
            OR NOT (object.original OR object.normal OR is_relation);
        -- The relation that the object is, or is a part of.
        SELECT c.oid, n.nspname, c.relname, c.relpersistence INTO target
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm')
          AND c.oid = auth.table_of(object.classid, object.objid);
        CONTINUE WHEN target.relpersistence = 't'
            -- A part of a dropped relation needs no permission of its own.
            OR NOT is_relation AND EXISTS (
                SELECT FROM pg_event_trigger_dropped_objects() r
                WHERE r.classid = 'pg_class'::regclass AND r.objid = target.oid
                  AND r.objsubid = 0);
        PERFORM auth.demand(
            CASE
            -- After the commit within DROP INDEX CONCURRENTLY, the table of the index is unknown.
            WHEN target.oid IS NOT NULL AND NOT is_relation OR object.object_type = 'index'
                THEN 'schema_update'
            ELSE 'schema_delete'
            END,
            target.nspname::text, target.relname::text);
    END LOOP;
END
$$;
COMMENT ON FUNCTION auth.check_ddl_drop() IS
    'rejects commands that drop objects, unless the token allows them';

REVOKE ALL ON FUNCTION
    auth.check_ddl_start(), auth.check_ddl_end(), auth.check_ddl_drop()
    FROM PUBLIC;

CREATE FUNCTION auth.protect_schema() RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    PERFORM auth.unprotect_schema();
    CREATE EVENT TRIGGER pg_session_jwt_ddl_start ON ddl_command_start
        EXECUTE FUNCTION auth.check_ddl_start();
    CREATE EVENT TRIGGER pg_session_jwt_ddl_end ON ddl_command_end
        EXECUTE FUNCTION auth.check_ddl_end();
    CREATE EVENT TRIGGER pg_session_jwt_ddl_drop ON sql_drop
        EXECUTE FUNCTION auth.check_ddl_drop();
    -- The triggers fire for every value of session_replication_role.
    ALTER EVENT TRIGGER pg_session_jwt_ddl_start ENABLE ALWAYS;
    ALTER EVENT TRIGGER pg_session_jwt_ddl_end ENABLE ALWAYS;
    ALTER EVENT TRIGGER pg_session_jwt_ddl_drop ENABLE ALWAYS;
END
$$;
COMMENT ON FUNCTION auth.protect_schema() IS
    'creates event triggers that check data definition commands against the session''s token; only for superusers';

CREATE FUNCTION auth.unprotect_schema() RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    event_trigger name;
BEGIN
    FOR event_trigger IN
        SELECT evtname FROM pg_event_trigger
        WHERE evtname IN ('pg_session_jwt_ddl_start', 'pg_session_jwt_ddl_end',
                          'pg_session_jwt_ddl_drop')
    LOOP
        EXECUTE format('DROP EVENT TRIGGER %I', event_trigger);
    END LOOP;
END
$$;
COMMENT ON FUNCTION auth.unprotect_schema() IS
    'drops the event triggers that auth.protect_schema() created; only for superusers';

-- For administrators: the report names providers, issuers, audiences and key ids.
CREATE FUNCTION auth.inspect(token text)
    RETURNS TABLE ("check" text, outcome text, found text, expected text, hint text)
    LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 16
    AS 'MODULE_PATHNAME', 'pg_session_jwt_inspect';
REVOKE ALL ON FUNCTION auth.inspect(text) FROM PUBLIC;
COMMENT ON FUNCTION auth.inspect(text) IS
    'the outcome of each check of a token, and what to do; it does not change the identity of the session';

-- Findings about the setup. The queries read the catalogs with the privileges of the calling role, evaluate no
-- expression and call no function of a user. The texts of conditions are those that Postgres prints with
-- this search path: names of other schemas are qualified, and operators have parentheses.

CREATE FUNCTION auth.provider_findings() RETURNS jsonb
    LANGUAGE c STABLE
    AS 'MODULE_PATHNAME', 'pg_session_jwt_provider_findings';
COMMENT ON FUNCTION auth.provider_findings() IS
    'findings of auth.health() about the library, the settings and the providers, as a JSON array';

CREATE FUNCTION auth.server_findings(
    OUT severity text, OUT subject text, OUT finding text, OUT advice text
) RETURNS SETOF record
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
WITH
stored AS MATERIALIZED (
    -- The settings of roles and databases that count in this database.
    SELECT s.setrole, s.setdatabase, split_part(c, '=', 1) AS name,
           substr(c, strpos(c, '=') + 1) AS value
    FROM pg_db_role_setting s, unnest(s.setconfig) c
    WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
),
-- A pooler, or several connections of one program.
pools AS MATERIALIZED (
    SELECT usesysid AS role, usename AS name, count(*) AS sessions
    FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND datname = current_database()
    GROUP BY usesysid, usename, client_addr, application_name
    HAVING count(*) >= 5
        OR application_name ~* '(pgbouncer|supavisor|pgcat|odyssey|pgpool|postgrest|hasura)'
)
SELECT 'error', 'server', 'the minor release has a known flaw of row-level security',
       format('PostgreSQL %s checks the policies of an existing row too late in ON CONFLICT DO UPDATE '
              '(CVE-2026-120154). Install 15.20, 16.16, 17.12 or 18.7, or a later release.',
              current_setting('server_version'))
FROM (SELECT current_setting('server_version_num')::integer AS number) v
WHERE number < 150020 OR number BETWEEN 160000 AND 160015 OR number BETWEEN 170000 AND 170011
   OR number BETWEEN 180000 AND 180006
UNION ALL
SELECT 'error', 'setting pg_session_jwt.trust_request_claims',
       'every client that can run SQL can become any user',
       'Set it to off, and present tokens. If only PostgREST can run SQL, set it for its login role alone.'
WHERE current_setting('pg_session_jwt.trust_request_claims', true) = 'on'
   OR EXISTS (SELECT FROM stored
              WHERE name = 'pg_session_jwt.trust_request_claims' AND setrole = 0
                AND lower(value) IN ('on', 'true', 'yes', '1'))
UNION ALL
SELECT DISTINCT 'warning', format('role %I', p.name),
       'sessions are pooled, and identities last for the session',
       format('Present each token with is_local in a transaction, and run: ALTER ROLE %I SET '
              'pg_session_jwt.identity_scope = ''transaction'';', p.name)
FROM pools p
WHERE coalesce(
    (SELECT value FROM stored
     WHERE name = 'pg_session_jwt.identity_scope' AND setrole IN (0, p.role)
     ORDER BY setrole <> 0 DESC, setdatabase <> 0 DESC LIMIT 1),
    current_setting('pg_session_jwt.identity_scope', true), 'session') = 'session'
UNION ALL
SELECT 'info', 'setting pg_session_jwt.audit_log', 'accepted and rejected tokens are not logged',
       'Run: ALTER SYSTEM SET pg_session_jwt.audit_log = on; SELECT pg_reload_conf();'
WHERE coalesce(current_setting('pg_session_jwt.audit_log', true), 'off') = 'off'
UNION ALL
SELECT DISTINCT 'error', 'schema auth', 'other roles own the schema or can create objects in it',
       CASE
       WHEN a.grantee = 0 THEN 'Run: REVOKE CREATE ON SCHEMA auth FROM PUBLIC;'
       WHEN a.grantee <> n.nspowner THEN format('Run: REVOKE CREATE ON SCHEMA auth FROM %I;', r.rolname)
       ELSE 'Let a superuser or the owner of the database own it: ALTER SCHEMA auth OWNER TO ...;'
       END
FROM pg_namespace n
JOIN pg_database d ON d.datname = current_database()
LEFT JOIN pg_extension e ON e.extname = 'pg_session_jwt'
CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
LEFT JOIN pg_roles r ON r.oid = a.grantee
WHERE n.nspname = 'auth' AND a.privilege_type = 'CREATE'
  AND (a.grantee = 0 OR NOT r.rolsuper AND r.oid <> d.datdba AND r.oid IS DISTINCT FROM e.extowner)
$$;
COMMENT ON FUNCTION auth.server_findings() IS
    'findings of auth.health() about the release of Postgres, the settings and the schema auth';

CREATE FUNCTION auth.role_findings(
    OUT severity text, OUT subject text, OUT finding text, OUT advice text
) RETURNS SETOF record
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
WITH RECURSIVE
locked AS MATERIALIZED (
    -- Only roles that can read all settings see this one.
    SELECT CASE WHEN n[1] LIKE '"%' THEN replace(substr(n[1], 2, length(n[1]) - 2), '""', '"')
                ELSE lower(n[1]) END AS name
    FROM pg_settings s, regexp_matches(s.setting, '"(?:[^"]|"")*"|[^, ]+', 'g') n
    WHERE s.name = 'pg_session_jwt.locked_roles'
),
-- Without the role that initdb has created.
logins AS MATERIALIZED (
    SELECT oid, rolname, rolsuper, rolbypassrls,
           rolname IN (SELECT name FROM locked) AS is_locked
    FROM pg_roles WHERE rolcanlogin AND oid <> 10
),
-- Which roles a login role can act as. A membership may lack the option SET, and then give privileges only.
memberships AS (
    SELECT l.oid AS login, m.roleid AS role
    FROM logins l JOIN pg_auth_members m ON m.member = l.oid
    UNION
    SELECT s.login, m.roleid FROM memberships s JOIN pg_auth_members m ON m.member = s.role
)
SELECT 'error', format('role %I', l.rolname), 'a login role is a superuser',
       'No policy applies to it. Let clients log in as a role without this attribute.'
FROM logins l WHERE l.rolsuper
UNION ALL
SELECT 'error', format('role %I', l.rolname), 'a login role is a member of a superuser',
       format('Its sessions can become %I, to which no policy applies. Run: REVOKE %I FROM %I;',
              r.rolname, r.rolname, l.rolname)
FROM logins l JOIN memberships m ON m.login = l.oid JOIN pg_roles r ON r.oid = m.role
WHERE r.rolsuper AND NOT l.rolsuper
UNION ALL
SELECT 'warning', format('role %I', l.rolname), 'a login role bypasses row-level security',
       format('Run: ALTER ROLE %I NOBYPASSRLS; or let clients log in as another role.', l.rolname)
FROM logins l WHERE l.rolbypassrls AND NOT l.rolsuper
UNION ALL
SELECT 'warning', format('role %I', l.rolname),
       'a login role is a member of a role that bypasses row-level security',
       format('Its sessions can SET ROLE %I. Add %I to pg_session_jwt.locked_roles, so that only a token '
              'gives the role.', r.rolname, l.rolname)
FROM logins l JOIN memberships m ON m.login = l.oid JOIN pg_roles r ON r.oid = m.role
WHERE r.rolbypassrls AND NOT r.rolsuper AND NOT l.rolsuper AND NOT l.rolbypassrls AND NOT l.is_locked
UNION ALL
SELECT 'warning', format('role %I', l.rolname), 'a login role owns protected tables',
       format('Policies do not apply to it on %s. Let clients log in as another role; or run ALTER TABLE ... '
              'FORCE ROW LEVEL SECURITY.',
              CASE count(*) WHEN 1 THEN min(t.name) ELSE format('%s and %s more tables', min(t.name),
                                                                count(*) - 1) END)
FROM logins l
JOIN (
    SELECT c.relowner, format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND NOT c.relforcerowsecurity
) t ON t.relowner = l.oid
WHERE NOT l.rolsuper AND NOT l.rolbypassrls
GROUP BY l.oid, l.rolname
$$;
COMMENT ON FUNCTION auth.role_findings() IS
    'findings of auth.health() about login roles to which policies do not apply';

CREATE FUNCTION auth.policy_findings(
    OUT severity text, OUT subject text, OUT finding text, OUT advice text
) RETURNS SETOF record
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
WITH RECURSIVE
members AS MATERIALIZED (
    SELECT classid, objid FROM pg_depend
    WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
),
-- Relations of users: without system schemas, temporary relations and those of extensions.
relations AS MATERIALIZED (
    SELECT c.oid, c.relname, c.relkind, c.relowner, c.relacl, c.reloptions, c.relispartition,
           c.relrowsecurity AS is_protected, c.relforcerowsecurity AS is_forced,
           format('%I.%I', n.nspname, c.relname) AS name,
           o.rolsuper OR o.rolbypassrls AS owner_bypasses, o.rolsuper AS owner_is_super,
           o.rolcanlogin AS owner_logs_in, o.rolname AS owner_name
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_roles o ON o.oid = c.relowner
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
      AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND (c.tableoid, c.oid) NOT IN (SELECT classid, objid FROM members)
),
-- Roles other than the owner and superusers that have a privilege on a relation or one of its columns; 0 is
-- PUBLIC.
grants AS MATERIALIZED (
    SELECT r.oid AS relation, a.grantee, a.privilege_type
    FROM relations r, aclexplode(r.relacl) a
    WHERE a.grantee <> r.relowner
      AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
      AND a.grantee NOT IN (SELECT oid FROM pg_roles WHERE rolsuper)
    UNION
    SELECT r.oid, x.grantee, x.privilege_type
    FROM relations r
    JOIN pg_attribute a ON a.attrelid = r.oid AND a.attacl IS NOT NULL
    CROSS JOIN LATERAL aclexplode(a.attacl) x
    WHERE x.grantee <> r.relowner AND x.grantee NOT IN (SELECT oid FROM pg_roles WHERE rolsuper)
),
-- Roles that use protected tables.
clients AS MATERIALIZED (
    SELECT DISTINCT g.grantee FROM grants g JOIN relations r ON r.oid = g.relation WHERE r.is_protected
),
readers AS MATERIALIZED (
    SELECT p.oid FROM pg_proc p
    WHERE p.pronamespace = 'auth'::regnamespace
      AND p.proname IN ('user_id', 'uid', 'session', 'jwt', 'role', 'email', 'claim', 'claim_jsonb',
                        'session_variable', 'organization', 'organization_id', 'allows',
                        'has_scope', 'has_role', 'in_group', 'has_acr', 'has_amr', 'signed_in_within')
),
policies AS MATERIALIZED (
    SELECT p.oid, p.polrelid AS relation, p.polname, p.polcmd, p.polpermissive, p.polroles,
           format('policy %I on %s', p.polname, r.name) AS subject,
           r.name AS table_name, r.is_protected,
           -- The time of the patterns below grows with the square of the length.
           left(pg_get_expr(p.polqual, p.polrelid), 4096) AS qual,
           left(pg_get_expr(p.polwithcheck, p.polrelid), 4096) AS with_check
    FROM pg_policy p JOIN relations r ON r.oid = p.polrelid
),
-- The conditions, and their texts without string literals.
conditions AS MATERIALIZED (
    SELECT p.*, c.expression, c.is_filter, c.is_check,
           regexp_replace(c.expression, '("(?:[^"]|"")*")|''(?:[^'']|'''')*''', '\1', 'g') AS bare
    FROM policies p
    CROSS JOIN LATERAL (VALUES
        (p.qual, true, p.with_check IS NULL AND p.polcmd IN ('*', 'w')),
        (p.with_check, false, true)
    ) c (expression, is_filter, is_check)
    WHERE c.expression IS NOT NULL
),
-- Columns that a condition compares with the identity.
comparisons AS MATERIALIZED (
    SELECT c.oid, c.subject, c.relation, c.table_name, c.is_filter, c.is_check, c.polcmd, a.attnum,
           a.attname, a.atttypid, a.atttypmod, a.atthasdef OR a.attidentity <> '' AS has_default, m.cast_type
    FROM conditions c
    CROSS JOIN LATERAL (
        SELECT coalesce(f[1], f[3]) AS name, f[2] AS cast_type
        FROM regexp_matches(c.bare,
            '\((?:\(([a-z_][a-z0-9_]*|"(?:[^"]|"")*")\)::([a-z][a-z0-9 _."]*)|([a-z_][a-z0-9_]*|"(?:[^"]|"")*"))'
            ' = [( ]*(?:SELECT [( ]*)?auth\.(?:user_id|uid|role|email|claim|session_variable|organization_id|'
            'jwt|session)\(',
            'g') f
        UNION ALL
        SELECT coalesce(f[1], f[3]), f[2]
        FROM regexp_matches(c.bare,
            'auth\.(?:user_id|uid|role|email|claim|session_variable|organization_id|jwt|session)\([^()]*\)'
            '(?: AS [a-z_]+| ->>? ::text|::[a-z]+|\))*'
            ' = (?:\(([a-z_][a-z0-9_]*|"(?:[^"]|"")*")\)::([a-z][a-z0-9 _."]*)|([a-z_][a-z0-9_]*|"(?:[^"]|"")*"))\)',
            'g') f
    ) m
    JOIN pg_attribute a
        ON a.attrelid = c.relation AND NOT a.attisdropped AND a.attnum > 0 AND quote_ident(a.attname) = m.name
),
-- Columns that a condition compares with the rows of a sub-select.
lists AS MATERIALIZED (
    SELECT c.oid, c.subject, c.relation, c.table_name, a.attnum, a.attname, m[2] = 'IN' AS is_in
    FROM conditions c
    CROSS JOIN LATERAL regexp_matches(c.bare,
        '\(([a-z_][a-z0-9_]*|"(?:[^"]|"")*") (= ANY|IN) \((?:ARRAY\()? ?SELECT ', 'g') m
    JOIN pg_attribute a
        ON a.attrelid = c.relation AND NOT a.attisdropped AND a.attnum > 0 AND quote_ident(a.attname) = m[1]
    WHERE c.is_filter
),
compared AS MATERIALIZED (
    SELECT DISTINCT oid, subject, relation, table_name, attnum, attname FROM comparisons WHERE is_filter
    UNION
    SELECT oid, subject, relation, table_name, attnum, attname FROM lists
),
-- Which relations a view reads, itself or through other views.
reads (view, relation) AS (
    SELECT w.ev_class, d.refobjid
    FROM pg_rewrite w
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> w.ev_class
    WHERE w.ev_class IN (SELECT oid FROM relations WHERE relkind IN ('v', 'm'))
    UNION
    SELECT s.view, d.refobjid
    FROM reads s
    JOIN pg_rewrite w ON w.ev_class = s.relation
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> w.ev_class
),
-- Views for other roles, with the protected tables of which they show all rows.
views AS MATERIALIZED (
    SELECT v.oid, v.name, v.relkind, v.owner_name,
           EXISTS (SELECT FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass
                   AND d.objid = w.oid AND d.refclassid = 'pg_proc'::regclass
                   WHERE w.ev_class = v.oid AND d.refobjid IN (SELECT oid FROM readers)) AS has_reader,
           coalesce((SELECT o.option_value::boolean FROM pg_options_to_table(v.reloptions) o
                     WHERE o.option_name = 'security_invoker'), false) AS is_invoker,
           coalesce((SELECT o.option_value::boolean FROM pg_options_to_table(v.reloptions) o
                     WHERE o.option_name = 'security_barrier'), false) AS is_barrier,
           (SELECT min(t.name) FROM reads s JOIN relations t ON t.oid = s.relation
            WHERE s.view = v.oid AND t.is_protected
              AND (v.relkind = 'm' OR v.owner_bypasses
                   OR NOT t.is_forced AND pg_has_role(v.relowner, t.relowner, 'USAGE'))) AS table_name
    FROM relations v
    WHERE v.relkind IN ('v', 'm') AND v.oid IN (SELECT relation FROM grants)
),
functions AS MATERIALIZED (
    SELECT p.oid, format('function %s', p.oid::regprocedure) AS subject, p.oid::regprocedure AS signature,
           p.prosecdef, p.provolatile, p.proleakproof, p.proowner, p.proconfig, p.prosqlbody IS NULL AS is_text,
           p.prosrc, p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee = 0)
               AS is_for_all,
           p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype) AS is_trigger,
           r.rolsuper OR r.rolbypassrls AS owner_bypasses,
           p.prosrc ~ '\mauth\.(user_id|uid|session|jwt|role|email|claim|claim_jsonb|session_variable|'
                      'organization|organization_id|allows|'
                      'has_scope|has_role|in_group|has_acr|has_amr|signed_in_within)\s*\('
               OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                          AND d.refclassid = 'pg_proc'::regclass AND d.refobjid IN (SELECT oid FROM readers))
               AS has_reader
    FROM pg_proc p
    JOIN pg_namespace n ON n.oid = p.pronamespace
    JOIN pg_roles r ON r.oid = p.proowner
    JOIN pg_language l ON l.oid = p.prolang
    WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' AND l.lanname NOT IN ('c', 'internal')
      AND (p.tableoid, p.oid) NOT IN (SELECT classid, objid FROM members)
),
-- Security-definer functions with a protected table whose policies do not apply to their owner. Within a text,
-- a table is found by its name.
definers AS MATERIALIZED (
    SELECT f.*, min(t.name) AS table_name
    FROM functions f
    CROSS JOIN LATERAL (
        SELECT d.refobjid AS relation, NULL::text AS word FROM pg_depend d
        WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass
        UNION
        SELECT NULL, m[1] FROM regexp_matches(f.prosrc, '[[:alpha:]_][[:alnum:]_$]*', 'g') m
    ) u
    JOIN relations t ON t.oid = u.relation OR t.relname = u.word
    WHERE f.prosecdef AND NOT f.is_trigger AND t.is_protected
      AND (f.owner_bypasses OR NOT t.is_forced AND pg_has_role(f.proowner, t.relowner, 'USAGE'))
    GROUP BY f.oid, f.subject, f.signature, f.prosecdef, f.provolatile, f.proleakproof, f.proowner,
             f.proconfig, f.is_text, f.prosrc, f.is_for_all, f.is_trigger, f.owner_bypasses, f.has_reader
)

-- Tables.
SELECT 'error', format('table %s', r.name), 'policies have no effect: row-level security is off',
       format('Run: ALTER TABLE %s ENABLE ROW LEVEL SECURITY;', r.name)
FROM relations r
WHERE NOT r.is_protected AND r.oid IN (SELECT relation FROM policies)
UNION ALL
SELECT 'warning', format('table %s', r.name), 'row-level security is on without a policy: clients see no rows',
       format('Create a policy on %s, or revoke the privileges on it.', r.name)
FROM relations r
WHERE r.is_protected AND r.oid IN (SELECT relation FROM grants)
  AND r.oid NOT IN (SELECT relation FROM policies)
UNION ALL
SELECT 'warning', format('table %s', r.name), 'all policies are restrictive: clients see no rows',
       format('Create a permissive policy on %s.', r.name)
FROM relations r
WHERE r.is_protected AND r.oid IN (SELECT relation FROM policies)
  AND r.oid NOT IN (SELECT relation FROM policies WHERE polpermissive)
UNION ALL
SELECT 'error', format('table %s', r.name), 'policies do not apply to the owner, as which clients log in',
       format('Let clients log in as a role that owns nothing, or run: ALTER TABLE %s FORCE ROW LEVEL SECURITY;',
              r.name)
FROM relations r
WHERE r.is_protected AND NOT r.is_forced AND r.owner_logs_in AND NOT r.owner_bypasses
  AND r.oid IN (SELECT relation FROM policies)
  AND (r.oid NOT IN (SELECT relation FROM grants)
       OR EXISTS (SELECT FROM policies p WHERE p.relation = r.oid AND r.relowner = ANY (p.polroles))
       OR EXISTS (SELECT FROM pg_db_role_setting s, unnest(s.setconfig) c
                  WHERE s.setrole = r.relowner AND c LIKE 'pg\_session\_jwt.%'))
UNION ALL
SELECT 'error', format('table %s', r.name), 'a partition or child can be read around the policies of its parent',
       format('Policies of %s do not apply where a statement names %s. Revoke the privileges on it.',
              min(t.name), r.name)
FROM relations r
JOIN pg_inherits i ON i.inhrelid = r.oid
JOIN relations t ON t.oid = i.inhparent
WHERE r.relkind IN ('r', 'p') AND NOT r.is_protected AND t.is_protected
  AND r.oid IN (SELECT relation FROM grants) AND r.oid NOT IN (SELECT relation FROM policies)
GROUP BY r.oid, r.name
UNION ALL
SELECT 'warning', format('table %s', r.name), 'clients have privileges on a table without row-level security',
       format('If not all its rows are for all clients, run: ALTER TABLE %s ENABLE ROW LEVEL SECURITY; '
              'and create a policy.', r.name)
FROM relations r
WHERE r.relkind IN ('r', 'p') AND NOT r.is_protected AND r.oid NOT IN (SELECT relation FROM policies)
  AND EXISTS (SELECT FROM grants g WHERE g.relation = r.oid
              AND (g.grantee = 0 AND EXISTS (SELECT FROM clients)
                   OR g.grantee IN (SELECT grantee FROM clients)))
  AND NOT EXISTS (SELECT FROM pg_inherits i JOIN relations t ON t.oid = i.inhparent
                  WHERE i.inhrelid = r.oid AND t.is_protected)
UNION ALL

-- Policies.
SELECT CASE WHEN 0 = ANY (c.polroles) THEN 'error' ELSE 'warning' END, c.subject,
       'a policy for writing is always true',
       'Compare a column with the identity, such as owner = auth.user_id().'
FROM conditions c
WHERE c.polpermissive AND c.polcmd <> 'r'
  AND (c.bare ~ '^\(*true\)*$' OR c.expression ~ '^\((.+) = \1\)$')
  AND NOT EXISTS (SELECT FROM policies q WHERE q.relation = c.relation AND NOT q.polpermissive
                  AND (q.polcmd IN ('*', c.polcmd) OR c.polcmd = '*'))
GROUP BY c.oid, c.subject, c.polroles
UNION ALL
SELECT 'info', format('table %s', p.table_name), 'several permissive policies for one role and command',
       format('For %s, a row needs only one of %s. Join them with OR in one policy, or make the condition '
              'that must always hold RESTRICTIVE.',
              CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                            WHEN 'd' THEN 'DELETE' ELSE 'all commands' END,
              string_agg(DISTINCT quote_ident(p.polname), ', '))
FROM policies p
JOIN policies q ON q.relation = p.relation AND q.oid <> p.oid AND q.polcmd = p.polcmd
    AND (p.polroles && q.polroles OR 0 = ANY (p.polroles || q.polroles))
WHERE p.polpermissive AND q.polpermissive
GROUP BY p.relation, p.table_name, p.polcmd
UNION ALL
SELECT 'error', c.subject, 'a policy trusts a claim that users can edit',
       'Users write user_metadata and unsafe_metadata themselves. Use a claim that only the provider writes, such '
       'as app_metadata.'
FROM conditions c
WHERE c.expression ~* '''[^'']*(user_metadata|raw_user_meta_data|unsafe_?metadata)' AND c.bare ~ '\m(auth|current_setting)\M'
GROUP BY c.oid, c.subject
UNION ALL
SELECT CASE WHEN c.expression ~ 'current_setting\(''request\.' THEN 'error' ELSE 'warning' END, c.subject,
       'a policy trusts a setting that every role can set',
       'Compare with auth.user_id() or auth.claim() instead of current_setting().'
FROM conditions c
WHERE c.expression ~ 'current_setting\(''[^'']+\.'
GROUP BY c.oid, c.subject, 1
UNION ALL
SELECT 'info', c.subject, 'a policy searches the claims for each row',
       'Use auth.claim(''name'') or auth.claim(''/path/to/name'') instead of auth.jwt() ->> ''name'', and '
       'auth.claim_jsonb() instead of ->.'
FROM conditions c
WHERE c.bare ~ 'auth\.(jwt|session)\(\) (->|#>)'
GROUP BY c.oid, c.subject
UNION ALL
SELECT 'info', c.subject, 'a cast of the column defeats its index',
       format('Cast the identity to the type of the column, as in %I = auth.user_id()::%s; for uuid, use auth.uid().',
              c.attname, format_type(c.atttypid, c.atttypmod))
FROM comparisons c
WHERE c.is_filter AND c.cast_type IS NOT NULL
  AND NOT EXISTS (SELECT FROM pg_cast k WHERE k.castsource = c.atttypid AND k.castmethod = 'b'
                  AND k.casttarget = to_regtype(c.cast_type))
GROUP BY c.oid, c.subject, c.attname, c.atttypid, c.atttypmod
UNION ALL
SELECT 'info', c.subject, 'a compared column has no index',
       format('Run: CREATE INDEX ON %s (%I);', c.table_name, c.attname)
FROM compared c
WHERE NOT EXISTS (
    SELECT FROM pg_index i
    WHERE i.indrelid = c.relation AND i.indisvalid AND c.attnum = ANY (i.indkey::smallint[])
      AND (c.attnum = i.indkey[0]
           OR EXISTS (SELECT FROM compared o WHERE o.oid = c.oid AND o.attnum = i.indkey[0])))
UNION ALL
SELECT 'info', c.subject, 'a checked column has no default',
       format('An INSERT without the column fails. Run: ALTER TABLE %s ALTER COLUMN %I SET DEFAULT auth.user_id(); '
              'or with the function that the policy compares.', c.table_name, c.attname)
FROM comparisons c
WHERE c.is_check AND c.polcmd IN ('*', 'a') AND NOT c.has_default
  AND EXISTS (SELECT FROM grants g WHERE g.relation = c.relation AND g.privilege_type = 'INSERT')
GROUP BY c.oid, c.subject, c.table_name, c.attname
UNION ALL
SELECT 'info', l.subject, 'IN with a sub-select cannot use the index of the column',
       format('Write %I = ANY (ARRAY(SELECT ...)) instead of %I IN (SELECT ...).', l.attname, l.attname)
FROM lists l
WHERE l.is_in
GROUP BY l.oid, l.subject, l.attname
UNION ALL
SELECT 'info', c.subject, 'a function without columns is called for each row',
       format('Write (SELECT %s(...)), which is evaluated once for each query.', f.signature::regproc)
FROM conditions c
JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_proc'::regclass
JOIN functions f ON f.oid = d.refobjid AND f.provolatile <> 'i'
WHERE c.is_filter AND c.bare ~ ('(?<!SELECT )' || regexp_replace(f.oid::regproc::text, '(\W)', '\\\1', 'g')
    || '\((?:auth\.[a-z_]+\([^()]*\)|::[a-z]+|[0-9]+|true|false|[, ])*\)')
GROUP BY c.oid, c.subject, f.signature
UNION ALL

-- Around policies.
SELECT CASE WHEN v.has_reader THEN 'warning' ELSE 'error' END, format('view %s', v.name),
       'a view of its owner shows all rows of a protected table',
       format('Policies of %s do not apply to %I. Run: ALTER VIEW %s SET (security_invoker = true);',
              v.table_name, v.owner_name, v.name)
FROM views v
WHERE v.relkind = 'v' AND NOT v.is_invoker AND v.table_name IS NOT NULL
UNION ALL
SELECT 'error', format('materialized view %s', v.name), 'a materialized view stores rows of a protected table',
       format('No policy restricts its rows. Revoke the privileges on it, or replace it by a view with '
              'security_invoker over %s.', v.table_name)
FROM views v
WHERE v.relkind = 'm' AND v.table_name IS NOT NULL
UNION ALL
SELECT 'warning', format('foreign table %s', r.name), 'no policy can restrict the rows of a foreign table',
       'Revoke the privileges on it, or restrict the rows on the other server.'
FROM relations r
WHERE r.relkind = 'f' AND EXISTS (SELECT FROM grants g WHERE g.relation = r.oid
                                  AND (g.grantee = 0 OR g.grantee IN (SELECT grantee FROM clients)))
UNION ALL
SELECT 'error', f.subject, 'every role may call a security-definer function over a protected table',
       format('Policies of %s do not apply in it. Run: REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC; or compare with '
              'auth.user_id() in it.', f.table_name, f.signature)
FROM definers f
WHERE f.is_for_all AND NOT f.has_reader
UNION ALL
SELECT 'warning', f.subject, 'a security-definer function has no fixed search_path',
       format('Run: ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp; and qualify the names in it.',
              f.signature)
FROM definers f
WHERE f.is_text AND NOT EXISTS (SELECT FROM unnest(f.proconfig) c WHERE c LIKE 'search\_path=%')
UNION ALL
SELECT 'error', f.subject, 'a function that reads the identity is marked IMMUTABLE or LEAKPROOF',
       format('A plan may keep the identity of an earlier user. Run: ALTER FUNCTION %s STABLE NOT LEAKPROOF;',
              f.signature)
FROM functions f
WHERE f.has_reader AND (f.provolatile = 'i' OR f.proleakproof)
UNION ALL
SELECT 'warning', format('view %s', v.name), 'a view filters by the identity, and is no security barrier',
       format('A condition of a query may be evaluated for hidden rows. Run: ALTER VIEW %s SET '
              '(security_barrier = true);', v.name)
FROM views v
WHERE v.relkind = 'v' AND v.has_reader AND NOT v.is_invoker AND NOT v.is_barrier
UNION ALL
SELECT 'warning', format('materialized view %s', v.name),
       'a materialized view stores values of the identity of its last refresh',
       'Use a view with security_invoker.'
FROM views v
WHERE v.relkind = 'm' AND v.has_reader
UNION ALL
SELECT 'warning', format('constraint %I on %s', k.conname, r.name), 'a constraint reads the identity',
       'It is evaluated again when a dump is restored, without an identity. Use a policy.'
FROM pg_constraint k
JOIN relations r ON r.oid = k.conrelid
JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid AND d.refclassid = 'pg_proc'::regclass
WHERE k.contype = 'c' AND d.refobjid IN (SELECT oid FROM readers)
$$;
COMMENT ON FUNCTION auth.policy_findings() IS
    'findings of auth.health() about tables, policies, views and functions';

CREATE FUNCTION auth.health(
    OUT severity text, OUT subject text, OUT finding text, OUT advice text
) RETURNS SETOF record
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
SELECT f.severity, f.subject, f.finding, f.advice
FROM (
    SELECT * FROM jsonb_to_recordset(auth.provider_findings())
        AS p (severity text, subject text, finding text, advice text)
    UNION ALL SELECT * FROM auth.server_findings()
    UNION ALL SELECT * FROM auth.role_findings()
    UNION ALL SELECT * FROM auth.policy_findings()
) f
ORDER BY array_position(ARRAY['error', 'warning', 'info'], f.severity), f.subject COLLATE "C", f.finding, f.advice
$$;
COMMENT ON FUNCTION auth.health() IS
    'findings about the setup, one a row, the severest first; reads the catalogs only';

REVOKE ALL ON FUNCTION
    auth.provider_findings(), auth.server_findings(), auth.role_findings(),
    auth.policy_findings(), auth.health()
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    auth.provider_findings(), auth.server_findings(), auth.role_findings(),
    auth.policy_findings(), auth.health()
    TO pg_monitor;

-- Explanations of access. No function here evaluates a policy with the privileges of a superuser, or of the role
-- that may read all rows: auth.try_as() runs queries as the explained role, as security-restricted operations and
-- read only, and auth.try_all() rolls them back.

CREATE FUNCTION auth.try_as(role oid, claims text, path text, query text, rows anyarray)
    RETURNS text[]
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'pg_session_jwt_try_as';
COMMENT ON FUNCTION auth.try_as(oid, text, text, text, anyarray) IS
    'runs a read-only query as a role that the caller could set, and with claims that it could issue; the first value of the first row';

CREATE FUNCTION auth.sample("table" oid, kind anyarray)
    RETURNS anyarray
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'pg_session_jwt_sample';
COMMENT ON FUNCTION auth.sample(oid, anyarray) IS
    'the first rows of a table as an array of its row type, for a caller that may read all of them';

CREATE FUNCTION auth.try_all(
    role oid, claims text, path text, queries text[], rows anyarray,
    OUT place integer, OUT result text[], OUT failure text
) RETURNS SETOF record
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    FOR number IN 1 .. cardinality(queries) LOOP
        place := number;
        result := NULL;
        failure := NULL;
        BEGIN
            result := auth.try_as(role, claims, path, queries[number], rows);
            -- The variables keep their values.
            RAISE EXCEPTION 'roll back';
        EXCEPTION WHEN OTHERS THEN
            IF result IS NULL THEN
                failure := format('%s: %s', SQLSTATE, SQLERRM);
            END IF;
        END;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION auth.try_all(oid, text, text, text[], anyarray) IS
    'calls auth.try_as() for each query, and rolls it back; the result or the error of each';

-- The condition that the policies for a command make for a role: for INSERT, of new rows.
CREATE FUNCTION auth.policy_condition("table" regclass, role oid, command text, permissive boolean)
    RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
SELECT concat('(', coalesce(string_agg(format('(%s)', k.expression), ' OR ') FILTER (WHERE p.polpermissive), 'false'),
              ')',
              string_agg(format(' AND (%s)', k.expression), '') FILTER (WHERE NOT p.polpermissive AND NOT permissive))
FROM pg_policy p
CROSS JOIN LATERAL (SELECT CASE WHEN command = 'INSERT'
                                THEN coalesce(pg_get_expr(p.polwithcheck, p.polrelid),
                                              pg_get_expr(p.polqual, p.polrelid))
                                ELSE pg_get_expr(p.polqual, p.polrelid) END AS expression) k
WHERE p.polrelid = "table" AND k.expression IS NOT NULL
  AND p.polcmd IN ('*', CASE command WHEN 'SELECT' THEN 'r' WHEN 'INSERT' THEN 'a' WHEN 'UPDATE' THEN 'w' ELSE 'd' END)
  AND EXISTS (SELECT FROM unnest(p.polroles) r WHERE r = 0 OR pg_has_role(role, r, 'USAGE'))
$$;
COMMENT ON FUNCTION auth.policy_condition(regclass, oid, text, boolean) IS
    'the conditions of the policies of a table for a role and a command, or of the permissive ones, as one text';

CREATE FUNCTION auth.explain_access_of(
    "table" regclass, claims jsonb, role text, path text,
    OUT command text, OUT item text, OUT outcome text, OUT passed bigint, OUT tried bigint, OUT detail text
) RETURNS SETOF record
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
#variable_conflict use_column
DECLARE
    most CONSTANT integer := 1000;
    commands CONSTANT text[] := '{SELECT,INSERT,UPDATE,DELETE}';
    -- A reader of the identity in a condition.
    reader CONSTANT text := 'auth\.(user_id|uid|session|jwt|role|email|claim|claim_jsonb|session_variable|'
                            'organization|organization_id|allows|'
                            'has_scope|has_role|in_group|has_acr|has_amr|signed_in_within)\(';
    name_pattern CONSTANT text := '[a-z_][a-z0-9_]*|"(?:[^"]|"")*"';
    rel record;
    who record;
    own boolean;
    bypass text;
    is_active boolean;
    is_counted boolean;
    parents text;
    source text;
    sample text;
    has_rows boolean := true;
    sequence text;
    queries text[] := '{}';
    labels text[] := '{}';
    results jsonb := '{}';
    policy record;
    cmd text;
    cmds text;
    privilege text;
    visible text;
    conditions text;
    reading text;
    answer text;
    cause text;
    failed text;
    counts text[];
    entry record;
BEGIN
    IF "table" IS NULL THEN
        RAISE EXCEPTION 'argument of auth.explain_access must not be null' USING
            ERRCODE = 'null_value_not_allowed', DETAIL = 'The function needs a table.';
    END IF;
    SELECT c.oid, c.relname, c.relkind, c.relowner, c.relrowsecurity, c.relforcerowsecurity, c.reltuples,
           c.relispartition, n.oid AS schema, n.nspname, format('%I.%I', n.nspname, c.relname) AS name,
           pg_get_userbyid(c.relowner) AS owner_name, c.reloptions
        INTO rel
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = "table" AND c.relkind IN ('r', 'p', 'v', 'm', 'f');
    IF NOT FOUND THEN
        RAISE EXCEPTION 'relation is not a table' USING
            ERRCODE = 'wrong_object_type', DETAIL = format('It is %s.', "table"),
            HINT = 'Name a table, a view, a materialized view or a foreign table.';
    END IF;
    own := claims IS NULL AND role IS NULL;
    IF role IS NULL AND claims IS NOT NULL THEN
        RAISE EXCEPTION 'role is missing' USING
            ERRCODE = 'invalid_parameter_value',
            DETAIL = 'Policies are evaluated as the role of the client, and not as the administrator.',
            HINT = format('Name the role that the client has, such as role => %L.', coalesce(
                (SELECT r.rolname FROM pg_roles r WHERE r.rolname = claims ->> 'role'), 'app'));
    END IF;
    SELECT r.oid, r.rolname, r.rolsuper, r.rolbypassrls INTO who
        FROM pg_roles r WHERE r.rolname = coalesce(role, current_user);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'role does not exist' USING
            ERRCODE = 'undefined_object', DETAIL = format('No role has the name %I.', role);
    END IF;
    bypass := CASE
        WHEN who.rolsuper THEN format('%I is a superuser', who.rolname)
        WHEN who.rolbypassrls THEN format('%I has BYPASSRLS', who.rolname)
        WHEN pg_has_role(who.oid, rel.relowner, 'USAGE') AND NOT rel.relforcerowsecurity THEN
            CASE WHEN who.oid = rel.relowner THEN format('%I owns the table', who.rolname)
                 ELSE format('%I is a member of the owner %I', who.rolname, rel.owner_name) END
        END;
    is_active := rel.relrowsecurity AND bypass IS NULL;

    -- Another role, or other claims: the caller must be able to read all rows anyway, to set the role, and to issue
    -- the claims. auth.try_as() checks the latter two.
    IF NOT own THEN
        IF rel.relkind IN ('r', 'p')
            AND (row_security_active("table") OR NOT has_table_privilege("table", 'SELECT')) THEN
            RAISE EXCEPTION 'permission denied to explain the access of another role' USING
                ERRCODE = 'insufficient_privilege',
                DETAIL = format('The role %I cannot read all rows of %s.', current_user, rel.name),
                HINT = 'Call the function with the table alone, or as a superuser.';
        END IF;
        PERFORM auth.try_as(who.oid, claims::text, path, 'SELECT ''{}''::pg_catalog.text[]', NULL::text[]);
    END IF;

    -- Rows are tried where policies apply. A foreign child would be read with the user mapping of the caller.
    is_counted := is_active AND rel.relkind IN ('r', 'p')
        AND NOT EXISTS (
            WITH RECURSIVE tree (oid) AS (
                SELECT "table"::oid
                UNION SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
            )
            SELECT FROM tree t JOIN pg_class c ON c.oid = t.oid WHERE c.relkind = 'f')
        AND (NOT own OR has_any_column_privilege(who.oid, rel.oid, 'SELECT')
             AND has_schema_privilege(who.oid, rel.schema, 'USAGE'));
    source := CASE
        WHEN own THEN format('%s AS %I', rel.name, rel.relname)
        ELSE format('pg_catalog.unnest($1) AS %I', rel.relname)
        END;

    -- The queries to try, by a label: the identity, each condition, the conditions of each command together.
    labels := labels || 'identity'::text;
    queries := queries || 'SELECT ARRAY[w.user_id, w.issuer, w.reason] FROM auth.whoami() w'::text;
    labels := labels || 'uid'::text;
    queries := queries || 'SELECT ARRAY[auth.user_id(), auth.uid()::pg_catalog.text]'::text;
    IF is_counted THEN
        sample := format('SELECT ARRAY[pg_catalog.count(*)::pg_catalog.text] FROM (SELECT FROM %s LIMIT %s) x',
                         source, most);
        IF own THEN
            -- Each query for a table without visible rows would scan the table.
            SELECT jsonb_build_object('rows', to_jsonb(t)) INTO results
                FROM auth.try_all(who.oid, NULL, path, ARRAY[sample], NULL::text[]) t;
            has_rows := results #>> '{rows,result,0}' IS DISTINCT FROM '0';
        ELSE
            labels := labels || 'rows'::text;
            queries := queries || sample;
        END IF;
    END IF;
    IF is_counted AND has_rows THEN
        FOR policy IN
            SELECT DISTINCT e.expression
            FROM pg_policy p
            CROSS JOIN LATERAL (VALUES (pg_get_expr(p.polqual, p.polrelid)),
                                       (pg_get_expr(p.polwithcheck, p.polrelid))) e (expression)
            WHERE p.polrelid = "table" AND e.expression IS NOT NULL
              AND EXISTS (SELECT FROM unnest(p.polroles) r WHERE r = 0 OR pg_has_role(who.oid, r, 'USAGE'))
        LOOP
            labels := labels || format('condition %s', policy.expression);
            queries := queries || format('SELECT ARRAY[pg_catalog.count(*)::pg_catalog.text, '
                'pg_catalog.count(*) FILTER (WHERE x.p)::pg_catalog.text] '
                'FROM (SELECT (%s) AS p FROM %s LIMIT %s) x', policy.expression, source, most);
            -- Values that only look different, and what the values are.
            FOR entry IN
                SELECT DISTINCT a.attname, m[2] AS call
                FROM regexp_matches(policy.expression,
                    '\(\(?(' || name_pattern || ')\)?(?:::[a-z ]+)? = [( ]*(?:SELECT )?('
                    || 'auth\.(?:user_id|uid|email)\(\)|auth\.claim\(''(?:[^'']|'''')*''::text\))', 'g') m
                JOIN pg_attribute a ON a.attrelid = "table" AND NOT a.attisdropped AND quote_ident(a.attname) = m[1]
                WHERE NOT own
            LOOP
                labels := labels || format('near %I %s', entry.attname, policy.expression);
                queries := queries || format('SELECT ARRAY[%1$L, %2$L, %2$s::pg_catalog.text, '
                    'pg_catalog.count(*) FILTER (WHERE x.v OPERATOR(pg_catalog.<>) %2$s::pg_catalog.text AND '
                    'pg_catalog.lower(pg_catalog.btrim(x.v)) OPERATOR(pg_catalog.=) '
                    'pg_catalog.lower(pg_catalog.btrim(%2$s::pg_catalog.text)))::pg_catalog.text, '
                    '(pg_catalog.min(pg_catalog.left(x.v, 60)))] '
                    'FROM (SELECT %3$I::pg_catalog.text AS v FROM %4$s LIMIT %5$s) x',
                    entry.attname, entry.call, entry.attname, source, most);
            END LOOP;
        END LOOP;
        FOREACH cmd IN ARRAY commands LOOP
            conditions := auth.policy_condition("table", who.oid, cmd, false);
            IF cmd IN ('UPDATE', 'DELETE') THEN
                conditions := format('(%s) AND (%s)', conditions,
                    auth.policy_condition("table", who.oid, 'SELECT', false));
            END IF;
            labels := labels || format('all %s', cmd);
            queries := queries || format('SELECT ARRAY[pg_catalog.count(*)::pg_catalog.text, '
                'pg_catalog.count(*) FILTER (WHERE x.p)::pg_catalog.text] '
                'FROM (SELECT (%s) AS p FROM %s LIMIT %s) x', conditions, source, most);
            labels := labels || format('permissive %s', cmd);
            queries := queries || format('SELECT ARRAY[pg_catalog.count(*)::pg_catalog.text, '
                'pg_catalog.count(*) FILTER (WHERE x.p)::pg_catalog.text] '
                'FROM (SELECT (%s) AS p FROM %s LIMIT %s) x',
                auth.policy_condition("table", who.oid, cmd, true), source, most);
        END LOOP;
    END IF;
    IF is_active THEN
        -- Claims and settings that the conditions read.
        FOR entry IN
            SELECT DISTINCT m[1] AS call, m[2] AS name
            FROM pg_policy p
            CROSS JOIN LATERAL (VALUES (pg_get_expr(p.polqual, p.polrelid)),
                                       (pg_get_expr(p.polwithcheck, p.polrelid))) e (expression)
            CROSS JOIN LATERAL regexp_matches(e.expression,
                '(auth\.(?:claim|claim_jsonb|session_variable)\(|auth\.(?:jwt|session)\(\) ->>? |'
                'current_setting\()'
                '''((?:[^'']|'''')*)''', 'g') m
            WHERE p.polrelid = "table"
        LOOP
            labels := labels || format('value %s %s',
                CASE WHEN entry.call ~ 'current_setting' THEN 'setting' ELSE 'claim' END, entry.name);
            queries := queries || format('SELECT ARRAY[%s::pg_catalog.text]', CASE
                WHEN entry.call ~ 'current_setting'
                    THEN format('NULLIF(pg_catalog.current_setting(''%s'', true), '''')', entry.name)
                WHEN entry.call ~ '->' THEN format('auth.jwt() OPERATOR(pg_catalog.->) ''%s''', entry.name)
                ELSE format('%s''%s'')', entry.call, entry.name) END);
        END LOOP;
        -- Other relations in the conditions.
        FOR entry IN
            SELECT DISTINCT format('%I.%I', n.nspname, c.relname) AS name
            FROM pg_policy p
            JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
                AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> p.polrelid
            JOIN pg_class c ON c.oid = d.refobjid
            JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE p.polrelid = "table"
        LOOP
            labels := labels || format('other %s', entry.name);
            queries := queries || format('SELECT ARRAY[pg_catalog.count(*)::pg_catalog.text] '
                'FROM (SELECT FROM %s LIMIT 1) x', entry.name);
        END LOOP;
        -- Actions that auth.allows() grants.
        IF EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = "table"
                   AND concat(pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
                       ~ 'auth\.allows\(') THEN
            labels := labels || 'permissions'::text;
            queries := queries || format('SELECT ARRAY[auth.allows(''data_read'', %1$s::pg_catalog.regclass), '
                'auth.allows(''data_add'', %1$s::pg_catalog.regclass), '
                'auth.allows(''data_update'', %1$s::pg_catalog.regclass), '
                'auth.allows(''data_delete'', %1$s::pg_catalog.regclass)]::pg_catalog.text[]', rel.oid);
        END IF;
    END IF;

    -- The rows that the administrator reads are given to the queries as an array, so that the role needs no privilege
    -- on the table. auth.sample() evaluates nothing, and reads the relation of the OID.
    IF own OR NOT is_counted THEN
        SELECT results || jsonb_object_agg(labels[t.place], to_jsonb(t)) INTO results
            FROM auth.try_all(who.oid, claims::text, path, queries, NULL::text[]) t;
    ELSE
        EXECUTE format(
            'SELECT jsonb_object_agg($5[t.place], to_jsonb(t))
             FROM auth.try_all($1, $2, $3, $4, auth.sample($6, NULL::%s[])) t', rel.name)
            INTO results USING who.oid, claims::text, path, queries, labels, rel.oid;
    END IF;

    -- About all commands.
    command := 'all';
    item := 'role';
    outcome := who.rolname;
    detail := CASE WHEN own THEN 'It is the current role.' ELSE 'It is the given role.' END;
    RETURN NEXT;
    item := 'identity';
    outcome := coalesce(results #>> '{identity,result,0}', 'none');
    detail := coalesce(results #>> '{uid,failure}', results #>> '{identity,result,2}', results #>> '{identity,failure}',
                       CASE WHEN claims IS NULL THEN 'It is the identity of the session.'
                            ELSE 'It is that of the given claims.' END);
    RETURN NEXT;
    parents := (SELECT string_agg(format('%I.%I', n.nspname, c.relname), ', ')
                FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent
                JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE i.inhrelid = rel.oid AND c.relrowsecurity);
    item := 'row-level security';
    outcome := CASE
        WHEN rel.relkind NOT IN ('r', 'p') THEN 'none'
        WHEN NOT rel.relrowsecurity THEN 'off'
        WHEN bypass IS NOT NULL THEN 'bypassed'
        WHEN rel.relforcerowsecurity THEN 'forced'
        ELSE 'on' END;
    detail := concat_ws(' ', CASE
        WHEN rel.relkind = 'v' AND coalesce((SELECT o.option_value::boolean FROM pg_options_to_table(rel.reloptions) o
                                             WHERE o.option_name = 'security_invoker'), false)
            THEN format('It is a view with security_invoker: privileges and policies of its tables are those of %I.',
                        who.rolname)
        WHEN rel.relkind = 'v'
            THEN format('It is a view: privileges and policies of its tables are those of its owner %I.',
                        rel.owner_name)
        WHEN rel.relkind = 'm'
            THEN format('It is a materialized view: it has the rows that its owner %I saw at the last refresh.',
                        rel.owner_name)
        WHEN rel.relkind = 'f' THEN 'It is a foreign table: the other server decides which rows it has.'
        WHEN NOT rel.relrowsecurity THEN CASE WHEN EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = "table")
            THEN format('The policies have no effect. Run: ALTER TABLE %s ENABLE ROW LEVEL SECURITY;', rel.name)
            ELSE 'Only privileges count.' END
        WHEN bypass IS NOT NULL THEN format('Policies do not apply: %s.', bypass)
        ELSE format('Policies apply to %I.', who.rolname) END,
        CASE WHEN parents IS NOT NULL
             THEN format('Policies of %s apply to statements that name the parent, and not here.', parents) END,
        CASE WHEN rel.relkind IN ('r', 'p') AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = rel.oid)
             THEN 'Policies of its children do not apply to statements that name it.' END);
    RETURN NEXT;
    IF rel.relkind IN ('v', 'm') THEN
        FOR entry IN
            WITH RECURSIVE reads (oid) AS (
                SELECT rel.oid
                UNION
                SELECT d.refobjid FROM reads r JOIN pg_rewrite w ON w.ev_class = r.oid
                JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                    AND d.refclassid = 'pg_class'::regclass
            )
            SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relrowsecurity,
                   o.rolsuper OR o.rolbypassrls
                       OR pg_has_role(o.oid, c.relowner, 'USAGE') AND NOT c.relforcerowsecurity AS is_exempt
            FROM reads r JOIN pg_class c ON c.oid = r.oid JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_roles o ON o.oid = rel.relowner
            WHERE c.relkind IN ('r', 'p') ORDER BY 1
        LOOP
            item := format('table %s', entry.name);
            outcome := CASE WHEN NOT entry.relrowsecurity THEN 'off'
                            WHEN rel.relkind = 'v' AND detail ~ 'security_invoker' THEN 'on'
                            WHEN entry.is_exempt THEN 'bypassed' ELSE 'on' END;
            cause := CASE WHEN outcome = 'bypassed'
                THEN format('Its policies do not apply to %I.', rel.owner_name)
                ELSE format('SELECT * FROM auth.explain_access(%L) tells more.', entry.name) END;
            RETURN QUERY SELECT command, item, outcome, passed, tried, cause;
        END LOOP;
    END IF;
    IF is_active THEN
        item := 'rows';
        tried := (results #>> '{rows,result,0}')::bigint;
        outcome := CASE WHEN tried IS NULL THEN 'not tried' WHEN own THEN 'visible' ELSE 'sampled' END;
        detail := CASE
            WHEN tried IS NULL AND is_counted THEN results #>> '{rows,failure}'
            WHEN tried IS NULL THEN 'The role may not read them, or some are on another server.'
            WHEN own THEN format('Only rows that %I may read are counted. As an administrator, call '
                                 'auth.explain_access(%L, claims => ..., role => %L) to count all.',
                                 who.rolname, rel.name, who.rolname)
            ELSE format('Of about %s rows.', greatest(rel.reltuples::bigint, tried)) END;
        RETURN NEXT;
        tried := NULL;
    END IF;

    FOREACH cmd IN ARRAY commands LOOP
        command := cmd;
        passed := NULL;
        tried := NULL;
        cmds := CASE cmd WHEN 'SELECT' THEN 'r' WHEN 'INSERT' THEN 'a' WHEN 'UPDATE' THEN 'w' ELSE 'd' END;
        privilege := CASE
            WHEN NOT has_schema_privilege(who.oid, rel.schema, 'USAGE') THEN 'denied'
            WHEN has_table_privilege(who.oid, rel.oid, cmd) THEN 'allowed'
            WHEN cmd <> 'DELETE' AND has_any_column_privilege(who.oid, rel.oid, cmd) THEN 'columns'
            ELSE 'denied' END;
        -- All conditions for the command, as texts.
        conditions := (
            SELECT string_agg(concat_ws(' ', pg_get_expr(p.polqual, p.polrelid),
                                        pg_get_expr(p.polwithcheck, p.polrelid)), ' ')
            FROM pg_policy p
            WHERE p.polrelid = "table" AND (p.polcmd IN ('*', cmds) OR p.polcmd = 'r' AND cmds IN ('w', 'd'))
              AND EXISTS (SELECT FROM unnest(p.polroles) r WHERE r = 0 OR pg_has_role(who.oid, r, 'USAGE')));
        failed := (
            SELECT format('The policy %I raises an error: %s.', p.polname, rtrim(f.failure, '.'))
            FROM pg_policy p
            CROSS JOIN LATERAL (VALUES (pg_get_expr(p.polqual, p.polrelid)),
                                       (pg_get_expr(p.polwithcheck, p.polrelid))) e (expression)
            CROSS JOIN LATERAL (SELECT results #>> ARRAY['condition ' || e.expression, 'failure'] AS failure) f
            WHERE p.polrelid = "table" AND f.failure IS NOT NULL
              AND (p.polcmd IN ('*', cmds) OR p.polcmd = 'r' AND cmds IN ('w', 'd'))
              AND EXISTS (SELECT FROM unnest(p.polroles) r WHERE r = 0 OR pg_has_role(who.oid, r, 'USAGE'))
            ORDER BY p.polname LIMIT 1);
        counts := ARRAY[results #>> ARRAY['all ' || cmd, 'result', '0'],
                        results #>> ARRAY['all ' || cmd, 'result', '1']];

        -- Why no row passes, as far as the session and the catalogs show it.
        cause := NULL;
        IF is_active AND conditions IS NOT NULL THEN
            cause := CASE
                WHEN results #>> '{uid,failure}' IS NOT NULL AND conditions ~ reader
                    THEN format('The identity cannot be read: %s.', rtrim(results #>> '{uid,failure}', '.'))
                WHEN results #>> '{identity,result,0}' IS NULL AND conditions ~ reader
                    THEN format('The session has no user, and the policies compare with it. %s',
                                results #>> '{identity,result,2}')
                WHEN results #>> '{uid,result,1}' IS NULL AND conditions ~ 'auth\.uid\('
                    THEN format('auth.uid() is NULL, because the user id %L is not a UUID. Compare a column of type '
                                'text with auth.user_id().', results #>> '{uid,result,0}')
                END;
            IF cause IS NULL THEN
                SELECT CASE WHEN v.key ~ '^value setting'
                            THEN format('The setting %s is empty. Compare with auth.user_id() or auth.claim() instead.',
                                        substr(v.key, 15))
                            ELSE format('The claims lack %L.', substr(v.key, 13)) END
                    INTO cause
                    FROM jsonb_each(results) v
                    WHERE v.key ~ '^value ' AND v.value #>> '{result,0}' IS NULL
                      AND strpos(conditions, '''' || regexp_replace(v.key, '^value (setting|claim) ', '') || '''') > 0
                    ORDER BY v.key LIMIT 1;
            END IF;
            IF cause IS NULL THEN
                SELECT format('A policy reads %s, %s', substr(v.key, 7), CASE
                           WHEN v.value ->> 'failure' IS NOT NULL THEN format('which fails: %s.', v.value ->> 'failure')
                           ELSE format('of which %I sees no row.', who.rolname) END)
                    INTO cause
                    FROM jsonb_each(results) v
                    WHERE v.key ~ '^other ' AND (v.value ->> 'failure' IS NOT NULL OR v.value #>> '{result,0}' = '0')
                      AND strpos(conditions, substr(v.key, 7)) > 0
                    ORDER BY v.key LIMIT 1;
            END IF;
            IF cause IS NULL AND (results #>> ARRAY['permissive ' || cmd, 'result', '1'])::bigint > 0 THEN
                SELECT format('The policy %I is restrictive, and no row passes it: %s.', p.polname,
                              pg_get_expr(p.polqual, p.polrelid))
                    INTO cause
                    FROM pg_policy p
                    WHERE p.polrelid = "table" AND NOT p.polpermissive AND p.polcmd IN ('*', cmds)
                      AND results #>> ARRAY['condition ' || pg_get_expr(p.polqual, p.polrelid), 'result', '1'] = '0'
                    ORDER BY p.polname LIMIT 1;
            END IF;
            IF cause IS NULL THEN
                SELECT CASE WHEN v.value #>> '{result,3}' <> '0'
                       THEN format('%s is %L, and the column %I differs only by letter case or white space, '
                                   'in %s rows.',
                                   v.value #>> '{result,1}', v.value #>> '{result,2}', v.value #>> '{result,0}',
                                   v.value #>> '{result,3}')
                       ELSE format('%s is %L, and the column %I has other values, such as %L.',
                                   v.value #>> '{result,1}', v.value #>> '{result,2}', v.value #>> '{result,0}',
                                   v.value #>> '{result,4}') END
                    INTO cause
                    FROM jsonb_each(results) v
                    WHERE v.key ~ '^near ' AND v.value #>> '{result,4}' IS NOT NULL
                      AND strpos(conditions, v.value #>> '{result,1}') > 0
                    ORDER BY (v.value #>> '{result,3}') = '0', v.key LIMIT 1;
            END IF;
        END IF;

        -- A default that the role may not evaluate. An identity column needs no privilege on its sequence.
        sequence := CASE cmd WHEN 'INSERT' THEN (
            SELECT format('%I.%I', n.nspname, c.relname)
            FROM pg_attrdef f
            JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
                AND d.refclassid = 'pg_class'::regclass
            JOIN pg_class c ON c.oid = d.refobjid
            JOIN pg_namespace n ON n.oid = c.relnamespace
            -- The function fails for other relations.
            WHERE f.adrelid = rel.oid
              AND CASE c.relkind WHEN 'S' THEN NOT has_sequence_privilege(who.oid, c.oid, 'USAGE, UPDATE') END
            ORDER BY 1 LIMIT 1) END;
        -- The policies for SELECT, which UPDATE and DELETE need too.
        reading := CASE WHEN cmd IN ('UPDATE', 'DELETE', 'INSERT') AND NOT EXISTS (
                SELECT FROM pg_policy p WHERE p.polrelid = "table" AND p.polpermissive AND p.polcmd IN ('*', 'r')
                AND EXISTS (SELECT FROM unnest(p.polroles) r WHERE r = 0 OR pg_has_role(who.oid, r, 'USAGE')))
            THEN CASE cmd WHEN 'INSERT' THEN 'RETURNING needs a policy for SELECT too, and fails (42501).'
                 ELSE 'A statement with WHERE or RETURNING needs a policy for SELECT too, and finds no row.' END END;
        visible := CASE cmd WHEN 'SELECT' THEN 'No row is visible' WHEN 'INSERT' THEN 'No row can be inserted'
                            WHEN 'UPDATE' THEN 'No row can be updated' ELSE 'No row can be deleted' END;
        answer := CASE
            WHEN NOT has_schema_privilege(who.oid, rel.schema, 'USAGE') THEN
                format('Permission denied for schema %I (42501). Run: GRANT USAGE ON SCHEMA %I TO %I;',
                       rel.nspname, rel.nspname, who.rolname)
            WHEN privilege = 'denied' THEN
                format('Permission denied for table %s (42501). Run: GRANT %s ON %s TO %I;',
                       rel.relname, cmd, rel.name, who.rolname)
            WHEN sequence IS NOT NULL THEN
                format('Permission denied for sequence %s (42501), which a default uses. Run: GRANT USAGE ON '
                       'SEQUENCE %s TO %I;', sequence, sequence, who.rolname)
            WHEN rel.relkind IN ('v', 'f') THEN 'The tables behind it decide which rows.'
            WHEN rel.relkind = 'm' THEN CASE cmd WHEN 'SELECT' THEN 'All its rows are visible.'
                                                 ELSE 'A materialized view cannot be changed.' END
            WHEN NOT rel.relrowsecurity THEN 'All rows: row-level security is off.'
            WHEN bypass IS NOT NULL THEN format('All rows: policies do not apply, because %s.', bypass)
            WHEN NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = "table") THEN
                format('%s: row-level security is on, and the table has no policy.', visible)
            WHEN NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = "table" AND p.polcmd IN ('*', cmds)) THEN
                format('%s: the policies are for other commands.', visible)
            WHEN NOT EXISTS (
                SELECT FROM pg_policy p WHERE p.polrelid = "table" AND p.polcmd IN ('*', cmds)
                AND EXISTS (SELECT FROM unnest(p.polroles) r WHERE r = 0 OR pg_has_role(who.oid, r, 'USAGE'))) THEN
                format('%s: the policies for %s are for other roles than %I: %s.', visible, cmd, who.rolname,
                       (SELECT string_agg(DISTINCT format('%I', pg_get_userbyid(r)), ', ')
                        FROM pg_policy p, unnest(p.polroles) r
                        WHERE p.polrelid = "table" AND p.polcmd IN ('*', cmds)))
            WHEN NOT EXISTS (
                SELECT FROM pg_policy p WHERE p.polrelid = "table" AND p.polcmd IN ('*', cmds) AND p.polpermissive
                AND EXISTS (SELECT FROM unnest(p.polroles) r WHERE r = 0 OR pg_has_role(who.oid, r, 'USAGE'))) THEN
                format('%s: all policies for %s are restrictive, and a row needs a permissive one too.', visible, cmd)
            WHEN failed IS NOT NULL THEN failed
            WHEN cmd = 'INSERT' THEN
                concat_ws(' ', CASE WHEN cause IS NULL OR cause ~ 'column|restrictive'
                                    THEN 'A new row must pass the condition below.'
                                    ELSE format('%s: %s', visible, cause) END, reading)
            WHEN counts[1] = '0' AND NOT own THEN 'The table has no rows.'
            WHEN counts[2] = '0' AND reading IS NOT NULL THEN reading
            WHEN coalesce(counts[2], '0') = '0' AND cause IS NOT NULL THEN format('%s: %s', visible, cause)
            WHEN coalesce(counts[2], '0') = '0' AND own THEN
                format('%s: the conditions are false, or the table has no rows.', visible)
            WHEN counts[2] = '0' THEN format('%s: the conditions are false for the rows that were tried.', visible)
            ELSE format('%s of %s rows.', counts[2], counts[1]) END;
        item := 'answer';
        outcome := CASE
            WHEN answer ~ '^All ' THEN 'all'
            WHEN answer ~ '^[1-9]' THEN CASE WHEN counts[1] = counts[2] THEN 'all' ELSE 'some' END
            WHEN answer ~ '^(The tables|A new)' THEN 'depends'
            WHEN answer ~ '^(Permission|The policy|A mat)' THEN 'error'
            ELSE 'none' END;
        detail := answer;
        RETURN NEXT;
        item := 'privilege';
        outcome := privilege;
        detail := CASE privilege WHEN 'columns' THEN format('Of the columns %s.', (
                SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a
                WHERE a.attrelid = rel.oid AND a.attnum > 0 AND NOT a.attisdropped
                  AND has_column_privilege(who.oid, rel.oid, a.attnum, cmd))) END;
        RETURN NEXT;
        IF results ? 'permissions' THEN
            item := 'permission of the token';
            outcome := CASE results #>> ARRAY['permissions', 'result', (array_position(commands, cmd) - 1)::text]
                           WHEN 'true' THEN 'allowed' ELSE 'denied' END;
            detail := coalesce(results #>> '{permissions,failure}', format('auth.allows(%L, %L)',
                (ARRAY['data_read', 'data_add', 'data_update', 'data_delete'])[array_position(commands, cmd)],
                rel.name));
            RETURN NEXT;
        END IF;
        FOR policy IN
            SELECT p.polname, p.polpermissive, k.kind, k.expression,
                   EXISTS (SELECT FROM unnest(p.polroles) r WHERE r = 0 OR pg_has_role(who.oid, r, 'USAGE')) AS applies,
                   (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ')
                    FROM unnest(p.polroles) r) AS roles
            FROM pg_policy p
            CROSS JOIN LATERAL (VALUES
                ('USING', CASE WHEN cmds <> 'a' THEN pg_get_expr(p.polqual, p.polrelid) END),
                ('WITH CHECK', CASE WHEN cmds IN ('a', 'w') THEN coalesce(
                    pg_get_expr(p.polwithcheck, p.polrelid), pg_get_expr(p.polqual, p.polrelid)) END)
            ) k (kind, expression)
            WHERE p.polrelid = "table" AND p.polcmd IN ('*', cmds) AND k.expression IS NOT NULL
            ORDER BY p.polpermissive DESC, p.polname, k.kind
        LOOP
            item := format('policy %I %s', policy.polname, policy.kind);
            passed := CASE WHEN policy.applies THEN
                (results #>> ARRAY['condition ' || policy.expression, 'result', '1'])::bigint END;
            tried := CASE WHEN policy.applies THEN
                (results #>> ARRAY['condition ' || policy.expression, 'result', '0'])::bigint END;
            outcome := CASE WHEN NOT is_active OR NOT policy.applies THEN 'does not apply'
                            WHEN policy.polpermissive THEN 'permissive' ELSE 'restrictive' END;
            detail := concat_ws(' ', CASE WHEN NOT policy.applies THEN format('For %s:', policy.roles) END,
                                policy.expression,
                                results #>> ARRAY['condition ' || policy.expression, 'failure']);
            RETURN NEXT;
        END LOOP;
        IF counts[1] IS NOT NULL THEN
            item := 'all policies';
            tried := counts[1];
            passed := counts[2];
            outcome := CASE WHEN passed = 0 THEN 'none' WHEN passed = tried THEN 'all' ELSE 'some' END;
            detail := CASE cmd WHEN 'UPDATE' THEN 'With the policies for SELECT. The new row must pass WITH CHECK, and '
                                                  'those for SELECT if the statement reads.'
                               WHEN 'DELETE' THEN 'With the policies for SELECT.'
                               WHEN 'INSERT' THEN 'Of existing rows, as if they were new.' END;
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION auth.explain_access_of(regclass, jsonb, text, text) IS
    'auth.explain_access() with the search path of the functions that policies call';

CREATE FUNCTION auth.explain_access(
    "table" regclass, claims jsonb DEFAULT NULL, role text DEFAULT NULL,
    OUT command text, OUT item text, OUT outcome text, OUT passed bigint, OUT tried bigint, OUT detail text
) RETURNS SETOF record
    LANGUAGE sql VOLATILE
    AS $$
SELECT * FROM auth.explain_access_of($1, $2, $3, pg_catalog.current_setting('search_path'))
$$;
COMMENT ON FUNCTION auth.explain_access(regclass, jsonb, text) IS
    'which rows of a table each command can reach, and why: for the session, or for a role and claims';

-- Statistics, which need shared memory.

CREATE FUNCTION auth.stats()
    RETURNS TABLE (database text, accepted bigint, rejected bigint, rejections jsonb, verified bigint,
                   cache_hits bigint, shared_cache_hits bigint, refreshes bigint, refresh_failures bigint,
                   providers jsonb, since timestamptz)
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 10
    AS 'MODULE_PATHNAME', 'pg_session_jwt_stats';
REVOKE ALL ON FUNCTION auth.stats() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION auth.stats() TO pg_monitor;
COMMENT ON FUNCTION auth.stats() IS
    'tokens accepted, rejected and verified, and fetches of keys, by database';

CREATE FUNCTION auth.stats_reset() RETURNS void
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'pg_session_jwt_stats_reset';
REVOKE ALL ON FUNCTION auth.stats_reset() FROM PUBLIC;
COMMENT ON FUNCTION auth.stats_reset() IS
    'sets the counters of all databases to zero';

CREATE FUNCTION auth.session_list()
    RETURNS TABLE (pid integer, database text, login_role text, user_id text, issuer text, role text,
                   since timestamptz, expires timestamptz)
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 100
    AS 'MODULE_PATHNAME', 'pg_session_jwt_session_list';
REVOKE ALL ON FUNCTION auth.session_list() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION auth.session_list() TO pg_monitor;
COMMENT ON FUNCTION auth.session_list() IS
    'the sessions of all databases that have an identity, for auth.sessions';

CREATE VIEW auth.sessions AS
    SELECT pid, database, login_role, user_id, issuer, role, since, expires
    FROM auth.session_list();
REVOKE ALL ON auth.sessions FROM PUBLIC;
GRANT SELECT ON auth.sessions TO pg_monitor;
COMMENT ON VIEW auth.sessions IS
    'the sessions of all databases that have an identity; without tokens and other claims';

DO $check$
BEGIN
    IF pg_catalog.strpos(
           pg_catalog.concat(pg_catalog.current_setting('shared_preload_libraries'), ' ',
                             pg_catalog.current_setting('session_preload_libraries')),
           'pg_session_jwt') OPERATOR(pg_catalog.=) 0
    THEN
        RAISE WARNING 'pg_session_jwt is not preloaded' USING
            DETAIL = 'Until a session calls a function of the extension, its token is not checked and its settings '
                     'can be read by every role.',
            HINT = 'Add pg_session_jwt to shared_preload_libraries, and restart the server.';
    END IF;
END
$check$;
