"""Messages on the WebSocket links (msgpack). A frame is a list of messages of one direction."""

from __future__ import annotations

from typing import Annotated

import msgspec

from treadle.model.container import Isolation
from treadle.model.deployment import Image, ImageSpec, QueueConfig
from treadle.model.log import Line, When

PROTOCOL = 1
RUNNER_PATH = "/link/runner"  # WebSocket; header Authorization: Bearer <container token>
AGENT_PATH = "/link/agent"  # WebSocket; header Authorization: Bearer <agent token>
MAX_FRAME = 64 * 1024 * 1024
MAX_MESSAGES = 10_000  # of a frame
MAX_ITEMS = 20_000  # of a list in a message: an attempt's lines, the work of 256 children
MAX_CHILDREN = 256  # of a runner: what `workers` may be
BEAT_SECONDS = 3.0
LEASE_SECONDS = 15.0
ORPHAN_GRACE_SECONDS = 60.0
LAST_WORDS = "last_words"  # file beside run.msgpack in which a runner that can never work says why, in one line


class AttemptRef(msgspec.Struct, frozen=True, array_like=True):
    """Which try of which task: the fencing token."""

    task_id: str
    attempt: int


Refs = Annotated[list[AttemptRef], msgspec.Meta(max_length=MAX_ITEMS)]


class Died(msgspec.Struct, frozen=True):
    """The child's process ended in the middle of a task: the raw evidence, judged by `rules.exits`.

    `status` is the exit code, or minus the signal number. Memory figures are bytes.
    """

    status: int
    oom_kills: int = 0  # by how much the container's oom_kill counter grew
    peak: int = 0
    limit: int = 0


class Raised(msgspec.Struct, frozen=True):
    """User code raised, or returned what is not JSON (`not_json`). `retryable`: `retry_for` is empty or matches.

    `oom`: a process that the task had started was killed for memory meanwhile.
    """

    type: str
    message: str
    traceback: str
    retryable: bool = True
    not_json: bool = False
    oom: Died | None = None


class Gpu(msgspec.Struct, frozen=True):
    """A device of a machine: its UUID and its name, both as the driver tells them."""

    uuid: str
    name: str


# runner -> server


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """First message of a connection. `held`: attempts running here or finished and not yet settled.

    `free`: children ready for work, less the work that waits here for one (so it may be below zero).
    """

    container_id: str
    held: Refs
    free: Annotated[int, msgspec.Meta(ge=-MAX_ITEMS, le=MAX_CHILDREN)]
    protocol: int = PROTOCOL
    isolation: Isolation = Isolation.PROCESS  # what its children are held to


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """`free` more children can take a task (loaded for the first time, or again after one died in a task).

    The server counts what is said to be free less what it sends, so each child is told when it becomes free, also
    when it takes work at once that has been waiting here; one that replaces a free child is not.
    """

    free: Annotated[int, msgspec.Meta(ge=0, le=MAX_CHILDREN)]


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """An attempt has ended. Exactly one of `result`, `raised`, `died`, `timed_out` is set.

    Sent again after a reconnect until `Settled` answers it. `free`: the child takes (or has taken) the next task.
    """

    ref: AttemptRef
    result: bytes | None = None  # raw JSON
    raised: Raised | None = None
    died: Died | None = None
    timed_out: bool = False
    free: bool = False
    ran: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0  # seconds in the child


class Returned(msgspec.Struct, frozen=True, tag="returned"):
    """These attempts were sent ahead, have not started and never will: the answer to `Recall`, or part of a stop."""

    refs: Refs


class LoadFailed(msgspec.Struct, frozen=True, tag="load_failed"):
    """A child could not import the handler, or `on_start` raised; the runner ends itself after this."""

    reason: str
    traceback: str = ""


class Lines(msgspec.Struct, frozen=True, tag="lines"):
    """What was printed, oldest first: by an attempt that runs here, or (`ref` None) by nothing but the container.

    Those of an attempt come before its `Finished`. `starting`: by the first children, while they loaded the handler.
    """

    lines: Annotated[list[Line], msgspec.Meta(max_length=MAX_ITEMS)]
    ref: AttemptRef | None = None
    starting: bool = False


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """Sent every BEAT_SECONDS by the runner's parent (never by user code) and by the agent."""


