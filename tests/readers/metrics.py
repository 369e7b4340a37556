"""Reads what /metrics answered, from stdin, with Prometheus' own Python library, and says what it
found as one JSON document on stdout. tests/metrics.rs looks at it.

What is not valid ends it with an exception. A value that is NaN is null.
"""

import json
import math
import sys

from prometheus_client.parser import text_string_to_metric_families

found = {}
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.documentation, f"{family.name} has no HELP"
    assert family.type in ("counter", "gauge", "histogram"), (family.name, family.type)
    for sample in family.samples:
        labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
        series = f"{sample.name}{{{labels}}}"
        assert series not in found, f"{series} is told twice"
        value = None if math.isnan(sample.value) else sample.value
        found[series] = {"type": family.type, "name": sample.name, "value": value}
json.dump(found, sys.stdout)
