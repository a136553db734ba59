"""What a long-lived server drops above its mark."""

import jax
import jax.numpy as jnp

from porting.ui.memory import MARK_BYTES, purge_above, resident_bytes


def test_nothing_is_dropped_below_the_mark():
    assert not purge_above(resident_bytes() + MARK_BYTES)


def test_above_the_mark_compiled_code_goes_and_work_goes_on():
    double = jax.jit(lambda x: 2 * x)
    assert double(jnp.arange(3)).tolist() == [0, 2, 4]
    assert purge_above(0)
    assert double._cache_size() == 0
    assert double(jnp.arange(3)).tolist() == [0, 2, 4]
