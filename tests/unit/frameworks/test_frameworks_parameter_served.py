"""What TensorFlow's gRPC is told of proxies."""

from __future__ import annotations

import pytest

from tfos.frameworks.tensorflow.parameter_served import reach_directly


@pytest.mark.parametrize(
    ("given", "exempt"),
    [
        ({}, "10.0.0.1,10.0.0.2"),
        ({"no_proxy": ".corp, localhost"}, ".corp,localhost,10.0.0.1,10.0.0.2"),
        # gRPC looks at the second only where the first is not set.
        ({"no_grpc_proxy": "a", "no_proxy": "b"}, "a,10.0.0.1,10.0.0.2"),
        ({"no_grpc_proxy": "", "no_proxy": ""}, "10.0.0.1,10.0.0.2"),
        ({"no_proxy": "10.0.0.2"}, "10.0.0.2,10.0.0.1"),
    ],
)
def test_the_cluster_is_reached_directly_and_all_else_by_the_users_proxy(given, exempt):
    environ = {"https_proxy": "http://proxy:3128", **given}
    reach_directly(["10.0.0.1", "10.0.0.2", "10.0.0.1"], environ)
    assert environ == {"https_proxy": "http://proxy:3128", **given, "no_grpc_proxy": exempt}
