-- The far server: it has the rows and their policies, and verifies tokens itself, with keys of its
-- own in pg_session_jwt.providers. near.sql is the other half. To try it, take two servers that have
-- none of it yet, as a superuser:
--
--     psql -v ON_ERROR_STOP=1 -f far.sql            on the far server
--     psql -v ON_ERROR_STOP=1 -v far_host=… -v far_port=… -f near.sql
--
-- Where engines shard, somebody has to bring the token to the server that has the rows.
-- postgres_fdw passes no settings along, so here it arrives as a row that is inserted into a view.
-- (Citus needs no such view: with citus.propagate_set_commands = 'local' it repeats on its workers
-- what SET LOCAL sets within a transaction block, pg_session_jwt.jwt too, but as the text of a
-- statement, which Postgres shows and logs.)

CREATE EXTENSION pg_session_jwt;

-- As whom the near server comes: an ordinary role, which owns nothing, so policies apply to it.
-- Its statements may be logged, the values of their parameters may not: one of them is the token.
CREATE ROLE near LOGIN;
ALTER ROLE near SET log_parameter_max_length = 0;
ALTER ROLE near SET log_parameter_max_length_on_error = 0;

CREATE TABLE projects (
    name  text PRIMARY KEY,
    owner text NOT NULL DEFAULT auth.user_id()
);
CREATE TABLE todos (
    owner   text NOT NULL DEFAULT auth.user_id(),
    project text NOT NULL REFERENCES projects,
    task    text NOT NULL
);
ALTER TABLE projects ENABLE ROW LEVEL SECURITY;
ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON projects USING (owner = auth.user_id());
CREATE POLICY own_rows ON todos USING (owner = auth.user_id());
GRANT SELECT, INSERT, UPDATE, DELETE ON projects, todos TO near;

-- What is inserted here is presented, for the transaction, and stored nowhere. It cannot be read
-- back. Names are qualified, for postgres_fdw's search_path is pg_catalog alone.
CREATE SCHEMA gate;
CREATE VIEW gate.session AS SELECT NULL::text AS token WHERE false;
CREATE FUNCTION gate.present() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM auth.jwt_session_init(NEW.token, is_local => true);
    RETURN NEW;
END
$$;
CREATE TRIGGER present INSTEAD OF INSERT ON gate.session
    FOR EACH ROW EXECUTE FUNCTION gate.present();
GRANT USAGE ON SCHEMA gate TO near;
GRANT INSERT ON gate.session TO near;
