"""Two users work on rows of their own, through a pooler in transaction mode.

The program uses the tables of examples/drizzle. It fails if a row or an error differs from the
expected one. It reads DATABASE_URL, and tokens from TOKEN_ALICE, TOKEN_BOB, TOKEN_EXPIRED and
TOKEN_FORGED. The provider has signed the first three; another key has signed the last one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg


@contextmanager
def identity(connection: psycopg.Connection, token: str) -> Iterator[None]:
    """A transaction with the identity of the token. Both end together."""
    with connection.transaction():
        connection.execute("SELECT auth.jwt_session_init(%s, is_local => true)", [token])
        yield


def todos_in_one_round_trip(connection: psycopg.Connection, token: str) -> list[tuple]:
    """Reads in one pipeline, which is a transaction of its own."""
    with connection.pipeline():
        connection.execute("SELECT auth.jwt_session_init(%s, is_local => true)", [token])
        todos = connection.execute("SELECT task FROM todos")
    return todos.fetchall()


def status_of(error: psycopg.Error, token: str | None) -> int:
    """The HTTP status for an error of the database. A request without a token gets 401 in place of 403."""
    code = error.sqlstate or ""
    if code == "42501":
        return 403 if token else 401
    if code == "28J09":
        return 403
    if code == "28J13":
        return 403 if "insufficient_scope" in (error.diag.message_detail or "") else 401
    if code == "53200":
        return 503
    return 401 if code.startswith(("28J0", "28J10", "28J12")) else 500


def check_no_identity_is_left(connection: psycopg.Connection) -> None:
    """Checks that the pooled connection has no identity after the transaction, and reads no rows."""
    assert connection.execute("SELECT auth.user_id()").fetchall() == [(None,)]
    assert connection.execute("SELECT task FROM todos").fetchall() == []


def main() -> None:
    # PgBouncer supports named prepared statements only from 1.21 on.
    with psycopg.connect(
        os.environ["DATABASE_URL"], autocommit=True, prepare_threshold=None
    ) as connection:
        with identity(connection, os.environ["TOKEN_ALICE"]):
            # The column's default sets the owner to the user of the token.
            insert = "INSERT INTO todos (task) VALUES (%s) RETURNING user_id"
            [(alice,)] = connection.execute(insert, ["water the plants"])
        check_no_identity_is_left(connection)

        with identity(connection, os.environ["TOKEN_BOB"]):
            connection.execute("INSERT INTO todos (task) VALUES (%s)", ["call Alice"])
            tasks = connection.execute("SELECT task FROM todos").fetchall()
            assert tasks == [("call Alice",)], tasks
            # The statement has no condition. The policy limits it to Bob's rows.
            assert connection.execute("UPDATE todos SET done = true").rowcount == 1

        tasks = todos_in_one_round_trip(connection, os.environ["TOKEN_ALICE"])
        assert tasks == [("water the plants",)], tasks

        # Bob cannot write a row with Alice as the owner.
        try:
            with identity(connection, os.environ["TOKEN_BOB"]):
                insert = "INSERT INTO todos (user_id, task) VALUES (%s, %s)"
                connection.execute(insert, [alice, "send Bob money"])
        except psycopg.errors.InsufficientPrivilege as error:
            assert (status_of(error, "eyJ"), status_of(error, None)) == (403, 401)
        else:
            raise AssertionError("Bob wrote a row with Alice as the owner")

        # A demand says whether the token lacks a scope or the user has to sign in again.
        for demand, status in [("require_scope('x')", 403), ("require_fresh('1 hour')", 401)]:
            try:
                with identity(connection, os.environ["TOKEN_BOB"]):
                    connection.execute(f"SELECT auth.{demand}")
            except psycopg.OperationalError as error:
                assert (error.sqlstate, status_of(error, "eyJ")) == ("28J13", status), error
            else:
                raise AssertionError(f"Bob's token met {demand}")

        # With a rejected token, the block does not run. The SQLSTATE says the reason.
        for name, sqlstate in [("TOKEN_EXPIRED", "28J04"), ("TOKEN_FORGED", "28J03")]:
            try:
                with identity(connection, os.environ[name]):
                    raise AssertionError(f"{name} was accepted")
            except psycopg.OperationalError as error:
                assert type(error) is psycopg.OperationalError, type(error)
                assert (error.sqlstate, status_of(error, "eyJ")) == (sqlstate, 401), error

        check_no_identity_is_left(connection)


main()
