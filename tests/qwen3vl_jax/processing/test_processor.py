"""`processing` against transformers' `Qwen3VLProcessor`, with a tokenizer trained on the spot."""

import dataclasses
import inspect
import json
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.images import ImageSettings
from qwen3vl_jax.processing.processor import CHAT_TEMPLATE, Processor

SPECIAL = [
    f"<|{name}|>"
    for name in ("im_start", "im_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad")
]
SIZE = {"shortest_edge": 64 * 64, "longest_edge": 128 * 128}
IMAGES = dict(patch_size=16, temporal_patch_size=2, merge_size=2, image_mean=[0.5] * 3, image_std=[0.5] * 3, size=SIZE)
QUESTIONS = ["What happens in panel 3?", "Compare the two.", "Dragon or café?\nAnswer in one word."]


class PilProcessor(Qwen3VLProcessor):
    """Transformers' processor without its video part, which needs torchvision."""

    def check_argument_for_proper_class(self, name, argument):
        return None if name == "video_processor" else super().check_argument_for_proper_class(name, argument)


HELLO = [{"role": "user", "content": "Hello"}]


def train_tokenizer():
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        QUESTIONS * 3, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL,
        padding_side="left",
    )


def save_checkpoint(folder):
    """A checkpoint folder without weights, as transformers saves it."""
    tokenizer = train_tokenizer()
    names = dict(image_token_id="image_pad", video_token_id="video_pad", vision_start_token_id="vision_start")
    ids = {key: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for key, name in names.items()}
    text = dict(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, head_dim=8)
    text.update(num_attention_heads=2, num_key_value_heads=1)
    text.update(rope_scaling=dict(rope_type="default", mrope_section=[2, 1, 1], mrope_interleaved=True))
    vision = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=16)
    vision.update(num_position_embeddings=49, deepstack_visual_indexes=[0])
    Qwen3VLConfig(text_config=text, vision_config=vision, **ids).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(**IMAGES).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def processor(folder):
    return Processor.load(folder)


@pytest.fixture(scope="module")
def their_tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def reference(their_tokenizer):
    images = Qwen2VLImageProcessorPil(**IMAGES)
    return PilProcessor(images, their_tokenizer, None, chat_template=CHAT_TEMPLATE)


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    sizes = [(90, 60), (40, 200), (64, 64)]
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)) for width, height in sizes]


def copy_of(folder, target):
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_chat_is_the_qwen_turn(processor):
    assert processor.chat("Why?", images=2, system="Be brief.") == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
        "<|vision_start|><|image_pad|><|vision_end|>Why?<|im_end|>\n<|im_start|>assistant\n"
    )


IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
CONVERSATIONS = {
    "plain text": (
        [{"role": "user", "content": "Hello {{ there }}\n"}],
        "<|im_start|>user\nHello {{ there }}\n<|im_end|>\n",
    ),
    "every way to write an image": (
        [{"role": "user", "content": [{"type": "image", "image": "a.png"}, {"text": " a\n"}, {"image_url": "x"}]}],
        f"<|im_start|>user\n{IMAGE} a\n{IMAGE}<|im_end|>\n",
    ),
    "every way to write a video": (
        [{"role": "user", "content": [{"type": "video"}, {"text": " a\n"}, {"video": "x.gif"}, {"type": "image"}]}],
        f"<|im_start|>user\n{VIDEO} a\n{VIDEO}{IMAGE}<|im_end|>\n",
    ),
    "several turns": (
        [
            {"role": "system", "content": "S"},
            {"role": "user", "content": [{"type": "text", "text": "Look: "}, {"type": "image"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Seen."}]},
            {"role": "user", "content": "And?"},
        ],
        f"<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nLook: {IMAGE}<|im_end|>\n"
        "<|im_start|>assistant\nSeen.<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n",
    ),
}


@pytest.mark.parametrize(("messages", "expected"), CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_conversations_follow_the_qwen_format(messages, expected, processor, reference):
    assert processor.render(messages) == expected + "<|im_start|>assistant\n"
    assert reference.apply_chat_template(messages) == expected


def test_pictures_and_videos_are_numbered_on_request(reference):
    text = reference.apply_chat_template(CONVERSATIONS["every way to write an image"][0], add_vision_id=True)
    assert text == f"<|im_start|>user\nPicture 1: {IMAGE} a\nPicture 2: {IMAGE}<|im_end|>\n"
    text = reference.apply_chat_template(CONVERSATIONS["every way to write a video"][0], add_vision_id=True)
    assert text == f"<|im_start|>user\nVideo 1: {VIDEO} a\nVideo 2: {VIDEO}Picture 1: {IMAGE}<|im_end|>\n"


@pytest.mark.parametrize("counts", [[0], [1], [0, 0], [2, 1], [1, 0, 2], [3, 1, 1]])
def test_batches_equal_transformers(counts, processor, reference, pictures):
    shown = [pictures[:count] if row % 2 == 0 else pictures[::-1][:count] for row, count in enumerate(counts)]
    texts = [processor.chat(QUESTIONS[row], images=count) for row, count in enumerate(counts)]
    prompt, images, grids = processor(texts, shown)
    flat = [image for row in shown for image in row]
    want = reference(text=texts, images=flat or None, padding=True, return_tensors="pt")
    np.testing.assert_array_equal(prompt.valid, want["attention_mask"].numpy() == 1)
    np.testing.assert_array_equal(prompt.tokens, np.where(prompt.valid, want["input_ids"].numpy(), 0))
    assert (images is None, prompt.image_cell is None) == (not flat, not flat)
    if flat:
        assert_pixels_equal(prompt, images, grids, want)


def assert_pixels_equal(prompt, images, grids, want):
    """The four patches after every image token, in reading order, are transformers' patches in their order."""
    stride = images.patches.shape[1] // 4
    cells = prompt.image_cell[prompt.image_cell >= 0]
    blocks = images.patches.reshape(-1, 4, images.patches.shape[2])[cells]
    np.testing.assert_array_equal(blocks.reshape(-1, images.patches.shape[2]), want["pixel_values"].numpy())
    assert images.valid.reshape(-1, 4)[cells].all()
    np.testing.assert_array_equal(prompt.image_cell >= 0, want["mm_token_type_ids"].numpy() == 1)
    first_cells = cells[cells % stride == 0] // stride
    np.testing.assert_array_equal(grids[first_cells], want["image_grid_thw"].numpy()[:, 1:])


def assert_tokens_and_positions_equal(prompt, want, folder):
    """Of left-padded rows, as transformers' processor and model have them."""
    np.testing.assert_array_equal(prompt.valid, want["attention_mask"].numpy() == 1)
    np.testing.assert_array_equal(prompt.tokens, np.where(prompt.valid, want["input_ids"].numpy(), 0))
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig.from_pretrained(folder)).model
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "attention_mask")
    positions, _ = model.get_rope_index(**{name: want.get(name) for name in names})
    np.testing.assert_array_equal(prompt.positions, positions.permute(1, 2, 0).numpy())


def test_positions_equal_transformers(folder, processor, reference, pictures):
    texts = [processor.chat(QUESTIONS[0], images=2), processor.chat(QUESTIONS[1], images=0)]
    prompt, _, _ = processor(texts, [pictures[:2], []])
    want = reference(text=texts, images=pictures[:2], padding=True, return_tensors="pt")
    assert_tokens_and_positions_equal(prompt, want, folder)
    assert {array.dtype for array in (prompt.tokens, prompt.positions)} == {np.dtype(np.int32)}


def test_long_prompts(folder, processor, their_tokenizer):
    """A strip of 6,144 image tokens and thousands of words beside a short row; as transformers', and about as quick."""
    official = {**IMAGES, "size": {"shortest_edge": 65_536, "longest_edge": 16_777_216}}
    reference = PilProcessor(Qwen2VLImageProcessorPil(**official), their_tokenizer, None)
    wide = dataclasses.replace(processor, settings=ImageSettings())
    texts = [processor.chat(QUESTIONS[0] * 200), processor.chat("Why?")]
    shown = [[Image.new("RGB", (6144, 1024), "red")], [Image.new("RGB", (320, 320), "blue")]]
    images = [image for row in shown for image in row]
    seconds = []
    for _ in range(2):  # the first time memory is new to both
        start = time.process_time()
        prompt, _, _ = wide(texts, shown)
        between = time.process_time()
        want = reference(text=texts, images=images, padding=True, return_tensors="pt")
        seconds.append((between - start, time.process_time() - between))
    assert seconds[1][0] < 2 * seconds[1][1]
    assert (prompt.image_cell[0] >= 0).sum() == 6144
    assert prompt.tokens.shape[1] > 7000
    assert_tokens_and_positions_equal(prompt, want, folder)


def test_a_conversation_is_a_prompt(processor, pictures):
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTIONS[0]}]}]
    prompt, _, _ = processor([messages], [pictures[:1]])
    again, _, _ = processor([processor.chat(QUESTIONS[0])], [pictures[:1]])
    np.testing.assert_array_equal(prompt.tokens, again.tokens)


