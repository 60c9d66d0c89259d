"""What a training was asked for, kept in checkpoints: a resume says what changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tfos import wire
from tfos.training_parts import FitPlan, ProcessFacts

__all__ = ["changes", "fingerprint"]

_UNSET: Final = "unset"
_SHOWN: Final = 6
_MAX_CHARS: Final = 60


def fingerprint(facts: ProcessFacts, plan: FitPlan) -> dict[str, Any]:
    """Return parameters, arguments of `TrainContext.fit` and the source's digest, JSON values."""
    read = wire.to_json(plan.read)
    del read["start"]
    return {
        "params": dict(facts.params),
        "args": list(facts.args),
        "fit": {**read, "max_steps": plan.max_steps},
        "source": facts.source,
    }


def changes(saved: Any, now: Mapping[str, Any]) -> str:
    """Say in what a training differs from the one that was saved; nothing where it does not.

    Parameters
    ----------
    saved
        What `fingerprint` returned then, as read from a checkpoint: anything else says nothing.
    now
        What it returns now.
    """
    if not isinstance(saved, Mapping):
        return ""
    before, after = [], []
    for part in ("params", "fit"):
        then, here = saved.get(part), now[part]
        if not isinstance(then, Mapping):
            continue
        for name in sorted({*then, *here}, key=str):
            if then.get(name) != here.get(name):
                before.append(f"{name}={_value(then, name)}")
                after.append(f"{name}={_value(here, name)}")
    if isinstance(saved.get("args"), list) and saved["args"] != now["args"]:
        before.append(f"arguments {_short(saved['args'])}")
        after.append(f"arguments {_short(now['args'])}")
    told = f"saved with {_listed(before)}; now {_listed(after)}" if before else ""
    if saved.get("source") and now["source"] and saved["source"] != now["source"]:
        told += f"{'; ' if told else ''}the application's source has changed since"
    return told


def _value(values: Mapping[Any, Any], name: Any) -> str:
    return _short(values[name]) if name in values else _UNSET


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}..."


def _listed(items: list[str]) -> str:
    more = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
