"""An archive in the cluster's file system: once, whole, for everyone."""

import os
import stat

import fsspec
import pytest

from tfos.environments import upload as upload_module
from tfos.environments.progress import Progress, in_words, percent_of
from tfos.environments.upload import upload
from tfos.errors import ConfigError, InfrastructureError


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "cache" / "tfos-env-1.tar.gz"
    path.parent.mkdir()
    path.write_bytes(b"x" * 5000)
    path.chmod(0o600)
    return path


@pytest.fixture
def shared(tmp_path):
    # pytest's own directories are 0700.
    path = tmp_path / "shared"
    path.mkdir(mode=0o755)
    return path


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def strict_umask():
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("strict_umask")
def test_it_is_there_for_everyone_with_the_directories_made_for_it(archive, shared, telling):
    base = f"file://{shared}/team/envs"
    done = upload(archive, base, telling.progress)
    place = shared / "team" / "envs" / "tfos-env-1.tar.gz"
    assert done.url == f"{base}/tfos-env-1.tar.gz"
    assert done.shipped_bytes == 5000
    assert place.read_bytes() == archive.read_bytes()
    assert [mode(place), mode(place.parent), mode(shared / "team")] == [0o644, 0o755, 0o755]
    assert os.listdir(place.parent) == [place.name]
    assert telling.percents[-1] == 100


def test_the_second_time_nothing_is_shipped(archive, shared, telling):
    upload(archive, f"file://{shared}", telling.progress)
    place = shared / archive.name
    before = place.stat()
    archive.write_bytes(b"packed again elsewhere")
    done = upload(archive, f"file://{shared}/", telling.progress)
    assert done.shipped_bytes == 0
    assert done.url == f"file://{shared}/{archive.name}"
    # Applications that run may be using it.
    assert (place.stat().st_mtime_ns, place.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert telling.lines[-1].endswith("is there already: nothing is uploaded")


def test_a_path_is_a_url_too(archive, shared, telling):
    assert upload(archive, str(shared), telling.progress).url == f"file://{shared}/{archive.name}"


class Failing(fsspec.get_filesystem_class("file")):
    """A file system on which a step goes wrong."""

    def __init__(self, step, action, **options):
        super().__init__(**options)
        self.step, self.action = step, action

    def mv(self, path1, path2, **kwargs):
        if self.step == "mv":
            self.action(path1, path2)
        return super().mv(path1, path2, **kwargs)

    def put_file(self, lpath, rpath, **kwargs):
        super().put_file(lpath, rpath, **kwargs)
        if self.step == "put":
            self.action(lpath, rpath)


@pytest.fixture
def opens(monkeypatch):
    """Have `upload` open a file system of the test's."""

    def use(file_system):
        def open_file_system(url, _option):
            return file_system, str(file_system._strip_protocol(url)), False

        monkeypatch.setattr(upload_module, "open_file_system", open_file_system)

    return use


def failing(step, action):
    # fsspec gives the same object to whoever asks with the same arguments.
    return Failing(step, action, skip_instance_cache=True)


def break_off(*_):
    raise OSError("quota exceeded")


@pytest.mark.parametrize("step", ["put", "mv"])
def test_a_failure_leaves_nothing_and_says_where(archive, shared, telling, opens, step):
    opens(failing(step, break_off))
    with pytest.raises(InfrastructureError, match=r"uploaded to file://.*quota exceeded; name"):
        upload(archive, f"file://{shared}", telling.progress)
    assert os.listdir(shared) == []


@pytest.mark.parametrize("step", ["put", "mv"])
def test_whoever_is_faster_wins_and_no_part_stays(archive, shared, telling, opens, step):
    def other(_source, _target):
        (shared / archive.name).write_bytes(b"theirs")
        if step == "mv":
            raise FileExistsError("as HDFS refuses it")

    opens(failing(step, other))
    done = upload(archive, f"file://{shared}", telling.progress)
    assert done.shipped_bytes == 0
    assert (shared / archive.name).read_bytes() == b"theirs"
    assert os.listdir(shared) == [archive.name]


def test_parts_of_killed_uploads_go_after_a_day(archive, shared, telling):
    day_s = 24 * 3600
    ages_s = {
        ".tfos-env-0.tar.gz.0123abcd.part": day_s + 60,
        ".tfos-env-1.tar.gz.0123abcd.part": day_s - 60,
        "mine.part": 9 * day_s,
        ".old.tar.gz": 9 * day_s,
    }
    for name, age_s in ages_s.items():
        (shared / name).write_bytes(b"")
        changed = (shared / name).stat().st_mtime - age_s
        os.utime(shared / name, (changed, changed))
    upload(archive, f"file://{shared}", telling.progress)
    removed = ages_s.keys() - set(os.listdir(shared))
    assert removed == {".tfos-env-0.tar.gz.0123abcd.part"}


def test_a_part_that_a_kill_leaves_is_one(archive, shared, telling, opens):
    def kill(*_):
        raise KeyboardInterrupt

    system = failing("put", kill)
    # Its process is gone before it can clean up.
    system.rm_file = lambda _path: None
    opens(system)
    with pytest.raises(KeyboardInterrupt):
        upload(archive, f"file://{shared}", telling.progress)
    (left,) = shared.iterdir()
    os.utime(left, (1, 1))
    opens(failing("none", None))
    upload(archive, f"file://{shared}", telling.progress)
    assert os.listdir(shared) == [archive.name]


def test_it_is_not_seen_under_its_name_before_it_is_whole(archive, shared, telling, opens):
    seen = []
    opens(failing("put", lambda _source, target: seen.append((target, os.listdir(shared)))))
    upload(archive, f"file://{shared}", telling.progress)
    assert archive.name not in seen[0][1]


def test_a_directory_closed_to_others_is_told(archive, shared, telling):
    shared.chmod(0o700)
    done = upload(archive, f"file://{shared}/envs", telling.progress)
    assert done.private_because == f"{shared} cannot be entered by everyone (mode 700)"


def test_an_object_store_gets_it_at_once(archive, telling, opens):
    class Store(fsspec.get_filesystem_class("memory")):
        protocol = "s3"
        store, pseudo_dirs = {}, [""]

        def mv(self, *_args, **_kwargs):
            raise AssertionError("a rename there is a copy")

    store = Store(skip_instance_cache=True)
    opens(store)
    done = upload(archive, "s3://bucket/envs", telling.progress)
    assert done.url == "s3://bucket/envs/tfos-env-1.tar.gz"
    assert [len(content.getvalue()) for content in store.store.values()] == [5000]
    assert done.private_because is None


def test_an_unknown_scheme_is_the_users_mistake(archive, telling):
    with pytest.raises(ConfigError, match=r"spark\.staging_dir 'nowhere://x' cannot be used"):
        upload(archive, "nowhere://x", telling.progress)


@pytest.mark.parametrize(
    ("size", "words"),
    [(12, "12 bytes"), (1500, "2 kB"), (729_000_000, "729 MB"), (2_107_749_984, "2.11 GB")],
)
def test_sizes_are_said_as_people_do(size, words):
    assert in_words(size) == words


def test_a_percentage_is_told_when_it_changes():
    told = []
    advance = percent_of(1000, Progress(print, told.append))
    for _ in range(220):
        advance(5)
    assert told == list(range(1, 101))
