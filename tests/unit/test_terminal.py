"""What a terminal is shown of text that others wrote."""

from __future__ import annotations

import logging
import unicodedata

import pytest

from tfos.terminal import TerminalFormatter, one_line, printable, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("loss 0.5\tok", "loss 0.5\tok"),
        ("naïve 東京 👩\u200d💻 क\u200dष", "naïve 東京 👩\u200d💻 क\u200dष"),
        ("\x1b[1;32mgreen\x1b[0m", "green"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x1b]52;c;cm0gLXJm\x1b\\", "\\x1b]52;c;cm0gLXJm\\x1b\\"),
        ("\x1b[2A[chief-1] forged", r"\x1b[2A[chief-1] forged"),
        ("50%\r[chief-1] forged", r"50%\x0d[chief-1] forged"),
        ("one\ntwo", r"one\x0atwo"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("safe\u202egnp.exe\u2066", r"safe\u202egnp.exe\u2066"),
        ("a\u2028b\ufeff\u200b", r"a\u2028b\ufeff\u200b"),
        ("\ud800\U000e0041", r"\ud800\U000e0041"),
        ("back\x08\x7f\0", r"back\x08\x7f\x00"),
        # Removing a colour must not put a sequence together.
        ("\x1b\x1b[0m]0;x\x07", r"\x1b]0;x\x07"),
        (r"C:\x1b", r"C:\x1b"),
    ],
)
def test_a_line_holds_nothing_that_a_terminal_obeys(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


def test_no_control_character_passes_but_the_tab():
    everything = "".join(map(chr, range(0x110000)))
    left = {c for c in printable(everything) if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
    assert left == {"\t"}
    bidi = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not {c for c in printable(everything) if unicodedata.bidirectional(c) in bidi}


def test_lines_stay_lines_and_one_line_is_one():
    assert printable_lines("a\x1b[H\r\nb\n") == "a\\x1b[H\nb\n"
    assert one_line("a\n  b\x07\u2028c ") == r"a b\x07 c"


def test_only_the_beginning_of_a_message_stands_at_the_margin():
    record = logging.LogRecord("tfos", 20, "f", 1, "%s", ("a\n12:00:00 tfos: forged\x1b[A",), None)
    text = TerminalFormatter("tfos: %(message)s").format(record)
    assert text == "tfos: a\n  12:00:00 tfos: forged\\x1b[A"
