"""Use a trained model: measure it, export it and check what was exported, recommend movies."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import fsspec
import numpy as np
import tensorflow as tf
from catalogue import FIELDS, Catalogue
from model import FactorizationMachine, Recommender

READING: dict[str, Any] = {"stack": {"fields": FIELDS}}
"""How every variant reads: the single-valued features as one [batch, n] tensor."""


def make_rmse(
    model: Callable[[Any], tf.Tensor], reduce_sum: Callable[[Any], Any]
) -> Callable[[Iterable[Any]], float]:
    """Return a function that measures the root mean squared error of `model` over batches.

    `reduce_sum` adds up what each rank has measured over its own (`TrainContext.reduce_sum`).
    """

    @tf.function(reduce_retracing=True)
    def squared_error(batch: Mapping[str, Any]) -> tf.Tensor:
        return tf.reduce_sum(tf.square(model(batch) - batch["rating"]))

    def rmse(batches: Iterable[Any]) -> float:
        total, rows = 0.0, 0
        for batch in batches:
            total += float(squared_error(batch))
            rows += len(batch["rating"])
        total, rows = reduce_sum([total, rows])
        return float(np.sqrt(total / rows))

    return rmse


def deliver(ctx: Any, model: FactorizationMachine, catalogue: Catalogue) -> list[str]:
    """Export the model where the run has a model directory, and print ten movies for the user.

    Returns
    -------
    list of str
        The ten best titles, best first.

    Raises
    ------
    RuntimeError
        If the exported model, loaded again, does not predict what this one does.
    """
    recommender = Recommender(model, catalogue)
    path = ctx.export(recommender, signatures={"serving_default": recommender.rate})
    if path is not None:
        check_served(path, recommender, catalogue)
        print(f"the model is in {path}", flush=True)
    titles = recommend(recommender, catalogue, 10)
    print(f"ten movies for user {catalogue.user}:", *titles, sep="\n  ", flush=True)
    return titles


def recommend(recommender: Recommender, catalogue: Catalogue, count: int) -> list[str]:
    """Return the titles of the candidates that the catalogue's user would rate best."""
    users = np.full(len(catalogue.candidates), catalogue.user, np.int64)
    ratings = recommender.rate(users, catalogue.candidates)["rating"].numpy()
    best = catalogue.candidates[np.argsort(-ratings, kind="stable")[:count]]
    return [catalogue.titles[i] for i in np.searchsorted(catalogue.movie_ids, best)]


def check_served(path: str, recommender: Recommender, catalogue: Catalogue) -> None:
    """Load a SavedModel and compare its signature's ratings with the model's own."""
    users = tf.constant(catalogue.user_ids)
    movies = tf.constant(np.resize(catalogue.movie_ids, len(catalogue.user_ids)))
    with tempfile.TemporaryDirectory() as room:
        # TensorFlow itself reads neither hdfs:// nor s3://.
        file_system, place = fsspec.core.url_to_fs(path)
        file_system.get(place, f"{room}/model", recursive=True)
        served = tf.saved_model.load(f"{room}/model").signatures["serving_default"]
        rated = served(user=users, movie=movies)["rating"]
    difference = np.abs(rated - recommender.rate(users, movies)["rating"]).max()
    if difference > 1e-5:
        raise RuntimeError(f"the model in {path} is off by {difference} from the one trained")
