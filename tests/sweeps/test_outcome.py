import io
from pathlib import Path

from rich.console import Console

from mbrl_async.sweeps.outcome import Outcome, forget_outcomes, print_outcomes, read_outcomes

FINISHED = Outcome(2, ["seed=2", "env=hopper"], "finished")
FAILED = Outcome(10, ["seed=10", "env=hopper"], "failed", "improve_policy failed: [boom]")
REFUSED = Outcome(1, ["seed=-1", "env=hopper"], "refused", "seed=-1 cannot be used.")


def printed(*outcomes: Outcome) -> str:
    output = io.StringIO()
    print_outcomes(outcomes, Console(file=output, width=200))
    return output.getvalue()


def test_outcomes_are_read_in_the_order_of_the_jobs_until_they_are_forgotten(tmp_path: Path):
    for outcome in (FAILED, FINISHED, REFUSED):
        outcome.write(tmp_path)
    assert read_outcomes(tmp_path) == [REFUSED, FINISHED, FAILED]
    forget_outcomes(tmp_path)
    assert read_outcomes(tmp_path) == []


def test_the_table_says_what_failed_and_why_by_what_the_jobs_do_not_share():
    lines = printed(REFUSED, FINISHED, FAILED).splitlines()
    assert lines[1] == "sweep: 1 refused, 1 finished, 1 failed."
    rows = [line.rstrip().split(None, 3) for line in lines[3:]]
    assert rows == [
        ["1", "refused", "seed=-1", "seed=-1 cannot be used."],
        ["10", "failed", "seed=10", "improve_policy failed: [boom]"],
    ]


def test_where_all_went_well_there_is_no_table():
    assert printed(FINISHED).splitlines() == ["", "sweep: 1 finished."]
    assert printed().splitlines() == ["", "sweep: no job ended."]
