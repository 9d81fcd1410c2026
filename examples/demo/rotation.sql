
-- The second provider has replaced its key. Bob's next token is signed with the new key. The session waits
-- while the background worker fetches the keys again.
SELECT auth.jwt_session_init(:'rotated');
SELECT owner, task FROM todos;

-- Tokens that are signed with the old key are now rejected.
SELECT auth.jwt_session_init(:'bob');
