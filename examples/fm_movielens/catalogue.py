"""Hold what training and serving must know of the data besides its ratings. Plain and small."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

USER_FIELDS = ("user", "age", "gender", "occupation")
MOVIE_FIELDS = ("movie", "year")
FIELDS = USER_FIELDS + MOVIE_FIELDS
"""The single-valued features, each numbered from 0; a movie's genres come beside them."""


@dataclass(frozen=True)
class Catalogue:
    """Users and movies with their features, numbered by position.

    Parameters
    ----------
    user_ids, movie_ids
        The data set's own numbers, ascending, int64.
    user_features, movie_features
        int32 [users, 4] and [movies, 2], in the order of `USER_FIELDS` and `MOVIE_FIELDS`.
    movie_genres
        Numbers of each movie's genres, and where each movie's begin: ``(values, row_splits)``.
    titles
        Titles by movie.
    num_genres
        How many genres there are.
    user, candidates
        The id of the user to recommend to, and of the movies to choose from, ascending.
    train_rows, mean_rating
        Of the ratings to train on.
    """

    user_ids: np.ndarray
    movie_ids: np.ndarray
    user_features: np.ndarray
    movie_features: np.ndarray
    movie_genres: tuple[np.ndarray, np.ndarray]
    titles: list[str]
    num_genres: int
    user: int
    candidates: np.ndarray
    train_rows: int
    mean_rating: float

    @property
    def sizes(self) -> list[int]:
        """How many values each field has, in the order of `FIELDS`."""
        features = (*self.user_features.T, *self.movie_features.T)
        return [int(numbers.max()) + 1 for numbers in features]
