"""A combinational Amaranth component, given as ``module:Class`` or ``file.py:Class``.

Its code is Python and is run: the class is built without arguments.
"""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from ..amaranth_netlist import netlist_from_component
from ..errors import InputError, unknown_name
from .imported import Imported
from .source import Source, as_multiplier_ports


def imported(source: Source) -> Imported:
    """The component's netlist; inputs in the order of its signature are its operands."""
    module_name, _, class_name = source.place.rpartition(":")
    if not module_name or not class_name.isidentifier():
        raise InputError(f"Amaranth component must be module:Class, not {source.place!r}")
    module = _module(module_name)
    if not hasattr(module, class_name):
        raise unknown_name(f"class of {module_name}", class_name, _classes(module))
    component = getattr(module, class_name)()
    name = source.called(class_name)
    netlist = netlist_from_component(component, name)
    operands = source.ordered([port.name for port in netlist.inputs], source.place)
    if len(netlist.outputs) != 1 and source.product is None:
        raise InputError(f"{source.place} must have one output, not {len(netlist.outputs)}")
    product = source.product or netlist.outputs[0].name
    ported = as_multiplier_ports(netlist, name, operands, product)
    return Imported.of_gates(ported, source.is_signed(name, _signedness(component)), source.place)


def _module(name: str) -> ModuleType:
    path = Path(name)
    if path.suffix != ".py":
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise InputError(f"module {name} must be importable: {error}") from None
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"{name} must be a Python file, but there is no such file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _classes(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, type)]


def _signedness(component: Any) -> bool | None:
    """That of the operands, where a port is declared signed; unknown where none is."""
    from amaranth.hdl import Shape

    members = component.signature.members.values()
    shapes = [Shape.cast(member.shape) for member in members if member.is_port]
    return True if any(shape.signed for shape in shapes) else None
