"""The simulated boards as the node agent's driver sees them, in this process or through a socket.

`Driver` stands in for NVML and for the device plugin's SIGHUP. Like NVML it removes an instance that no process uses
though a pod may hold it: that the agent asks first is what tests are to find out, so such a removal is noted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from berth.control.gpus import Gpu, GpuError, GpuInstance, GpuInUse, Inventory, PluginError, Pod, Reading
from e2e.fakegpu.hardware import Board, LayoutError
from e2e.fakegpu.node import Node
from e2e.fakegpu.sensors import Sensors

log = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0


@dataclass(slots=True)
class Driver:
    """Implements `control.gpus.Gpus`, `Meters` and `DevicePlugin` on a node's boards."""

    node: Node
    changed: Callable[[], None] = lambda: None  # what the kubelet is offered changed
    wrongs: list[str] = field(default_factory=list)  # removals under a pod
    sensors: Sensors = field(init=False)

    def __post_init__(self) -> None:
        self.sensors = Sensors(self.node)

    async def read(self) -> Inventory:
        """The boards as they are."""
        gpus = tuple(self._gpu(board) for board in self.node.boards)
        return Inventory(gpus, None if self.node.member.pool.nvlink != "pairs" else self.node.links)

    async def measure(self) -> tuple[Reading, ...]:
        """What the boards do."""
        return self.sensors.read()

    async def set_mig(self, gpu: str, enabled: bool) -> None:
        """Switch a board that is idle and has no instances."""
        board = self._board(gpu)
        if board.instances:
            raise GpuInUse(f"board {board.index} has instances")
        self._note(board, board.uuid)
        with _told():
            board.lay(enabled)

    async def create(self, gpu: str, profile_id: int, start: int) -> None:
        """Make an instance."""
        with _told():
            self._board(gpu).create(profile_id, start)

    async def destroy(self, gpu: str, instance_id: int) -> None:
        """Remove an instance."""
        board = self._board(gpu)
        instance = board.instance(instance_id)
        if instance is None:
            raise GpuError(f"board {board.index} has no instance {instance_id}")
        self._note(board, instance.uuid)
        board.instances.remove(instance)

    async def relist(self) -> None:
        """The device plugin looks at the boards again."""
        self.node.relist()
        self.changed()

    async def holders(self) -> Mapping[str, Pod]:
        """Who holds what, for nodes whose kubelet is simulated too."""
        return {device: Pod(pod.namespace, pod.name) for device, pod in self.node.holders.items()}

    def _note(self, board: Board, uuid: str) -> None:
        if holder := self.node.holder_of(uuid):
            self.wrongs.append(f"board {board.index}: {uuid} went while {holder.namespace}/{holder.name} held it")
            log.error("%s", self.wrongs[-1])

    def _board(self, gpu: str) -> Board:
        for board in self.node.boards:
            if board.uuid == gpu:
                return board
        raise GpuError(f"no board {gpu}")

    @staticmethod
    def _gpu(board: Board) -> Gpu:
        return Gpu(
            index=board.index,
            uuid=board.uuid,
            product=board.model.products[0],
            memory_mib=board.model.memory_mib,
            healthy=board.healthy,
            mig_capable=bool(board.model.profiles),
            mig_enabled=board.mig_enabled,
            mig_pending=board.mig_enabled,
            instances=tuple(
                GpuInstance(
                    id=each.id,
                    profile_id=each.placed.profile.gi_profile_id,
                    profile_name=each.placed.profile.name,
                    start=each.placed.start,
                    size=each.placed.profile.memory_slices,
                    devices=(each.uuid,),
                )
                for each in sorted(board.instances, key=lambda each: each.placed.start)
            ),
        )


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Refusals of the board, as the driver words them."""
    try:
        yield
    except LayoutError as error:
        raise GpuError(str(error)) from error


class _Request(msgspec.Struct):
    call: str
    arguments: list[str | int | bool] = []


class _Answer(msgspec.Struct):
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    in_use: bool = False


@asynccontextmanager
async def serving(driver: Driver, socket: Path) -> AsyncIterator[None]:
    """Answer agents in other processes: one request a connection, as a line of JSON each way."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = msgspec.json.decode(await reader.readline(), type=_Request)
            writer.write(msgspec.json.encode(await _answered(driver, request)) + b"\n")
            await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_unix_server(answer, socket)
    try:
        yield
    finally:
        server.close()


async def _answered(driver: Driver, request: _Request) -> _Answer:
    calls: dict[str, Callable[..., Any]] = {
        "read": driver.read,
        "measure": driver.measure,
        "set_mig": driver.set_mig,
        "create": driver.create,
        "destroy": driver.destroy,
        "relist": driver.relist,
    }
    try:
        result = await calls[request.call](*request.arguments)
    except GpuError as error:
        return _Answer(error=str(error), in_use=isinstance(error, GpuInUse))
    return _Answer(msgspec.Raw(msgspec.json.encode(result)))


@dataclass(frozen=True, slots=True)
class RemoteDriver:
    """A `Driver` that another process serves."""

    socket: Path

    async def read(self) -> Inventory:
        """The boards as they are."""
        return msgspec.json.decode(await self._call("read"), type=Inventory)

    async def measure(self) -> tuple[Reading, ...]:
        """What the boards do."""
        return msgspec.json.decode(await self._call("measure"), type=tuple[Reading, ...])

    async def set_mig(self, gpu: str, enabled: bool) -> None:
        """Switch a board."""
        await self._call("set_mig", gpu, enabled)

    async def create(self, gpu: str, profile_id: int, start: int) -> None:
        """Make an instance."""
        await self._call("create", gpu, profile_id, start)

    async def destroy(self, gpu: str, instance_id: int) -> None:
        """Remove an instance."""
        await self._call("destroy", gpu, instance_id)

    async def relist(self) -> None:
        """The device plugin looks at the boards again."""
        try:
            await self._call("relist")
        except GpuError as error:
            raise PluginError(str(error)) from error

    async def _call(self, call: str, *arguments: str | int | bool) -> msgspec.Raw:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self.socket, limit=2**24)
                writer.write(msgspec.json.encode(_Request(call, list(arguments))) + b"\n")
                line = await reader.readline()
                writer.close()
        except (OSError, TimeoutError) as error:
            raise GpuError(f"the simulated boards do not answer on {self.socket}: {error}") from error
        answer = msgspec.json.decode(line, type=_Answer)
        if answer.error:
            raise (GpuInUse if answer.in_use else GpuError)(answer.error)
        return answer.result
