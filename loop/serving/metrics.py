"""Count what a service does, for Prometheus, over all workers and at a few hundred nanoseconds a count.

Every series is known when the server starts, so nothing a client sends can add one. Each worker counts in a
file of its own that is mapped into memory; whichever worker is asked adds up all files, also those of workers
that are gone. One file is one array of float64, in the order of the definitions.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True)
class Counter:
    """A number that grows, one for each combination of the labels' values."""

    name: str
    help: str
    labels: dict[str, Sequence[str]] = field(default_factory=dict)

    @property
    def series(self) -> list[tuple[str, ...]]:
        """Return the label values of each series."""
        return list(itertools.product(*self.labels.values()))

    @property
    def size(self) -> int:
        """Return the number of cells of one series."""
        return 1


@dataclass(frozen=True)
class Histogram(Counter):
    """Counts by bucket (upper bounds, ascending; +Inf is added), and a sum."""

    bounds: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """Return the number of cells of one series: buckets, +Inf, sum."""
        return len(self.bounds) + 2


@dataclass(frozen=True, eq=False)
class Constant(Collector):
    """A number that was settled when the server started, so that rules can compare with it."""

    name: str
    help: str
    labels: dict[str, str]
    value: float

    def collect(self) -> Iterator[Metric]:
        """Yield the metric family."""
        family = GaugeMetricFamily(self.name, self.help, labels=list(self.labels))
        family.add_metric(list(self.labels.values()), self.value)
        yield family


class Metrics(Collector):
    """All counts of one release; `base` labels stand on every series, those of `beside` have their own."""

    def __init__(
        self, folder: Path, slot: int, base: dict[str, str], definitions: Iterable[Counter],
        beside: Sequence[Collector] = (),
    ) -> None:  # fmt: skip
        self.base, self.folder, self.definitions, self.beside = base, folder, tuple(definitions), beside
        self._place: dict[tuple[str, ...], int] = {}
        end = 0
        for definition in self.definitions:
            for values in definition.series:
                self._place[(definition.name, *values)] = end
                end += definition.size
        self._bounds = {d.name: np.asarray(d.bounds) for d in self.definitions if isinstance(d, Histogram)}
        self._cells = end
        folder.mkdir(parents=True, exist_ok=True)
        self._path = path = folder / f"{slot}.f64"
        if not path.exists() or path.stat().st_size != 8 * end:  # else the slot's former worker counted here
            path.write_bytes(bytes(8 * end))
        self._mine = np.asarray(np.memmap(path, np.float64, "r+"))  # a memmap takes a microsecond to read one number

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Add to a counter."""
        self._mine[self._place[(name, *labels)]] += by

    def observe(self, name: str, *labels: str, value: float) -> None:
        """Add one value to a histogram."""
        start, bounds = self._place[(name, *labels)], self._bounds[name]
        self._mine[start + bounds.searchsorted(value)] += 1
        self._mine[start + len(bounds) + 1] += value

    def observe_all(self, name: str, *labels: str, values: np.ndarray) -> None:
        """Add many values to a histogram."""
        start, bounds = self._place[(name, *labels)], self._bounds[name]
        buckets = np.bincount(bounds.searchsorted(values), minlength=len(bounds) + 1)
        self._mine[start : start + len(buckets)] += buckets
        self._mine[start + len(bounds) + 1] += values.sum()

    def text(self) -> bytes:
        """Return the counts of all workers in Prometheus' text format."""
        registry = CollectorRegistry(auto_describe=False)
        for collector in (self, *self.beside):
            registry.register(collector)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families."""
        others = [path for path in sorted(self.folder.glob("*.f64")) if path != self._path]
        files = [path for path in others if path.stat().st_size == 8 * self._cells]
        cells = np.sum([self._mine, *(np.fromfile(path, np.float64) for path in files)], axis=0)
        yield from Constant("serving_model_info", "The model that answers.", self.base, 1).collect()
        yield from (self._family(definition, cells) for definition in self.definitions)

    def _family(self, definition: Counter, cells: np.ndarray) -> Metric:
        names = [*self.base, *definition.labels]
        if not isinstance(definition, Histogram):
            counter = CounterMetricFamily(definition.name, definition.help, labels=names)
            for values in definition.series:
                counter.add_metric([*self.base.values(), *values], cells[self._place[(definition.name, *values)]])
            return counter
        histogram = HistogramMetricFamily(definition.name, definition.help, labels=names)
        bounds = [*map(str, definition.bounds), "+Inf"]
        for values in definition.series:
            start = self._place[(definition.name, *values)]
            counts = np.cumsum(cells[start : start + len(bounds)]).tolist()
            buckets = list(zip(bounds, counts, strict=True))
            histogram.add_metric([*self.base.values(), *values], buckets, float(cells[start + len(bounds)]))
        return histogram
