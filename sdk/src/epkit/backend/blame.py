"""Whatever a plugin raises becomes an error that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..errors import BrokenProviderError, EpkitError, Where
from .provider import Provider


@contextmanager
def blame(provider: str, member: str, stage: str) -> Iterator[None]:
    """Around a call of a provider's ``member``, such as ``"allocator"``.

    Raises:
        BrokenProviderError: for any exception that is not from epkit's own tree.
    """
    try:
        yield
    except EpkitError as error:
        error.at(provider=provider, stage=stage)
        raise
    except Exception as error:
        raise BrokenProviderError(
            f"provider {provider!r} failed in {member}: {type(error).__name__}: {error}",
            where=Where(provider=provider, stage=stage),
            remedy=f"report this to the maker of the plugin, or leave {provider!r} out of providers",
        ) from error


def close_quietly(provider: Provider) -> None:
    """Close an instance that did not come into use; what it raises now must not hide why."""
    with suppress(Exception):
        provider.close()
