"""The laws of docs/architecture.md: who may import whom, who reads a clock, what is loaded."""

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict, deque
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / 'mobile_vla_ros'
PAGE = PACKAGE.parent / 'docs/architecture.md'
OURS = 'mobile_vla_ros'
# '' is the package itself: its version. Its public names (docs/reference.md) are for users alone.
EVERYWHERE = {'errors', 'file_lock', 'files', 'text_table', 'types', ''}

# Folder (or module) → the parts of ours that it may import, beside itself and EVERYWHERE. A dotted
# name allows that module alone. The longest name that a module is within holds for it.
MAY_IMPORT: dict[str, set[str]] = {
    'errors': set(),
    'file_lock': set(),
    'files': set(),
    'text_table': set(),
    'types': set(),
    'images': set(),
    'safety': set(),
    'sim': set(),
    'model': set(),
    'episode': {'images', 'safety.status'},
    'interop': {'episode', 'images'},
    'data': {'episode'},
    'evaluation': {'data', 'model'},
    'training': {'data', 'evaluation', 'model'},
    'runtime': {'data.preprocess', 'model', 'safety.status'},
    'bringup': {'safety'},
    'rollout': {'bringup', 'model', 'runtime', 'safety', 'sim'},
    'replay': {
        'bringup',
        'data',
        'episode',
        'evaluation',
        'model',
        'rollout',
        'runtime',
        'safety',
    },
    'drill': {'bringup', 'safety'},
    'drill.run': {'bringup', 'model'},
    'report': set(),
    'report.pages': {'report.figures'},
    'report.figures': set(),
    'report.builders': {
        'data',
        'episode',
        'evaluation',
        'model',
        'report',
        'rollout',
        'runtime',
        'sim',
    },
    'bench': {
        'bringup',
        'data',
        'episode',
        'evaluation',
        'images',
        'interop',
        'model',
        'runtime',
        'safety',
        'sim',
        'training',
    },
    'nodes': {'bringup', 'drill', 'episode', 'images', 'runtime', 'safety', 'sim'},
    'nodes.bench': {'bench.synthetic_camera', 'nodes'},
    # A command parses arguments and prints: the package that works for it, and its page.
    'cli': set(),
    'cli.bench': {'bench'},
    'cli.demo': {'report', 'rollout'},
    'cli.drill': {'drill'},
    'cli.episodes': {'episode', 'interop', 'report'},
    'cli.evaluate': {'data', 'episode', 'evaluation', 'report'},
    'cli.replay': {'replay', 'report.figures'},
    'cli.simulate': {'report', 'rollout'},
    'cli.train': {'report', 'training'},
}
CLI_LINES = 1700
# Module of others → the parts that may import it. What is not named here is free.
KEPT_TO = {
    'rclpy': {'nodes'},
    'fcntl': {'file_lock'},
    'launch': {'bringup.ros2_launch'},
    'launch_ros': {'bringup.ros2_launch'},
    'transformers': {'model'},
    'peft': {'model'},
    'torch': {
        'bench',
        'cli',
        'data',
        'evaluation',
        'model',
        'nodes',
        'replay',
        'report',
        'rollout',
        'runtime',
        'training',
    },
    'h5py': {'episode', 'interop'},
    'rosbags': {'images', 'interop'},
    'cv_bridge': {'images'},
    'jinja2': {'report'},
    'markupsafe': {'report'},
    'mujoco': {'sim'},
    'matplotlib': {'report'},
}
ROS_MESSAGES = ('_msgs', '_interfaces', '_srvs')
# Logic that takes time as a number.
CLOCKLESS = {
    'episode',
    'data',
    'model',
    'runtime',
    'safety',
    'sim',
    'interop',
    'types',
    'errors',
    'images',
}
CLOCKS = {
    'time.time',
    'time.time_ns',
    'time.monotonic',
    'time.monotonic_ns',
    'time.perf_counter',
    'time.perf_counter_ns',
    'datetime.now',
    'datetime.utcnow',
    'datetime.datetime.now',
    'datetime.datetime.utcnow',
    'datetime.today',
    'date.today',
    'datetime.date.today',
}
# An element of HTML or SVG, a rule of CSS, a function of JavaScript; not Kosmos-2's `<object>`.
MARKUP = re.compile(
    r'</?(?:a|b|button|circle|details|div|figure|figcaption|h[1-6]|html|i|img|input|li|option|p|path'
    r'|pre|rect|script|section|select|span|style|svg|table|td|th|tr|ul)(?=[ />])|<!doctype'
    r'|\{[^{}]*:[^{}]*;[^{}]*\}|\b[a-z]+-[a-z]+: ?#[0-9a-f]{3}|\bfunction ?\w*\(',
    re.IGNORECASE,
)
PICKLES = {'pickle', 'cPickle', 'dill', 'cloudpickle', 'joblib', 'shelve', 'marshal'}
LOADS_CODE = {'torch.load', 'yaml.load', 'yaml.unsafe_load', 'yaml.full_load', 'yaml.load_all'}

