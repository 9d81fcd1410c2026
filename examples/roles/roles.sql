-- Roles by token, as Neon, Supabase and PostgREST have them. Run by a superuser, with the variables
-- issuer, audience and jwks for the tokens of users, and secret for keys of services.

CREATE EXTENSION IF NOT EXISTS pg_session_jwt;

-- What the application or its pooler logs in as: it can do nothing itself.
CREATE ROLE authenticator LOGIN NOINHERIT;

-- Whoever has presented no token (Neon calls the role anonymous), users, and services.
CREATE ROLE anon;
CREATE ROLE authenticated;
CREATE ROLE service_role BYPASSRLS;
GRANT anon, authenticated, service_role TO authenticator;
ALTER ROLE authenticator SET role = 'anon';

-- Nobody leaves functions behind in a pooled session that run as one of these roles.
SELECT format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()) \gexec

-- Users. A token that names no role is a user's as well, and none makes a service of one.
SELECT auth.add_provider(
    'users',
    issuer => :'issuer',
    jwks => :'jwks',
    audience => ARRAY[:'audience'],
    role_claim => 'role',
    default_role => 'authenticated',
    allowed_roles => ARRAY['anon', 'authenticated']
);

-- Keys that were made once, for clients without a user and for services: HS256, by the project's secret.
SELECT auth.add_provider(
    'keys',
    issuer => 'supabase',
    secret => :'secret',
    role_claim => 'role',
    allowed_roles => ARRAY['anon', 'service_role']
);

-- Everybody reads what is published, users write what is theirs, services see everything.
CREATE TABLE posts (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    author    uuid NOT NULL DEFAULT auth.uid(),
    published boolean NOT NULL DEFAULT false,
    title     text NOT NULL
);
CREATE INDEX ON posts (author);
ALTER TABLE posts ENABLE ROW LEVEL SECURITY;
CREATE POLICY read_published ON posts FOR SELECT TO anon, authenticated USING (published);
CREATE POLICY own ON posts TO authenticated USING (author = auth.uid());
GRANT SELECT ON posts TO anon;
GRANT SELECT, INSERT, UPDATE, DELETE ON posts TO authenticated, service_role;
