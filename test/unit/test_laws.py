"""The laws of docs/architecture.md: who may import whom, who reads a clock, what is loaded."""

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PACKAGE = TESTS.parent / 'mobile_vla_ros'
PAGE = PACKAGE.parent / 'docs/architecture.md'
OURS = 'mobile_vla_ros'
# '' is the package's version. Its public names (docs/reference.md) are for users only.
EVERYWHERE = {'errors', 'file_lock', 'files', 'plain_text', 'text_table', 'types', ''}

# Folder (or module) → our parts that it may import, besides itself and EVERYWHERE. A dotted
# name allows only that module. The longest matching name applies to a module.
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
    'data': {'episode', 'images'},
    'evaluation': {'data', 'model'},
    'training': {'data', 'evaluation', 'model'},
    'runtime': {'data.preprocess', 'episode.timing.windows', 'model', 'safety.status'},
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
    'plain_text': set(),
    'report': set(),
    'report.pages': {'report.figures'},
    'report.serve': {'episode', 'report'},
    'report.figures': set(),
    'report.builders': {
        'data',
        'drill',
        'episode',
        'evaluation',
        'images',
        'model',
        'report',
        'rollout',
        'runtime',
        'safety',
        'sim',
    },
    'hub': {'data', 'episode', 'evaluation', 'model'},
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
    # A command parses arguments and prints; it may import the package that does the work.
    'cli': set(),
    'cli.bench': {'bench'},
    'cli.compare': {'cli', 'report', 'rollout'},
    'cli.demo': {'report', 'rollout'},
    'cli.drill': {'drill', 'report'},
    'cli.episodes': {'data', 'episode', 'evaluation', 'hub', 'interop', 'report'},
    'cli.policy': {'cli', 'hub'},
    'cli.evaluate': {'cli', 'data', 'episode', 'evaluation', 'report'},
    'cli.quantise': {'cli', 'rollout'},
    'cli.replay': {'cli', 'replay', 'report.figures'},
    'cli.simulate': {'cli', 'report', 'rollout'},
    'cli.train': {'report', 'training'},
}
CLI_LINES = 1864
# Third-party module → the parts that may import it. Others may be imported anywhere.
KEPT_TO = {
    'rclpy': {'nodes'},
    'fcntl': {'file_lock'},
    'launch': {'bringup.ros2_launch'},
    'launch_ros': {'bringup.ros2_launch'},
    'transformers': {'model', 'bench.random_weights'},
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
    'rosbags': {'images.messages', 'interop'},
    'cv_bridge': set(),  # docs/recording.md says why
    'jinja2': {'report'},
    'markupsafe': {'report'},
    'mujoco': {'sim'},
    'matplotlib': {'report'},
    'pyarrow': {'interop'},
    'av': {'interop'},
}
# The gate, and those who write files of their own.
OPENS_HDF5 = {
    'episode.storage.hdf5_gate',
    'episode.storage.part_file',
    'interop.legacy_layout',
}
ROS_MESSAGES = ('_msgs', '_interfaces', '_srvs')
# Logic that receives the time as an argument.
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

# Opening an image → the parts that may; what a benchmark opens, it has made itself.
OPENS_IMAGES = {
    'PIL.Image.open': {'images.stored'},
    'cv2.imdecode': {'bench', 'images.stored'},
    'cv2.imread': {'images.stored'},
}

MODULES = sorted(PACKAGE.rglob('*.py'))
TEST_MODULES = sorted(TESTS.rglob('*.py'))


@cache
def part(path: Path) -> str:
    """Return the dotted name of a module inside the package, without __init__."""
    names = list(path.relative_to(PACKAGE).with_suffix('').parts)
    return '.'.join(names[:-1] if names[-1] == '__init__' else names)


@cache
def tree_of(path: Path) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse(path.read_text())


@cache
def walk(tree: ast.AST) -> tuple[ast.AST, ...]:
    """Return all nodes of a syntax tree."""
    return tuple(ast.walk(tree))


