# SPDX-License-Identifier: Apache-2.0
"""Interpreters in threads and processes: the same logits as alone, and stderr stays whole."""

import copy
import ctypes
import multiprocessing
import pickle
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, lively_subnet, structured_images

from mcuformer import Interpreter, convert, engines, kernel_library
from mcuformer.engines import tflm
from mcuformer.errors import ModelError, ToolchainError

needs_wheel = pytest.mark.skipif(engines.choose(None) != "tflm", reason="no tflite-micro wheel for this machine")
each_engine = pytest.mark.parametrize("engine", [pytest.param("tflm", marks=needs_wheel), "c"])


@pytest.fixture(scope="module")
def images():
    return structured_images(TINY, 64, seed=5)


@pytest.fixture(scope="module")
def models(images):
    """One of each way that bytes come in while it runs."""
    net = lively_subnet(TINY, 5)
    return {
        "xip": convert(net, images[:16]),
        "staged": convert(net, images[:16], weights="staged"),
        "strips": convert(net, images[:16], weights="staged", strips=True),
    }


@pytest.fixture
def often(monkeypatch):
    """Threads take turns as often as possible."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@each_engine
@pytest.mark.parametrize("kind", ["xip", "staged", "strips"])
def test_one_interpreter_in_many_threads_gives_its_logits(models, images, kind, engine, often):
    interpreter, want = Interpreter(models[kind], engine=engine), models[kind].reference(images)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: interpreter(images[i % 64])[0], range(400)))
    wrong = sum(not np.array_equal(logits, want[i % 64]) for i, logits in enumerate(found))
    assert wrong == 0, f"{wrong} of 400"


@each_engine
def test_an_interpreter_of_each_thread(models, images, engine, often):
    """Made, run, asked for its allocations and its layers, all at once."""

    def work(i):
        kind = ("xip", "staged", "strips")[i % 3]
        interpreter = Interpreter(models[kind], engine=engine)
        logits = interpreter(images[i : i + 1])
        return kind, i, logits[0], interpreter.arena_used_bytes, interpreter.layer_outputs(images[i])["head"]

    arenas = {kind: Interpreter(model, engine=engine).arena_used_bytes for kind, model in models.items()}
    with ThreadPoolExecutor(8) as pool:
        for kind, i, logits, arena, head in pool.map(work, range(48)):
            want = models[kind].reference(images[i : i + 1])[0]
            assert np.array_equal(logits, want) and np.array_equal(head, want) and arena == arenas[kind]


def test_a_fork_while_others_run(models, images):
    """The child has one thread; locks that others held must not stop it."""
    interpreter, want = Interpreter(models["staged"]), models["staged"].reference(images[:1])
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            interpreter(images[:4])

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        context = multiprocessing.get_context("fork")
        for _ in range(5):
            right = context.Value("i", 0)

            def child(right=right):
                right.value = np.array_equal(Interpreter(models["staged"])(images[:1]), want) and np.array_equal(
                    interpreter(images[:1]), want
                )

            process = context.Process(target=child)
            process.start()
            process.join(60)
            assert not process.is_alive() and right.value == 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()


SCRIPT = """
import os, sys
{before}
from mcuformer import Interpreter
interpreter = Interpreter(sys.argv[1])
print(interpreter.arena_used_bytes > 0)
try:
    Interpreter(open(sys.argv[1], "rb").read()[:-9])
except ValueError as error:
    print("refused")
"""


@needs_wheel
@pytest.mark.parametrize(
    "before", ["sys.stderr = None", "os.close(2)", "sys.stderr.close()", "os.close(2); sys.stderr = None", ""]
)
def test_stderr_that_is_closed_or_none(models, tmp_path, before):
    models["xip"].save(tmp_path / "model.tflite")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(before=before), str(tmp_path / "model.tflite")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == "True\nrefused\n" and done.stderr == "", done.stderr


PRINTING = """
import os, sys, threading
import numpy as np
from concurrent.futures import ThreadPoolExecutor
from mcuformer import Interpreter
sys.setswitchinterval(1e-6)
before = os.fstat(2)
done = threading.Event()

def say():
    count = 0
    while not done.is_set() or count < 300:
        os.write(2, b"said\\n")
        count += 1
    print(count)

