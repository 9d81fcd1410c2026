"""Two users work on rows of their own, through a pooler in transaction mode, with the library of the caller.

The program uses the tables of examples/drizzle. It fails if a row or an error differs from the
expected one. It reads tokens from TOKEN_ALICE, TOKEN_BOB, TOKEN_EXPIRED and TOKEN_FORGED. The
provider has signed the first three; another key has signed the last one.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any


@dataclass
class Library:
    """What a program does with its library. The argument is what `identity` yields."""

    identity: Callable[[str], AbstractContextManager[Any]]
    no_identity: Callable[[], AbstractContextManager[Any]]
    user: Callable[[Any], str | None]
    tasks: Callable[[Any], list[str]]
    # Adds a task, of this owner where there is one, and returns the owner.
    add: Callable[[Any, str, str | None], str]
    finish_all: Callable[[Any], int]
    sqlstate: Callable[[Exception], str | None]
    # The classes of the errors for a rejected token, and for a row that a policy rejects.
    rejection: type[Exception]
    refusal: type[Exception]


def check(library: Library) -> None:
    def check_no_identity_is_left() -> None:
        with library.no_identity() as work:
            assert library.user(work) is None
            assert library.tasks(work) == []

    def check_failure(
        token: str, sqlstate: str, kind: type[Exception], act: Callable[[Any], Any]
    ) -> None:
        try:
            with library.identity(token) as work:
                act(work)
        except Exception as error:
            assert library.sqlstate(error) == sqlstate, repr(error)
            assert type(error) is kind, type(error)
            assert token not in str(error), "the token is in the error"
        else:
            raise AssertionError(f"no error {sqlstate}")

    def is_accepted(work: Any) -> None:
        raise AssertionError("the token was accepted")

    with library.identity(os.environ["TOKEN_ALICE"]) as work:
        # The column's default sets the owner to the user of the token.
        alice = library.add(work, "water the plants", None)
    check_no_identity_is_left()

    bob = os.environ["TOKEN_BOB"]
    with library.identity(bob) as work:
        assert library.add(work, "call Alice", None) != alice
        assert library.tasks(work) == ["call Alice"]
        # The statement has no condition. The policy limits it to Bob's rows.
        assert library.finish_all(work) == 1

    # Bob cannot write a row with Alice as the owner.
    check_failure(
        bob, "42501", library.refusal, lambda work: library.add(work, "send Bob money", alice)
    )
    # With a rejected token, the block does not run. The SQLSTATE says the reason.
    check_failure(os.environ["TOKEN_EXPIRED"], "28J04", library.rejection, is_accepted)
    check_failure(os.environ["TOKEN_FORGED"], "28J03", library.rejection, is_accepted)
    check_no_identity_is_left()
