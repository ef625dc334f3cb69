import json

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from experiments.testbed import questions
from experiments.testbed.sparse.scenes import COUNT, draw_scenes, scene
from experiments.testbed.vocabulary import FORMAT_TOKENS, SPECIAL_TOKENS, build_tokenizer, pieces
from gaze import prompts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def test_files_are_the_same_every_time(folder, tmp_path):
    build_tokenizer(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }


def test_specials_close_the_vocabulary_in_qwens_order(tokenizer):
    names = SPECIAL_TOKENS + FORMAT_TOKENS
    first = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert tokenizer.convert_tokens_to_ids(list(names)) == list(range(first, first + 26))
    assert len(tokenizer) == first + 26 <= 704
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.padding_side) == ("<|im_end|>", "<|endoftext|>", "left")


def test_every_caption_is_seven_tokens_at_the_start_and_after_a_space(tokenizer):
    captions = [scene(index).caption for index in range(0, COUNT, 5)]
    plain = tokenizer(captions)["input_ids"]
    after = tokenizer([f" {caption}" for caption in captions])["input_ids"]
    assert {len(ids) for ids in plain + after} == {7}


def test_every_word_of_the_language_is_one_token(tokenizer):
    vocabulary = tokenizer.get_vocab()
    assert [piece for piece in pieces() if piece not in vocabulary] == []
    panel = tokenizer(prompts.fill(prompts.DISCOVERY, 2))["input_ids"]
    assert len(panel) == 25, tokenizer.convert_ids_to_tokens(panel)


def test_a_numbered_line_keeps_the_tokens_of_its_caption(tokenizer):
    _, answer = questions.numbered_narration(np.random.default_rng(0), draw_scenes(np.random.default_rng(0)), range(6))
    tokens = tokenizer.tokenize(answer)
    assert len(tokens) == 6 * (4 + 7) + 5
    assert tokens[:4] == ["Panel", "Ġ", "1", ":"]
    assert tokens[11] == "Ċ"


@pytest.mark.parametrize("text", ["Où est-il ? 猫はどこ 🐈\n\n  x = 3.14;\t«fin»", "redstar Jumps", "\x00\x7f", ""])
def test_any_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_chat_template_frames_an_image_and_a_question(tokenizer):
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "QUESTION"}]}
    assert tokenizer.apply_chat_template([turn], add_generation_prompt=True, tokenize=False) == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>QUESTION<|im_end|>\n<|im_start|>assistant\n"
    )


def test_chat_template_takes_turns_pictures_by_number_and_tool_results(tokenizer):
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"image": "a.png"}, {"type": "text", "text": "or "}, {"image_url": "b.png"}]},
        {"role": "assistant", "content": "neither\n"},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
    ]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_vision_id=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        f"<|im_start|>user\nPicture 1: {picture}or Picture 2: {picture}<|im_end|>\n"
        "<|im_start|>assistant\nneither\n<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n"
    )


def test_a_strip_is_not_resized(folder):
    processed = Qwen2VLImageProcessorPil.from_pretrained(folder)(Image.new("RGB", (384, 64)), return_tensors="np")
    assert processed["image_grid_thw"].tolist() == [[1, 4, 24]]


def test_generation_is_greedy_and_stops_at_the_end_of_the_turn(folder, tokenizer):
    settings = json.loads((folder / "generation_config.json").read_text())
    assert settings["do_sample"] is False
    assert tokenizer.convert_ids_to_tokens(settings["eos_token_id"]) == ["<|im_end|>", "<|endoftext|>"]