@cache
def imports(tree: ast.AST) -> frozenset[str]:
    """Return every module named by an import, anywhere in a file, also inside functions."""
    found = set()
    for node in walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'line {node.lineno}: a relative import'
            # `from a import b` may name the module a.b as well as a name in a.
            found |= {f'{node.module}.{alias.name}' for alias in node.names}
    return frozenset(found)


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


def row_of(name: str) -> str:
    """Return the longest name in the table that contains a module."""
    return max((row for row in MAY_IMPORT if within(name, {row})), key=len, default='')


def forbidden_imports(name: str, tree: ast.AST) -> list[str]:
    """Return the forbidden imports of a module."""
    top, row = name.split('.')[0], row_of(name)
    wrong = []
    for imported in imports(tree):
        root, _, inner = imported.partition('.')
        if root == OURS:
            if top == '' or inner.split('.')[0] in EVERYWHERE | {'__version__'}:
                continue
            if not within(inner, MAY_IMPORT[row] | {row}):
                wrong.append(imported)
            continue
        kept = root in KEPT_TO and not within(name, KEPT_TO[root])
        if kept or root in PICKLES or (root.endswith(ROS_MESSAGES) and top != 'nodes'):
            wrong.append(imported)
    return wrong


def forbidden_uses(name: str, tree: ast.AST) -> list[str]:
    """Return forbidden reads of a clock, and loaders that run code from a file."""
    wrong = []
    for node in walk(tree):
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


def opened_images(name: str, tree: ast.AST) -> list[str]:
    """Return the places of a module that open images past ``images.stored``."""
    origins = {}  # name in this module → what it was imported as
    wrong = []
    for node in walk(tree):
        if isinstance(node, ast.Import):
            origins |= {one.asname: one.name for one in node.names if one.asname}
        elif isinstance(node, ast.ImportFrom):
            origins |= {one.asname or one.name: f'{node.module}.{one.name}' for one in node.names}
    for node in walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            first, *rest = dotted(node).split('.')
            used = '.'.join([origins.get(first, first), *rest])
            if not within(name, OPENS_IMAGES.get(used, {name})):
                wrong.append(f'{used} in line {node.lineno}')
    return wrong


def imported_tests(tree: ast.AST) -> list[str]:
    """Return the test modules and conftests that a module imports."""
    return sorted(
        name
        for name in imports(tree)
        if any(one == 'conftest' or one.startswith('test_') for one in name.split('.'))
    )


def markup(tree: ast.AST) -> list[str]:
    """Return the HTML, CSS and JavaScript in the strings of a module."""
    strings = (node for node in walk(tree) if isinstance(node, ast.Constant))
    return [
        f'{found[0]} in line {node.lineno}'
        for node in strings
        if isinstance(node.value, str) and (found := MARKUP.search(node.value))
    ]


def broken(law: Callable[[str, ast.Module], object]) -> dict[str, object]:
    """Return what a law finds, by module; one that it finds nothing in is left out."""
    return {part(path): found for path in MODULES if (found := law(part(path), tree_of(path)))}


def test_a_module_imports_only_what_the_table_allows():
    """Only nodes/ uses ROS, the guard has no torch, only model/ uses peft."""
    assert broken(forbidden_imports) == {}


def test_core_code_reads_no_clock_and_nothing_loads_a_pickle():
    """Time is an argument; only safetensors, JSON and safe YAML are loaded."""
    assert broken(forbidden_uses) == {}


def environment_writes(tree: ast.AST) -> list[str]:
    """Return where a module writes to the environment on import."""
    wrong, nodes = [], [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.Lambda) or (
            isinstance(node, ast.If) and '__name__' in ast.unparse(node.test)
        ):
            continue
        nodes += ast.iter_child_nodes(node)
        written = isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)
        if (written and dotted(node.value) == 'os.environ') or (
            isinstance(node, ast.Call)
            and dotted(node.func) in ('os.putenv', 'os.environ.update', 'os.environ.setdefault')
        ):
            wrong.append(f'line {node.lineno}')
    return wrong


