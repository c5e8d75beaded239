"""The parts of the server by themselves: pictures, batches, models, cells, settings."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from serving.batching import Batcher
from serving.body import Memory
from serving.cells import draw_cells
from serving.errors import Busy, ModelError, RequestError, StartError
from serving.images import Limits, read_images
from serving.metrics import Metrics
from serving.model import Model, load
from serving.service import INLINE, Service
from serving.settings import read_settings
from tests.serving.conftest import RED, REPOSITORY, encode
from tests.serving.tiny import GENOTYPE, network

LIMITS = Limits(images=4, pixels=1_000_000)


def read_form(body: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    images = read_images("multipart/form-data; boundary=x", body, shape, LIMITS, LIMITS.pixels)
    assert images is not None
    return images


def read(content: bytes, shape: tuple[int, int, int] = (4, 4, 3)) -> np.ndarray:
    """One image file, through the reader of a multipart body."""
    body = b'--x\r\nContent-Disposition: form-data; name="images"\r\n\r\n' + content + b"\r\n--x--\r\n"
    return read_form(body, shape)[0]


def saved(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def test_a_picture_of_the_models_size_is_left_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read(saved(Image.fromarray(pixels))), pixels)


def test_height_and_width_are_not_exchanged() -> None:
    pixels = np.zeros((2, 6, 3), np.uint8)
    pixels[:, 3:] = 200
    np.testing.assert_array_equal(read(saved(Image.fromarray(pixels)), (2, 6, 3)), pixels)


def test_16_bits_of_grey_are_scaled_not_clipped() -> None:
    pixels = (np.arange(16, dtype=np.uint16) * 4096).reshape(4, 4)
    np.testing.assert_array_equal(read(saved(Image.fromarray(pixels)), (4, 4, 1))[..., 0], pixels // 257)


def test_what_is_transparent_becomes_white() -> None:
    picture = Image.new("RGBA", (4, 4), (9, 9, 9, 0))
    assert (read(saved(picture)) == 255).all()
    assert (read(saved(picture, "WEBP", lossless=True)) == 255).all()
    assert (read(saved(Image.new("RGBA", (4, 4), (9, 9, 9, 255)))) == 9).all()


def test_a_picture_taken_sideways_is_turned_upright() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0] = 200  # the stored top row
    exif = Image.Exif()
    exif[0x0112] = 6  # is the right column of the picture
    turned = read(saved(Image.fromarray(pixels), exif=exif))
    assert (turned[:, 3] == 200).all()
    assert (turned[:, :3] == 0).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_of_a_png_becomes_the_models(mode: str, channels: int) -> None:
    assert read(saved(Image.new(mode, (5, 7))), (4, 3, channels)).shape == (4, 3, channels)


def test_a_large_jpeg_is_read_as_the_plain_way_reads_it() -> None:
    x, y = np.meshgrid(np.linspace(0, 6, 900), np.linspace(0, 6, 900))
    waves = np.stack([np.sin(x), np.sin(y), np.cos(x + y)], axis=-1)
    content = saved(Image.fromarray((127 * waves + 128).astype(np.uint8)), "JPEG", quality=95)
    plain = np.asarray(Image.open(BytesIO(content)).resize((32, 32), Image.Resampling.BILINEAR), np.int16)
    assert np.abs(read(content, (32, 32, 3)) - plain).max() <= 3


def test_pixels_are_counted_over_all_images() -> None:
    content = encode(0, (600, 600), "L")
    part = b'--x\r\nContent-Disposition: form-data; name="images"\r\n\r\n' + content + b"\r\n"
    assert len(read_form(part * 2 + b"--x--\r\n", (4, 4, 1))) == 2
    kind = "multipart/form-data; boundary=x"
    assert read_images(kind, part * 2 + b"--x--\r\n", (4, 4, 1), LIMITS, most=719_999) is None
    with pytest.raises(RequestError, match="Too many pixels"):
        read_form(part * 3 + b"--x--\r\n", (4, 4, 1))


class Recorder:
    """Stands in for a model: notes its batches and answers each image with its first pixel."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.entered, self.free = threading.Event(), threading.Event()
        self.free.set()

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.entered.set()
        self.free.wait(10)
        self.batches.append(len(images))
        if (images == 255).any():
            raise RuntimeError("an image that breaks the network")
        return images[:, :1, 0, 0].astype(np.float32)


def pictures(*values: int) -> np.ndarray:
    return np.stack([np.full((2, 2, 1), value, np.uint8) for value in values])


async def batched(batcher: Batcher, *jobs: tuple[Any, np.ndarray]) -> list[Any]:
    task = asyncio.create_task(batcher.run())
    answers = await asyncio.gather(
        *(batcher.predict(model, images) for model, images in jobs), return_exceptions=True
    )
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return answers


def test_every_job_gets_its_own_rows_of_the_shared_batch() -> None:
    model = Recorder()
    batcher = Batcher(8, 0.05, 100, lambda _: None)
    answers = asyncio.run(batched(batcher, *((model, pictures(n, n + 1)) for n in range(3))))
    assert [answer.tolist() for answer in answers] == [[[0], [1]], [[1], [2]], [[2], [3]]]
    assert model.batches == [6]
    assert batcher.waiting == 0


