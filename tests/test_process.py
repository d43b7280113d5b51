"""What the process gives back of its memory."""

from __future__ import annotations

import asyncio
import ctypes
from types import SimpleNamespace

import pytest

from gateway import process

MIB = 2**20


class Machine:
    """Says how much memory the process has, and counts how often it is asked to give some back."""

    def __init__(self, resident: int, free: int) -> None:
        self.resident, self.free = resident, free
        self.trims = 0
        self.looked = asyncio.Event()

    def resident_bytes(self) -> int:
        self.looked.set()
        return self.resident

    def malloc_trim(self, _pad: int) -> int:
        self.trims += 1
        self.resident, self.free = self.resident - self.free, 0
        return 1

    async def looks(self, times: int) -> None:
        for _ in range(times):
            self.looked.clear()
            async with asyncio.timeout(10):
                await self.looked.wait()


@pytest.fixture
async def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(60 * MIB, 0)
    monkeypatch.setattr(process, "_resident_bytes", machine.resident_bytes)
    monkeypatch.setattr(process, "_TRIM_EVERY_S", 0.001)
    monkeypatch.setattr(process, "_TRIM_EVERY_S_MAX", 0.004)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: machine)
    return machine


async def test_memory_that_large_responses_have_left_is_given_back(machine: Machine) -> None:
    giving = asyncio.create_task(process.give_memory_back())
    await machine.looks(5)
    assert machine.trims == 0, "there is no more than there was"
    machine.resident = 400 * MIB  # all of it is in use
    await machine.looks(8)
    machine.free = 340 * MIB  # it has ended, and no number has changed
    await machine.looks(8)
    assert machine.resident == 60 * MIB
    trims = machine.trims
    await machine.looks(5)
    assert machine.trims == trims
    giving.cancel()


async def test_a_c_library_that_cannot_be_asked_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    async with asyncio.timeout(10):
        await process.give_memory_back()
