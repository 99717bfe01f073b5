"""The benchmark of browse's page gives the numbers that it promises, and its endpoints answer without errors."""

import pytest

from benchmarks.harness import Options
from tests.browse.page.chromium import browser_path


@pytest.mark.slow
@pytest.mark.browser
def test_a_quick_run_measures_everything() -> None:
    pytest.importorskip("playwright")
    if browser_path() is None:
        pytest.skip("there is no browser")
    from benchmarks.browse import measure

    metrics = measure(Options(quick=True))
    assert {"first_paint_ms", "sort_ms", "filter_ms", "latent_page_ms", "api_p95_ms"} <= set(metrics)
    assert metrics["api_errors"] == 0
    assert all(value > 0 for name, value in metrics.items() if name != "api_errors")
