"""SQL runs only inside `read()` and `write()`: nobody else has a connection.

Checked on the text of the programs: only the store opens connections, and whatever executes a statement is
given its connection as an argument.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
STORE = ROOT / "api" / "domain" / "store.py"
# Migrations run inside Alembic's own transaction, before anybody reads or writes.
FILES = [
    path
    for package in ("api", "worker")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "migrations" not in path.parts and "node_modules" not in path.parts and path != STORE
]
OPENS = {"connect", "begin", "begin_nested", "raw_connection", "create_engine", "sessionmaker", "Session"}
EXECUTES = {"execute", "executemany", "exec_driver_sql", "execution_options"}
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def imports_sql(tree: ast.Module) -> bool:
    """Tell whether a file knows of SQLAlchemy or of a driver."""
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return any(name.split(".")[0] in ("sqlalchemy", "sqlite3", "psycopg") for name in names)


def calls(
    tree: ast.AST, functions: tuple[Function, ...] = ()
) -> Iterator[tuple[ast.Call, tuple[Function, ...]]]:
    """Yield every call with the functions around it, the innermost last."""
    for node in ast.iter_child_nodes(tree):
        inner = (*functions, node) if isinstance(node, Function) else functions
        if isinstance(node, ast.Call):
            yield node, inner
        yield from calls(node, inner)


def called(call: ast.Call) -> tuple[str, str]:
    """Return what a method is called on, and its name."""
    if isinstance(call.func, ast.Attribute):
        return ast.unparse(call.func.value), call.func.attr
    return "", ast.unparse(call.func)


def arguments(functions: tuple[Function, ...]) -> set[str]:
    """Return the names of all arguments of these functions."""
    return {arg.arg for function in functions for arg in [*function.args.args, *function.args.kwonlyargs]}


def offences(tree: ast.Module) -> list[str]:
    """Return the lines on which SQL runs with a connection that nobody handed in."""
    found = []
    for call, functions in calls(tree):
        on, name = called(call)
        if name in OPENS and (on.endswith("engine") or name not in ("connect", "begin")):
            found.append(f"{call.lineno}: {on}.{name} opens a connection")
        if name in EXECUTES and not (on == "conn" and "conn" in arguments(functions)):
            found.append(f"{call.lineno}: {on}.{name} executes on something else than an argument `conn`")
    return found


def test_sql_runs_only_where_it_is_told_to() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
    with_sql = {path: tree for path, tree in trees.items() if imports_sql(tree)}
    assert len(with_sql) > 10
    assert {path: found for path, tree in with_sql.items() if (found := offences(tree))} == {}


def test_a_connection_is_handed_out_by_the_store_alone() -> None:
    """Every function that takes a connection is called with one that it was given, or by the store."""
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call, functions in calls(tree):
            if any(isinstance(arg, ast.Name) and arg.id == "conn" for arg in call.args):
                assert "conn" in arguments(functions), f"{path}:{call.lineno}"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("import sqlalchemy\ndef f(conn):\n    conn.execute(1)", 0),
        ("import sqlalchemy\nstore.read(lambda conn: conn.execute(1).scalar())", 0),
        ("import sqlalchemy\ndef f(self):\n    self.conn.execute(1)", 1),
        ("import sqlalchemy\ndef f(s):\n    with s.engine.connect() as conn:\n        conn.execute(1)", 2),
        ("import sqlalchemy\nsqlalchemy.create_engine('x')", 1),
    ],
)
def test_the_check_sees(text: str, count: int) -> None:
    assert len(offences(ast.parse(text))) == count
