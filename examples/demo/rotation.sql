
-- The second provider has replaced its key. Bob's next token is signed with the new key. The session waits
-- while the background worker fetches the keys again.
BEGIN;
SELECT auth.jwt_session_init(:'rotated', is_local => true);
SELECT auth.user_id();
COMMIT;

-- Tokens that are signed with the old key are now rejected.
SELECT auth.jwt_session_init(:'bob', is_local => true);
