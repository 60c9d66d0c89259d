"""What is read of Spark's store, and how often; the store is a stand-in with its methods."""

from __future__ import annotations

from types import SimpleNamespace

from tfos.launcher.driver.role_groups import RoleGroup
from tfos.launcher.driver.task_attempts import LostAttempt, TaskAttempts
from tfos.topology import Role, RoleSpec


class Attempt:
    def __init__(self, task: int, status: str, words: str | None = None) -> None:
        self.taskId = lambda: task
        self.index = lambda: task % 10
        self.status = lambda: status
        self.errorMessage = lambda: SimpleNamespace(
            isDefined=lambda: words is not None, get=lambda: words
        )


class Store:
    """Of one job, whose last stage is number 7, of two tasks unless told otherwise."""

    def __init__(self, tasks: int = 2) -> None:
        self.attempts: list[Attempt] = []
        self.tasks = tasks
        self.listed = 0

    def of(self, status: str) -> int:
        return sum(1 for attempt in self.attempts if attempt.status() == status)

    def lastStageAttempt(self, stage: int):
        assert stage == 7
        return SimpleNamespace(
            stageId=lambda: stage,
            attemptId=lambda: 0,
            status=lambda: "PENDING",
            numTasks=lambda: self.tasks,
            numFailedTasks=lambda: self.of("FAILED"),
            numKilledTasks=lambda: self.of("KILLED"),
        )

    def taskList(self, stage: int, attempt: int, most: int):
        self.listed += 1
        return SimpleNamespace(size=lambda: len(self.attempts), apply=self.attempts.__getitem__)


def spark(store: Store):
    context = SimpleNamespace(
        statusTracker=lambda: SimpleNamespace(
            getJobIdsForGroup=lambda group: [3] if group == "tfos-r1-worker" else [],
            getJobInfo=lambda job: SimpleNamespace(stageIds=[5, 7]),
        ),
        _jsc=SimpleNamespace(sc=lambda: SimpleNamespace(statusStore=lambda: store)),
    )
    return SimpleNamespace(sparkContext=context, range=lambda *_: None)


def test_tasks_are_listed_only_when_more_are_lost():
    store = Store()
    attempts = TaskAttempts(spark(store), 2)
    store.attempts = [Attempt(20, "RUNNING")]
    assert attempts.lost("tfos-r1-worker") == ()
    assert store.listed == 0
    store.attempts = [Attempt(20, "FAILED", "lost"), Attempt(21, "RUNNING")]
    lost = (LostAttempt(20, 0, False, "lost"),)
    assert attempts.lost("tfos-r1-worker") == attempts.lost("tfos-r1-worker") == lost
    assert store.listed == 1
    store.attempts = [Attempt(20, "FAILED", "lost"), Attempt(21, "KILLED")]
    assert attempts.lost("tfos-r1-worker") == (*lost, LostAttempt(21, 1, True, ""))
    assert attempts.lost("tfos-r1-ps") == ()


def test_tasks_of_the_users_query_are_no_roles():
    store = Store(tasks=200)
    store.attempts = [Attempt(137, "FAILED", "Container killed for exceeding memory limits")]
    attempts = TaskAttempts(spark(store), 2)
    assert attempts.lost("tfos-r1-worker") == ()
    assert not attempts.pending("tfos-r1-worker")
    store.tasks = 2
    assert [attempt.task for attempt in attempts.lost("tfos-r1-worker")] == [137]
    assert attempts.pending("tfos-r1-worker")


def test_of_a_gang_those_that_went_along_are_left_out():
    store = Store()
    store.attempts = [Attempt(20, "FAILED", "ExecutorLostFailure"), Attempt(21, "KILLED", "gang")]
    for gang, tasks in ((True, [20]), (False, [20, 21])):
        spec = RoleSpec(Role.WORKER, 2, trains=True, gang=gang)
        host = SimpleNamespace(run_id="r1")
        group = RoleGroup(spark(store), spec, host, None, slots_within_s=1.0, on_stopped=str)
        assert group.lost_attempts() == ()
        group._submitted.set()
        assert [attempt.task for attempt in group.lost_attempts()] == tasks
        failure = group.task_failure(0, 20)
        assert failure is not None
        assert failure.message == "ExecutorLostFailure"
        assert group.task_failure(0, 22) is None


def test_a_spark_that_is_gone_has_lost_nobody_that_is_known():
    class Gone(Store):
        def lastStageAttempt(self, stage: int):
            raise ConnectionRefusedError

    spec = RoleSpec(Role.WORKER, 2, trains=False)
    host = SimpleNamespace(run_id="r1")
    group = RoleGroup(spark(Gone()), spec, host, None, slots_within_s=1.0, on_stopped=str)
    group._submitted.set()
    assert group.lost_attempts() == ()
