"""Who shows the log of a run."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from tfos.launcher.platform.console import log_shown


@contextmanager
def unconfigured() -> Iterator[tuple[logging.Logger, logging.Logger]]:
    """The root logger and the one of tfos, as in a program that configured neither."""
    root, log = logging.getLogger(), logging.getLogger("tfos")
    before = [(each, each.level, each.handlers) for each in (root, log)]
    # Within the test: what pytest listens by comes after the fixtures.
    root.handlers, log.handlers = [], []
    log.setLevel(logging.NOTSET)
    root.setLevel(logging.WARNING)
    try:
        yield root, log
    finally:
        for each, level, handlers in before:
            each.setLevel(level)
            each.handlers = handlers


def test_a_program_that_configured_nothing_sees_the_log_on_standard_error(capsys):
    with unconfigured() as (_, log):
        with log_shown("info"):
            logging.getLogger("tfos.launcher.driver.progress").info("step 7")
            log.debug("not this")
        log.info("nor this")
        assert capsys.readouterr().err[8:] == " tfos: step 7\n"
        assert (log.level, log.handlers) == (logging.NOTSET, [])


def test_where_the_root_logger_has_a_handler_that_one_shows_it_once(capsys):
    with unconfigured() as (root, log):
        shown = io.StringIO()
        root.addHandler(logging.StreamHandler(shown))
        with log_shown("info"):
            log.info("step 7")
        assert (shown.getvalue(), capsys.readouterr().err) == ("step 7\n", "")


def test_a_program_that_set_the_level_decides(capsys):
    with unconfigured() as (_, log):
        log.setLevel(logging.ERROR)
        with log_shown("info"):
            log.warning("step 7")
        assert capsys.readouterr().err == ""
        assert log.level == logging.ERROR


def test_a_program_that_set_a_handler_decides(capsys):
    with unconfigured() as (_, log):
        shown = io.StringIO()
        log.addHandler(logging.StreamHandler(shown))
        with log_shown("info"):
            log.warning("a warning")
            log.info("step 7")
        assert (shown.getvalue(), capsys.readouterr().err) == ("a warning\n", "")


def test_quiet_is_a_level(capsys):
    with unconfigured() as (_, log):
        with log_shown("error"):
            log.warning("step 7")
        assert capsys.readouterr().err == ""
