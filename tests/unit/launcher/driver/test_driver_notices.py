from __future__ import annotations

import logging

from tfos.launcher.driver.notices import NoticeLog
from tfos.progress import Notice
from tfos.topology import Role, TaskKey

CHIEF, WORKER = TaskKey(Role.CHIEF, 0), TaskKey(Role.WORKER, 0)


def notice(text, at, warning=False):
    return Notice.of(text, warning=warning, at=at)


def test_a_notice_is_logged_once_however_often_it_is_read(caplog):
    caplog.set_level(logging.INFO, logger="tfos")
    shown = NoticeLog()
    first, second = notice("resumed", 1.0), notice("the disk is full", 2.0, True)
    shown.show(CHIEF, [first])
    shown.show(CHIEF, [first, second])
    shown.show(WORKER, [notice("resumed", 0.5)])
    shown.show(CHIEF, [second])
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("INFO", "resumed"),
        ("WARNING", "the disk is full"),
        ("INFO", "resumed"),
    ]


def test_a_notice_is_one_line_of_bounded_length():
    assert notice("one\n  two\r\n", 1.0).text == "one two"
    assert len(notice("x" * 10**6, 1.0).text) == 4000
