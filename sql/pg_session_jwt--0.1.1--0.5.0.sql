\echo Use "ALTER EXTENSION pg_session_jwt UPDATE" to load this file. \quit

-- From Neon's version 0.1.1 to Neon's version 0.5.0, whose functions the update to 1.0.0 replaces.
SET LOCAL search_path = pg_catalog, pg_temp;

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