MODULES = sorted(PACKAGE.rglob('*.py'))


def part(path: Path) -> str:
    """Return the dotted name of a module inside the package, without __init__."""
    names = list(path.relative_to(PACKAGE).with_suffix('').parts)
    return '.'.join(names[:-1] if names[-1] == '__init__' else names)


def imports(tree: ast.AST) -> set[str]:
    """Return every module named by an import, anywhere in a file, also inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'line {node.lineno}: a relative import'
            # `from a import b` may name the module a.b as well as a name in a.
            found |= {f'{node.module}.{alias.name}' for alias in node.names}
    return found


def within(name: str, allowed: set[str]) -> bool:
    """Whether a dotted name is one of the allowed ones or inside of one."""
    return any(name == one or name.startswith(f'{one}.') for one in allowed)


def dotted(node: ast.AST) -> str:
    """Return ``a.b.c`` of an attribute chain, or ''."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f'{before}.{node.attr}' if before else ''
    return ''


def room_of(name: str) -> str:
    """Return the longest name in the table that a module is within."""
    return max((room for room in MAY_IMPORT if within(name, {room})), key=len, default='')


def forbidden_imports(name: str, tree: ast.AST) -> list[str]:
    """Return what a module imports and may not."""
    top, room = name.split('.')[0], room_of(name)
    wrong = []
    for imported in imports(tree):
        root, _, inner = imported.partition('.')
        if root == OURS:
            if top == '' or inner.split('.')[0] in EVERYWHERE | {'__version__'}:
                continue
            if not within(inner, MAY_IMPORT[room] | {room}):
                wrong.append(imported)
            continue
        kept = root in KEPT_TO and not within(name, KEPT_TO[root])
        if kept or root in PICKLES or (root.endswith(ROS_MESSAGES) and top != 'nodes'):
            wrong.append(imported)
    return wrong


def forbidden_uses(name: str, tree: ast.AST) -> list[str]:
    """Return clocks read where none may be, and loaders that run what they load."""
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            used = dotted(node)
            if used in LOADS_CODE or (name.split('.')[0] in CLOCKLESS and used in CLOCKS):
                wrong.append(f'{used} in line {node.lineno}')
        elif isinstance(node, ast.ImportFrom):
            names = {f'{node.module}.{alias.name}' for alias in node.names}
            bad = names & LOADS_CODE
            if name.split('.')[0] in CLOCKLESS:
                bad |= names & CLOCKS
            wrong += [f'{one} in line {node.lineno}' for one in sorted(bad)]
        elif isinstance(node, ast.keyword) and node.arg == 'allow_pickle':
            wrong.append(f'allow_pickle in line {node.value.lineno}')
    return wrong


def markup(tree: ast.AST) -> list[str]:
    """Return the HTML, CSS and JavaScript in the strings of a module."""
    strings = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [
        f'{found[0]} in line {node.lineno}'
        for node in strings
        if isinstance(node.value, str) and (found := MARKUP.search(node.value))
    ]


