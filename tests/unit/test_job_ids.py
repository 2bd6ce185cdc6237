"""Job ids: never the same twice, across threads and processes."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from overload_demo.jobs import IDS_AT_ONCE, JOB_ID, new_job_id

FORKS = r"""
import os
from overload_demo.jobs import new_job_id
new_job_id()
child = os.fork()
os.write(1, f"{new_job_id()}\n".encode())
child and os.waitpid(child, 0)
"""


def test_many_threads_get_different_ids() -> None:
    wanted = 20 * IDS_AT_ONCE
    with ThreadPoolExecutor(8) as threads:
        ids = set(threads.map(lambda _: new_job_id(), range(wanted)))

    assert len(ids) == wanted
    assert all(JOB_ID.fullmatch(one) for one in ids)
    assert {len(one) for one in ids} == {len("job_") + 32}, "128 random bits"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_gets_different_ids() -> None:
    ids = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True).stdout.split()

    assert len(set(ids)) == 2
