"""Decide by which Spark properties a run is protected, and refuse what Spark could not do."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

from tfos.config import SparkConfig
from tfos.errors import ConfigError
from tfos.master import Master

__all__ = ["check_security", "security_properties", "unprotected", "with_drawn_secret"]

AUTHENTICATE: Final = "spark.authenticate"
SECRET: Final = "spark.authenticate.secret"
_ENCRYPTION: Final = (
    AUTHENTICATE,
    "spark.network.crypto.enabled",
    "spark.io.encryption.enabled",
)


def security_properties(spark: SparkConfig) -> dict[str, str]:
    """Return the Spark properties that ``--encrypt`` and the Kerberos options stand for.

    The master and the workers of ``local-cluster`` listen on this machine: they take nothing from
    others there. And nobody can end a run's jobs through Spark's web interface, wherever it is.
    """
    properties = {"spark.ui.killEnabled": "false"}
    if spark.master.kind == "local-cluster":
        properties[AUTHENTICATE] = "true"
    if spark.encrypt:
        properties.update(dict.fromkeys(_ENCRYPTION, "true"))
    if spark.principal is not None and spark.keytab is not None:
        properties["spark.kerberos.principal"] = spark.principal
        properties["spark.kerberos.keytab"] = spark.keytab
    return properties


def with_drawn_secret(spark: SparkConfig) -> SparkConfig:
    """Return the settings with a new secret where authentication needs one that nobody has given.

    That is on ``local-cluster``; elsewhere Spark draws it, or the cluster has one.
    """
    off = spark.conf.get(AUTHENTICATE, "true").strip().lower() != "true"
    if spark.master.kind != "local-cluster" or off or spark.conf.get(SECRET):
        return spark
    return spark.model_copy(update={"conf": {**spark.conf, SECRET: secrets.token_hex(32)}})


def check_security(spark: SparkConfig) -> None:
    """Refuse options that contradict each other or that Spark on this master would ignore.

    Raises
    ------
    ConfigError
        One line naming the option, why not, and what to do.
    """
    if spark.encrypt:
        _check_encryption(spark)
    if (spark.principal is None) != (spark.keytab is None):
        given, missing = ("--principal", "--keytab")[:: 1 if spark.principal else -1]
        raise ConfigError(f"{given} needs {missing}: Spark logs in with both, or with neither")
    if spark.principal is not None and spark.master.kind == "standalone":
        raise ConfigError(
            f"--principal means nothing to --master {spark.master}: Spark logs in to Kerberos on "
            "YARN and Kubernetes; run kinit on every host of a standalone cluster"
        )


def _check_encryption(spark: SparkConfig) -> None:
    for name in _ENCRYPTION:
        value = spark.conf.get(name, "true")
        if value.strip().lower() != "true":
            raise ConfigError(f"--encrypt cannot have {name}={value}: leave one of them out")
    # On YARN and Kubernetes, and in one JVM, Spark draws a secret for each application.
    if spark.master.kind == "standalone" and not spark.conf.get(SECRET):
        raise ConfigError(
            f"--encrypt needs {SECRET} with --master {spark.master}, the one its master and "
            "workers have: set it below spark.conf of a --conf FILE that only you can read"
        )


def unprotected(master: Master, properties: Mapping[str, str]) -> str | None:
    """Return a warning if an application's connections on a cluster are open; None otherwise.

    Parameters
    ----------
    properties
        Of the running application, wherever they came from.
    """
    if master.is_local:
        return None
    if properties.get(AUTHENTICATE, "false").strip().lower() == "true":
        return None
    return (
        f"{AUTHENTICATE} is off: anyone who reaches this cluster's network can read the data and "
        "run code in the executors; --encrypt turns it on (docs/security.md)"
    )
