from __future__ import annotations

import pandas as pd
import pytest

from tfos.errors import ExitCode, JobDefinitionError
from tfos.launcher.driver.datasets import check_frames


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "FMJob.pre_train returned None: .*return statement missing"),
        (42, "FMJob.pre_train returned int: a pyspark.sql.DataFrame is expected"),
        (pd.DataFrame(), "FMJob.pre_train returned pandas.DataFrame: a pyspark.sql.DataFrame is"),
        ({"train": [1]}, "FMJob.pre_train returned list for 'train'"),
        ({}, r"returned DataFrames named \[\]: one of them must be named 'train'"),
    ],
)
def test_what_is_no_data_frame_is_refused(returned, words):
    with pytest.raises(JobDefinitionError, match=words) as caught:
        check_frames(returned, "FMJob")
    assert caught.value.exit_code == ExitCode.CONFIG
