import pickle
import zipfile

import pytest
import torch
from nets import Line, Sees

from lightningtune import TrialError
from lightningtune.files import check_sums
from lightningtune.training.resumption import STATE, digest_training, read_checkpoint

CONFIG = {"seed_everything": 1, "model": {"lr": 0.1}, "trainer": {"max_epochs": 3}}


def content(**more):
    kept = {"training": digest_training(CONFIG), "history": [(0.5,), (0.25,)]}
    return {"state_dict": Line().state_dict(), STATE: kept, **more}


def touches(path):
    return Sees(f"__import__('pathlib').Path({str(path)!r}).touch()")


@pytest.fixture
def path(tmp_path):
    torch.save(content(), tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt"


def test_nothing_is_unpickled_where_weights_suffice(path):
    loaded, weights_only = read_checkpoint(path)
    assert (weights_only, loaded[STATE]["history"]) == (True, [(0.5,), (0.25,)])


def test_objects_are_unpickled_from_a_file_that_is_whole(path, tmp_path):
    torch.save(content(taste=touches(tmp_path / "seen")), path)
    assert not read_checkpoint(path)[1]
    assert (tmp_path / "seen").exists()


def test_a_file_that_is_no_checkpoint_is_not_unpickled(path, tmp_path):
    path.write_bytes(pickle.dumps(touches(tmp_path / "seen")))
    with pytest.raises(TrialError, match=f"The checkpoint '{path}' is not whole, or is none: BadZipFile"):
        read_checkpoint(path)
    assert not (tmp_path / "seen").exists()


def test_each_byte_of_the_weights_counts(path):
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        place = next(entry for entry in archive.infolist() if entry.filename.endswith("data/0"))
    name = place.filename.encode()
    data[data.index(name) + len(name) + 80] ^= 1
    path.write_bytes(data)
    with pytest.raises(TrialError, match=f"The checkpoint '{path}' is not whole"):
        read_checkpoint(path)


def test_a_file_that_holds_something_else_or_is_missing_is_named(path):
    torch.save([1, 2], path)
    with pytest.raises(TrialError, match=f"The checkpoint '{path}' is not whole, or .* it holds a list"):
        read_checkpoint(path)
    path.unlink()
    with pytest.raises(TrialError, match="No such file"):
        read_checkpoint(path)


def test_a_file_that_was_written_without_sums_is_read(path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content(), path)
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(path) as archive:
        assert {entry.CRC for entry in archive.infolist()} == {0}
    check_sums(path)
    assert read_checkpoint(path)[1]
