"""A netlist cut into slices of about equal delay, with few nets between them.

Every gate gets a slice, none before those of its inputs. Gates are placed as early, or as late, as
they can be; then one that saves registers later, or earlier, is moved there, until no move saves
any, and the better of the two is taken: what passes from slice to slice is what pipeline registers
have to hold.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from hw.netlist import FALSE, TRUE, Gate, Netlist

__all__ = ["Slices", "slices"]

DELAYS: Mapping[str, int] = {
    "buf": 1,
    "not": 1,
    "nand": 1,
    "nor": 1,
    "and": 2,
    "or": 2,
    "andnot": 2,
    "ornot": 2,
    "xor": 3,
    "xnor": 3,
    "mux": 3,
}
"""Of a gate, about, in inverters."""
ROUNDS = 8


@dataclass(frozen=True)
class Slices:
    """``of_gate``: the slice of each of the netlist's gates, 0 … count - 1.

    ``crossing[k]``: the nets that are driven in slice k or before and read in a later one or by an
    output, in ascending order.
    """

    count: int
    of_gate: tuple[int, ...]
    crossing: tuple[tuple[int, ...], ...]


def slices(netlist: Netlist, count: int) -> Slices:
    """The netlist in ``count`` slices."""
    found: list[Slices] = []
    for late in (False, True):
        schedule = _Schedule(netlist, count, late)
        for _ in range(ROUNDS):
            if not schedule.improved():
                break
        of_gate = tuple(schedule.slice_at(time) for time in schedule.times)
        found.append(Slices(count, of_gate, _crossing(netlist, of_gate, count)))
    return min(found, key=lambda cut: sum(map(len, cut.crossing)))


def _crossing(
    netlist: Netlist, of_gate: tuple[int, ...], count: int
) -> tuple[tuple[int, ...], ...]:
    first = {net: 0 for port in netlist.inputs for net in port.nets}
    last: dict[int, int] = dict.fromkeys(netlist.outputs[0].nets, count)
    for gate, place in zip(netlist.gates, of_gate, strict=True):
        first.update(dict.fromkeys(gate.outputs, place))
        last.update({net: max(place, last.get(net, 0)) for net in gate.inputs})
    return tuple(
        tuple(net for net in sorted(first) if first[net] <= k < last.get(net, 0))
        for k in range(count)
    )


class _Schedule:
    """When each gate's output is there, in inverters; moved gate by gate."""

    def __init__(self, netlist: Netlist, count: int, late: bool) -> None:
        self.gates = netlist.gates
        self.count = count
        self.driver = {net: i for i, gate in enumerate(self.gates) for net in gate.outputs}
        self.readers: dict[int, list[int]] = defaultdict(list)
        for index, gate in enumerate(self.gates):
            for net in set(gate.inputs) - {FALSE, TRUE}:
                self.readers[net].append(index)
        self.outputs = set(netlist.outputs[0].nets)
        self.times: list[int] = []
        for gate in self.gates:
            self.times.append(self._earliest(gate))
        self.end = max(self.times, default=1)
        if late:
            for index in reversed(range(len(self.gates))):
                self.times[index] = self._latest(index)

    def slice_at(self, time: int) -> int:
        """The slice of a gate whose output is there at ``time``."""
        return (time * self.count - 1) // self.end

    def improved(self) -> bool:
        """Move each gate once as late, and once as early as can be, where that saves registers."""
        before = list(self.times)
        for index in reversed(range(len(self.gates))):
            self._move(index, self._latest(index))
        for index, gate in enumerate(self.gates):
            self._move(index, self._earliest(gate))
        return self.times != before

    def _move(self, index: int, time: int) -> None:
        old_time, old_cost = self.times[index], self._cost(index)
        self.times[index] = time
        if self._cost(index) >= old_cost:
            self.times[index] = old_time

    def _earliest(self, gate: Gate) -> int:
        arrivals = (self.times[self.driver[net]] for net in gate.inputs if net in self.driver)
        return max(arrivals, default=0) + DELAYS[gate.kind]

    def _latest(self, index: int) -> int:
        (net,) = self.gates[index].outputs
        return min(
            (self.times[r] - DELAYS[self.gates[r].kind] for r in self.readers[net]),
            default=self.end,
        )

    def _cost(self, index: int) -> int:
        """Registers of all the nets that the gate drives and reads."""
        gate = self.gates[index]
        return sum(self._crossings(net) for net in {*gate.inputs, *gate.outputs} - {FALSE, TRUE})

    def _crossings(self, net: int) -> int:
        """Slices from where the net is driven to where it is read last."""
        last = max((self.slice_at(self.times[r]) for r in self.readers[net]), default=0)
        if net in self.outputs:
            last = self.count - 1
        return last - (self.slice_at(self.times[self.driver[net]]) if net in self.driver else 0)
