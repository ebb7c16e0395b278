"""The tokenizer: words, Kosmos-2's tags and location tokens."""

import math

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from mobile_vla_ros.bench.random_weights import SPECIAL

GRID = 16  # side of the grid whose cells the location tokens name

TAGS = [
    '<image>',
    '</image>',
    '<grounding>',
    '<phrase>',
    '</phrase>',
    '<object>',
    '</object>',
    '</delimiter_of_multi_objects/>',
]
WORDS = """
a an the and of to in on at is it its by with near next behind before front beside between around
image picture there one two ones all other same side sides line middle
go drive move head come travel roll steer approach reach find get visit navigate proceed make your
way over up towards toward straight ahead forward forwards back backward backwards
stop halt wait stay stand park still hold do don not keep here that skirt travel turn rotate pass
avoid drift slide shift strafe
left right leftmost rightmost left-hand right-hand nearest nearer closest farthest far close centre
center obstacle object thing target goal robot now then until when you are please
red green blue yellow purple orange violet crimson lime navy golden colour color coloured colored
box boxes cylinder cylinders ball balls cone cones cube crate block pillar column tube can sphere
pyramid
""".split()  # noqa: SIM905


def patch(index: int) -> str:
    """Return Kosmos-2's location token of a grid cell, in row-major order."""
    return f'<patch_index_{index:04d}>'


def location(*boxes) -> str:
    """
    Return Kosmos-2's location tokens: the cells of a box's upper left and lower right corners.

    Several boxes follow one another behind a delimiter; without any, the tags enclose nothing.
    """
    corners = []
    for box in boxes:
        left, top, right, bottom = (float(v) * GRID for v in box)
        first = int(top) * GRID + int(left)
        last = (math.ceil(bottom) - 1) * GRID + math.ceil(right) - 1
        corners.append(patch(first) + patch(last))
    return f'<object>{"</delimiter_of_multi_objects/>".join(corners)}</object>'


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return the small word-level tokenizer; ids of <s>, <pad>, </s>, <unk> are Kosmos-2's."""
    patches = [patch(i) for i in range(GRID * GRID)]
    words = dict.fromkeys([*SPECIAL, *TAGS, *WORDS, *patches])
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token='<unk>')
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(pattern=',', behavior='removed'),
            pre_tokenizers.Split(pattern='.', behavior='removed'),
        ]
    )
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in [*TAGS, *patches]])
    tokenizer.post_processor = processors.TemplateProcessing(
        single='<s> $A </s>', special_tokens=[('<s>', 0), ('</s>', 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token='<s>',
        pad_token='<pad>',
        eos_token='</s>',
        unk_token='<unk>',
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )
