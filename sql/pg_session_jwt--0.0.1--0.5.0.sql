\echo Use "ALTER EXTENSION pg_session_jwt UPDATE" to load this file. \quit

-- From Neon's version 0.0.1 to Neon's version 0.5.0, whose functions the update to 1.0.0 replaces.
SET LOCAL search_path = pg_catalog, pg_temp;

-- The functions init(bigint, jsonb) and session(text) stay. The update to 1.0.0 drops them.
ALTER FUNCTION auth.user_id() STABLE PARALLEL SAFE;

-- Only the name of the argument differs. Objects that use the function keep it.
UPDATE pg_catalog.pg_proc SET proargnames = '{jwt}'
    WHERE oid = 'auth.jwt_session_init(text)'::pg_catalog.regprocedure;

CREATE FUNCTION auth.init() RETURNS void
    LANGUAGE c VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'init_wrapper';

CREATE FUNCTION auth.session() RETURNS jsonb
    LANGUAGE c STABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'session_wrapper';

CREATE FUNCTION auth.uid() RETURNS uuid
    LANGUAGE c STABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'uid_wrapper';

CREATE FUNCTION auth.jwt() RETURNS jsonb
    LANGUAGE c STABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'jwt_wrapper';

CREATE FUNCTION auth.organization() RETURNS jsonb
    LANGUAGE c STABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'organization_wrapper';

CREATE FUNCTION auth.organization_id() RETURNS uuid
    LANGUAGE c STABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'organization_id_wrapper';
