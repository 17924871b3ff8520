"""Processor, memory, disk, network and GPU of a long run, sampled by MLflow's own monitor."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from xkd.tracking import server

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

FIRST_SAMPLE_SECONDS = 10.0  # shorter runs are left alone


class SystemMetrics:
    """Samples beside a run, from a thread, until stopped or until MLflow does not answer."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._monitor: SystemMetricsMonitor | None = None
        self._timer = threading.Timer(FIRST_SAMPLE_SECONDS, self._begin)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        """Ends sampling; what was sampled is sent."""
        self._timer.cancel()
        self._timer.join()
        if self._monitor:
            self._monitor.finish()

    def _begin(self) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        try:
            self._monitor = SystemMetricsMonitor(self._run_id, resume_logging=True, tracking_uri=server.address())
            self._monitor.start()
        except Exception as error:  # noqa: BLE001
            print(f"xkd: warning: no system metrics: {server.reason(error)}", file=sys.stderr, flush=True)