def test_a_picture_that_several_prompts_show_is_encoded_once(processor, pictures):
    texts = [processor.chat(question) for question in QUESTIONS]
    prompt, images, grids = processor(texts, [[0], [1], [0]], pictures=pictures[:2])
    assert (len(images.patches), len(grids)) == (2, 2)
    stride = images.patches.shape[1] // 4
    assert [row[row >= 0][0] // stride for row in prompt.image_cell] == [0, 1, 0]


def test_pictures_are_told_apart_by_their_places(processor, pictures):
    """The same object twice is two pictures: nothing is merged that was not said to be one."""
    texts = [processor.chat(question) for question in QUESTIONS]
    prompt, images, _ = processor(texts, [[pictures[0]]] * 3)
    assert len(images.patches) == 3
    stride = images.patches.shape[1] // 4
    assert [row[row >= 0][0] // stride for row in prompt.image_cell] == [0, 1, 2]


@pytest.mark.parametrize("shown", [[[0], [2], [0]], [[0], [-1], [0]], [["a.png"], [0], [0]]])
def test_numbers_of_pictures_that_are_not_there(shown, processor, pictures):
    with pytest.raises(InputError, match="must hold their numbers, 0 to 1"):
        processor([processor.chat("Why?")] * 3, shown, pictures=pictures[:2])
    with pytest.raises(InputError, match="give `pictures`"):
        processor([processor.chat("Why?")], [[0]])


def test_the_tokenizer_equals_transformers(processor, their_tokenizer):
    rng = np.random.default_rng(0)
    signs = [*"aeinst  .,'?!äßλд中文🙂\n\t0123\u0301", *SPECIAL, "<|im_end|>", "n't", " 's"]
    for _ in range(300):
        text = "".join(rng.choice(signs, rng.integers(0, 30)))
        ours = processor.tokenizer(text)["input_ids"]
        assert ours == their_tokenizer(text)["input_ids"], text
        for skip in (False, True):
            theirs = their_tokenizer.decode(ours, skip_special_tokens=skip)
            assert processor.tokenizer.decode(ours, skip_special_tokens=skip) == theirs
    assert processor.tokenizer.eos_token_id == their_tokenizer.eos_token_id


def test_a_vocabulary_with_merges_equals_transformers(folder, tmp_path):
    """The older layout, without tokenizer.json."""
    copy_of(folder, tmp_path)
    whole = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    (tmp_path / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in whole["model"]["merges"])
    )
    added = {token["id"]: {"content": token["content"], "special": token["special"]} for token in whole["added_tokens"]}
    config = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"added_tokens_decoder": added}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "Qwen2Tokenizer"}))
    ours, theirs = Processor.load(tmp_path).tokenizer, AutoTokenizer.from_pretrained(tmp_path)
    for text in [*QUESTIONS, "<|im_start|>user\nWhy's that, 42?<|im_end|>\n", "naïve café  x"]:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], text


@pytest.mark.parametrize(
    "extra", ["{{ messages[0].content.a.b }}", "{{ raise_exception('no') }}", "{% for %}", "{{ range(10**9) }}"]
)
def test_templates_that_fail_are_named(extra, folder, tmp_path):
    copy_of(folder, tmp_path)
    (tmp_path / "chat_template.jinja").write_text(extra)
    with pytest.raises(InputError, match=r"chat_template\.jinja cannot be read as a chat template"):
        Processor.load(tmp_path).chat("Why?")


@pytest.mark.parametrize(
    "found", [{"default": "A", "other": "B"}, [{"name": "default", "template": "A"}]], ids=["dict", "list"]
)
def test_of_several_templates_the_default_one(found, folder, tmp_path):
    copy_of(folder, tmp_path)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": found}))
    assert Processor.load(tmp_path).chat("Why?") == "A"