@pytest.mark.parametrize('path', MODULES, ids=lambda p: part(p) or OURS)
def test_a_module_imports_only_what_its_part_may(path):
    """The table: only nodes/ imports ROS, the guard has no torch, one place has peft."""
    assert forbidden_imports(part(path), ast.parse(path.read_text())) == []


@pytest.mark.parametrize('path', MODULES, ids=lambda p: part(p) or OURS)
def test_core_code_reads_no_clock_and_nothing_loads_a_pickle(path):
    """Logic takes time as a number; safetensors, JSON and safe YAML are all that is loaded."""
    assert forbidden_uses(part(path), ast.parse(path.read_text())) == []


@pytest.mark.parametrize('path', MODULES, ids=lambda p: part(p) or OURS)
def test_pages_are_templates_and_no_strings(path):
    """HTML, CSS and JavaScript are files of report/templates and report/static."""
    assert markup(ast.parse(path.read_text())) == []


def test_the_command_line_only_parses_and_prints():
    """What works is in the packages; nobody imports `cli`, as the table says."""
    lines = sum(len(path.read_text().splitlines()) for path in (PACKAGE / 'cli').rglob('*.py'))
    assert lines <= CLI_LINES
    parsers = {
        part(path) for path in MODULES if 'argparse' in imports(ast.parse(path.read_text()))
    }
    assert {one for one in parsers if not within(one, {'cli'})} == {'training.flags'}


def page_table(text: str) -> dict[str, set[str]]:
    """Return the table of the page: `folder/` | holds | parts; module: its parts; …"""
    found = {}
    for names, cell in re.findall(r'^\| (`[^|]+) \|[^|]+\| ([^|]+) \|$', text, re.MULTILINE):
        for name in re.findall(r'`(\w+)(?:/|\.py)`', names):
            for clause in cell.split('; '):
                inner, _, parts = clause.rpartition(': ')
                found[f'{name}.{inner}' if inner else name] = set(parts.split(', ')) - {'–'}
    return found


def test_the_page_shows_this_table():
    """A reader of docs/architecture.md learns who may import whom, and it is true."""
    assert page_table(PAGE.read_text()) == MAY_IMPORT


def test_every_file_that_the_page_names_exists():
    """A map that names a file which has moved leads nowhere."""
    root = PACKAGE.parent
    named = re.findall(r'`([a-z_]+/[\w/]*\.(?:py|yaml))`', PAGE.read_text())
    assert len(named) > 50
    assert [one for one in named if not any((at / one).is_file() for at in (PACKAGE, root))] == []


def test_every_folder_of_the_package_is_in_the_table():
    """A new folder has to say what it may import."""
    folders = {part(path).split('.')[0] for path in MODULES} - {''}
    assert folders <= set(MAY_IMPORT)


@pytest.mark.parametrize(
    ('name', 'code'),
    [
        ('safety.guard', 'import torch'),
        ('data.x', 'from rclpy.node import Node'),
        ('episode.reader', 'def f():\n    import sensor_msgs.msg'),
        ('runtime.policy', 'from mobile_vla_ros.data import dataset'),
        ('episode.x', 'from mobile_vla_ros import data'),
        ('cli.x', 'from mobile_vla_ros import Episode'),
        ('cli.train', 'import mobile_vla_ros.nodes'),
        ('cli.train', 'from mobile_vla_ros.cli import main'),
        ('rollout.demo', 'from mobile_vla_ros.cli.main import main'),
        ('training.loop', 'from mobile_vla_ros.bench import process'),
        ('nodes.guard.node', 'from mobile_vla_ros.bench import process'),
        ('report.pages.page', 'from mobile_vla_ros.report.builders import demo'),
        ('report.figures.plots', 'from mobile_vla_ros.evaluation import metrics'),
        ('training.loop', 'import pickle'),
        ('cli.demo', 'from transformers import Kosmos2Model'),
    ],
)
def test_a_forbidden_import_would_be_found(name, code):
    """The check itself: planted mistakes of each kind."""
    assert forbidden_imports(name, ast.parse(code))


