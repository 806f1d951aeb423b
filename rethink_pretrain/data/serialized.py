"""Records of a data set held once for all workers."""

import io
import pickle
from collections.abc import Iterable
from typing import Any

import torch


class SerializedRecords:
    """A read-only list whose records are pickled in one buffer, and unpickled one by one when asked for.

    Python objects would be copied to each worker by and by, as looking at one writes its count of references;
    and a tensor is shared with workers however they are started.
    """

    def __init__(self, records: Iterable[Any]):
        """Afterwards the records themselves are not needed."""
        buffer, ends = io.BytesIO(), []
        for record in records:
            pickle.dump(record, buffer, protocol=pickle.HIGHEST_PROTOCOL)
            ends.append(buffer.tell())
        # torch makes no tensor of a buffer of no length.
        self._bytes = torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8) if ends else torch.empty(0)
        self._ends = torch.tensor([0, *ends], dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Any:
        """A new copy of the record."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        index %= len(self)
        start, end = self._ends[index : index + 2].tolist()
        return pickle.loads(memoryview(self._bytes.numpy())[start:end])
