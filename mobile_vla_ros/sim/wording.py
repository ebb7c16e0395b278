"""Instructions for tasks: the sentences of episodes, and others that no episode has."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mobile_vla_ros.sim.scene import SceneObject, Task

# {thing} is a colour and a shape, {things} its plural, {obstacle} the object to pass.
WORDINGS = {
    'go_to': (
        'go to the {thing}',
        'drive to the {thing}',
        'move over to the {thing}',
        'head towards the {thing} and stop there',
    ),
    'of_two': (
        'go to the {side} {thing}',
        'drive to the {thing} on the {side}',
        'move to the {side} one of the two {things}',
    ),
    'beside': (
        'stop to the {side} of the {thing}',
        'stop on the {side} of the {thing}',
        'drive up and wait to the {side} of the {thing}',
    ),
    'pass': (
        'pass the {obstacle} on the {side} and go to the {thing}',
        'drive around the {obstacle} on the {side} to the {thing}',
        'go to the {thing} and pass the {obstacle} on the {side}',
    ),
    'stop': ('stop', 'stop now', 'halt'),
}
UNSEEN_WORDINGS = {
    'go_to': ('approach the {thing}', 'travel to the {thing} please', 'find the {thing}'),
    'of_two': (
        'approach the {thing} that is on the {side}',
        'of the two {things} go to the one on the {side}',
    ),
    'beside': ('halt to the {side} of the {thing}', 'stay on the {side} side of the {thing}'),
    'pass': (
        'avoid the {obstacle} on the {side} and reach the {thing}',
        'keep to the {side} of the {obstacle} and move to the {thing}',
    ),
    'stop': ('please stop', 'stand still', 'wait'),
}


def instruction_for(
    task: 'Task',
    objects: Sequence['SceneObject'],
    rng: np.random.Generator,
    *,
    unseen: bool = False,
) -> str:
    """Draw one of the sentences for a task among some objects."""
    wordings = (UNSEEN_WORDINGS if unseen else WORDINGS)[task.kind]
    names = {'side': task.side}
    if task.target is not None:
        names['thing'] = objects[task.target].name
        names['things'] = plural(names['thing'])
    if task.obstacles:
        one = objects[task.obstacles[0]].name
        names['obstacle'] = one if len(task.obstacles) == 1 else plural(one)
    return wordings[int(rng.integers(len(wordings)))].format(**names)


def plural(name: str) -> str:
    """Return the plural of an object's name."""
    return f'{name}es' if name.endswith('x') else f'{name}s'
