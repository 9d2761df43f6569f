"""What the core and the reference make of any bytes, all buffers against a page that may not be touched."""

from __future__ import annotations

from amounts import SANITIZED
from codec.inputs import ISAS, forced
from guard import Guarded
from reference import codec as reference
from reference import codec_streams as streams
from textnlp_fast.delta import codec
from textnlp_fast.errors import CorruptDataError, InvalidInputError, UnsupportedFormatError

Verdict = bytes | str
PAYLOAD, BASE, OUT = Guarded(1 << 16), Guarded(1 << 16), Guarded(1 << 16)


def core(payload: bytes, size: int, base: bytes | None) -> Verdict:
    """What the core makes of it: the tensor, or the kind of error."""
    out = OUT.room(size)
    try:
        codec.decode_into(PAYLOAD.place(payload), out, None if base is None else BASE.place(base), threads=1)
    except CorruptDataError as error:
        assert error.position is not None
        assert 0 <= error.position <= len(payload)
        return "corrupt"
    except UnsupportedFormatError as error:
        assert error.position is not None
        assert 0 <= error.position < max(len(payload), 1)
        return "unsupported"
    except InvalidInputError:
        return "no base"
    return out.tobytes()


def oracle(payload: bytes, size: int, base: bytes | None) -> Verdict:
    try:
        return reference.decode(payload, size, base)
    except streams.CorruptFrame:
        return "corrupt"
    except streams.UnsupportedFrame:
        return "unsupported"
    except streams.MissingBase:
        return "no base"


def agreed(payload: bytes, size: int, base: bytes | None, *, with_oracle: bool = True) -> Verdict:
    expected = oracle(payload, size, base) if with_oracle and not SANITIZED else None
    for isa in ISAS:
        with forced(isa):
            found = core(payload, size, base)
        expected = found if expected is None else expected
        assert found == expected, isa
    assert expected is not None
    return expected
