\echo Use "CREATE EXTENSION pg_session_jwt" to load this file. \quit

-- Everything is in the schema auth, which may have been there before. Nothing is replaced: a
-- function of the same name makes CREATE EXTENSION fail.
-- Nor may the schema be a stranger's: whoever can create functions there could answer in their
-- name, or be handed tokens. Names are qualified, for the stranger may have been here before.
DO $check$
BEGIN
    IF EXISTS (
        SELECT FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
        LEFT JOIN LATERAL pg_catalog.aclexplode(n.nspacl) a
            ON a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'::pg_catalog.text
        JOIN pg_catalog.pg_database d ON true
        LEFT JOIN pg_catalog.pg_roles r
            ON r.oid OPERATOR(pg_catalog.=) n.nspowner OR r.oid OPERATOR(pg_catalog.=) a.grantee
        WHERE e.extname OPERATOR(pg_catalog.=) 'pg_session_jwt'::pg_catalog.name
          AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
          AND (a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid
               OR r.oid OPERATOR(pg_catalog.<>) e.extowner
                  AND r.oid OPERATOR(pg_catalog.<>) d.datdba
                  AND NOT r.rolsuper)
    ) THEN
        RAISE EXCEPTION 'schema auth is open to others'
            USING ERRCODE = '42501',
                  DETAIL = 'A role that is neither a superuser, nor the database''s owner, nor the '
                           'one that creates the extension owns it or may create objects in it.',
                  HINT = 'Use ALTER SCHEMA auth OWNER TO, or REVOKE CREATE ON SCHEMA auth.';
    END IF;
END
$check$;

GRANT USAGE ON SCHEMA @extschema@ TO PUBLIC;

-- Presenting tokens. Volatile and parallel unsafe: they change the session.

CREATE FUNCTION @extschema@.init() RETURNS void
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'pg_session_jwt_init';
COMMENT ON FUNCTION @extschema@.init() IS
    'loads and checks the keys that tokens are verified with; an error says what is wrong with them';

CREATE FUNCTION @extschema@.jwt_session_init(jwt text, is_local boolean DEFAULT false) RETURNS void
    LANGUAGE c VOLATILE COST 100
    AS 'MODULE_PATHNAME', 'pg_session_jwt_session_init';
COMMENT ON FUNCTION @extschema@.jwt_session_init(text, boolean) IS
    'verifies a token and makes it the session''s identity, or the transaction''s if is_local; NULL or an empty text clears it';

CREATE FUNCTION @extschema@.jwt_verify(jwt text) RETURNS jsonb
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 1000
    AS 'MODULE_PATHNAME', 'pg_session_jwt_verify';
COMMENT ON FUNCTION @extschema@.jwt_verify(text) IS
    'verifies a token and returns its claims, without making it the session''s identity';

-- Reading the identity. Not leakproof: an error may tell that a token has expired.

CREATE FUNCTION @extschema@.user_id() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_user_id';
COMMENT ON FUNCTION @extschema@.user_id() IS
    'who the user is: the claim sub, or the one that the provider names; NULL without identity';

CREATE FUNCTION @extschema@.uid() RETURNS uuid
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_uid';
COMMENT ON FUNCTION @extschema@.uid() IS
    'who the user is, as a UUID; NULL where it is none, and without identity';

CREATE FUNCTION @extschema@.session() RETURNS jsonb
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_session';
COMMENT ON FUNCTION @extschema@.session() IS
    'all claims of the session''s token; NULL without identity';

CREATE FUNCTION @extschema@.jwt() RETURNS jsonb
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_session';
COMMENT ON FUNCTION @extschema@.jwt() IS
    'all claims of the session''s token; NULL without identity';

CREATE FUNCTION @extschema@.role() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_role';
COMMENT ON FUNCTION @extschema@.role() IS
    'the claim role, or the one that the provider names; NULL without identity';

CREATE FUNCTION @extschema@.email() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_email';
COMMENT ON FUNCTION @extschema@.email() IS
    'the claim email; NULL without identity';

CREATE FUNCTION @extschema@.claim(path text) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'pg_session_jwt_claim';
COMMENT ON FUNCTION @extschema@.claim(text) IS
    'a claim as text, by its name, or by a JSON Pointer where the path begins with a slash; NULL where there is none';
