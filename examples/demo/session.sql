
-- This session has an ordinary role. The variables :'alice' etc. contain tokens.
SELECT current_user, usesuper FROM pg_user WHERE usename = current_user;

-- Before a token is presented, the session has no identity.
SELECT auth.user_id() IS NULL AS no_identity, count(*) AS rows FROM todos;

-- Alice's token is signed with RS256 by the first provider. Postgres verifies it. Her identity lasts for the
-- transaction.
BEGIN;
SELECT auth.jwt_session_init(:'alice', is_local => true);
SELECT auth.user_id(), auth.email(), auth.session() ->> 'iss' AS issuer;
INSERT INTO todos (task) VALUES ('water the plants'), ('call Bob') RETURNING owner, task;
COMMIT;

-- Bob's token is signed with ES256 by the second provider. Bob cannot see or change Alice's rows.
BEGIN;
SELECT auth.jwt_session_init(:'bob', is_local => true);
SELECT auth.user_id(), auth.email(), auth.session() ->> 'iss' AS issuer;
INSERT INTO todos (task) VALUES ('call Alice') RETURNING owner, task;
SELECT owner, task FROM todos;
UPDATE todos SET task = 'nothing to do' WHERE owner = 'alice';
-- Bob cannot insert a row with Alice as the owner.
INSERT INTO todos (owner, task) VALUES ('alice', 'send Bob money');
ROLLBACK;
SELECT auth.user_id() IS NULL AS no_identity;

-- Without is_local, the identity lasts for the session. Use this only for a connection that belongs to one client:
-- a pool would give the connection, with the identity, to the next request.
SELECT auth.jwt_session_init(:'bob');
SELECT auth.user_id();

-- The following tokens are invalid, each for one reason. A rejected token also ends the identity that the
-- session had before.

-- Alice's claims, signed with another key under the provider's key id:
SELECT auth.jwt_session_init(:'forged', is_local => true);

-- Alice's token of yesterday, which has expired:
SELECT auth.jwt_session_init(:'expired', is_local => true);

-- A token of Alice for another application:
SELECT auth.jwt_session_init(:'wrong_audience', is_local => true);

-- A token without a signature, with the algorithm "none":
SELECT auth.jwt_session_init(:'unsigned', is_local => true);

SELECT auth.user_id() IS NULL AS no_identity, count(*) AS rows FROM todos;
