"""Words that a tokenizer does not know."""

import re
from pathlib import Path

import pytest

from mobile_vla_ros.model.backbone import load_tokenizer, unknown_words
from mobile_vla_ros.model.builtin import KNOWN_HUB
from mobile_vla_ros.training.config import PROMPTS

ROOT = Path(__file__).resolve().parents[3]
REBUILT = ROOT.parent / 'shared/kosmos2_hub'
ROW = re.compile(r'\| ([^|]*) \| `(▁[^|]*)` \|')


def test_a_word_is_unknown_whatever_its_script():
    """Each once, in order; punctuation and a typing error count too."""
    tiny = load_tokenizer('builtin:tiny')
    assert unknown_words(tiny, 'go to the red box') == []
    assert unknown_words(tiny, '빨간 box! go to the rde rde box') == ['빨간', 'box!', 'rde']


def test_the_page_shows_what_the_real_tokenizer_reads():
    """Korean and Chinese sentences that differ by a colour are the same to it; German ones not."""
    if not REBUILT.is_dir():
        pytest.skip(f'the tokenizer of {KNOWN_HUB} is not here')
    tokenizer = load_tokenizer(str(REBUILT))
    rows = dict(ROW.findall((ROOT / 'docs/training.md').read_text()))
    read = {
        text: tokenizer.convert_ids_to_tokens(
            tokenizer(text, add_special_tokens=False)['input_ids']
        )
        for text in rows
    }
    assert {text: ' '.join(tokens) for text, tokens in read.items()} == rows
    assert rows['빨간 상자로 가'] == rows['파란 상자로 가']
    assert rows['去红色的盒子'] == rows['去蓝色的盒子']
    assert rows['fahr zur roten Kiste'] != rows['fahr zur blauen Kiste']
    assert unknown_words(tokenizer, '빨간 상자로 go') == ['빨간', '상자로']
    read = {
        name: tokenizer(text.format(image='', instruction='go'), add_special_tokens=False)
        for name, text in PROMPTS.items()
    }
    ids = read['robovlms']['input_ids']
    assert (ids[0], ids[-1]) == (64012, 2)  # <grounding>, </s>
    assert read['kosmos2']['input_ids'] == [64003, 64004, *read['plain']['input_ids']]
