"""The linear job, and what its run gives away to other processes of the host."""

import contextlib
from pathlib import Path

from linear import LinearJob

PROPERTIES = (
    "spark.authenticate",
    "spark.network.crypto.enabled",
    "spark.io.encryption.enabled",
)


class EncryptedJob(LinearJob):
    def pre_train(self, spark):
        self.found = {name: spark.sparkContext.getConf().get(name) for name in PROPERTIES}
        # A shuffle, whose files are encrypted too.
        return {name: each.repartition(7, "a") for name, each in super().pre_train(spark).items()}

    def train(self, ctx):
        result = super().train(ctx)
        secret = Path(self.params["secret"]).read_bytes()
        telling = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                telling += [file.read_text()] if secret in file.read_bytes() else []
        return {**result, "found": self.found, "telling": telling}
