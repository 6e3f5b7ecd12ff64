import os
import tempfile

import pytest

# Tests spend most of their time compiling tiny programs; with fewer optimizations, XLA compiles them in half the time.
FAST_COMPILE = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false"}


def pytest_configure(config):
    """Set the environment of the tests and of the processes that they start.

    The default suite compiles with few optimizations. The slow suite compiles with the defaults, as users do. The caches of
    compiled programs and of prepared data start empty.
    """
    if config.option.markexpr == config.getini("addopts")[-1]:  # no -m on the command line
        os.environ.update(FAST_COMPILE)
    if "PYTEST_XDIST_WORKER" not in os.environ:  # workers share the folder of the process that starts them
        folder = tempfile.TemporaryDirectory(prefix="wizardcoder-tests-")
        config.add_cleanup(folder.cleanup)
        os.environ["XDG_CACHE_HOME"] = folder.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


def fail_if_skipped(report):
    """Turn a skipped test into a failure if CI is set: there, everything that a test needs must be installed."""
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        where = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, which is a failure if CI is set: {where}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return fail_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return fail_if_skipped((yield))