@pytest.mark.parametrize(
    ('name', 'code'),
    [
        ('episode.writer', 'import time\ntime.time_ns()'),
        ('sim.arena', 'from time import monotonic'),
        ('runtime.x', 'import datetime\ndatetime.datetime.now()'),
        ('model.bundle', 'import torch\ntorch.load(path, weights_only=True)'),
        ('cli.x', 'import yaml\nyaml.load(text, Loader=yaml.Loader)'),
        ('data.x', 'import numpy\nnumpy.load(path, allow_pickle=True)'),
    ],
)
def test_a_forbidden_use_would_be_found(name, code):
    """The check itself: planted mistakes of each kind."""
    assert forbidden_uses(name, ast.parse(code))


@pytest.mark.parametrize(
    'code',
    [
        "f'<td>{cell}</td>'",
        'f\'<p class="{mood}">\'',
        "STYLE = 'p { margin: 0; }'",
        "f'border-color:#1b1f24'",
        "'document.onclick = function () {}'",
        "'<!doctype html>'",
    ],
)
def test_markup_in_a_string_would_be_found(code):
    """The check itself: planted mistakes of each kind."""
    assert markup(ast.parse(code))


def test_the_guards_process_imports_no_torch():
    """What nodes/guard pulls in, transitively, is numpy and ROS."""
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            'import sys, mobile_vla_ros.nodes.guard.node\n'
            'heavy = {"torch", "transformers", "peft", "h5py", "mujoco", "PIL", "matplotlib"}\n'
            'sys.exit(", ".join(heavy & set(sys.modules)) or 0)',
        ],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


# --- the shape of the house ---

MAX_MODULES = 14  # a folder, beside its __init__
MAX_ATTRIBUTES = 14  # a class; "about 12"
# Words in a comparison are prose from two words on.
PROSE = re.compile(r'[a-z]{2,} [a-z]{2,}')
# Messages of libraries that give no other key.
LIBRARIES_WORDS = {'files': {'os error '}}


def our_imports(tree: ast.AST) -> set[str]:
    """Return the modules of ours that a module imports, without what is no module."""
    known = {part(path) for path in MODULES}
    found = set()
    for imported in imports(tree):
        root, _, inner = imported.partition('.')
        if root == OURS:
            found.add(inner if inner in known else inner.rpartition('.')[0])
    return found & known - {''}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return a way round for every module that reaches itself, each set of modules once."""
    found = {}
    for start in graph:
        ways, seen = deque([[start]]), set()
        while ways:
            way = ways.popleft()
            for other in graph.get(way[-1], ()):
                if other == start:
                    found.setdefault(frozenset(way), [*way, start])
                elif other not in seen:
                    seen.add(other)
                    ways.append([*way, other])
    return sorted(found.values())


def set_outside_init(tree: ast.Module) -> list[str]:
    """Return the attributes of classes that are set, and not in ``__init__``."""
    wrong = []
    for kind in ast.walk(tree):
        if not isinstance(kind, ast.ClassDef):
            continue
        first, later = set(class_names(kind)), set()
        for method in kind.body:
            if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                begins = method.name in ('__init__', '__post_init__')
                (first if begins else later).update(own_attributes(method))
        inherited = {name for base in kind.bases for name in INITIALISED.get(dotted(base), set())}
        wrong += [f'{kind.name}.{name}' for name in sorted(later - first - inherited)]
    return wrong


def class_names(kind: ast.ClassDef) -> set[str]:
    """Return the names that the body of a class gives values or types: fields, constants."""
    return {
        target.id
        for node in kind.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }


def own_attributes(method: ast.AST) -> set[str]:
    """Return the attributes of ``self`` that a method sets."""
    return {
        node.attr
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and dotted(node.value) == 'self'
    }


def compared_prose(tree: ast.AST) -> list[str]:
    """Return the sentences that a module compares with, looks for, or takes apart."""
    found = []
    for node in ast.walk(tree):
        operands: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ('startswith', 'endswith', 'partition', 'split', 'find', 'index'):
                operands = list(node.args)
        elif isinstance(node, ast.match_case):
            operands = [node.pattern]
        found += [
            one.value
            for operand in operands
            for one in ast.walk(operand)
            if isinstance(one, ast.Constant)
            and isinstance(one.value, str)
            and PROSE.search(one.value)
        ]
    return found


# Class → attributes that its own __init__ sets, for those who inherit them.
INITIALISED = {
    kind.name: own_attributes(method)
    for path in MODULES
    for kind in ast.walk(ast.parse(path.read_text()))
    if isinstance(kind, ast.ClassDef)
    for method in kind.body
    if isinstance(method, ast.FunctionDef) and method.name == '__init__'
}


def test_no_module_imports_itself_through_others():
    """Not even for types: a circle of modules is read, changed and tested as one."""
    graph = {part(path): our_imports(ast.parse(path.read_text())) for path in MODULES}
    assert circles({name: others - {name} for name, others in graph.items()}) == []


def test_no_folder_imports_itself_through_others():
    """The same for the rooms; a package's own __init__ belongs to its folder."""
    graph = defaultdict(set)
    for path in MODULES:
        for other in our_imports(ast.parse(path.read_text())):
            graph[folder(part(path))].add(folder(other))
    assert circles({name: others - {name} for name, others in graph.items()}) == []


