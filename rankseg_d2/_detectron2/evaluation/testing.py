"""What to do with an evaluator's results: flatten, log, compare with what was expected."""

import logging
import math
import sys
from collections.abc import Mapping


def print_csv_format(results):
    """Log the main metrics of each task in lines that paste into a spreadsheet."""
    logger = logging.getLogger(__name__)
    if not isinstance(results, Mapping):
        raise ValueError(f"results must be {{task: {{metric: number}}}}, not {results!r}")
    for task, metrics in results.items():
        if not isinstance(metrics, Mapping):
            logger.info("copypaste: %s=%s", task, metrics)
            continue
        main = {name: value for name, value in metrics.items() if "-" not in name}
        logger.info("copypaste: Task: %s", task)
        logger.info("copypaste: %s", ",".join(main))
        logger.info("copypaste: %s", ",".join(f"{value:.4f}" for value in main.values()))


def verify_results(cfg, results) -> bool:
    """Whether TEST.EXPECTED_RESULTS came out; else log both and end the process with status 1."""
    expected = cfg.TEST.EXPECTED_RESULTS
    logger = logging.getLogger(__name__)
    if not expected:
        return True
    if not all(_is_met(results, line) for line in expected):
        logger.error("Result verification failed!")
        logger.error("Expected Results: %s", expected)
        logger.error("Actual Results: %s", results)
        sys.exit(1)
    logger.info("Results verification passed.")
    return True


def flatten_results_dict(results):
    """{"a": {"b": x}} -> {"a/b": x}, to any depth."""
    flat = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            inner = flatten_results_dict(value)
            flat.update({f"{name}/{inner_name}": x for inner_name, x in inner.items()})
        else:
            flat[name] = value
    return flat


def _is_met(results, line) -> bool:
    if len(line) != 4:
        raise ValueError(
            f"TEST.EXPECTED_RESULTS must list [task, metric, value, tolerance], not {line!r}"
        )
    task, metric, value, tolerance = line
    actual = results.get(task, {}).get(metric, math.nan)
    return math.isfinite(actual) and abs(actual - value) <= tolerance
