"""How fast the page of browse is, in a real browser with browse's own server, on 65,536 latents with 200 labels.

    first_paint_ms      from the start of the navigation to the table and the plot on the screen, nothing cached
    sort_ms             from the click on a header to the sorted rows on the screen, median over columns
    filter_ms           from the change of a filter to the narrowed rows and plot on the screen, median
    search_ms           the same for a search, from its last letter; the page waits 90 ms for the next one, not counted
    latent_page_ms      from a click to a latent's page on the screen, warm: its shard was loaded before
    latent_cold_ms      the same when its shard comes from the server
    api_p95_ms          95th percentile of answers to 20 clients at once that pause 0.1 s between requests, for a minute
    api_per_s           answers per second of these
    api_errors          answers other than 200; must be 0
    page_heap_mib       JavaScript heap of the page with the table, after collecting garbage
    server_rss_mib      resident memory of the server after the clients
    table_mib           file of the table of latents
    latents             how many there are

The run is made up (`tests.browse.page.synthetic`); clips play from files of a few kB. Medians over several tries.
"""

import http.client
import json
import statistics
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Metrics, Options, run_benchmark
from tests.browse.page.chromium import chromium, settled, show, until
from tests.browse.page.served import serving
from tests.browse.page.synthetic import SAE, make_site

N_LABELS = 200
N_CLIENTS = 20
PAUSE_S = 0.1
WAIT = "const until = async test => { while (!test()) await new Promise(done => setTimeout(done)) }"
PAINTED = "new Promise(done => requestAnimationFrame(() => setTimeout(done)))"

Numbers = dict[str, float]


def measure(options: Options) -> Metrics:
    """Make a run, serve it, and use its page and its endpoints."""
    n_latents = 4096 if options.quick else 65536
    tries = 2 if options.quick else 7
    with tempfile.TemporaryDirectory(prefix="video-sae-bench-") as name:
        site = make_site(Path(name) / "site", n_latents=n_latents, n_labels=N_LABELS)
        with serving(site, Path(name) / "notes") as (address, server):
            with chromium() as browser:
                page_numbers = use_page(browser, address, tries)
            api_numbers = use_api(address, n_latents, seconds=3.0 if options.quick else 60.0)
            rss = resident_mib(server.pid)
        table_mib = (site / "shards" / SAE / "latents.js").stat().st_size / 2**20
    return {**page_numbers, **api_numbers, "server_rss_mib": rss, "table_mib": table_mib, "latents": n_latents}


def use_page(browser: Any, address: str, tries: int) -> Numbers:
    """Times of the page, in milliseconds."""
    found: dict[str, list[float]] = {"first_paint_ms": []}
    for _ in range(tries):
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        page.goto(address)
        until(page, "performance.getEntriesByName('useful').length")
        found["first_paint_ms"].append(page.evaluate("performance.getEntriesByName('useful')[0].startTime"))
        context.close()
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    show(page, address)
    columns = ("firing_rate", "top_auroc", "effect", "top_label", "latent")
    found["sort_ms"] = [timed(page, sort_by(column)) for column in columns for _ in range(2)]
    filters = ("effect:le:-0.5", "top_label_kind:is:object", "firing_rate:ge:0.01", "top_label:has:label 17")
    found["filter_ms"] = [timed(page, filter_by(filter_)) for filter_ in filters for _ in range(2)]
    found["search_ms"] = [timed(page, search_for(words)) - 90 for words in ("label 12", "something", "1234")]
    heap = heap_mib(page)
    found["latent_cold_ms"], found["latent_page_ms"] = [], []
    for _ in range(tries):
        show(page, address)
        found["latent_cold_ms"].append(timed(page, open_latent(7)))
        for latent in (11, 23):  # of the same shard
            page.evaluate("location.hash = '#/'")
            settled(page)
            found["latent_page_ms"].append(timed(page, open_latent(latent)))
    return {name: statistics.median(times) for name, times in found.items()} | {"page_heap_mib": heap}


def timed(page: Any, script: str) -> float:
    """Milliseconds of a script that does something, waits until it is done, and then until it is painted."""
    return page.evaluate(
        f"""(async () => {{ const begun = performance.now(); {WAIT}; {script}; await {PAINTED};
            return performance.now() - begun }})()"""
    )


def sort_by(column: str) -> str:
    """Click on the head of a column."""
    return f"""const head = () => document.querySelector('[data-column="{column}"]').parentElement;
        const before = head().getAttribute("aria-sort"); head().firstChild.click();
        await until(() => head().getAttribute("aria-sort") !== before)"""


def filter_by(filter_: str) -> str:
    """Go to the table with one filter."""
    return f"""const total = document.querySelector(".total"), before = total.firstChild;
        videoSae.go([videoSae.state.sae, "latents"], [["f", {json.dumps(filter_)}], ["t", String(begun)]]);
        await until(() => total.firstChild !== before)"""


def search_for(words: str) -> str:
    """Type into the field for searches."""
    return f"""const total = document.querySelector(".total"), before = total.firstChild;
        const field = document.querySelector(".search");
        field.value = {json.dumps(words)}; field.dispatchEvent(new Event("input"));
        await until(() => total.firstChild !== before)"""


def open_latent(latent: int) -> str:
    """Open the page of a latent of the SAE that is shown."""
    return f"""videoSae.go([videoSae.state.sae, "latent", {latent}]);
        await until(() => videoSae.isSettled() && document.querySelector("[data-panel=tokens]"))"""


def heap_mib(page: Any) -> float:
    """The page's JavaScript heap after garbage collection; typed arrays are counted by their backing stores."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    usage = session.send("Runtime.getHeapUsage")
    return (usage["usedSize"] + usage.get("backingStorageSize", 0)) / 2**20


def use_api(address: str, n_latents: int, *, seconds: float) -> Numbers:
    """Ask the endpoints as several clients at once."""
    host = urllib.parse.urlsplit(address).netloc
    times: list[float] = []
    errors: list[int] = []
    end = time.perf_counter() + seconds

    def client(seed: int) -> None:
        draw = np.random.default_rng(seed)
        connection = http.client.HTTPConnection(host, timeout=30)
        while time.perf_counter() < end:
            begun = time.perf_counter()
            connection.request("GET", question(draw, n_latents))
            answer = connection.getresponse()
            answer.read()
            times.append(time.perf_counter() - begun)
            if answer.status != 200:
                errors.append(answer.status)
            time.sleep(PAUSE_S)
        connection.close()

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(N_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p95 = 1000 * float(np.percentile(times, 95))
    return {"api_p95_ms": p95, "api_per_s": len(times) / seconds, "api_errors": len(errors)}


def question(draw: np.random.Generator, n_latents: int) -> str:
    """An address that a client of the endpoints may ask for."""
    sae = urllib.parse.quote(SAE)
    offset, latent, video = draw.integers(n_latents), draw.integers(min(n_latents, 384)), draw.integers(3)
    sort = ("effect", "top_auroc", "firing_rate")[draw.integers(3)]
    return (
        f"/api/columns/{sae}/latents?columns=latent,top_label,effect&offset={offset}&limit=100&sort={sort}&desc=1",
        f"/api/latents/{sae}/{latent}", f"/api/videos/video_{video}", "/api/videos", "/api/tasks", "/api/notes",
    )[draw.integers(6)]  # fmt: skip


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (resident,) = (line for line in lines if line.startswith("VmRSS:"))
    return int(resident.split()[1]) / 1024


if __name__ == "__main__":
    run_benchmark("browse", measure)
