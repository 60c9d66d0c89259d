"""Turn MovieLens 100K into features: read, derive, split, number, join. Runs on the driver.

Two formats are read: GroupLens's own (``u.data``, ``u.user``, ``u.item``, ``u.genre``) and that of
RecBole (``ml-100k.inter``, ``.user``, ``.item``). They give the same features of the same ratings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from catalogue import FIELDS, MOVIE_FIELDS, USER_FIELDS, Catalogue
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

DEFAULT_DATA = Path(__file__).resolve().parents[2] / ".cache" / "ml-100k"
AGE_BANDS = (18, 25, 35, 45, 50, 56)
"""Where the bands after the first one begin, in years."""

FOLDS = 5


class Tables(NamedTuple):
    """The raw data: ratings (user, movie, rating), users and movies with their raw features."""

    ratings: DataFrame
    users: DataFrame
    movies: DataFrame


def prepare(
    spark: SparkSession, params: Mapping[str, str]
) -> tuple[dict[str, DataFrame], Catalogue]:
    """Return the DataFrames to train on and to evaluate on, and the catalogue.

    Parameters
    ----------
    params
        ``data``: directory or URL; ``split``: ``random`` (the default) or ``u1`` to ``u5``, the
        splits that come with the data set; ``fold``: 0 to 4, of the random split; ``user``: for
        whom to recommend, 1; ``min_ratings``: ratings a movie must have for that, 20.
    """
    data = params.get("data", str(DEFAULT_DATA))
    tables = read(spark, data)
    pairs = tables.ratings.select("user", "movie").toPandas()
    held = held_ratings(spark, pairs, data, params)
    users, movies, genres = number(tables)
    features = tables.ratings.join(F.broadcast(_rows(spark, users)), "user").join(
        F.broadcast(_rows(spark, movies)), "movie"
    )
    columns = [F.col(f"{name}_number").cast("int").alias(name) for name in FIELDS]
    frames = {
        name: features.join(held, ["user", "movie"], kind).select(*columns, "genres", "rating")
        for name, kind in (("train", "left_anti"), ("eval", "left_semi"))
    }
    user = int(params.get("user", "1"))
    mean, rows = frames["train"].agg(F.avg("rating"), F.count("rating")).first()
    catalogue = Catalogue(
        user_ids=users["user"].to_numpy(np.int64),
        movie_ids=movies["movie"].to_numpy(np.int64),
        user_features=_features(users, USER_FIELDS),
        movie_features=_features(movies, MOVIE_FIELDS),
        movie_genres=_ragged(movies["genres"]),
        titles=list(movies["title"]),
        num_genres=len(genres),
        user=user,
        candidates=candidates(pairs, user, int(params.get("min_ratings", "20"))),
        train_rows=rows,
        mean_rating=mean,
    )
    return frames, catalogue


# -- reading ----------------------------------------------------------------------------------


def read(spark: SparkSession, data: str) -> Tables:
    """Read the raw tables, whichever of the two formats lies at `data`."""
    try:
        files = {os.path.basename(path) for path in spark.read.text(data).inputFiles()}
    except AnalysisException:
        files = set()
    if "u.data" in files:
        return _read_grouplens(spark, data)
    if "ml-100k.inter" in files:
        return _read_recbole(spark, data)
    raise FileNotFoundError(
        f"no MovieLens 100K at {data}: neither u.data nor ml-100k.inter is there; "
        "`make demo` fetches it to .cache/ml-100k, and -p data=PATH names another place"
    )


_RATINGS = "user INT, movie INT, rating FLOAT, time LONG"


def _csv(spark: SparkSession, path: str, schema: str, **options: str | bool) -> DataFrame:
    # Titles hold bare quotation marks: no character quotes.
    return spark.read.csv(path, schema=schema, quote="", **options)  # type: ignore[arg-type]


def _read_grouplens(spark: SparkSession, data: str) -> Tables:
    genres = [
        row.genre
        for row in _csv(spark, f"{data}/u.genre", "genre STRING, number INT", sep="|").collect()
        if row.number is not None
    ]
    flags = ", ".join(f"`{genre}` INT" for genre in genres)
    movies = _csv(
        spark,
        f"{data}/u.item",
        f"movie INT, title STRING, released STRING, video STRING, url STRING, {flags}",
        sep="|",
        encoding="ISO-8859-1",
    )
    named = [F.when(F.col(f"`{genre}`") == 1, F.lit(genre)) for genre in genres]
    users = "user INT, years INT, gender STRING, occupation STRING, zip STRING"
    return Tables(
        _csv(spark, f"{data}/u.data", _RATINGS, sep="\t"),
        _users(_csv(spark, f"{data}/u.user", users, sep="|")),
        _movies(movies, F.array_compact(F.array(*named))),
    )


def _read_recbole(spark: SparkSession, data: str) -> Tables:
    def table(name: str, schema: str, *names: str) -> DataFrame:
        return _csv(spark, f"{data}/ml-100k.{name}", schema, sep="\t", header=True).toDF(*names)

    ratings = table(
        "inter",
        "`user_id:token` INT, `item_id:token` INT, `rating:float` FLOAT, `timestamp:float` DOUBLE",
        *("user", "movie", "rating", "time"),
    )
    users = table(
        "user",
        "`user_id:token` INT, `age:token` INT, `gender:token` STRING, `occupation:token` STRING, "
        "`zip_code:token` STRING",
        *("user", "years", "gender", "occupation", "zip"),
    )
    movies = table(
        "item",
        "`item_id:token` INT, `movie_title:token_seq` STRING, `release_year:token` STRING, "
        "`class:token_seq` STRING",
        *("movie", "name", "released", "classes"),
    ).withColumn("title", F.format_string("%s (%s)", "name", "released"))
    return Tables(ratings, _users(users), _movies(movies, F.split("classes", " ")))


def _users(raw: DataFrame) -> DataFrame:
    band = sum(((F.col("years") >= bound).cast("int") for bound in AGE_BANDS), F.lit(0))
    return raw.select("user", band.alias("age"), "gender", "occupation")


def _movies(raw: DataFrame, genres: Column) -> DataFrame:
    year = F.regexp_extract("title", r"\((\d{4})\)", 1)
    return raw.select("movie", "title", year.alias("year"), genres.alias("genres"))


# -- splitting --------------------------------------------------------------------------------


def held_ratings(
    spark: SparkSession, pairs: pd.DataFrame, data: str, params: Mapping[str, str]
) -> DataFrame:
    """Return the (user, movie) pairs whose ratings are for evaluation."""
    split = params.get("split", "random")
    if split != "random":
        return _csv(spark, f"{data}/{split}.test", _RATINGS, sep="\t").select("user", "movie")
    fold = int(params.get("fold", "0"))
    if not 0 <= fold < FOLDS:
        raise ValueError(f"-p fold={fold}: there are folds 0 to {FOLDS - 1}")
    return spark.createDataFrame(pairs_of_fold(pairs, fold))


def pairs_of_fold(pairs: pd.DataFrame, fold: int) -> pd.DataFrame:
    """Return one of the five parts of the (user, movie) pairs.

    The pairs are sorted first, so that a fold is the same whatever the order of the file.
    """
    pairs = pairs.sort_values(["user", "movie"], ignore_index=True)
    order = np.random.default_rng(0).permutation(len(pairs))
    return pairs.iloc[np.sort(np.array_split(order, FOLDS)[fold])]


def candidates(pairs: pd.DataFrame, user: int, min_ratings: int) -> np.ndarray:
    """Return the ids of the movies that `user` has not rated and at least `min_ratings` have."""
    ratings = pairs["movie"].value_counts()
    rated = pairs.loc[pairs["user"] == user, "movie"]
    return np.setdiff1d(ratings.index[ratings >= min_ratings], rated).astype(np.int64)


# -- numbering --------------------------------------------------------------------------------


def number(tables: Tables) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Bring users and movies to the driver and number their features; return the genres too.

    These tables are small, and serving needs them whole. The ratings stay in Spark.
    """
    users = tables.users.toPandas().sort_values("user", ignore_index=True)
    movies = tables.movies.toPandas().sort_values("movie", ignore_index=True)
    for frame, names in ((users, USER_FIELDS), (movies, MOVIE_FIELDS)):
        for name in names:
            frame[f"{name}_number"] = np.unique(frame[name], return_inverse=True)[1]
    genres = sorted({genre for of_movie in movies["genres"] for genre in of_movie})
    numbers = {genre: i for i, genre in enumerate(genres)}
    movies["genres"] = [
        np.array([numbers[genre] for genre in of_movie], np.int32) for of_movie in movies["genres"]
    ]
    return users, movies, genres


def _rows(spark: SparkSession, frame: pd.DataFrame) -> DataFrame:
    """Give numbered users or movies back to Spark, to join ratings with."""
    key = frame.columns[0]
    numbers = [name for name in frame.columns if name.endswith("_number")]
    extra = ["genres"] if "genres" in frame.columns else []
    return spark.createDataFrame(frame[[key, *numbers, *extra]])


def _features(frame: pd.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    return frame[[f"{name}_number" for name in names]].to_numpy(np.int32)


def _ragged(lists: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    splits = np.cumsum([0, *(len(values) for values in lists)])
    return np.concatenate(list(lists)).astype(np.int32), splits
