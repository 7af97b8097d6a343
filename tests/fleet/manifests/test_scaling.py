"""KEDA's queries, as one Prometheus answers them that watches several fleets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fleet.manifests.cases import MATH, objects_of
from tests.prometheus import answer, queries, target_labels

PAGE = """\
psserve_prefill_demand_tokens {prefill}
psserve_decode_demand_tokens{{servers="math"}} {math}
psserve_decode_demand_tokens{{servers="code"}} 7.0
"""


def objects(zoo: Path, **about: Any) -> list[dict[str, Any]]:
    return objects_of(zoo, MATH, {"max_replicas": 2, "service_monitor": True, **about})


def test_a_set_of_pods_is_asked_what_all_routers_ask_of_it(zoo: Path) -> None:
    fleet = objects(zoo)
    prefill, math = queries(fleet)
    both = [(PAGE.format(prefill=n, math=2 * n), target_labels(fleet)) for n in (10, 1)]
    assert (answer(prefill, *both), answer(math, *both)) == (11, 22)


@pytest.mark.parametrize("other", [{"namespace": "team"}, {"name": "psserve-2"}], ids=["namespace", "name"])
def test_fleets_of_one_module_do_not_scale_each_other(zoo: Path, other: dict[str, str]) -> None:
    fleets = [objects(zoo), objects(zoo, **other)]
    pages = [PAGE.format(prefill=10**number, math=2 * 10**number) for number in range(2)]
    scraped = list(zip(pages, map(target_labels, fleets), strict=True))
    for number, fleet in enumerate(fleets):
        assert [answer(query, *scraped) for query in queries(fleet)] == [10**number, 2 * 10**number]
