"""Django, on psycopg."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import django
from check import Library, check
from django.conf import settings
from django.db import OperationalError, ProgrammingError, connection, models, transaction

address = urlsplit(os.environ["DATABASE_URL"])
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": address.hostname,
            "PORT": address.port,
            "USER": address.username,
            "NAME": address.path[1:],
            # Connections stay open between requests.
            "CONN_MAX_AGE": None,
            # Cursors of the server end with the transaction, which a pooler gives to another client.
            "DISABLE_SERVER_SIDE_CURSORS": True,
            # The token is a bound parameter. Without this, Django writes it into the statement.
            "OPTIONS": {"server_side_binding": True},
        }
    }
)
django.setup()


@contextmanager
def identity(token: str) -> Iterator[None]:
    """A transaction with the identity of the token. Both end together."""
    with transaction.atomic(durable=True):
        with connection.cursor() as cursor:
            cursor.execute("SELECT auth.jwt_session_init(%s, is_local => true)", [token])
        yield


class UserId(models.Func):
    function = "auth.user_id"
    arity = 0


class Todo(models.Model):
    id = models.BigAutoField(primary_key=True)
    user_id = models.TextField(db_default=UserId())
    task = models.TextField()
    done = models.BooleanField(db_default=False)

    class Meta:
        app_label = "todos"
        db_table = "todos"
        managed = False


def user(_: None) -> str | None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT auth.user_id()")
        return cursor.fetchone()[0]


def add(_: None, task: str, owner: str | None) -> str:
    todo = Todo(task=task, user_id=owner) if owner else Todo(task=task)
    todo.save(force_insert=True)
    todo.refresh_from_db()
    return todo.user_id


check(
    Library(
        identity=identity,
        no_identity=transaction.atomic,
        user=user,
        tasks=lambda _: list(Todo.objects.values_list("task", flat=True)),
        add=add,
        finish_all=lambda _: Todo.objects.update(done=True),
        sqlstate=lambda error: getattr(error.__cause__, "sqlstate", None),
        rejection=OperationalError,
        refusal=ProgrammingError,
    )
)
