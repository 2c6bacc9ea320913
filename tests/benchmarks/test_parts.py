from benchmarks import collection, tracking


def test_tracking_is_a_share_of_one_core():
    share, wait = tracking.measure(seconds=0.1)
    assert 0 < share.value < 100
    assert wait.value > 0


def test_collection_is_measured_without_waiting():
    seconds, share = collection.measure(repetitions=1)
    # 200 control steps of 50 ms, were they waited for, would take 10 s.
    assert 0 < seconds.value < 10
    assert 0 < share.value < 100
