"""Sentences about an image: captions, questions and answers."""

import numpy as np

from make_tiny_backbone.tokens import GRID, location
from mobile_vla_ros.sim.scene import PAIRS
from mobile_vla_ros.sim.wording import UNSEEN_WORDINGS, plural

LATENT_SIDE = 7
LATENTS = LATENT_SIDE**2  # image tokens
QUESTIONS_PER_IMAGE = 6  # in each step

Seen = list[tuple[str, np.ndarray]]  # name and box of each object in an image, left to right


class Questions:
    """Draws instructions about an image, and the boxes that they refer to."""

    VERBS = ('go', 'drive', 'move', 'head', 'travel', 'proceed', 'steer', 'roll', 'navigate')
    HOW = ('', '', '', 'over ', 'straight ', 'up ')
    TOWARDS = ('to', 'to', 'to', 'towards', 'toward')
    DIRECT = ('approach', 'find', 'reach', 'visit', 'get to', '')
    AFTER = (
        '',
        '',
        '',
        '',
        ' please',
        ' and stop there',
        ' and stay there',
        ' now',
        ' and wait there',
    )
    WAITS = ('stop', 'halt', 'wait', 'stay', 'stand', 'drive up and wait', 'go and stay', 'park')
    BESIDE = ('to the {} of', 'to the {} of', 'on the {} of', 'on the {} side of', '{} of')
    AVOIDS = (
        'pass the {0} on the {1}',
        'pass the {0} on the {1}',
        'avoid the {0} on the {1}',
        'drive around the {0} on the {1}',
        'go around the {0} on the {1}',
        'keep to the {1} of the {0}',
        'skirt the {0} on the {1} side',
    )
    STOPS = (
        'stop',
        'stop now',
        'halt',
        'halt now',
        'stay',
        'stay here',
        'stop here',
        'hold still',
        'wait here',
        'stand',
        'do not move',
        'stop please',
        'keep still',
        'stay please',
    )

    def __init__(self, names: list[str]):
        self.names = names

    def ask(self, seen: Seen, rng) -> tuple[str, list]:
        """
        Draw an instruction about an image, never in one of the suites' unseen wordings.

        :returns: the instruction, and the boxes that answer it.
        """
        names = [name for name, _ in seen]
        twice = [name for name in dict.fromkeys(names) if names.count(name) == 2]
        once = [name for name in names if names.count(name) == 1]
        chance = rng.uniform()
        while True:
            if chance < 0.04:
                text, boxes, words = _one(rng, self.STOPS), [], {}
            elif chance < 0.09:
                name = _one(rng, [n for n in self.names if n not in names])
                text, boxes, words = self._go(rng, f'the {name}'), [], {'thing': name}
            elif chance < 0.27:
                text, boxes, words = self._beside(rng, seen, names)
            elif chance < 0.50 and len(set(names)) > 1:
                text, boxes, words = self._avoid(rng, seen, names)
            elif twice and (chance < 0.75 or not once):
                text, boxes, words = self._of_two(rng, seen, _one(rng, twice))
            elif once:
                name = _one(rng, once)
                text, boxes = self._go(rng, f'the {name}'), [seen[names.index(name)][1]]
                words = {'thing': name}
            else:
                text, boxes, words = self._beside(rng, seen, names)
            if not _is_unseen_wording(text, words):
                return text, boxes

    def _go(self, rng, what: str) -> str:
        if rng.uniform() < 0.25:
            start = _one(rng, self.DIRECT)
        else:
            start = f'{_one(rng, self.VERBS)} {_one(rng, self.HOW)}{_one(rng, self.TOWARDS)}'
        return f'{start} {what}{_one(rng, self.AFTER)}'.strip()

    def _of_two(self, rng, seen: Seen, name: str) -> tuple:
        """Ask for the left or the right one of two objects of the same name."""
        side, box = _draw_side(rng, seen, name)
        things = plural(name)
        which = int(rng.integers(5))
        if which == 0:
            text = f'of the two {things} {self._go(rng, f"the one on the {side}")}'
        else:
            whats = (
                f'the {side} {name}',
                f'the {name} on the {side}',
                f'the {name} that is on the {side}',
                f'the {side} one of the two {things}',
            )
            text = self._go(rng, whats[which - 1])
        return text, [box], {'thing': name, 'things': things, 'side': side}

    def _beside(self, rng, seen: Seen, names: list[str]) -> tuple:
        """Ask for the place to one side of an object."""
        name = _one(rng, names)
        side, box = _draw_side(rng, seen, name)
        text = f'{_one(rng, self.WAITS)} {_one(rng, self.BESIDE).format(side)} the {name}'
        return text, [place_beside(box, side, 1.5)], {'thing': name, 'side': side}

    def _avoid(self, rng, seen: Seen, names: list[str]) -> tuple:
        """Ask for a way past one object to another; either may be out of view."""
        obstacle, target = (_one(rng, names), _one(rng, names))
        while target == obstacle:
            target = _one(rng, names)
        side = _one(rng, ('left', 'right'))
        missing = rng.uniform()
        absent = _one(rng, [n for n in self.names if n not in names])
        answer = []
        if missing < 0.25:
            obstacle = absent
        else:
            boxes = np.array([box for other, box in seen if other == obstacle])
            whole = np.append(boxes[:, :2].min(0), boxes[:, 2:].max(0))
            answer.append(place_beside(whole, side, 1.2 / len(boxes) ** 0.5))
        if missing > 0.9:
            target = absent
        else:
            answer.append(next(box for other, box in seen if other == target))
        what = plural(obstacle) if names.count(obstacle) == 2 else obstacle
        around, there = _one(rng, self.AVOIDS).format(what, side), f'the {target}'
        form = rng.uniform()
        if form < 0.5:
            text = f'{around} and {self._go(rng, there)}'
        elif form < 0.75:
            text = f'{self._go(rng, there)} and {around}'
        else:
            text = f'{around} to {there}'
        return text, answer, {'thing': target, 'obstacle': what, 'side': side}


