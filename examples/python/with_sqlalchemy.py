"""SQLAlchemy, on psycopg."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy
from check import Library, check
from sqlalchemy import FetchedValue, create_engine, func, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

PRESENT = text("SELECT auth.jwt_session_init(:token, is_local => true)")


@contextmanager
def identity(sessions: sessionmaker[Session], token: str) -> Iterator[Session]:
    """A transaction with the identity of the token. Both end together."""
    with sessions.begin() as session:
        session.execute(PRESENT, {"token": token})
        yield session


class Base(DeclarativeBase):
    pass


class Todo(Base):
    __tablename__ = "todos"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(server_default=FetchedValue())
    task: Mapped[str]
    done: Mapped[bool] = mapped_column(server_default=FetchedValue())


def add(session: Session, task: str, owner: str | None) -> str:
    todo = Todo(task=task, user_id=owner) if owner else Todo(task=task)
    session.add(todo)
    session.flush()
    return todo.user_id


def main() -> None:
    engine = create_engine(
        os.environ["DATABASE_URL"].replace("postgres:", "postgresql+psycopg:"),
        # Errors would quote the parameters, and so the token.
        hide_parameters=True,
        # PgBouncer supports named prepared statements only from 1.21 on.
        connect_args={"prepare_threshold": None},
    )
    sessions = sessionmaker(engine)
    check(
        Library(
            identity=lambda token: identity(sessions, token),
            no_identity=sessions.begin,
            user=lambda session: session.scalar(select(func.auth.user_id())),
            tasks=lambda session: list(session.scalars(select(Todo.task))),
            add=add,
            finish_all=lambda session: session.execute(update(Todo).values(done=True)).rowcount,
            sqlstate=lambda error: isinstance(error, sqlalchemy.exc.DBAPIError)
            and error.orig.sqlstate,
            rejection=sqlalchemy.exc.OperationalError,
            refusal=sqlalchemy.exc.ProgrammingError,
        )
    )


main()
