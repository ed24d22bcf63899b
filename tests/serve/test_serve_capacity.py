"""The queue's length comes from the archive's own pace."""

import shutil
from pathlib import Path

from torch import Tensor
from without_server import rewrite

from deploypipe.archives.pack import build_archive
from deploypipe.contract.archive import ENTRY_FILE, read_archive
from deploypipe.serve.torchserve.capacity import queue_for


def test_the_queue_grows_with_the_time_that_an_answer_may_take(artifacts: dict[str, Path], tmp_path: Path) -> None:
    archive = build_archive(artifacts["onnx"], "tiny", store=tmp_path)
    assert queue_for([archive], 1, 8, "cpu", 0.0) == 1
    # No processor answers a million of these a second, and none needs ten seconds for one.
    assert 10 < queue_for([archive], 1, 8, "cpu", 200.0) < 2e8


def test_the_slowest_archive_decides(artifacts: dict[str, Path], images: Tensor, tmp_path: Path) -> None:
    fast = build_archive(artifacts["onnx"], "fast", store=tmp_path)
    shutil.copy(fast.path, tmp_path / "slow.mar")
    entry = b"import time\nfrom archived.formats.onnx.read import read\n"
    entry += b"from archived.serve.torchserve.handler import Handler\n"
    entry += b"class Entry(Handler):\n    def __init__(self): super().__init__(read)\n"
    entry += (
        b"    def handle(self, data, context):\n        time.sleep(1)\n        return super().handle(data, context)\n"
    )
    rewrite(tmp_path / "slow.mar", {ENTRY_FILE: entry})
    slow = read_archive(tmp_path / "slow.mar")
    # 8 requests take it a second or more: of the 4 a second that are counted on, 10 seconds hold 40 at most, and the
    # last of them waits for the 8 in hand, too.
    assert queue_for([fast, slow], 1, 8, "cpu", 10.0) <= 32
    # In 2 seconds it is 8, of which a worker has half in hand.
    assert queue_for([fast, slow], 1, 8, "cpu", 2.0) <= 4
    assert queue_for([fast, slow], 2, 8, "cpu", 2.0) <= 8


def test_an_archive_that_does_not_load_is_left_to_the_server(artifacts: dict[str, Path], tmp_path: Path) -> None:
    archive = build_archive(artifacts["onnx"], "broken", store=tmp_path)
    rewrite(archive.path, {ENTRY_FILE: b"raise RuntimeError('no')\n"})
    assert queue_for([read_archive(archive.path)], 1, 8, "cpu", 10.0) == 8