def _one(rng, choices):
    return choices[int(rng.integers(len(choices)))]


def _draw_side(rng, seen: Seen, name: str) -> tuple[str, np.ndarray]:
    """Draw a side; return it with the box of the outermost object of that name there."""
    side = _one(rng, ('left', 'right'))
    boxes = [box for other, box in seen if other == name]
    return side, boxes[0 if side == 'left' else -1]


def _is_unseen_wording(text: str, words: dict[str, str]) -> bool:
    words = {'thing': '', 'things': '', 'side': '', 'obstacle': '', **words}
    return any(
        text == template.format(**words)
        for templates in UNSEEN_WORDINGS.values()
        for template in templates
    )


def place_beside(box, side: str, widths: float) -> np.ndarray:
    """Return the box of the place ``widths`` box widths to the left or right of a box."""
    left, top, right, bottom = box
    shift = widths * (right - left) * (1 if side == 'right' else -1)
    left, right = (min(max(v + shift, 0.0), 1.0) for v in (left, right))
    margin = 0.5 / GRID
    return np.array([min(left, 1 - margin), top, max(right, margin), bottom])


class Sentences:
    """Turns the objects in an image into (prompt, answer) tokens."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.names = [f'{colour} {shape}' for colour, shape in PAIRS]
        self.questions = Questions(self.names)
        image = tokenizer.convert_tokens_to_ids('<image>')
        # With the image tokens straight after <s>, as a policy drives, and between their tags.
        self.prefixes = (
            ([0, *[image] * LATENTS], 1),
            ([0, image, *[image] * LATENTS, *self.ids('</image>')], 2),
        )

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)['input_ids']

    def seen(self, names, boxes) -> Seen:
        return [
            (self.names[name], box) for name, box in zip(names, boxes, strict=True) if name >= 0
        ]

    def caption(self, names, boxes) -> tuple[list[int], list[int]]:
        """Return the tokens before a caption's first phrase, and the caption."""
        phrases = [
            f'<phrase>a {name}</phrase>{location(box)}' for name, box in self.seen(names, boxes)
        ]
        return self.ids('<grounding>an image of'), [*self.ids(' and '.join(phrases)), 2]

    def question(self, text: str, boxes) -> tuple[list[int], list[int]]:
        """Return the tokens up to <object>, and the answer."""
        return self.ids(f'{text}<object>'), self.ids(location(*boxes))[1:]

    def pack(self, names, boxes, rng) -> list[tuple[list[int], list[int]]]:
        """Return an image's sentences for one step: a caption and some questions."""
        seen = self.seen(names, boxes)
        questions = (self.questions.ask(seen, rng) for _ in range(QUESTIONS_PER_IMAGE))
        return [self.caption(names, boxes), *(self.question(*one) for one in questions)]
