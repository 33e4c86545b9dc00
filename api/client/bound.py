"""Makes methods of plans, with their signatures: of a client that blocks, or of one that is awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from api.client.steps import A, Pages, Plan

P = ParamSpec("P")
T = TypeVar("T")


class _Blocks(Protocol):
    def carry_out(self, plan: Plan[T]) -> T: ...

    def items(self, pages: Pages[A]) -> Iterator[A]: ...


class _Awaits(Protocol):
    async def carry_out(self, plan: Plan[T]) -> T: ...

    def items(self, pages: Pages[A]) -> AsyncIterator[A]: ...


class Blocking(Generic[P, T]):
    """A method that returns what its plan returns."""

    def __init__(self, plan: Callable[P, Plan[T]]) -> None:
        self.plan = plan
        self.__doc__ = plan.__doc__

    def __get__(self, client: _Blocks, owner: Any = None) -> Callable[P, T]:
        plan = self.plan

        @wraps(plan)
        def method(*args: P.args, **kwargs: P.kwargs) -> T:
            return client.carry_out(plan(*args, **kwargs))

        return method


class Awaited(Generic[P, T]):
    """A method that, awaited, returns what its plan returns."""

    def __init__(self, plan: Callable[P, Plan[T]]) -> None:
        self.plan = plan
        self.__doc__ = plan.__doc__

    def __get__(self, client: _Awaits, owner: Any = None) -> Callable[P, Coroutine[Any, Any, T]]:
        plan = self.plan

        @wraps(plan)
        async def method(*args: P.args, **kwargs: P.kwargs) -> T:
            return await client.carry_out(plan(*args, **kwargs))

        return method


class BlockingPages(Generic[P, A]):
    """A method that yields the items of a list."""

    def __init__(self, pages: Callable[P, Pages[A]]) -> None:
        self.pages = pages
        self.__doc__ = pages.__doc__

    def __get__(self, client: _Blocks, owner: Any = None) -> Callable[P, Iterator[A]]:
        pages = self.pages

        @wraps(pages)
        def method(*args: P.args, **kwargs: P.kwargs) -> Iterator[A]:
            return client.items(pages(*args, **kwargs))

        return method


class AwaitedPages(Generic[P, A]):
    """A method that yields the items of a list to `async for`."""

    def __init__(self, pages: Callable[P, Pages[A]]) -> None:
        self.pages = pages
        self.__doc__ = pages.__doc__

    def __get__(self, client: _Awaits, owner: Any = None) -> Callable[P, AsyncIterator[A]]:
        pages = self.pages

        @wraps(pages)
        def method(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[A]:
            return client.items(pages(*args, **kwargs))

        return method
