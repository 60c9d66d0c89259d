"""What is done by a copied interpreter."""

from tfos.environments import interpreter
from tfos.environments.interpreter import compile_bytecode


def test_compiling_that_takes_too_long_is_given_up(tmp_path, monkeypatch):
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho $$ > $0.began; exec sleep 60\n")
    python.chmod(0o755)
    monkeypatch.setattr(interpreter, "_TIMEOUT_S", 0.5)
    compile_bytecode(tmp_path, tmp_path)
    assert python.with_name("python.began").exists()
