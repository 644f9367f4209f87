"""Show Prometheus what monitoring last found, read from the file it publishes beside the log."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from loop.config import UserError
from loop.log import gauges
from loop.log.gauges import LAST_RUN, READABLE

log = logging.getLogger(__name__)

READABLE_HELP = "Whether the file that monitoring publishes can be read."
LAST_RUN_HELP = "When monitoring last ran."


class Monitored(Collector):
    """The gauges of monitoring, if it has run; a file that cannot be read is one more number, and no fault."""

    def __init__(self, folder: Path, model: str) -> None:
        self._folder, self._model = folder, model
        self._seen: tuple[int, int, int] | None = None
        self._families: list[Metric] = []

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families; the file is read when it is another than at the last scrape."""
        try:
            found = (self._folder / gauges.FILE).stat()
        except OSError:
            seen = None
        else:
            seen = (found.st_ino, found.st_size, found.st_mtime_ns)
        if seen is None or seen != self._seen:
            self._seen, self._families = seen, list(self._read())
        yield from self._families

    def _read(self) -> Iterator[Metric]:
        model = {"model": self._model}
        try:
            published = gauges.read(self._folder)
        except UserError as err:
            log.warning("%s", err)
            yield _family(READABLE, READABLE_HELP, [(model, 0)])
            return
        if published is None:
            return
        base = model | {"version": str(published.version)}
        yield _family(READABLE, READABLE_HELP, [(model, 1)])
        yield _family(LAST_RUN, LAST_RUN_HELP, [(base, published.time.timestamp())])
        for gauge in published.gauges:
            yield _family(gauge.name, gauge.help, [(base | labels, value) for labels, value in gauge.samples])


def _family(name: str, text: str, samples: Iterable[tuple[dict[str, str], float]]) -> Metric:
    family = GaugeMetricFamily(name, text)
    for labels, value in samples:
        family.add_sample(name, labels, value)
    return family