def test_tokens_beyond_the_embedding(folder, tmp_path):
    copy_of(folder, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(tmp_path)
    processor = Processor.load(tmp_path)
    with pytest.raises(InputError, match=r"holds the token \d+, but the model knows"):
        processor([processor.chat("Why <extra>?")], [[Image.new("RGB", (64, 64))]])


def test_buckets_fix_the_shapes(processor, pictures):
    prompt, images, _ = processor([processor.chat(QUESTIONS[0])], [pictures[:1]], length=80, patches=64)
    assert (prompt.tokens.shape, images.patches.shape[1]) == ((1, 80), 64)
    tight, _, _ = processor([processor.chat(QUESTIONS[0])], [pictures[:1]])
    seq = tight.tokens.shape[1]
    for name in ("tokens", "positions"):
        np.testing.assert_array_equal(getattr(prompt, name)[:, -seq:], getattr(tight, name))
        assert not getattr(prompt, name)[:, :-seq].any()
    assert not prompt.valid[:, :-seq].any()
    assert (prompt.image_cell[:, :-seq] == -1).all()
    with pytest.raises(InputError, match="give a larger length"):
        processor([processor.chat(QUESTIONS[0])], [pictures[:1]], length=seq - 1)


def test_decode_leaves_special_tokens_out(processor):
    text = "Dragon or café?"
    tokens = processor([text + "<|im_end|>"]).prompt.tokens[0]
    assert {processor.decode(given) for given in (tokens, tokens.tolist(), jnp.asarray(tokens))} == {text}


@pytest.mark.parametrize("count", [0, 2])
def test_a_wrong_number_of_pictures_is_an_error(count, processor, pictures):
    with pytest.raises(InputError, match=f"1 image placeholders, but got {count} images"):
        processor([processor.chat("Why?")], [pictures[:count]])


def test_slips_in_the_call_are_errors(processor, pictures):
    text, image = processor.chat("Why?"), pictures[0]
    call = inspect.unwrap(Processor.__call__)  # as users have it: without the run-time type checks of this suite
    calls = [
        ((text, [[image]]), "got a single str"),
        (([{"role": "user", "content": "Why?"}],), "one list per prompt"),
        (([text], [image]), "one list per prompt"),
        (([text], ["strip.png"]), "one list per prompt"),
        (([text], image), "got a single Image"),
        (([text, text], [[image]]), "2 prompts and 1 lists"),
        (([],), "0 prompts"),
        (([[]],), "at least one message"),
        (([""],), "empty"),
        (([f"<|vision_start|>{SPECIAL[-1]}<|vision_end|>"],), "video"),
        (([text], [["missing.png"]]), "no image at"),
    ]
    for arguments, message in calls:
        with pytest.raises(InputError, match=message):
            call(processor, *arguments)


def test_settings_are_data(processor, pictures):
    wider = dataclasses.replace(processor.settings, max_pixels=256 * 256, min_pixels=200 * 200)
    larger = dataclasses.replace(processor, settings=wider)([processor.chat("Why?")], [pictures[:1]])
    assert larger.grids.prod() > 100


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"chat_template.jinja": "jinja"}, "jinja"),
        ({"chat_template.json": '{"chat_template": "json"}'}, "json"),
        ({"chat_template.json": '{"chat_template": "json"}', "chat_template.jinja": "jinja"}, "json"),
    ],
)
def test_the_template_beside_the_tokenizer_is_used(files, expected, folder, tmp_path):
    for name, content in files.items():
        (copy_of(folder, tmp_path) / name).write_text(content)
    loaded = Processor.load(tmp_path if files else folder)
    assert loaded.render(HELLO) == (expected or "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")


def test_the_template_inside_the_tokenizer_is_used(folder, tmp_path):
    path = copy_of(folder, tmp_path) / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": "inside"}))
    assert Processor.load(tmp_path).render(HELLO) == "inside"


def test_folders_that_do_not_fit_are_errors(folder, tmp_path):
    copy_of(folder, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        Processor.load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="has no tokenizer"):
        Processor.load(tmp_path)
    with pytest.raises(InputError, match=r"no config\.json"):
        Processor.load(tmp_path / "missing")


def test_a_broken_template_is_an_error(folder, tmp_path):
    (copy_of(folder, tmp_path) / "chat_template.json").write_text('{"template": ""}')
    with pytest.raises(InputError, match="chat_template"):
        Processor.load(tmp_path)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"image_token_id": 3}, "image_pad"),
        ("config.json", {"video_token_id": 3}, "video_pad"),
        ("preprocessor_config.json", {"patch_size": 14}, "patch, frame and merge"),
    ],
)
def test_files_that_contradict_each_other_are_errors(file, change, message, folder, tmp_path):
    path = copy_of(folder, tmp_path) / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        Processor.load(tmp_path)


def test_no_pytorch_is_needed(folder):
    code = (
        "import sys; sys.modules.update(torch=None, torchvision=None)\n"
        "from qwen3vl_jax.processing.processor import Processor\n"
        "assert 'transformers' not in sys.modules\n"
        "processor = Processor.load(sys.argv[1])\n"
        "import numpy as np\n"
        "image = np.zeros((64, 64, 3), np.uint8)\n"
        "print(processor([processor.chat('Why?')], [[image]]).grids.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[[4, 4]]\n"), done.stderr