# server -> runner


class Work(msgspec.Struct, frozen=True, tag="work"):
    ref: AttemptRef
    payload: bytes  # raw JSON {"args": […], "kwargs": {…}}
    callback_url: str | None = None


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Kill the child that runs this attempt; its report is not wanted."""

    ref: AttemptRef


class Recall(msgspec.Struct, frozen=True, tag="recall"):
    """Give back what has not started: the task in front of it takes longer than its kind used to."""


class Settled(msgspec.Struct, frozen=True, tag="settled"):
    """The reports of these attempts are on disk (or refused for good): forget them."""

    refs: list[AttemptRef]


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Take no more work; let running tasks finish for at most `grace` seconds, then end."""

    grace: float
    reason: str = ""


# server -> agent


class Mount(msgspec.Struct, frozen=True):
    """A folder of the agent's machine, and where a container finds it."""

    source: str  # absolute; made if there is none
    target: str  # as declared: below the working directory, or absolute


class ContainerSpec(msgspec.Struct, frozen=True):
    """All an agent needs to start a container, and a runner to run in it."""

    container_id: str
    deployment_id: str
    token: str  # the runner's; "" for a container that is started already
    config: QueueConfig
    image: Image
    source_id: str
    started: bool  # its runner has connected once: adopt it, never start it again
    stub_type: str = "taskqueue"
    secrets: dict[str, str] = {}  # values by name, for one that is to be started; never to be written down
    mounts: list[Mount] = []  # volumes, as declared
    gpus: tuple[str, ...] = ()  # UUIDs of the devices it gets


class Wanted(msgspec.Struct, frozen=True, tag="wanted"):
    """Everything that shall run on this agent. What is not listed is killed."""

    containers: list[ContainerSpec]


class Build(msgspec.Struct, frozen=True, tag="build"):
    """Resolve (unless `lock` is known) and build an image; answered by BuildLog… and Built."""

    build_id: str
    spec: ImageSpec
    image: Image | None = None


class AskImages(msgspec.Struct, frozen=True, tag="ask_images"):
    """Which images are on this machine? Answered by ImagesTold."""

    ask_id: str


class PruneImages(msgspec.Struct, frozen=True, tag="prune_images"):
    """Remove images that are not among `keep`; answered by ImagesTold with those removed (or to be: `dry_run`)."""

    ask_id: str
    keep: list[str]
    dry_run: bool = False


# agent -> server


class AgentHello(msgspec.Struct, frozen=True, tag="agent_hello"):
    """First message of an agent: its machine and what runs on it."""

    agent_id: str
    hostname: str
    cpu: int  # millicores
    memory: int  # MiB
    gpus: list[Gpu]
    limits: str  # cgroup2, cgroup1 or watchdog
    running: list[str]
    protocol: int = PROTOCOL
    isolation: Isolation = Isolation.PROCESS  # what containers started here get
    no_higher: str = ""  # why not a higher level


class Exited(msgspec.Struct, frozen=True, tag="exited"):
    """A container's processes are all gone, or it could not be started (`failed`). `tail`: the end of its log."""

    container_id: str
    reason: str
    failed: bool = False
    tail: str = ""


class BuildLog(msgspec.Struct, frozen=True, tag="build_log"):
    build_id: str
    line: str


class Built(msgspec.Struct, frozen=True, tag="built"):
    """`error` is empty on success. `cached`: the image was on this machine already."""

    build_id: str
    image: Image | None = None
    cached: bool = False
    error: str = ""


class ImageHere(msgspec.Struct, frozen=True):
    """An image on an agent's machine. Sizes are bytes, times Unix seconds.

    `freed`: what the disk gets back when it is removed; files that uv's cache holds too are not in it.
    """

    id: str
    python: str  # full version
    packages: tuple[str, ...]  # as declared
    base_image: str = ""
    size: int = 0
    freed: int = 0
    built_at: When = 0.0
    used_at: When = 0.0


