"""Define the factorization machine and what is served of it. TensorFlow only; no Spark, no tfos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from catalogue import Catalogue

L2_WEIGHT = 0.02
L2_FACTOR = 0.14

LEARNING_RATE = 0.1
"""Of Adagrad, at the start; a cosine takes it to 0.

Adagrad updates a row in one atomic operation. Adam takes several, and workers that interleave
theirs on a parameter server now and then divide a step by a second moment that is still zero.
"""

INITIAL_ACCUMULATOR = 1.0


class FactorizationMachine(tf.Module):
    """Predict a rating: a bias, a weight for each feature, a dot product for each pair of features.

    All features live in one table, a block of rows for each field; a row is a weight and
    `dim` factors. A batch holds ``fields`` int32 [batch, n], a number within its field for
    each single-valued field, and ``genres``, a RaggedTensor int32 [batch, None]; the genres
    of a movie count as one feature, the mean of their rows.

    Parameters
    ----------
    sizes
        How many values each single-valued field has, in the order of ``fields``.
    num_genres
        How many genres there are.
    mean
        The mean rating: where the bias starts.
    dim
        Factors of each feature.
    seed
        Seed of the initial factors.
    """

    def __init__(
        self, sizes: list[int], num_genres: int, mean: float, dim: int = 16, seed: int = 1
    ) -> None:
        super().__init__()
        self._starts = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
        self._first_genre = sum(sizes)
        rows = self._first_genre + num_genres
        factors = tf.random.stateless_normal([rows, dim], seed=[seed, 0], stddev=0.05)
        self.table = tf.Variable(tf.concat([tf.zeros([rows, 1]), factors], 1), name="table")
        self.bias = tf.Variable(mean, dtype=tf.float32, name="bias")
        self._dim = dim
        self._l2 = np.array([L2_WEIGHT] + [L2_FACTOR] * dim, np.float32)

    def _features(self, batch: Mapping[str, Any]) -> tf.Tensor:
        """Return the table's rows of each example: [batch, n + 1, 1 + dim]."""
        genres = batch["genres"]
        single = tf.nn.embedding_lookup(self.table, batch["fields"] + self._starts)
        many = genres.with_values(
            tf.nn.embedding_lookup(self.table, genres.values + self._first_genre)
        )
        count = tf.cast(tf.maximum(genres.row_lengths(), 1), tf.float32)
        mean = tf.reduce_sum(many, axis=1) / count[:, None]
        return tf.concat([single, mean[:, None]], axis=1)

    def _ratings(self, features: tf.Tensor) -> tf.Tensor:
        weights, factors = tf.split(features, [1, self._dim], axis=2)
        # The dot products of all pairs in linear time: (square of the sum - sum of squares) / 2.
        square_of_sum = tf.reduce_sum(tf.square(tf.reduce_sum(factors, 1)), 1)
        sum_of_squares = tf.reduce_sum(tf.square(factors), [1, 2])
        return self.bias + tf.reduce_sum(weights, [1, 2]) + (square_of_sum - sum_of_squares) / 2

    def __call__(self, batch: Mapping[str, Any]) -> tf.Tensor:
        """Return the predicted ratings, [batch], within 1 to 5."""
        return tf.clip_by_value(self._ratings(self._features(batch)), 1.0, 5.0)

    def loss(self, batch: Mapping[str, Any]) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the loss to minimise and the squared error, means over a rated batch.

        The L2 term is over the rows the batch uses, so a feature is held back each time it is seen.
        """
        features = self._features(batch)
        error = tf.square(self._ratings(features) - batch["rating"])
        l2 = tf.reduce_sum(tf.square(features) * self._l2, [1, 2])
        return tf.reduce_mean(error + l2), tf.reduce_mean(error)


class Recommender(tf.Module):
    """Serve ratings by the data set's own user and movie ids.

    Parameters
    ----------
    model
        A trained model.
    catalogue
        Of the data it was trained on.
    """

    def __init__(self, model: FactorizationMachine, catalogue: Catalogue) -> None:
        super().__init__()
        self.model = model
        self._user_ids = catalogue.user_ids
        self._movie_ids = catalogue.movie_ids
        self._user_features = catalogue.user_features
        self._movie_features = catalogue.movie_features
        self._movie_genres = catalogue.movie_genres

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64, name="user"),
            tf.TensorSpec([None], tf.int64, name="movie"),
        ]
    )
    def rate(self, user: tf.Tensor, movie: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return ``{"rating": [batch]}`` for pairs of ids; an unknown id is an error."""
        users = _positions(user, self._user_ids, "user")
        movies = _positions(movie, self._movie_ids, "movie")
        fields = [tf.gather(self._user_features, users), tf.gather(self._movie_features, movies)]
        genres = tf.gather(tf.RaggedTensor.from_row_splits(*self._movie_genres), movies)
        return {"rating": self.model({"fields": tf.concat(fields, 1), "genres": genres})}


def _positions(ids: tf.Tensor, known: np.ndarray, what: str) -> tf.Tensor:
    found = tf.minimum(tf.searchsorted(known, ids), len(known) - 1)
    with tf.control_dependencies(
        [tf.debugging.assert_equal(tf.gather(known, found), ids, message=f"unknown {what} id")]
    ):
        return tf.identity(found)
