"""How fast a device computes batches of given shapes, and whether two such measurements differ by more than their noise."""

from __future__ import annotations

from zoo.bench.compare import Comparison as Comparison
from zoo.bench.compare import compare as compare
from zoo.bench.compare import read_report as read_report
from zoo.bench.measure import BenchRequest as BenchRequest
from zoo.bench.measure import Shape as Shape
from zoo.bench.measure import bench as bench
