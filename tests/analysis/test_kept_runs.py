"""Runs that are kept in a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mbrl_async.analysis.kept_runs import LEFT_OUT, UnreadableRunsError, read_runs, write_runs
from mbrl_async.analysis.series import make_series
from tests.analysis.synthetic import DISTANCE, TAGS, run

DATA = Path(__file__).parents[2] / "docs" / "data"


def test_what_is_read_is_what_was_written(tmp_path: Path):
    """But for what says where something lies or who made it."""
    places = {"tracking.uri": "sqlite:////home/somebody/mlflow.db", "checkpoint.keep": "2"}
    runs = [
        run(0, np.sqrt, started=5, tags={"mlflow.user": "somebody", "output": "/home/somebody"}, parameters=places),
        run(1, np.sqrt, distances=np.exp, trajectories=7),
    ]
    write_runs(runs, tmp_path / "runs.json")
    assert "somebody" not in (tmp_path / "runs.json").read_text()
    read = read_runs(tmp_path / "runs.json")
    assert [each.run_id for each in read] == ["run-0-5", "run-1-0"]
    for written, again in zip(runs, read, strict=True):
        assert again.started == written.started
        assert again.tags == {**TAGS, "seed": str(written.seed)}
        assert again.parameters == {name: written.parameters[name] for name in written.parameters.keys() - places}
        assert again.measures == written.measures
        assert again.curves.keys() == written.curves.keys()
        for name, curve in written.curves.items():
            np.testing.assert_array_equal(again.curves[name].env_steps, curve.env_steps)
            np.testing.assert_allclose(again.curves[name].seconds, curve.seconds, atol=0.0005)
            np.testing.assert_allclose(again.curves[name].values, curve.values, rtol=1e-5)
    assert DISTANCE.metric in read[1].curves


def test_kept_runs_belong_to_the_series_of_others_with_their_configuration(tmp_path: Path):
    everything = {f"{beginning}x": "1" for beginning in LEFT_OUT}
    write_runs([run(0, np.sqrt, parameters=everything)], tmp_path / "runs.json")
    (series,), _ = make_series([*read_runs(tmp_path / "runs.json"), run(1, np.sqrt, parameters=everything)])
    assert [each.seed for each in series.runs] == [0, 1]


def broken(change) -> str:
    """One run, in which something was changed."""
    curve = {"env_steps": [200, 400], "seconds": [10.0, 20.0], "values": [1.0, 2.0]}
    tags = {"env": "hopper", "algorithm": "me_trpo", "schedule": "async", "backend": "threads", "seed": "0"}
    whole = {"run_id": "a", "started": 0, "tags": tags, "parameters": {}, "curves": {"collect/return": curve}}
    whole["measures"] = {}
    change(whole)
    return json.dumps([whole])


def test_the_example_is_broken_by_its_change_alone(tmp_path: Path):
    (tmp_path / "runs.json").write_text(broken(lambda whole: None))
    assert len(read_runs(tmp_path / "runs.json")) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "at the beginning: Invalid JSON"),
        ("[]", "at the beginning: List should have at least 1 item"),
        ("{}", "at the beginning: Input should be a valid array"),
        (broken(lambda whole: whole.pop("measures")), "at 0.measures: Field required"),
        (broken(lambda whole: whole.update(extra=1)), "at 0.extra: Extra inputs are not permitted"),
        (broken(lambda whole: whole["tags"].pop("schedule")), "at 0: .*schedule should be there"),
        (broken(lambda whole: whole["tags"].update(seed="one")), "at 0: .*the seed one should be a number"),
        (broken(lambda whole: whole["curves"].clear()), "at 0: .*collect/return should be there"),
        (broken(lambda whole: whole["curves"]["collect/return"]["values"].pop()), "return: .*should be equally long"),
        (broken(lambda whole: whole["curves"]["collect/return"].update(values=[1, float("nan")])), "finite number"),
    ],
)
def test_another_file_is_refused_in_a_sentence(tmp_path: Path, text: str, sentence: str):
    (tmp_path / "runs.json").write_text(text)
    with pytest.raises(UnreadableRunsError, match=f"runs.json is no runs.json of a comparison: .*{sentence}"):
        read_runs(tmp_path / "runs.json")


def test_a_missing_file_is_told(tmp_path: Path):
    with pytest.raises(UnreadableRunsError, match=r"nowhere.json cannot be read \(No such file or directory\): give"):
        read_runs(tmp_path / "nowhere.json")


@pytest.mark.parametrize("path", sorted(DATA.glob("*.json")), ids=lambda path: path.stem)
def test_the_runs_behind_the_documents_can_be_read(path: Path):
    assert {run.tags["git_dirty"] for run in read_runs(path)} == {"false"}
