"""Opening a place whose list of contents somebody must vouch for."""

from __future__ import annotations

from ..cache.contents import Contents
from ..cache.seal import Vouchers
from ..errors import RecordError, RefusedError
from .source import Source
from .urls import open_source


def open_vouched(place: str, vouchers: Vouchers) -> tuple[Source, Contents, bytes]:
    """Return what a person names as a source, what is in it, vouched for, and the signature over that.

    A folder is vouched for by its owner, if by nobody else.

    Raises `NotVouchedFor` or `UntrustedError` if it is not, `RefusedError` for a list that is none, and what opening
    and reading the source raises.
    """
    source = open_source(place, vouchers)
    try:
        contents, got = source.contents(), list[bytes]()

        def signature() -> bytes:  # got once: another one could come the next time
            if not got:
                got.append(source.signature())
            return got[0]

        vouchers.require(source.name, contents.fingerprint, signature)
        return source, contents, signature()
    except RecordError as error:
        source.close()
        raise RefusedError(source.name, f"its list of contents can't be had: {error}") from None
    except BaseException:
        source.close()
        raise
