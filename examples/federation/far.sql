-- The far server has the rows and their policies. It verifies tokens itself, with its own keys in
-- pg_session_jwt.providers. near.sql is for the other server. To try the example, run both files as a
-- superuser on two new servers:
--
--     psql -v ON_ERROR_STOP=1 -f far.sql            on the far server
--     psql -v ON_ERROR_STOP=1 -v far_host=… -v far_port=… -f near.sql
--
-- The token must reach the server that has the rows. postgres_fdw does not transmit settings, so the near
-- server inserts the token into a view.
-- (Citus does not need such a view. With citus.propagate_set_commands = 'local' it repeats SET LOCAL within a
-- transaction block on its workers, also for pg_session_jwt.jwt. The token is then in the text of a statement,
-- which Postgres shows and logs.)

CREATE EXTENSION pg_session_jwt;

-- The role of the near server's connections. It is an ordinary role that owns no tables, so policies apply to it.
-- The log may contain its statements, but not the values of their parameters, which include the token.
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

-- An insert into this view presents the token for the transaction. The token is not stored and cannot be read
-- back. The names are qualified, because postgres_fdw sets search_path to pg_catalog.
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
