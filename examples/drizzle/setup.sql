-- An administrator runs this file once. Then the role migrator applies the migration in drizzle/.
-- Drizzle writes policies; it creates no roles and grants no privileges.

CREATE EXTENSION pg_session_jwt;

-- The roles that the policies apply to.
CREATE ROLE anonymous;
CREATE ROLE authenticated;

-- The login role. It is a member of both roles, so their policies apply to it without SET ROLE.
CREATE ROLE app LOGIN IN ROLE anonymous, authenticated;

-- The owner of the tables. It is another role, because policies do not apply to a table's owner.
CREATE ROLE migrator LOGIN;
GRANT CREATE ON SCHEMA public TO migrator;
GRANT CREATE ON DATABASE postgres TO migrator;    -- for the schema that Drizzle keeps its own table in
ALTER DEFAULT PRIVILEGES FOR ROLE migrator IN SCHEMA public
    GRANT SELECT ON TABLES TO anonymous;
ALTER DEFAULT PRIVILEGES FOR ROLE migrator IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO authenticated;
