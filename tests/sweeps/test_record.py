import pytest
from mlflow import MlflowClient

from mbrl_async.sweeps.record import Sweep, close_sweep, configuration_digest, finished_run, open_sweep
from mbrl_async.tracking.run import MlflowRun
from mbrl_async.tracking.store import experiment_id

EXPERIMENT = "sweeps"


def child(client: MlflowClient, sweep: Sweep, digest: str) -> MlflowRun:
    identifier = experiment_id(client, EXPERIMENT)
    return MlflowRun(client=client, experiment_id=identifier, name="job", tags=sweep.tags(3, digest))


def status(client: MlflowClient, run_id: str) -> str:
    return client.get_run(run_id).info.status


def test_a_sweep_is_a_run_with_children(client: MlflowClient):
    sweep = open_sweep("a", client.tracking_uri, EXPERIMENT)
    run = child(client, sweep, "d")
    tags = client.get_run(run.run_id).data.tags
    assert tags["mlflow.parentRunId"] == sweep.run_id
    assert (tags["sweep"], tags["job"], tags["configuration"]) == ("a", "3", "d")
    colours = {sweep.tags(job, "d")["mlflow.runColor"] for job in range(6)}
    assert len(colours) == 6, "MLflow's pages draw the jobs of two schedules with three seeds in six colours"
    assert client.get_run(sweep.run_id).info.run_name == "sweep a"
    run.finish("FINISHED")


def test_the_same_name_reopens_the_same_run(client: MlflowClient):
    sweep = open_sweep("b", client.tracking_uri, EXPERIMENT)
    close_sweep(sweep, "FAILED")
    assert status(client, sweep.run_id) == "FAILED"
    again = open_sweep("b", client.tracking_uri, EXPERIMENT)
    assert again == sweep
    assert status(client, sweep.run_id) == "RUNNING"
    assert open_sweep("c", client.tracking_uri, EXPERIMENT).run_id != sweep.run_id


@pytest.mark.parametrize("end", [lambda sweep: close_sweep(sweep, "KILLED"), lambda sweep: None], ids=["end", "start"])
def test_jobs_that_were_killed_do_not_stay_running(client: MlflowClient, end, request):
    name = f"killed-{request.node.callspec.id}"
    sweep = open_sweep(name, client.tracking_uri, EXPERIMENT)
    dead, done = child(client, sweep, "dead"), child(client, sweep, "done")
    done.finish("FINISHED")
    end(sweep)
    open_sweep(name, client.tracking_uri, EXPERIMENT)
    assert (status(client, dead.run_id), status(client, done.run_id)) == ("KILLED", "FINISHED")
    dead.finish("KILLED")


def test_only_a_finished_run_of_the_same_sweep_and_configuration_is_found(client: MlflowClient):
    sweep, other = (open_sweep(name, client.tracking_uri, EXPERIMENT) for name in ("d", "e"))
    for run_status in ("FAILED", "KILLED"):
        child(client, sweep, "x").finish(run_status)
    child(client, other, "x").finish("FINISHED")
    child(client, sweep, "y").finish("FINISHED")
    assert finished_run(client, EXPERIMENT, "d", "x") is None
    run = child(client, sweep, "x")
    run.finish("FINISHED")
    found = finished_run(client, EXPERIMENT, "d", "x")
    assert found is not None
    assert found.info.run_id == run.run_id


def test_the_digest_knows_what_alters_a_result():
    config = {"seed": 0, "env": {"horizon": 200}, "sweep": {"name": "a"}, "tracking": {"uri": "x"}, "resume": None}
    reordered = {"tracking": {"uri": "y"}, "sweep": {"name": "b"}, "env": {"horizon": 200}, "seed": 0}
    assert configuration_digest(config) == configuration_digest(reordered)
    assert configuration_digest(config) != configuration_digest({**config, "seed": 1})
    assert configuration_digest(config) != configuration_digest({**config, "env": {"horizon": 201}})


def test_what_jobs_in_other_processes_read_is_what_was_written(tmp_path):
    sweep = Sweep("a/b", "run", "sqlite:///mlflow.db", "experiment")
    sweep.write(tmp_path / "new")
    assert Sweep.read(tmp_path / "new") == sweep
