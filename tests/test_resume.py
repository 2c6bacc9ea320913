"""Whole jobs that end early and go on: what they leave is what they would have left at once."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run
from omegaconf import OmegaConf
from safetensors.torch import load_file

from mbrl_async.algorithms.model_based import ImaginedPolicyImprovement
from mbrl_async.checkpoint.codec import CheckpointError
from mbrl_async.checkpoint.journal import entries
from mbrl_async.checkpoint.keeper import RunKeeper
from mbrl_async.checkpoint.lock import LOCK_FILE
from mbrl_async.checkpoint.snapshots import SnapshotFolder
from mbrl_async.config import ConfigError
from mbrl_async.differences import environment_differences
from mbrl_async.envs.linear_quadratic import LinearQuadratic
from mbrl_async.job import Job, WorkerFailedError, run_job
from mbrl_async.recorded import RecordedRun
from mbrl_async.results import RESULT_FILES, TRAJECTORIES_FILE, read_trajectories
from mbrl_async.resume import resumed, use_folder_of
from mbrl_async.run_folder import CHECKPOINT
from mbrl_async.runtime.recovery import Snapshot
from mbrl_async.runtime.redo import go_on
from mbrl_async.runtime.simulated import _Simulation
from mbrl_async.runtime.stop import StopRule
from mbrl_async.runtime.trace import Counters, read_trace
from mbrl_async.tracking.environment import read_environments
from mbrl_async.tracking.run import current_parameters
from mbrl_async.tracking.store import TrackingError, open_store
from tests.recordings import no_figures
from tests.small import FEW_STEPS, SMALL, composed

CHOICES = {"env": "linear_quadratic", "algorithm": "me_trpo", "schedule": "async", "backend": "simulated"}
OFTEN = "checkpoint.every_trajectories=1"
LEARNED = ("policy", "model", "trajectories")
ASYNC = ("backend=simulated", "simulated.costs.learn_model=0.6", "simulated.costs.improve_policy=0.4", OFTEN)
SYNC_ON_THREADS = ("schedule=sync", *FEW_STEPS, "backend=threads", "pace.factor=0", OFTEN)


@pytest.fixture(autouse=True, scope="module")
def _without_figures() -> Iterator[None]:
    with no_figures():
        yield


@pytest.fixture(scope="module")
def uri(client: MlflowClient) -> str:
    return f"tracking.uri={client.tracking_uri}"


@contextmanager
def snapshots_at_once() -> Iterator[None]:
    """Written where they are taken: how many the background writes depends on how fast the machine is."""
    save = RunKeeper.save

    def save_at_once(keeper: RunKeeper, snapshot: Snapshot) -> None:
        save(keeper, snapshot)
        keeper._save_what_waits()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunKeeper, "save", save_at_once)
        yield


@pytest.fixture(scope="module")
def whole(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A run that nothing happened to; whoever wants to change its files takes a copy."""
    overrides = (*SMALL, uri, *ASYNC)
    job = Job(composed(*overrides), overrides, CHOICES, tmp_path_factory.mktemp("whole"))
    with snapshots_at_once():
        run_job(job)
    return job


@pytest.fixture
def job(tmp_path: Path, uri: str) -> Callable[..., Job]:
    def make(name: str, *overrides: str) -> Job:
        return Job(composed(*SMALL, uri, *overrides), (*SMALL, uri, *overrides), CHOICES, tmp_path / name)

    return make


@pytest.fixture
def resume(uri: str) -> Callable[..., float]:
    def run(what: object, *overrides: str) -> float:
        overrides = (f"resume={what}", uri, *overrides)
        return run_job(resumed(Job(composed(*overrides), overrides, {}, Path("unused"))))

    return run


def runs_in(job: Job, client: MlflowClient) -> list[Run]:
    """Of all that this folder has had."""
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return [run for run in runs if run.data.tags.get("output") == str(job.output)]


def run_id(job: Job, client: MlflowClient) -> str:
    (run,) = runs_in(job, client)
    return str(run.info.run_id)