talker = threading.Thread(target=say)
talker.start()
with ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda i: Interpreter(sys.argv[1]).allocations, range(60)))
done.set()
talker.join()
after = os.fstat(2)
print((before.st_dev, before.st_ino) == (after.st_dev, after.st_ino))
"""


@needs_wheel
def test_interpreters_made_in_threads_leave_stderr_alone(models, tmp_path):
    """What another thread prints meanwhile comes out, all of it; afterwards stderr is the one that it was."""
    models["xip"].save(tmp_path / "model.tflite")
    done = subprocess.run(
        [sys.executable, "-c", PRINTING, str(tmp_path / "model.tflite")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    count, same = done.stdout.split()
    assert same == "True" and done.stderr == "said\n" * int(count)


@needs_wheel
def test_what_c_code_prints_is_captured_by_turns():
    libc = ctypes.CDLL(None)

    def print_c(text: str) -> None:
        libc.fprintf(ctypes.c_void_p.in_dll(libc, "stderr"), b"%s", text.encode())

    for text in ("a longer line", "short", "", "x" * 100_000, "again"):
        with tflm.captured() as printed:
            print_c(text)
        assert printed.text == text
    with pytest.raises(KeyError), tflm.captured() as printed:
        print_c("before")
        raise KeyError
    assert printed.text == "before"


def test_what_the_interpreter_says_is_in_the_error(models):
    with pytest.raises(ModelError, match="the interpreter refused the model|the kernels refuse"):
        tflm.Session(models["xip"].content, models["xip"].graph, arena_bytes=2000)


# the wheel's version


@pytest.mark.parametrize("version", ["0.dev20230417213131", "0.dev20261012203411", "0.dev20261011"])
def test_a_wheel_older_than_the_first_that_works_is_named(monkeypatch, models, version):
    monkeypatch.setattr(tflm, "_installed", lambda: version)
    for engine in (None, "tflm"):
        with pytest.raises(ToolchainError, match=f"{version} is older than 0.dev2026.*pip install") as caught:
            Interpreter(models["xip"], engine=engine)
        assert "\n" not in str(caught.value)
    assert Interpreter(models["xip"], engine="c").engine == "c"


def test_a_wheel_that_the_ops_find_no_way_into_is_named(monkeypatch, models):
    """As a later one may be. The ops themselves refuse here, a resolver that is none."""

    class Later:
        InterpreterConfig = tflm._runtime().InterpreterConfig

        class Interpreter:
            @staticmethod
            def from_bytes(*_, **__):
                assert not kernel_library.load().RegisterMcuformerOps(None)
                raise RuntimeError("Custom op registerer failed")

    monkeypatch.setattr(tflm, "_installed", lambda: "0.dev20270101")
    monkeypatch.setattr(tflm, "_runtime", lambda: Later)
    wanted = 'tflite-micro 0.dev20270101: the given object is not a resolver.*; pip install another.*engine="c"$'
    for engine in (None, "tflm"):
        with pytest.raises(ToolchainError, match=wanted) as caught:
            Interpreter(models["xip"], engine=engine)
        assert "\n" not in str(caught.value)
    assert Interpreter(models["xip"], engine="c").engine == "c"


@pytest.mark.parametrize("version", [None, "0.dev20261012203412", "0.dev20270101000000", "1.0", "0.dev20261013"])
def test_other_wheels_are_tried(monkeypatch, version):
    monkeypatch.setattr(tflm, "_installed", lambda: version)
    tflm._check_version()


def test_the_oldest_wheel_is_the_one_that_setup_asks_for():
    setup = (Path(__file__).parents[2] / "setup.cfg").read_text()
    assert re.findall(r"tflite-micro>=(\S+);", setup) == [tflm.OLDEST]


@each_engine
@pytest.mark.parametrize("kind", ["xip", "staged", "strips"])
def test_a_copy_for_another_process(models, images, kind, engine):
    interpreter = Interpreter(models[kind], engine=engine)
    for other in (pickle.loads(pickle.dumps(interpreter)), copy.deepcopy(interpreter)):
        assert other.engine == engine and other.arena_used_bytes == interpreter.arena_used_bytes
        assert np.array_equal(other(images), interpreter(images))