def hdf5_opened(tree: ast.AST) -> list[str]:
    """Return where a module opens a file of HDF5."""
    return [
        f'{dotted(node.func)} in line {node.lineno}'
        for node in walk(tree)
        if isinstance(node, ast.Call)
        and dotted(node.func) in ('h5py.File', 'File', 'h5py.h5f.open', 'h5f.open')
    ]


def test_importing_a_module_changes_no_environment_variable():
    """A program sets them when it starts, a library when it is used."""
    assert broken(lambda name, tree: environment_writes(tree)) == {}


def test_guard_and_console_tell_ages_by_the_time_since_boot():
    """The monotonic clock stands still while a laptop is suspended: an old status looks fresh."""
    for path in MODULES:
        if within(part(path), {'nodes.guard', 'nodes.teleop'}):
            uses = {dotted(node) for node in walk(tree_of(path))}
            assert not {'time.monotonic', 'time.monotonic_ns'} & uses, path


def test_files_of_hdf5_are_read_through_one_gate():
    """A file reads no other file, and no more than it stores; a writer opens its own."""
    opened = broken(lambda _, tree: hdf5_opened(tree))
    assert opened.keys() == OPENS_HDF5, opened


def test_images_are_opened_in_one_place():
    """Pillow opens any format and raises any exception: `images.stored` bounds both."""
    assert broken(opened_images) == {}


def test_pages_are_templates_not_strings():
    """HTML, CSS and JavaScript belong to report/templates and report/static."""
    assert broken(lambda _, tree: markup(tree)) == {}


def test_the_command_line_only_parses_and_prints():
    """The work is done in the packages; no module imports `cli`."""
    lines = sum(len(path.read_text().splitlines()) for path in (PACKAGE / 'cli').rglob('*.py'))
    assert lines <= CLI_LINES
    parsers = {part(path) for path in MODULES if 'argparse' in imports(tree_of(path))}
    assert {one for one in parsers if not within(one, {'cli'})} == {'training.flags'}


def test_no_test_module_imports_another():
    """Code that several tests need belongs to test/helpers, fixtures to conftest.py."""
    found = {str(path.relative_to(TESTS)): imported_tests(tree_of(path)) for path in TEST_MODULES}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    'code',
    [
        'import test_dataset',
        'from test_dataset import break_frame',
        'def f():\n    from conftest import WORDS',
        'import conftest',
        'from test.unit.data.test_dataset import break_frame',
        'from test.unit.data import test_dataset',
    ],
)
def test_an_import_of_a_test_module_would_be_found(code):
    """The check finds one planted mistake of each kind."""
    assert imported_tests(ast.parse(code))


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
    """A new folder needs a row."""
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
    """The check finds one planted mistake of each kind."""
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
    """The check finds one planted mistake of each kind."""
    assert forbidden_uses(name, ast.parse(code))


@pytest.mark.parametrize(
    'code',
    [
        'from PIL import Image\nImage.open(path)',
        'from PIL import Image as P\nP.open(path)',
        'import PIL.Image\nPIL.Image.open(path)',
        'from PIL.Image import open\nopen(path)',
        'import cv2\ncv2.imdecode(data, 1)',
    ],
)
def test_an_image_opened_elsewhere_would_be_found(code):
    """The check itself: planted mistakes of each kind."""
    assert opened_images('episode.x', ast.parse(code))
    assert not opened_images('images.stored', ast.parse(code))


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
    """The check finds one planted mistake of each kind."""
    assert markup(ast.parse(code))


def test_the_guards_process_imports_no_torch():
    """nodes/guard imports only numpy and ROS, also transitively."""
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


# --- the shape of the code ---

MAX_MODULES = 14  # per folder, besides its __init__
MAX_ATTRIBUTES = 14  # per class
# Two words in a row count as prose.
PROSE = re.compile(r'[a-z]{2,} [a-z]{2,}')
# Libraries whose messages are the only way to distinguish errors.
LIBRARIES_WORDS = {'files': {'os error '}}


