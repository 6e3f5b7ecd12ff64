import contextlib
import random

import pytest

from wizardcoder_jax.sandbox.inside.codec import CodecError
from wizardcoder_jax.sandbox.inside.decoder import Decoder
from wizardcoder_jax.sandbox.inside.encoder import Encoder

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    "value",
    [
        [(1, 2)] * 5,
        [("a", "")] * 5,
        [(1.5,)] * 5,
        [(1, "a")] * 5,
        [()] * 5,
        [(1 << 70, 2)] * 5,
        ["", "\ud83d", "\ude00", "é"],
        [True, 1, 2, 3],
        [(1, 2), (3,), (4, 5), (6, 7)],
        {(1, 2), (3, 4), (5, 6), (7, 8)},
        {(1, 2): 3, (4, 5): 6, (7, 8): 9, (0, 0): 0},
    ],
)
def test_values_are_encoded_and_decoded_unchanged(value):
    def no_handle(*_):
        raise CodecError("no handle")

    found = Decoder(Encoder(no_handle).encode(value), no_handle).decode()
    assert found == value and repr(found) == repr(value)


def test_damaged_messages_raise_nothing_but_codec_errors():
    def no_handle(*_):
        raise CodecError("no handle")

    whole = bytes(Encoder(no_handle).encode([[(1, 2)] * 5, ["ab", "c", "d", "e"], {"k": {1.5}}, 1 << 99, ("x", b"y", None)]))
    generator = random.Random(0)
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(generator.randint(1, 3)):
            damaged[generator.randrange(len(damaged))] = generator.choice(b"xmqfsltdezNTFUAMrRDQVYhH\x00\x01\xff")
        with contextlib.suppress(CodecError):
            Decoder(damaged[: generator.randint(1, len(damaged))], no_handle).decode()
