"""The shortest way through: deploy, POST, result."""

from __future__ import annotations

import pytest
from place import Place

pytestmark = pytest.mark.e2e


def test_a_deployed_function_answers_with_its_result(place: Place) -> None:
    """A POST to the printed URL gives a task id at once, and the task's record has the returned JSON."""
    made = place.deploy(
        """
        from treadle import task_queue

        @task_queue()
        def handler(x):
            return {"doubled": x * 2}
        """
    )
    answer = place.request("POST", made["invoke_url"], json={"x": 21})
    task = place.ended(answer.json()["task_id"])
    assert (task["status"], task["result"]) == ("COMPLETE", {"doubled": 42})
