"""What a person passes by mistake is refused in a sentence, by every public function."""

import jax
import numpy as np
import pytest
from flax import linen

import porting

SOURCE = {"fc.weight": np.ones((3, 2), np.float32)}
TARGET = {"params": {"fc": {"kernel": np.ones((2, 3), np.float32)}}}
MAPPING = porting.infer_mapping(SOURCE, TARGET)
ABSTRACT = {"fc.weight": jax.ShapeDtypeStruct((3, 2), np.float32)}
TEXTS = {"fc.weight": np.full((3, 2), "a")}
RECORDS = {"fc.weight": np.zeros(3, [("x", "f4")])}
KEY = {"fc.weight": jax.random.key(0)}

CALLS = {
    "infer_linen_class": lambda: porting.infer_mapping(SOURCE, (linen.Dense, np.ones((1, 2)))),
    "infer_linen_input": lambda: porting.infer_mapping(SOURCE, (linen.Dense(3), "x")),
    "infer_linen_without_input": lambda: porting.infer_mapping(SOURCE, (linen.Dense(3),)),
    "infer_rules": lambda: porting.infer_mapping(SOURCE, TARGET, rules=3),
    "infer_rules_keys": lambda: porting.infer_mapping(SOURCE, TARGET, rules={1: 2}),
    "port_mapping": lambda: porting.port_checkpoint(SOURCE, TARGET, "mapping"),
    "port_abstract": lambda: porting.port_checkpoint(ABSTRACT, TARGET),
    "port_key": lambda: porting.port_checkpoint(KEY, {"fc": {"weight": KEY["fc.weight"]}}),
    "unport_mapping": lambda: porting.unport_checkpoint(TARGET, SOURCE, None),
    "unport_specs": lambda: porting.unport_checkpoint(TARGET, {"x": np.ones(3)}, MAPPING),
    "diagnose_empty_port": lambda: porting.diagnose(SOURCE, {}),
    "diagnose_mapping": lambda: porting.diagnose(SOURCE, TARGET, {"fc": "fc"}),
    "diagnose_abstract": lambda: porting.diagnose(ABSTRACT, TARGET),
    "diagnose_abstract_port": lambda: porting.diagnose(SOURCE, ABSTRACT),
    "diagnose_texts": lambda: porting.diagnose(TEXTS, TARGET),
    "diagnose_records": lambda: porting.diagnose(SOURCE, RECORDS),
    "diagnose_key": lambda: porting.diagnose(SOURCE, KEY),
    "repair": lambda: porting.repair(SOURCE, TARGET, None),
    "open": lambda: porting.open_checkpoint(None),
    "save_path": lambda: porting.save_params(None, TARGET),
    "to_jax": lambda: porting.to_jax(3),
    "load_trace": lambda: porting.load_trace(None),
    "compare_traces": lambda: porting.compare_traces({}, {}),
    "explain": lambda: porting.explain(None),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_mistake_is_refused_in_a_sentence(call):
    with pytest.raises(porting.PortingError, match=r"[.)]$|missing$"):
        call()
