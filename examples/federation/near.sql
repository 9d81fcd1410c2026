-- Clients connect to the near server. Its foreign tables refer to tables of the far server, at :far_host and
-- :far_port. far.sql is for the other server. Clients send:
--
--     BEGIN; SELECT present($1); SELECT * FROM todos; COMMIT;
--
-- Without BEGIN, present() runs in a transaction of its own, and the identity ends before the query.
--
-- postgres_fdw keeps one connection. For each local transaction it runs one remote transaction, with the same
-- savepoints. So both identities begin and end together, and both sessions have no identity in between. A token
-- that is presented with SET LOCAL pg_session_jwt.jwt, or otherwise without present(), does not reach the far
-- server. (Citus would propagate such a SET LOCAL to its workers: see far.sql.)

CREATE EXTENSION pg_session_jwt;
CREATE EXTENSION postgres_fdw;

CREATE ROLE app LOGIN;
ALTER ROLE app SET log_parameter_max_length = 0;
ALTER ROLE app SET log_parameter_max_length_on_error = 0;

CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw
    OPTIONS (host :'far_host', port :'far_port', dbname 'postgres');
-- The mapping has no password: the far server's pg_hba.conf must not require one from this machine.
CREATE USER MAPPING FOR app SERVER far OPTIONS (user 'near', password_required 'false');

CREATE FOREIGN TABLE far_session (token text)
    SERVER far OPTIONS (schema_name 'gate', table_name 'session');
CREATE FOREIGN TABLE projects (name text, owner text) SERVER far;
CREATE FOREIGN TABLE todos (owner text, project text, task text) SERVER far;

-- For an INSERT, postgres_fdw sends a value for each column of the foreign table. A column that the INSERT does
-- not name gets the local default, or NULL. So these tables omit the columns that the far defaults fill.
CREATE FOREIGN TABLE new_projects (name text) SERVER far OPTIONS (table_name 'projects');
CREATE FOREIGN TABLE new_todos (project text, task text) SERVER far OPTIONS (table_name 'todos');

GRANT INSERT ON far_session TO app;
GRANT SELECT, INSERT, UPDATE, DELETE ON projects, todos TO app;
GRANT INSERT ON new_projects, new_todos TO app;

-- Presents a token to both servers for the transaction. postgres_fdw sends the token as a parameter.
CREATE FUNCTION present(token text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM auth.jwt_session_init(present.token, is_local => true);
    INSERT INTO far_session VALUES (present.token);
EXCEPTION WHEN OTHERS THEN
    -- The server that rejected the token has no identity now, even after ROLLBACK TO. A malformed token makes
    -- the other server end its identity as well, regardless of its keys.
    BEGIN
        PERFORM auth.jwt_session_init('-');
    EXCEPTION WHEN OTHERS THEN
    END;
    BEGIN
        INSERT INTO far_session VALUES ('-');
    EXCEPTION WHEN OTHERS THEN
    END;
    RAISE;
END
$$;
