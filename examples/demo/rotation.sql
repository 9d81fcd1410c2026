
-- The second provider has changed its key, and told nobody. Bob's next token is signed with the new
-- one: the session waits a moment while the keys are fetched anew.
SELECT auth.jwt_session_init(:'rotated');
SELECT owner, task FROM todos;

-- What the old key has signed counts no more.
SELECT auth.jwt_session_init(:'bob');
