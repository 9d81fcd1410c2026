-- The role migrator runs this file. The function needs a scope, and a recent sign-in that withstands phishing.
CREATE FUNCTION delete_todos() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    deleted bigint;
BEGIN
    PERFORM auth.require_scope('todos:delete');
    PERFORM auth.require_fresh('5 minutes', acr => 'phr');
    DELETE FROM todos;    -- the policies limit it to the rows of the user
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;