def test_a_batch_never_exceeds_its_bound() -> None:
    model = Recorder()
    asyncio.run(
        batched(Batcher(4, 0.05, 100, lambda _: None), *((model, pictures(*range(3))) for _ in range(5)))
    )
    assert max(model.batches) <= 4
    assert sum(model.batches) == 15


def test_jobs_prepared_for_two_models_are_answered_by_each() -> None:
    old, new = Recorder(), Recorder()
    jobs = [(old, pictures(1)), (new, pictures(2)), (old, pictures(3))]
    answers = asyncio.run(batched(Batcher(8, 0.05, 100, lambda _: None), *jobs))
    assert [answer.tolist() for answer in answers] == [[[1]], [[2]], [[3]]]
    assert (old.batches, new.batches) == ([2], [1])


def test_a_full_queue_is_busy_and_recovers() -> None:
    async def story() -> None:
        model = Recorder()
        model.free.clear()
        batcher = Batcher(1, 0, 2, lambda _: None)
        task = asyncio.create_task(batcher.run())
        first = asyncio.create_task(batcher.predict(model, pictures(1)))  # type: ignore[arg-type]
        assert await asyncio.to_thread(
            model.entered.wait, 10
        )  # the first is being answered, so no longer waits
        waiting = [asyncio.create_task(batcher.predict(model, pictures(n))) for n in (2, 3)]  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert batcher.full()
        with pytest.raises(Busy):
            await batcher.predict(model, pictures(4))  # type: ignore[arg-type]
        model.free.set()
        assert [answer.tolist() for answer in await asyncio.gather(first, *waiting)] == [[[1]], [[2]], [[3]]]
        assert not batcher.full()
        task.cancel()

    asyncio.run(story())


def test_a_batch_that_fails_leaves_the_next_one_alone() -> None:
    async def story() -> None:
        model: Any = Recorder()
        batcher = Batcher(1, 0, 10, lambda _: None)
        task = asyncio.create_task(batcher.run())
        with pytest.raises(RuntimeError):
            await batcher.predict(model, pictures(255))
        assert (await batcher.predict(model, pictures(7))).tolist() == [[7]]
        task.cancel()

    asyncio.run(story())


def test_only_what_is_tiny_is_decoded_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(network().SerializeToString(), "tiny", "1", 1)
    decoded: list[tuple[str, bool]] = []  # the thread, and whether images came of it

    def watched(*arguments: Any) -> Any:
        images = read_images(*arguments)
        decoded.append((threading.current_thread().name.partition("_")[0], images is not None))
        return images

    def form(content: bytes) -> tuple[str, bytes]:
        return "multipart/form-data; boundary=x", b"--x\r\n\r\n" + content + b"\r\n--x--\r\n"

    async def threads(content_type: str, body: bytes) -> list[tuple[str, bool]]:
        decoded.clear()
        service = Service(model, None, read_settings({}, None), Metrics())
        async with service.running():
            assert (await service._decode(content_type, body, model)).shape == (1, *model.shape)
        return list(decoded)

    monkeypatch.setattr("serving.service.read_images", watched)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    flat = form(saved(Image.new("L", (500, 500))))
    assert len(flat[1]) < INLINE
    assert asyncio.run(threads("application/json", b"[[0]]")) == [("MainThread", True)]
    assert asyncio.run(threads(*flat)) == [("MainThread", False), ("decode", True)]  # few bytes, many pixels
    assert asyncio.run(threads(*form(saved(Image.fromarray(noise))))) == [("decode", True)]  # many bytes


def test_memory_is_given_back_once() -> None:
    memory = Memory(10)
    with memory.lease() as first, memory.lease() as second:
        assert first.take(6)
        assert not second.take(5)
        assert second.take(4)
        first.give_back()
        assert memory.used == 4
    assert memory.used == 0


def changed(**options: Any) -> bytes:
    return network(**options).SerializeToString()


def wrong_input() -> bytes:
    model = network()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"
    return model.SerializeToString()


def wrong_type() -> bytes:
    identity = helper.make_node("Identity", ["image"], ["probabilities"])
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4, 4, 3])
        for name in ("image", "probabilities")
    ]
    graph = helper.make_graph([identity], "wrong", values[:1], values[1:])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()


def not_probabilities() -> bytes:
    model = network()
    model.graph.node[-1].CopyFrom(helper.make_node("Identity", ["logits"], ["probabilities"]))
    return model.SerializeToString()


