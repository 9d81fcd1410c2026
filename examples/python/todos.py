"""Two users, each with rows of their own, by transaction through a pooler.

Uses the tables of examples/drizzle, and fails where a row or an error is not what it should be.
Reads DATABASE_URL, and as TOKEN_ALICE, TOKEN_BOB, TOKEN_EXPIRED and TOKEN_FORGED tokens of the
provider's and one that is not.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg


@contextmanager
def identity(connection: psycopg.Connection, token: str) -> Iterator[None]:
    """A transaction as the user of the token, which is over with the transaction."""
    with connection.transaction():
        connection.execute("SELECT auth.jwt_session_init(%s, is_local => true)", [token])
        yield


def check_nobody_is_left(connection: psycopg.Connection) -> None:
    """The pooled connection without a token: nobody's rows, and nobody."""
    assert connection.execute("SELECT auth.user_id()").fetchall() == [(None,)]
    assert connection.execute("SELECT task FROM todos").fetchall() == []


def main() -> None:
    # PgBouncer does not know statements that were prepared under a name before 1.21.
    with psycopg.connect(
        os.environ["DATABASE_URL"], autocommit=True, prepare_threshold=None
    ) as connection:
        with identity(connection, os.environ["TOKEN_ALICE"]):
            # The owner is the default: whoever the token names.
            insert = "INSERT INTO todos (task) VALUES (%s) RETURNING user_id"
            [(alice,)] = connection.execute(insert, ["water the plants"])
        check_nobody_is_left(connection)

        with identity(connection, os.environ["TOKEN_BOB"]):
            connection.execute("INSERT INTO todos (task) VALUES (%s)", ["call Alice"])
            tasks = connection.execute("SELECT task FROM todos").fetchall()
            assert tasks == [("call Alice",)], tasks
            # Without a condition, and still his own only.
            assert connection.execute("UPDATE todos SET done = true").rowcount == 1

        # He writes no rows in her name.
        try:
            with identity(connection, os.environ["TOKEN_BOB"]):
                insert = "INSERT INTO todos (user_id, task) VALUES (%s, %s)"
                connection.execute(insert, [alice, "send Bob money"])
        except psycopg.errors.InsufficientPrivilege:
            pass
        else:
            raise AssertionError("a row in Alice's name")

        # What is refused runs nothing, and its error tells why.
        for name, sqlstate in [("TOKEN_EXPIRED", "28J04"), ("TOKEN_FORGED", "28J03")]:
            try:
                with identity(connection, os.environ[name]):
                    raise AssertionError(f"{name} was accepted")
            except psycopg.OperationalError as error:
                assert error.sqlstate == sqlstate, error

        check_nobody_is_left(connection)


main()
