"""The account of a source: counts that add up, and lines that are said once."""

from __future__ import annotations

import threading

from avsr.account import Account


def test_what_is_neither_used_nor_lost_is_missing() -> None:
    account = Account()
    account.found("pictures", 10)
    account.used("pictures", 7)
    account.lost("pictures", "repeated time", 2)

    assert account["pictures"].missing == 1

    account.lost("pictures", "before the beginning")
    assert account["pictures"].missing == 0
    assert account.document() == {
        "pictures": {"found": 10, "used": 7, "lost": {"repeated time": 2, "before the beginning": 1}}
    }


def test_a_line_is_said_once_at_its_first_cause_and_has_its_total_at_the_end() -> None:
    said: list[str] = []
    account = Account(said.append)
    for time_s in (1.0, 2.0):
        account.lost("pictures", "repeated time", line=f"a picture at {time_s} s is left out")
    account.lost("samples", "overlap", 800, line="0.05 s of sound are left out", seconds=0.05)
    account.lost("samples", "overlap", 1600, line="0.10 s of sound are left out", seconds=0.1)
    account.lost("samples", "before the beginning", 5)  # meant: nothing to say

    assert said == ["a picture at 1.0 s is left out", "0.05 s of sound are left out"]
    assert account.lines() == [
        "a picture at 1.0 s is left out; 2 in all",
        "0.05 s of sound are left out; 0.15 s in all",
    ]


def test_what_happened_once_has_no_total() -> None:
    account = Account()
    account.lost("samples", "overlap", 800, line="0.05 s of sound are left out", seconds=0.05)
    account.note("track", "sound track 1 of 2 is read")

    assert account.lines() == ["0.05 s of sound are left out", "sound track 1 of 2 is read"]


def test_threads_lose_no_count() -> None:
    account = Account()

    def count() -> None:
        for _ in range(2000):
            account.found("samples")
            account.lost("samples", "overlap")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert account["samples"].found == account["samples"].lost["overlap"] == 8000


def test_the_counters_of_a_stream_hold_joints_measures_and_what_was_left_out() -> None:
    account = Account()
    account.note("joint", "the clock steps back", cause=1)
    account.note("joint", "the clock steps back", cause=1)  # the other reader found it too
    account.note("joint", "the clock steps back", cause=2)
    account.most("raised_db", 41)
    account.most("raised_db", 12)
    account.found("pictures", 3)
    account.lost("pictures", "repeated time", 2)

    assert account.counters() == {"joints": 2, "raised_db": 41, "pictures_left_out": 2}
    assert account.totals() == ["the clock steps back; 2 in all"]