def fixed_batch() -> bytes:
    model = network()
    shape = onnx.numpy_helper.from_array(np.array([1, 3], np.int64), "shape")
    model.graph.initializer.append(shape)
    model.graph.node[-1].input[0] = "fixed"
    model.graph.node.insert(
        len(model.graph.node) - 1, helper.make_node("Reshape", ["logits", "shape"], ["fixed"])
    )
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"hello", "ONNX Runtime cannot load it"),
        (wrong_input(), "input must be image"),
        (wrong_type(), "output must be probabilities"),
        (not_probabilities(), "does not answer probabilities"),
        (fixed_batch(), "fails on a black image"),
        (changed(metadata={"class_names": '["one"]'}), "class_names must list 3 names"),
        (changed(metadata={"class_names": "one, two"}), "class_names must be JSON"),
        (changed(metadata={"genotype": "[]"}), "genotype must be a JSON object"),
    ],
)
def test_a_model_that_breaks_the_contract_is_refused_in_one_line(content: bytes, part: str) -> None:
    with pytest.raises(ModelError) as error:
        load(content, "net", "7", 1)
    assert str(error.value).startswith("model net 7: ")
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_without_names_numbers_its_classes() -> None:
    model = network()
    del model.metadata_props[:]
    loaded: Model = load(model.SerializeToString(), "net", "7", 1)
    assert loaded.class_names == ("0", "1", "2")
    assert loaded.genotype == {}
    assert loaded.shape == (8, 8, 3)


def test_a_drawing_shows_every_edge() -> None:
    cells = draw_cells(GENOTYPE)
    assert list(cells) == ["normal", "reduce"]
    for name, drawing in cells.items():
        texts = [
            text.text for text in ElementTree.fromstring(drawing).iter("{http://www.w3.org/2000/svg}text")
        ]
        for operation, _ in GENOTYPE[name]:
            words = operation.replace("_", " ").replace("3x3", "3×3").replace("5x5", "5×5")
            assert texts.count(words) == [op for op, _ in GENOTYPE[name]].count(operation)


def test_a_drawing_of_nas_bench_201() -> None:
    cells = draw_cells(
        {"arch_str": "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"}
    )
    assert cells["cell"].count("<circle") == 6
    ElementTree.fromstring(cells["cell"])


@pytest.mark.parametrize(
    "genotype",
    [{}, {"normal": 3}, {"arch_str": "nonsense"}, {"arch_str": 5}, {**GENOTYPE, "normal": [["x", 99]] * 8}],
)
def test_an_unknown_genotype_is_not_drawn(genotype: dict[str, Any]) -> None:
    assert draw_cells(genotype) == {}


def test_a_drawing_escapes_what_the_model_says() -> None:
    genotype = {**GENOTYPE, "normal": [["<script>", 0], *GENOTYPE["normal"][1:]]}
    assert "<script>" not in draw_cells(genotype)["normal"]


def test_options_win_over_the_environment_and_that_over_params(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("serve:\n  port: 1\n  max_images: 3\n  api_key: old\nother: 5\n")
    monkeypatch.setenv("MSDARTS_API_KEY", "new")
    settings = read_settings({"port": "2"}, params)
    assert (settings.port, settings.max_images) == (2, 3)
    assert settings.api_key
    assert settings.api_key.get_secret_value() == "new"


@pytest.mark.parametrize(
    ("text", "options", "name"),
    [
        ("registry: {name: cats}", {}, "cats"),
        ("registry: {name: cats}\nserve: {name: dogs}", {}, "dogs"),
        ("registry: {name: cats}\nserve: {name: dogs}", {"name": "birds"}, "birds"),
        ("registry: {min_gain: 0.0}", {}, "msdarts"),
    ],
)
def test_the_registered_model_is_the_one_in_params(
    tmp_path: Path, text: str, options: dict[str, str], name: str
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(text)
    assert read_settings(options, params).name == name


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("serve: {prot: 1}", "serve.prot is unknown; did you mean serve.port?"),
        ("serve: {port: 99999}", "serve.port: input should be less than or equal to 65535, got 99999"),
        ("serve: [1]", "serve: must be a mapping of settings, got [1]"),
        ("registry: [1]", "registry: must be a mapping of settings, got [1]"),
        ("registry: {name: 7}", "registry.name: must be the name of a registered model, got 7"),
        ("[1]", "params.yaml: must be a mapping of sections, got [1]"),
        ("serve: [", "cannot be read"),
        ("serve: {api_key: [secret]}", "serve.api_key: input should be a valid string"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path: Path, text: str, sentence: str) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(text)
    with pytest.raises(StartError) as error:
        read_settings({}, params)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--port", "many"], "serving: serve.port: "),
        (["--model", "nowhere.onnx"], "serving: nowhere.onnx: cannot be read (No such file or directory)"),
        (["--params", "nowhere.yaml"], "serving: nowhere.yaml: cannot be read"),
        (
            ["--model", "MODEL", "--host", "192.0.2.1"],
            "serving: serve.host, serve.port: cannot listen on 192.0.2.1",
        ),
    ],
)
def test_a_mistake_at_the_start_is_one_line_and_status_2(
    arguments: list[str], sentence: str, model_file: Path
) -> None:
    given = [str(model_file) if argument == "MODEL" else argument for argument in arguments]
    run = subprocess.run(
        [sys.executable, "-m", "serving", *given], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith(sentence)
    assert "Traceback" not in run.stderr


def test_red_is_red() -> None:
    assert (read(encode(RED)) == np.array(RED)).all()
