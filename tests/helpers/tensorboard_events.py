"""Reads TensorBoard event files: records of length, checksum, protocol buffer, checksum (tensorflow's record_writer.cc)."""

import struct

from tensorboardX.proto.event_pb2 import Event


def scalars_and_texts(folder):
    """Return ({(tag, step): value}, [text]) of all event files in `folder`."""
    scalars, texts = {}, []
    for path in folder.glob("events.out.tfevents.*"):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    scalars[value.tag, event.step] = value.simple_value
                else:
                    texts += [text.decode() for text in value.tensor.string_val]
    return scalars, texts
