"""The C++ headers that Horovod's sources or TensorFlow's own ask for and TensorFlow's wheel lacks.

They only declare. TensorFlow's headers name these functions in inline functions that Horovod never
calls, so that nothing of theirs is ever linked.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["HEADERS", "missing_headers", "write_headers"]

_FARMHASH = """\
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
namespace util {
using uint128_t = std::pair<std::uint64_t, std::uint64_t>;
std::uint32_t Fingerprint32(const char*, std::size_t);
std::uint64_t Fingerprint64(const char*, std::size_t);
uint128_t Fingerprint128(const char*, std::size_t);
inline std::uint64_t Uint128Low64(const uint128_t& x) { return x.first; }
inline std::uint64_t Uint128High64(const uint128_t& x) { return x.second; }
}  // namespace util
"""

_HIGHWAYHASH = """\
#pragma once
#define HH_TARGET_PREFERRED 0
namespace highwayhash {
template <int target>
class HighwayHashCatT {};
}  // namespace highwayhash
"""

_SIP_HASH = """\
#pragma once
#include <cstdint>
#include <string>
namespace highwayhash {
class SipHashState;
template <class State>
struct StringHasher {
  std::uint64_t operator()(const std::uint64_t (&key)[2], const std::string& s);
};
}  // namespace highwayhash
"""

_EMPTY = "#pragma once\n"

# XLA's builder moved twice: Horovod asks for the first place.
_XLA_BUILDER = """\
#pragma once
#if __has_include("xla/hlo/builder/xla_builder.h")
#include "xla/hlo/builder/xla_builder.h"
#else
#include "xla/client/xla_builder.h"
#endif
"""

HEADERS = {
    "farmhash.h": _FARMHASH,
    "highwayhash/arch_specific.h": _EMPTY,
    "highwayhash/hh_types.h": _EMPTY,
    "highwayhash/highwayhash.h": _HIGHWAYHASH,
    "highwayhash/sip_hash.h": _SIP_HASH,
    "highwayhash/state_helpers.h": _EMPTY,
    "tensorflow/compiler/xla/client/xla_builder.h": _XLA_BUILDER,
}
"""Path below an include directory -> text."""


def missing_headers(include: Path) -> dict[str, str]:
    """Return those of `HEADERS` that TensorFlow's directory `include` does not have."""
    return {path: text for path, text in HEADERS.items() if not (include / path).exists()}


def write_headers(headers: dict[str, str], directory: Path) -> None:
    """Write `headers` below `directory`, which is created."""
    for path, text in headers.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