NAMES = {part(path) for path in MODULES}


def our_imports(tree: ast.AST) -> set[str]:
    """Return the modules of this package that a module imports."""
    found = set()
    for imported in imports(tree):
        root, _, inner = imported.partition('.')
        if root == OURS:
            found.add(inner if inner in NAMES else inner.rpartition('.')[0])
    return found & NAMES - {''}


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return a cycle for each set of modules that import themselves through others."""
    found = {}
    for start in graph:
        paths, seen = deque([[start]]), set()
        while paths:
            path = paths.popleft()
            for other in graph.get(path[-1], ()):
                if other == start:
                    found.setdefault(frozenset(path), [*path, start])
                elif other not in seen:
                    seen.add(other)
                    paths.append([*path, other])
    return sorted(found.values())


def set_outside_init(tree: ast.Module) -> list[str]:
    """Return the attributes of classes that are set outside ``__init__`` only."""
    wrong = []
    for kind in walk(tree):
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
    """Return the names that the body of a class assigns or annotates: fields, constants."""
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
    """Return the sentences that a module compares, searches for or splits by."""
    found = []
    for node in walk(tree):
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


# Class → attributes that its __init__ sets, for its subclasses.
INITIALISED = {
    kind.name: own_attributes(method)
    for path in MODULES
    for kind in walk(tree_of(path))
    if isinstance(kind, ast.ClassDef)
    for method in kind.body
    if isinstance(method, ast.FunctionDef) and method.name == '__init__'
}


def test_modules_form_no_import_cycle():
    """Not even for types: modules in a cycle can only be understood and tested together."""
    graph = {part(path): our_imports(tree_of(path)) for path in MODULES}
    assert cycles({name: others - {name} for name, others in graph.items()}) == []


def test_folders_form_no_import_cycle():
    """The same for folders; a package's __init__ belongs to its folder."""
    graph = defaultdict(set)
    for path in MODULES:
        for other in our_imports(tree_of(path)):
            graph[folder(part(path))].add(folder(other))
    assert cycles({name: others - {name} for name, others in graph.items()}) == []


@cache
def folder(name: str) -> str:
    """Return the folder of a module, or the module itself if it lies beside folders."""
    place = PACKAGE / name.replace('.', '/')
    above = place if place.is_dir() else place.parent
    if any((below / '__init__.py').is_file() for below in above.iterdir()):
        return name  # beside folders, a module counts as a folder
    return '.'.join(above.relative_to(PACKAGE).parts)


def test_folders_are_small():
    """A newcomer can survey fourteen modules, but not forty-nine."""
    counts = Counter(path.parent for path in MODULES if path.name != '__init__.py')
    assert {str(one): count for one, count in counts.items() if count > MAX_MODULES} == {}


def crowded(tree: ast.Module) -> dict[str, int]:
    """Return the classes with too many attributes, and how many these are."""
    return {
        kind.name: len(names)
        for kind in walk(tree)
        if isinstance(kind, ast.ClassDef)
        for method in kind.body
        if isinstance(method, ast.FunctionDef) and method.name == '__init__'
        if len(names := own_attributes(method)) > MAX_ATTRIBUTES
    }


def test_attributes_are_set_in_init_and_are_few():
    """``__init__`` shows all attributes of an object, at most MAX_ATTRIBUTES."""
    assert broken(lambda _, tree: set_outside_init(tree)) == {}
    assert broken(lambda _, tree: crowded(tree)) == {}


def test_no_code_compares_sentences():
    """Sentences are for people; code decides by a key or an enum."""
    assert (
        broken(lambda name, tree: {*compared_prose(tree)} - LIBRARIES_WORDS.get(name, set())) == {}
    )


def test_mistakes_of_shape_would_be_found():
    """The checks find one planted mistake of each kind."""
    assert cycles({'a': {'b'}, 'b': {'c'}, 'c': {'a'}, 'd': {'a'}}) == [['a', 'b', 'c', 'a']]
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