def folder(name: str) -> str:
    """Return the folder of a module, or the module itself beside folders."""
    place = PACKAGE / name.replace('.', '/')
    above = place if place.is_dir() else place.parent
    if any((below / '__init__.py').is_file() for below in above.iterdir()):
        return name  # beside other rooms a module is one itself
    return '.'.join(above.relative_to(PACKAGE).parts)


def test_folders_are_small():
    """A stranger finds one thing in fourteen; in forty-nine nobody does."""
    counts = Counter(path.parent for path in MODULES if path.name != '__init__.py')
    assert {str(one): count for one, count in counts.items() if count > MAX_MODULES} == {}


@pytest.mark.parametrize('path', MODULES, ids=lambda p: part(p) or OURS)
def test_state_is_in_the_open(path):
    """What an object can hold is read in its ``__init__``, and it fits in one's head."""
    tree = ast.parse(path.read_text())
    assert set_outside_init(tree) == []
    crowded = {
        kind.name: len(names)
        for kind in ast.walk(tree)
        if isinstance(kind, ast.ClassDef)
        for method in kind.body
        if isinstance(method, ast.FunctionDef) and method.name == '__init__'
        if len(names := own_attributes(method)) > MAX_ATTRIBUTES
    }
    assert crowded == {}


@pytest.mark.parametrize('path', MODULES, ids=lambda p: part(p) or OURS)
def test_no_program_reads_prose(path):
    """Sentences are for people: what a program decides by is a key or an enum."""
    found = set(compared_prose(ast.parse(path.read_text())))
    assert found - LIBRARIES_WORDS.get(part(path), set()) == set()


def test_what_the_shape_forbids_would_be_found():
    """The checks themselves: a planted mistake of each kind."""
    assert circles({'a': {'b'}, 'b': {'c'}, 'c': {'a'}, 'd': {'a'}}) == [['a', 'b', 'c', 'a']]
    late = 'class Node:\n def __init__(self):\n  self.a = 1\n def go(self):\n  self.a = self.b = 2'
    assert set_outside_init(ast.parse(late)) == ['Node.b']
    for code in (
        "reason == 'teleop is silent'",
        "'too old' in status.message",
        "text.startswith('the base has')",
        "reason in ('not armed', 'x')",
    ):
        assert compared_prose(ast.parse(code)), code
    assert not compared_prose(ast.parse("mode == 'go_to' or text.split(', ')"))
