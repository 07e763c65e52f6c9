"""What a handler may know about the task it runs: the value of a parameter named `context`."""

from __future__ import annotations

from typing import Any

import msgspec


class FunctionContext(msgspec.Struct, frozen=True, kw_only=True):
    """Given to a handler that has a parameter named `context`; the field names are Beam's.

    `on_start_value` is what `on_start` returned in this process. `timeout` is in seconds, 0 for none.
    """

    container_id: str
    stub_id: str
    stub_type: str
    callback_url: str | None
    task_id: str
    timeout: int
    on_start_value: Any = None
    bind_port: int = 0
    python_version: str = ""
