-- An administrator runs this file once. It creates the extension, a table, and its policy.

CREATE EXTENSION pg_session_jwt;

-- A second provider, as a row of auth.providers. A background worker finds its keys by OpenID discovery and
-- fetches them.
SELECT auth.add_provider('globex', issuer => :'globex', audience => 'todos',
                         required_claims => ARRAY['exp', 'sub']);

CREATE ROLE app LOGIN;

CREATE TABLE todos (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner text NOT NULL DEFAULT auth.user_id(),
    task  text NOT NULL
);
CREATE INDEX ON todos (owner);

ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON todos USING (owner = auth.user_id());

GRANT SELECT, INSERT, UPDATE, DELETE ON todos TO app;
