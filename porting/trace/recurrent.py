"""What each output of a recurrent layer is; PyTorch and Flax give them in another order.

`torch.nn.LSTM` gives (out, (h, c)) and its cell (h, c); Flax gives ((c, h), out) from a cell
and from `RNN(return_carry=True)`. Without this, a cell state would be compared with an output.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

#: (class, names of its outputs, what each is)
ROLES = (
    (r"LSTM$", ("0", "1.0", "1.1"), ("out", "h", "c")),
    (r"LSTMCell$", ("0", "1"), ("out", "c")),
    (r"LSTMCell$|^RNN$", ("0.0", "0.1", "1"), ("c", "h", "out")),
    (r"^GRU$", ("0", "1"), ("out", "h")),
    (r"GRUCell$|^SimpleCell$", ("0", "1"), ("h", "out")),
)
RNN = "RNN"  #: both libraries have one: in Flax the carry comes first and has no time axis


def roles(kind: str, outputs: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Output name -> `out`, `h` or `c`; empty for a layer that is not recurrent.

    >>> x = np.ones((2, 3))
    >>> roles("LSTMCell", {"0.0": x, "0.1": x, "1": x}), roles("Dense", {"": x})
    ({'0.0': 'c', '0.1': 'h', '1': 'out'}, {})
    """
    names = tuple(outputs)
    if kind == RNN and names == ("0", "1"):
        carry_first = outputs["0"].ndim < outputs["1"].ndim
        return dict(zip(names, ("h", "out") if carry_first else ("out", "h"), strict=True))
    found = (what for words, given, what in ROLES if re.search(words, kind) and given == names)
    return dict(zip(names, next(found, ()), strict=False))


def main_output(kind: str, outputs: Mapping[str, np.ndarray]) -> str:
    """The name of the output that goes on to the next layer: mostly the first.

    >>> main_output("RNN", {"0.0": np.ones(1), "0.1": np.ones(1), "1": np.ones(1)})
    '1'
    """
    known = roles(kind, outputs)
    return next((name for name, role in known.items() if role == "out"), next(iter(outputs)))
