-- The near server: clients come here, and its foreign tables lie on the far server, at :far_host
-- and :far_port. far.sql is the other half. Clients do:
--
--     BEGIN; SELECT present($1); SELECT * FROM todos; COMMIT;
--
-- Without BEGIN, present() is a transaction of its own, and over when the query comes.
--
-- postgres_fdw keeps one connection, and on it one transaction for each of ours, with savepoints
-- like ours. So the far identity lives exactly as long as the near one, and both sides are nobody
-- in between. SET LOCAL pg_session_jwt.jwt, or a token presented without present(), stays near.
-- (Citus would propagate such a SET LOCAL to its workers: see far.sql.)

CREATE EXTENSION pg_session_jwt;
CREATE EXTENSION postgres_fdw;

CREATE ROLE app LOGIN;
ALTER ROLE app SET log_parameter_max_length = 0;
ALTER ROLE app SET log_parameter_max_length_on_error = 0;

CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw
    OPTIONS (host :'far_host', port :'far_port', dbname 'postgres');
-- Without password only because the far server's pg_hba.conf asks this machine for none.
CREATE USER MAPPING FOR app SERVER far OPTIONS (user 'near', password_required 'false');

CREATE FOREIGN TABLE far_session (token text)
    SERVER far OPTIONS (schema_name 'gate', table_name 'session');
CREATE FOREIGN TABLE projects (name text, owner text) SERVER far;
CREATE FOREIGN TABLE todos (owner text, project text, task text) SERVER far;

-- postgres_fdw sends a value for each column that a foreign table has: NULL, or the near side's
-- default, where an INSERT names none. What the far side's default is to fill in stays out.
CREATE FOREIGN TABLE new_projects (name text) SERVER far OPTIONS (table_name 'projects');
CREATE FOREIGN TABLE new_todos (project text, task text) SERVER far OPTIONS (table_name 'todos');

GRANT INSERT ON far_session TO app;
GRANT SELECT, INSERT, UPDATE, DELETE ON projects, todos TO app;
GRANT INSERT ON new_projects, new_todos TO app;

-- Presents a token to both sides for the transaction. As a parameter: postgres_fdw sends it as one.
CREATE FUNCTION present(token text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM auth.jwt_session_init(present.token, is_local => true);
    INSERT INTO far_session VALUES (present.token);
EXCEPTION WHEN OTHERS THEN
    -- The side that has refused it has nobody now, even after ROLLBACK TO. What is no token makes
    -- the other side refuse as well, whatever keys it has.
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