def left_by(job: Job, client: MlflowClient, *, times: bool = True) -> dict[str, object]:
    """Trace, everything learned, and all curves."""
    steps = [
        (each.worker, each.index, dict(each.pulled), each.digest, *((each.start, each.finish) if times else ()))
        for each in read_trace(job.output / "trace.jsonl")
    ]
    tensors = {
        f"{name}/{key}": tensor.tolist()
        for name in LEARNED
        for key, tensor in load_file(job.output / f"{name}.safetensors").items()
    }
    run = client.get_run(run_id(job, client))
    names = sorted(name for name in run.data.metrics if times or name in {"collect/return", "improve_policy/kl"})
    curves = {
        name: [
            (metric.step, metric.value, *((metric.timestamp - run.info.start_time,) if times else ()))
            for metric in client.get_metric_history(run.info.run_id, name)
        ]
        for name in names
    }
    return {"steps": steps, "tensors": tensors, "curves": curves}


def cut_off(job: Job, client: MlflowClient, share: float) -> None:
    """What is left of a process that was killed when its journal had this share of its bytes."""
    journal = job.output / CHECKPOINT / "journal"
    os.truncate(journal, int(share * journal.stat().st_size))
    client.update_run(run_id(job, client), status="RUNNING")


@pytest.mark.parametrize(("share", "from_snapshot"), [(0.0001, False), (0.5, False), (0.9, True)])
def test_a_killed_simulated_run_ends_as_if_it_had_not_been_killed(job, whole, resume, client, share, from_snapshot):
    killed = job("killed", *ASYNC)
    with snapshots_at_once():
        run_job(killed)
    cut_off(killed, client, share)
    kept = killed.output / CHECKPOINT
    steps = len(list(entries(kept / "journal")))
    snapshot = SnapshotFolder(kept / "snapshots", keep=2).newest(steps)
    assert (snapshot is not None) == from_snapshot
    assert snapshot is None or 0 < snapshot.snapshot.position < steps, "some steps are done again"
    resume(run_id(killed, client))
    assert left_by(killed, client) == left_by(whole, client)
    run = client.get_run(run_id(killed, client))
    assert (run.info.status, run.data.tags["resumed"]) == ("FINISHED", "1")


def test_a_killed_run_of_several_collectors_ends_as_if_it_had_not_been_killed(job, resume, client):
    whole, killed = (job(name, *ASYNC, "collectors=2") for name in ("whole", "killed"))
    run_job(whole)
    run_job(killed)
    cut_off(killed, client, 0.6)
    resume(run_id(killed, client))
    assert {record.worker for record in read_trace(killed.output / "trace.jsonl")} > {"collect_0", "collect_1"}
    assert left_by(killed, client) == left_by(whole, client)
    with pytest.raises(ConfigError, match="collectors=3 cannot be changed in a resumed run"):
        resume(run_id(killed, client), "collectors=3")


