
-- We are an ordinary role; :'alice' and the like are tokens.
SELECT current_user, usesuper FROM pg_user WHERE usename = current_user;

-- Nobody has presented a token, so nobody is there.
SELECT auth.user_id() IS NULL AS nobody, count(*) AS rows FROM todos;

-- Alice's token: RS256, from the first provider. Postgres verifies it itself.
SELECT auth.jwt_session_init(:'alice');
SELECT auth.user_id(), auth.email(), auth.session() ->> 'iss' AS issuer;
INSERT INTO todos (task) VALUES ('water the plants'), ('call Bob') RETURNING owner, task;

-- Bob's token: ES256, from the second provider. His rows are his, Alice's are not there.
SELECT auth.jwt_session_init(:'bob');
SELECT auth.user_id(), auth.email(), auth.session() ->> 'iss' AS issuer;
INSERT INTO todos (task) VALUES ('call Alice') RETURNING owner, task;
SELECT owner, task FROM todos;
UPDATE todos SET task = 'nothing to do' WHERE owner = 'alice';

-- He cannot write rows in her name either.
INSERT INTO todos (owner, task) VALUES ('alice', 'send Bob money');

-- Nobody again.
SELECT auth.jwt_session_init(NULL);

-- For one transaction, as behind a connection pooler: at its end nobody is left.
BEGIN;
SELECT auth.jwt_session_init(:'alice', is_local => true);
SELECT owner, task FROM todos;
COMMIT;
SELECT auth.user_id() IS NULL AS nobody;

-- Now tokens that are not good, each in one way. A refused token leaves nobody in the session,
-- not even who was there before.
SELECT auth.jwt_session_init(:'bob');

-- Alice's claims, signed by somebody else under the provider's key id:
SELECT auth.jwt_session_init(:'forged');

-- Alice's own token of yesterday:
SELECT auth.jwt_session_init(:'expired');

-- A token of Alice's for another application:
SELECT auth.jwt_session_init(:'wrong_audience');

-- A token that says it needs no signature:
SELECT auth.jwt_session_init(:'unsigned');

SELECT auth.user_id() IS NULL AS nobody, count(*) AS rows FROM todos;
