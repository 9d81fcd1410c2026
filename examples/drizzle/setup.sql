-- What an administrator sets up once, before the migration in drizzle/ is applied by the role
-- migrator. Drizzle writes policies, but neither roles nor grants.

CREATE EXTENSION pg_session_jwt;

-- Whom policies are for.
CREATE ROLE anonymous;
CREATE ROLE authenticated;

-- Who logs in: a member, so that the policies of both apply to it without SET ROLE.
CREATE ROLE app LOGIN IN ROLE anonymous, authenticated;

-- Whom the tables belong to: another role, for policies do not bind a table's owner.
CREATE ROLE migrator LOGIN;
GRANT CREATE ON SCHEMA public TO migrator;
GRANT CREATE ON DATABASE postgres TO migrator;    -- for the schema of Drizzle's own table
ALTER DEFAULT PRIVILEGES FOR ROLE migrator IN SCHEMA public
    GRANT SELECT ON TABLES TO anonymous;
ALTER DEFAULT PRIVILEGES FOR ROLE migrator IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO authenticated;
