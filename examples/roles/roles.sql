-- Roles by token, with the roles of Neon, Supabase and PostgREST. Run this file as a superuser. It needs the
-- variables issuer, audience and jwks for the tokens of users, and secret for the keys of services.

CREATE EXTENSION IF NOT EXISTS pg_session_jwt;

-- The login role of the application or its pooler. It has no privileges of its own.
CREATE ROLE authenticator LOGIN NOINHERIT;

-- The roles of sessions without a token (anonymous at Neon), of users, and of services.
CREATE ROLE anon;
CREATE ROLE authenticated;
CREATE ROLE service_role BYPASSRLS;
GRANT anon, authenticated, service_role TO authenticator;
ALTER ROLE authenticator SET role = 'anon';

-- Without this privilege, no client can leave a temporary function in a pooled session that runs as one of
-- these roles.
SELECT format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()) \gexec

-- Users. A token that names no role also gets the role of users. No token of this provider can name the role
-- of services.
SELECT auth.add_provider(
    'users',
    issuer => :'issuer',
    jwks => :'jwks',
    audience => :'audience',
    required_claims => ARRAY['exp', 'sub'],
    role_claim => 'role',
    default_role => 'authenticated',
    allowed_roles => ARRAY['anon', 'authenticated']
);

-- Long-lived keys for services and for clients without a user. The project's secret signs them with HS256.
SELECT auth.add_provider(
    'keys',
    issuer => 'supabase',
    secret => :'secret',
    role_claim => 'role',
    allowed_roles => ARRAY['anon', 'service_role']
);

-- All roles read published posts, users write their own posts, and services read and write all posts.
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