@pytest.mark.parametrize("backend", [ASYNC, SYNC_ON_THREADS], ids=["simulated", "threads"])
def test_an_interrupted_run_ends_as_if_it_had_not_been_interrupted(job, whole, resume, client, monkeypatch, backend):
    interrupted = job("interrupted", *backend)
    if backend is not ASYNC:
        whole = job("whole", *backend)
        run_job(whole)
    improve, updates = ImaginedPolicyImprovement.improve, []

    def interrupt(self, *arguments):
        updates.append(1)
        if len(updates) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return improve(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ImaginedPolicyImprovement, "improve", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_job(interrupted)
    assert client.get_run(run_id(interrupted, client)).info.status == "KILLED"
    resume(interrupted.output)  # its folder will do, too
    times = backend is ASYNC
    assert left_by(interrupted, client, times=times) == left_by(whole, client, times=times)
    assert client.get_run(run_id(interrupted, client)).info.status == "FINISHED"


def test_a_finished_run_says_so(whole, resume):
    with pytest.raises(ConfigError, match="has finished, with 5 trajectories, 100 environment steps"):
        resume(whole.output)
    with pytest.raises(ConfigError, match=r"for instance stop.trajectories=10"):
        resume(whole.output, "stop.trajectories=4")


def test_a_limit_in_the_millions_is_told_as_it_has_to_be_written():
    rule = StopRule(None, 600_000, 7.5)
    assert rule.ended_by(Counters(trajectories=3001, env_steps=600_123, seconds=7.0)) == {"env_steps": 600_123}
    both = rule.ended_by(Counters(env_steps=600_123, seconds=8.0))
    assert " ".join(f"{name}={2 * come}" for name, come in both.items()) == "env_steps=1200246 seconds=16.0"


@pytest.mark.parametrize("limit", ["env_steps=100", "seconds=20.0"])
def test_how_to_extend_a_finished_run_is_told_by_the_limit_that_ended_it(job, resume, client, limit):
    ended = job("ended", *ASYNC, "stop.trajectories=null", f"stop.{limit}")
    run_job(ended)
    with pytest.raises(ConfigError, match=r"for instance stop\.") as refused:
        resume(run_id(ended, client))
    advice = str(refused.value).rpartition("for instance ")[2].removesuffix(".")
    name, number = limit.split("=")
    assert advice == f"stop.{name}={2 * (float(number) if '.' in number else int(number))}"
    resume(run_id(ended, client), advice)
    assert client.get_run(run_id(ended, client)).info.status == "FINISHED"


@pytest.mark.parametrize("backend", [ASYNC, SYNC_ON_THREADS], ids=["simulated", "threads"])
def test_an_extension_that_is_interrupted_before_it_has_done_its_past_again_loses_nothing(
    job, resume, client, monkeypatch, backend
):
    """The results of the finished run stay, in its folder and in MLflow, until there are better ones."""
    extended = job("extended", *backend)
    run_job(extended)
    before = {name: (extended.output / name).read_bytes() for name in RESULT_FILES}

    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("mbrl_async.job._tell_of_past", interrupt)
        with pytest.raises(KeyboardInterrupt):
            resume(run_id(extended, client), "stop.trajectories=7")
    stored = Path(client.download_artifacts(run_id(extended, client), ""))
    assert {name: (extended.output / name).read_bytes() for name in RESULT_FILES} == before
    assert {name: (stored / name).read_bytes() for name in RESULT_FILES} == before
    assert client.get_run(run_id(extended, client)).info.status == "KILLED"
    resume(run_id(extended, client))
    assert len(read_trajectories(extended.output / TRAJECTORIES_FILE)) == 7


def test_what_resumed_a_run_elsewhere_is_recorded(job, resume, client, monkeypatch):
    moved = job("moved", *ASYNC)
    run_job(moved)
    monkeypatch.setattr("mbrl_async.tracking.environment._cpu_model", lambda: "another processor")
    for trajectories in (6, 7):  # twice there
        resume(run_id(moved, client), f"stop.trajectories={trajectories}")
    first, later = read_environments(moved.output / "environment.json")
    assert first["cpu"] != later["cpu"] == "another processor"
    assert client.get_run(run_id(moved, client)).data.tags["cpu"] == f"{first['cpu']}, then another processor"
    monkeypatch.undo()
    recorded = RecordedRun(client, run_id(moved, client), moved.output / "fetched")
    assert ("cpu", "another processor") in {each[:2] for each in environment_differences(recorded, "cpu")}


def test_a_failed_run_goes_on_from_its_last_step_and_a_finished_one_can_be_extended(job, resume, client, monkeypatch):
    longer, failing = job("longer", *ASYNC, "stop.trajectories=7"), job("failing", *ASYNC)
    improve, updates = ImaginedPolicyImprovement.improve, []

    def fail(self, *arguments):
        updates.append(1)
        if len(updates) == 3:
            raise ArithmeticError("once")
        return improve(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ImaginedPolicyImprovement, "improve", fail)
        with pytest.raises(WorkerFailedError, match="improve_policy failed: ArithmeticError: once"):
            run_job(failing)
    resume(run_id(failing, client))
    resume(run_id(failing, client), "stop.trajectories=7")
    run_job(longer)
    assert left_by(failing, client) == left_by(longer, client)
    assert "stop.trajectories=7" in (failing.output / "overrides.txt").read_text().splitlines()
    run = client.get_run(run_id(failing, client))
    assert run.data.tags["resumed"] == "2"
    assert run.data.params["stop.trajectories"] == "5", "MLflow lets nobody change it"
    assert current_parameters(run) == run.data.params | {"stop.trajectories": "7"}


def test_a_run_whose_folder_moved_is_found_there_the_next_time(job, resume, client, tmp_path):
    moving, moved = job("moving", *ASYNC, "stop.trajectories=2"), tmp_path / "moved"
    run_job(moving)
    identifier = run_id(moving, client)
    shutil.move(moving.output, moved)
    resume(moved, "stop.trajectories=3")
    resume(identifier, "stop.trajectories=4")
    assert len(read_trajectories(moved / "trajectories.safetensors")) == 4


@pytest.mark.parametrize("override", ["seed=1", "schedule=sync", "dynamics.ensemble.members=4", "pace.factor=0.5"])
def test_what_would_make_it_another_run_is_refused_by_name(whole, resume, override):
    with pytest.raises(ConfigError, match=f"^{override} cannot be changed in a resumed run"):
        resume(whole.output, override)


@pytest.fixture
def with_foreign_task(whole: Job, tmp_path: Path) -> tuple[Path, str]:
    """A finished run whose stored configuration names code of another package, and that setting."""
    copy = tmp_path / "foreign"
    shutil.copytree(whole.output, copy)
    cfg = OmegaConf.load(copy / "config.yaml")
    cfg.env._target_ = "tests.test_resume.ForeignTask"
    OmegaConf.save(cfg, copy / "config.yaml")
    return copy, f"env._target_={cfg.env._target_}"


class ForeignTask(LinearQuadratic):
    """Not this program's."""


def test_a_stored_configuration_cannot_choose_what_is_executed(with_foreign_task, resume):
    folder, setting = with_foreign_task
    with pytest.raises(ConfigError, match=rf"^{setting} comes from the recorded run .* repeat this setting"):
        resume(folder, "stop.trajectories=6")
    with pytest.raises(ConfigError, match=r"^env\._target_=another\.Task cannot be changed in a resumed run"):
        resume(folder, "stop.trajectories=6", "env._target_=another.Task")


@pytest.mark.parametrize("prefix", ["", "++"])
def test_what_the_user_repeats_is_trusted(with_foreign_task, uri, prefix):
    folder, setting = with_foreign_task
    overrides = (f"resume={folder}", uri, f"{prefix}{setting}", "stop.trajectories=6")
    job = resumed(Job(composed(*overrides), overrides, {}, Path("unused")))
    assert f"env._target_={job.cfg.env._target_}" == setting
    assert job.cfg.stop.trajectories == 6


def test_a_second_process_on_the_same_run_is_refused(whole, resume):
    with (
        FileLock(whole.output / CHECKPOINT / LOCK_FILE),
        pytest.raises(CheckpointError, match="is in use by another process"),
    ):
        resume(whole.output, "stop.trajectories=8")


def test_damaged_snapshots_are_refused_by_name_and_not_needed(job, whole, resume, client, caplog):
    damaged = job("damaged", *ASYNC)
    with snapshots_at_once():
        run_job(damaged)
    cut_off(damaged, client, 0.9)
    newest, older = sorted((damaged.output / CHECKPOINT / "snapshots").iterdir(), reverse=True)
    altered, missing = newest / "learn_model.safetensors", older / "channels.safetensors"
    data = bytearray(altered.read_bytes())
    data[-1] ^= 1
    altered.write_bytes(data)
    missing.unlink()
    resume(damaged.output)
    assert left_by(damaged, client) == left_by(whole, client)
    assert f"{altered} is not the file that was written" in caplog.text
    assert str(missing) in caplog.text


def test_an_altered_journal_is_refused_by_name_and_left_alone(whole, resume, tmp_path):
    shutil.copytree(whole.output, tmp_path / "altered")
    journal = tmp_path / "altered" / CHECKPOINT / "journal"
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 1
    journal.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{journal} was altered: entry"):
        resume(tmp_path / "altered", "stop.trajectories=8")
    assert journal.read_bytes() == data


@pytest.mark.parametrize("what", ["0123456789abcdef", "a folder"])
def test_what_is_no_run_is_refused(resume, tmp_path, what):
    with pytest.raises(ConfigError, match=r"neither a folder nor a run|is not there"):
        resume(tmp_path if what == "a folder" else what)


def test_nothing_is_kept_whose_loading_could_execute_code(whole):
    files = {path.name for path in (whole.output / CHECKPOINT).rglob("*") if path.is_file()}
    assert {Path(name).suffix for name in files} == {"", ".json", ".safetensors"}
    assert {name for name in files if not Path(name).suffix} == {"journal", "lock"}


def test_hydras_folder_for_a_new_run_is_taken_back_and_the_log_goes_on_in_the_runs_own(job, tmp_path):
    resumed_job, unused = job("run"), tmp_path / "outputs" / "day" / "new"
    for folder in (unused, resumed_job.output):
        (folder / ".hydra").mkdir(parents=True)
        for name in ("config", "hydra", "overrides"):
            (folder / ".hydra" / f"{name}.yaml").touch()
    (resumed_job.output / "main.log").write_text("before\n")
    handler = logging.FileHandler(unused / "main.log")
    logging.getLogger().addHandler(handler)
    try:
        use_folder_of(resumed_job, resumed_job.output)  # hydra.run.dir was the run's own
        assert (resumed_job.output / ".hydra" / "config.yaml").exists()
        use_folder_of(resumed_job, unused)
        logging.getLogger("mbrl_async").warning("after")
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    assert list((tmp_path / "outputs").iterdir()) == [], "the folder of the day was empty, too"
    assert (resumed_job.output / "main.log").read_text() == "before\nafter\n"


def test_what_else_is_in_hydras_folder_stays(job, tmp_path):
    (tmp_path / "mine" / ".hydra").mkdir(parents=True)
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    use_folder_of(job("run"), tmp_path / "mine")
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_sweep_resumes_nothing(job):
    with pytest.raises(ConfigError, match=r"resume=some_run goes on with one run: give it to python main\.py"):
        run_job(job("swept", "resume=some_run"))


def test_a_run_whose_folder_is_another_runs_by_now_is_refused(job, resume, client):
    first = job("reused", *ASYNC)
    run_job(first)
    replaced = run_id(first, client)
    run_job(first)
    (newer,) = {each.info.run_id for each in runs_in(first, client)} - {replaced}
    # The journal of the first one is forgotten: with it, the newer one would have nothing left to do.
    assert client.get_run(newer).data.metrics["run/trajectories"] == 5
    with pytest.raises(ConfigError, match=rf"^resume={replaced}: its folder .* belongs to run {newer} now"):
        resume(replaced, "stop.trajectories=8")


def test_a_store_without_the_run_is_told(whole, tmp_path):
    overrides = (f"resume={whole.output}", f"tracking.uri=sqlite:///{tmp_path}/moved.db")
    with pytest.raises(TrackingError, match=r"moved\.db does not exist; say where they are"):
        resumed(Job(composed(*overrides), overrides, {}, Path("unused")))
    open_store(f"sqlite:///{tmp_path}/moved.db")
    with pytest.raises(ConfigError, match=r"^resume: run \w+ is not in sqlite:.*moved\.db: .* tracking\.uri="):
        resumed(Job(composed(*overrides), overrides, {}, Path("unused")))


def test_what_is_no_run_is_refused_also_if_it_is_a_number(resume):
    with pytest.raises(ConfigError, match=r"^resume=5 is neither a folder nor a run in tracking\.uri="):
        resume(5)


def test_time_does_not_run_backwards_if_a_step_is_measured_again_and_takes_less(job, resume, client, monkeypatch):
    measured = job("measured", "backend=simulated", OFTEN)
    costs = {"collect": 0.0, "learn_model": 0.9, "improve_policy": 0.2}

    def going_on(*arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(costs, "learn_model", 1e-6)
            return go_on(*arguments)

    monkeypatch.setattr(_Simulation, "_cost", lambda _self, name, _computing: costs[name])
    monkeypatch.setattr("mbrl_async.runtime.simulated.go_on", going_on)
    with snapshots_at_once():
        run_job(measured)
    cut_off(measured, client, 0.5)
    resume(measured.output)
    finishes = [record.finish for record in read_trace(measured.output / "trace.jsonl")]
    assert finishes == sorted(finishes)
