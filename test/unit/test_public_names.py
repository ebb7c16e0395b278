"""The public names of the package: quick to import, and described in docs/reference.md."""

import dataclasses
import functools
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mobile_vla_ros

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = (ROOT / 'docs' / 'reference.md').read_text()
NAMES = sorted(mobile_vla_ros.__all__)


def python(code: str) -> str:
    """Run code in a fresh interpreter; return its output."""
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_importing_the_package_imports_only_the_standard_library():
    """The guard's process and `mobile_vla --help` import no public name."""
    found = python(
        'import sys; before = set(sys.modules)\n'
        'import mobile_vla_ros; dir(mobile_vla_ros); hasattr(mobile_vla_ros, "Nothing")\n'
        'new = {name.split(".")[0] for name in set(sys.modules) - before}\n'
        'print(sorted(new - {"mobile_vla_ros"} - sys.stdlib_module_names))\n'
        'print(sorted(name for name in sys.modules if name.startswith("mobile_vla_ros")))'
    )
    assert found.splitlines() == ['[]', "['mobile_vla_ros']"]


def test_episodes_and_custom_policies_need_no_torch():
    """Only loading a network does."""
    heavy = python(
        'import sys; from mobile_vla_ros import ActionSpec, Episode, Frame, Plan, Policy\n'
        'from mobile_vla_ros import UserError, find_episodes, spec_without_network\n'
        'print({"torch", "transformers", "mujoco"} & set(sys.modules))'
    )
    assert heavy == 'set()'


def test_every_public_name_can_be_imported_and_is_listed():
    """`from mobile_vla_ros import *`, dir() and attributes agree."""
    everything = {}
    exec('from mobile_vla_ros import *', everything)
    assert set(NAMES) <= set(everything)
    assert set(NAMES) <= set(dir(mobile_vla_ros))
    for name in NAMES:
        assert getattr(mobile_vla_ros, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    """As for any module; submodules can still be imported from the package."""
    with pytest.raises(AttributeError, match="'mobile_vla_ros' has no attribute 'Episodes'"):
        mobile_vla_ros.Episodes  # noqa: B018
    from mobile_vla_ros import files

    assert files.__name__ == 'mobile_vla_ros.files'


def section(name: str) -> str:
    """Return a name's section of the reference."""
    found = re.search(rf'^## `{name}`\n(.*?)(?=^## |\Z)', REFERENCE, re.M | re.S)
    assert found, f'docs/reference.md has no section {name}'
    return found.group(1)


def plain(signature: str) -> str:
    """Return a signature without module names, quotes around types and `-> None`."""
    signature = re.sub(r'(?:\b[a-z_]\w*\.)+(?=[A-Za-z])', '', signature)
    signature = re.sub(r"-> '(\w+)'", r'-> \1', signature)
    return signature.removesuffix(' -> None')


def signatures(name: str) -> set[str]:
    """Return the signature of a function, or of a class, its methods and properties."""
    thing = getattr(mobile_vla_ros, name)
    if inspect.isfunction(thing):
        return {plain(f'{name}{inspect.signature(thing)}')}
    found = set()
    if dataclasses.is_dataclass(thing) or issubclass(thing, Exception):
        found.add(plain(f'{name}{inspect.signature(thing)}'))
    ours = [base for base in thing.__mro__ if base.__module__.startswith('mobile_vla_ros')]
    for member in {name for base in ours for name in vars(base) if not name.startswith('_')}:
        value = inspect.getattr_static(thing, member)
        if isinstance(value, property | functools.cached_property):
            getter = value.fget if isinstance(value, property) else value.func
            returned = inspect.signature(getter).return_annotation
            found.add(plain(f'{name}.{member}: {inspect.formatannotation(returned)}'))
        elif isinstance(value, classmethod):
            found.add(plain(f'{name}.{member}{inspect.signature(getattr(thing, member))}'))
        elif inspect.isfunction(value):
            whole = inspect.signature(value)
            bound = whole.replace(parameters=list(whole.parameters.values())[1:])
            found.add(plain(f'{name}.{member}{bound}'))
    return found


def documented(name: str) -> set[str]:
    """Return the signatures in a section's first block; a long one is wrapped as ruff does."""
    block = re.search(r'```python\n(.*?)```', section(name), re.S).group(1)
    lines = re.split(r'\n(?=[A-Za-z])', block.strip())
    return {
        re.sub(r',?\n\)', ')', re.sub(r'\n +', ' ', line)).replace('( ', '(') for line in lines
    }


def test_the_reference_has_exactly_one_section_per_public_name():
    """And no section for another name."""
    assert sorted(re.findall(r'^## `(\w+)`$', REFERENCE, re.M)) == NAMES


@pytest.mark.parametrize('name', NAMES)
def test_the_signatures_of_the_reference_are_those_of_the_code(name):
    """The first block of a section has them; the failure shows the correct ones."""
    assert documented(name) == signatures(name)


@pytest.mark.parametrize('name', NAMES)
def test_the_reference_shows_a_use_of_every_name(name):
    """Each section has another block after its signatures, and it parses as Python."""
    uses = re.findall(r'```python\n(.*?)```', section(name), re.S)[1:]
    assert any(name in use or name.lower() in use for use in uses)
    for use in uses:
        compile(use, 'docs/reference.md', 'exec')