class ImagesTold(msgspec.Struct, frozen=True, tag="images_told"):
    ask_id: str
    images: list[ImageHere] = []
    error: str = ""


# agent -> runner, as the file `run.msgpack` (mode 0600) in the container's folder


class Sandbox(msgspec.Struct, frozen=True):
    """What the template enters, and so all children of a runner. Folders have the same paths inside as outside."""

    level: Isolation = Isolation.PROCESS
    writable: list[str] = []  # the container's own folders
    shared: list[str] = []  # folders of the machine that containers may change
    mounts: list[Mount] = []  # volumes; at level 2 also by their targets, which are absolute
    hidden: list[str] = []  # not to be seen, but for what is named here and the image
    scratch: str = ""  # an empty folder for temporary files: /tmp at level 2
    root: str = ""  # an empty folder over which the new root is put together
    block_network: bool = False
    gpu_files: list[str] = []  # of the devices that it may open, beside those that all share
    environment: str = ""  # the folder of the image's interpreter and packages


class RunSpec(msgspec.Struct, frozen=True):
    """What a runner is started with: `python -m treadle.runner FOLDER` reads FOLDER/run.msgpack.

    `procs_files`: the template writes "0", which means itself, into each (cgroup.procs; tasks in version 1) before it
    forks the first child, so that children are held and the parent is not. `oom_file` holds a line `oom_kill N`,
    `peak_file` a number of bytes; cgroup v1, v2 and the watchdog all write these two forms. "" where there is none.
    """

    url: str  # of the server
    container_id: str
    deployment_id: str
    token: str
    config: QueueConfig
    code: str  # the container's own copy of the source: working directory and first on sys.path
    python: str  # full version, for the context
    stub_type: str = "taskqueue"  # for the context, too
    procs_files: list[str] = []
    oom_file: str = ""
    peak_file: str = ""
    limit: int = 0  # bytes
    gpus: tuple[str, ...] = ()  # UUIDs of the devices it may see
    orphan_grace: float = ORPHAN_GRACE_SECONDS
    sandbox: Sandbox = Sandbox()


# runtime -> zygote, packets on a socket of their own


class Spawn(msgspec.Struct, frozen=True, tag="spawn"):
    """Fork a runner. With it come two files: `Surroundings`, and the log that takes what the runner prints."""

    container_id: str
    folder: str


class Surroundings(msgspec.Struct, frozen=True):
    """What children take on inside their sandbox, and nothing of the runner outside of it.

    The zygote never reads it: its memory is in every container, and these are secrets of one.
    """

    env: dict[str, str]  # all variables
    python: str  # the image's interpreter


# What zygotes and runners are started with, beside the mark of their container.
START = {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}


# zygote -> runtime


class Up(msgspec.Struct, frozen=True, tag="up"):
    """First message: everything is loaded."""


class Spawned(msgspec.Struct, frozen=True, tag="spawned"):
    """The answer to each `Spawn`, in order. `pid` is 0 when the kernel has refused to fork."""

    pid: int


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """A runner has ended: its exit code, or minus the signal number."""

    pid: int
    status: int


RunnerToServer = Hello | Ready | Finished | Returned | LoadFailed | Lines | Beat
ServerToRunner = Work | Cancel | Recall | Settled | Stop
AgentToServer = AgentHello | Exited | BuildLog | Built | ImagesTold | Beat
ServerToAgent = Wanted | Build | AskImages | PruneImages
FromZygote = Up | Spawned | Ended

encode = msgspec.msgpack.Encoder().encode
split = msgspec.msgpack.Decoder(Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_MESSAGES)]).decode
decode_from_runner = msgspec.msgpack.Decoder(RunnerToServer).decode  # one message
decode_for_runner = msgspec.msgpack.Decoder(list[ServerToRunner]).decode
decode_from_agent = msgspec.msgpack.Decoder(AgentToServer).decode  # one message
decode_for_agent = msgspec.msgpack.Decoder(list[ServerToAgent]).decode
decode_for_zygote = msgspec.msgpack.Decoder(Spawn).decode
decode_from_zygote = msgspec.msgpack.Decoder(FromZygote).decode
decode_surroundings = msgspec.msgpack.Decoder(Surroundings).decode
