"""Streamed tar files: what webdataset writes is read, and no sample of a damaged file is lost."""

from __future__ import annotations

import io
import itertools
import tarfile
from pathlib import Path

import numpy as np
import pytest
from image_files import encoded, numbered, write_tar

from foveate.data.splits import belongs
from foveate.data.streaming import ImageStream


def make(source: object, **options: object) -> ImageStream:
    settings = {"image_size": 6, "batch_size": 1, "channels": 1, "shuffle_buffer": 1}
    return ImageStream(source, **{**settings, **options})


def epoch(source: Path, **options: object) -> list[int]:
    """Numbers of the images that come once."""
    stream, found = make(source, **options), []
    for batch in stream:
        if stream.state_dict()["positions"][0]["epoch"] > 0:
            break
        found += batch.images[:, 0, 0, 0].tolist()
    return found


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Forty samples of two files."""
    members = []
    for n in range(40):
        members += [(f"{n:03d}.png", encoded(numbered(n))), (f"{n:03d}.cls", b"1")]
    write_tar(tmp_path / "a.tar", members)
    return tmp_path / "a.tar"


# What no reader can make sense of.


def add(shard: Path, member: tarfile.TarInfo, content: bytes = b"") -> None:
    """Put a member of one's own in the middle of the shard."""
    with tarfile.open(shard) as old:
        members = [(each, old.extractfile(each)) for each in old]
        kept = [(each, file.read()) for each, file in members if file is not None]
    with tarfile.open(shard, "w", format=tarfile.PAX_FORMAT) as new:
        for place, (each, data) in enumerate(kept):
            if place == 20:
                new.addfile(member, io.BytesIO(content))
            new.addfile(each, io.BytesIO(data))


@pytest.mark.parametrize(
    "headers", [{"GNU.sparse.map": "a,b"}, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}]
)
def test_a_header_of_numbers_that_are_none_is_damage_between_samples(
    shard: Path, headers: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    member = tarfile.TarInfo("010b.png")
    member.pax_headers = headers
    add(shard, member)
    with pytest.raises(ValueError, match=r"cannot read .*a.tar as tar: .* at byte \d{5}"):
        epoch(shard)
    assert epoch(shard, skip_damaged=True) == [*range(10)]
    assert "0 samples that are not whole, and " in capsys.readouterr().err


def test_a_size_below_0_ends_an_archive(shard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would lead back to what was read before."""
    with tarfile.open(shard) as opened:
        place = opened.getmembers()[20].offset
    content = bytearray(shard.read_bytes())
    header = tarfile.TarInfo.frombuf(bytes(content[place : place + 512]), "utf-8", "strict")
    header.size = -1024
    content[place : place + 512] = header.tobuf(tarfile.GNU_FORMAT)
    shard.write_bytes(content)
    assert epoch(shard, skip_damaged=True) == [*range(10)]
    assert "a header with a size below 0 at byte" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["x.png", "nowhere.png"])
def test_a_link_to_no_file_of_the_archive_is_a_sample_that_is_not_whole(
    shard: Path, kind: bytes, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    member = tarfile.TarInfo("x.png")
    member.type, member.linkname = kind, target
    add(shard, member)
    with pytest.raises(ValueError, match=r"sample x of .*x.png at byte \d+ is a link to no file"):
        epoch(shard)
    assert epoch(shard, skip_damaged=True) == [*range(40)]
    assert "1 samples that are not whole" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_is_followed_and_what_comes_behind_it_is_read(shard: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("x.png")
    member.type, member.linkname = kind, "007.png"
    add(shard, member)
    assert sorted(epoch(shard)) == sorted([*range(40), 7])
    content = bytearray(shard.read_bytes())
    with tarfile.open(shard) as opened:
        place = next(each.offset for each in opened if each.name == "030.png")
    header = tarfile.TarInfo.frombuf(bytes(content[place : place + 512]), "utf-8", "strict")
    for size in (-1024, 2**60):
        header.size = size
        content[place : place + 512] = header.tobuf(tarfile.GNU_FORMAT)
        shard.write_bytes(content)
        assert sorted(epoch(shard, skip_damaged=True)) == sorted([*range(30), 7])


def test_a_link_to_a_folder_is_none_to_a_file(shard: Path) -> None:
    with tarfile.open(shard, "a") as opened:
        folder, link = tarfile.TarInfo("photos"), tarfile.TarInfo("x.png")
        folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "photos"
        opened.addfile(folder)
        opened.addfile(link)
    with pytest.raises(ValueError, match="is a link to no file of the archive"):
        epoch(shard)


@pytest.mark.parametrize("size", ["1" + 30 * "0", "x"])
def test_sizes_that_no_file_has_are_damage(shard: Path, size: str) -> None:
    member = tarfile.TarInfo("x.png")
    member.pax_headers = {"size": size}
    add(shard, member)
    with pytest.raises(ValueError, match=r"a.tar"):
        epoch(shard)
    assert epoch(shard, skip_damaged=True)[:10] == [*range(10)]


def test_a_first_header_that_cannot_be_read_is_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as opened:
        member = tarfile.TarInfo("0.png")
        member.pax_headers = {"GNU.sparse.map": "a,b"}
        opened.addfile(member, io.BytesIO())
    write_tar(tmp_path / "b.tar", [("1.png", encoded(numbered(1)))])
    with pytest.raises(ValueError, match=r"cannot read .*a.tar as tar: .* at byte 0"):
        epoch(tmp_path)
    assert epoch(tmp_path, skip_damaged=True) == [1]
    assert "skipped in" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["./", ""])
def test_a_member_without_a_name_is_no_sample(shard: Path, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.type = tarfile.REGTYPE
    add(shard, member)
    assert epoch(shard) == [*range(40)]


# What is read.


def test_tar_labels_come_from_cls_or_json_and_other_files_do_not_count(tmp_path: Path) -> None:
    png = [encoded(numbered(n)) for n in range(6)]
    write_tar(
        tmp_path / "set.tar",
        [
            ("._0.png", b"what macOS adds"),
            ("a.b/0.png", png[0]),
            ("._0.cls", b"what macOS adds"),
            ("a.b/0.cls", b"10"),
            ("a.b/1.json", b'{"caption": "x", "label": 11}'),
            ("a.b/1.mask.png", b"not an image of the sample"),
            ("a.b/1.PNG", png[1]),
            ("a.b/2.json", b"12"),
            ("a.b/2.png", png[2]),
            ("a.b/3.json", b'{"caption": "x"}'),
            ("a.b/3.png", png[3]),
            ("c/3.txt", b"text"),
            ("c/3.png", png[4]),
        ],
    )
    batch = next(make(tmp_path / "set.tar", batch_size=5, shuffle_buffer=1))
    assert batch.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert batch.labels.tolist() == [10, 11, 12, -1, -1]
    assert batch.captions == ((), ("x",), (), ("x",), ("text",))


def test_tar_captions_are_lines_of_txt_or_text_in_json(tmp_path: Path) -> None:
    png, file = encoded(numbered(0)), tmp_path / "set.tar"

    def captions(*told: tuple[str, str], key: str | None = None) -> list[tuple[str, ...]]:
        members = [(f"{n}.png", png) for n in range(len(told))]
        members += [(f"{n}.{kind}", text.encode("latin-1")) for n, (kind, text) in enumerate(told)]
        write_tar(file, sorted(members))
        stream = make(file, batch_size=len(told), caption_column=key)
        return list([next(stream), next(stream)][0].captions)

    two = "a dog\n\xc3\xa9t\xc3\xa9\n"
    told = '{"captions": ["one", null, "two"], "de": "ein Hund"}'
    found = captions(("txt", two), ("json", told), ("json", '{"caption": null}'), ("json", "7"))
    assert found == [("a dog", "été"), ("one", "two"), (), ()]
    assert captions(("txt", two), ("json", told), key="de") == [(), ("ein Hund",)]
    with pytest.raises(ValueError, match=r"no .json in .*set.tar has 'fr' .*\['captions', 'de'\]"):
        captions(("json", told), key="fr")
    with pytest.raises(ValueError, match=r"caption in its .json must be text or a list of text"):
        captions(("json", '{"caption": 7}'), key="caption")


def test_captions_that_nobody_asked_for_stop_no_stream(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    png, file = encoded(numbered(0)), tmp_path / "set.tar"
    told = (("txt", b"\xff"), ("json", b'{"caption": 7}'), ("json", b"{"), ("txt", b"a dot"))
    members = [(f"{n}.png", png) for n in range(4)] + [(f"{n}.cls", b"1") for n in range(4)]
    members += [(f"{n}.{kind}", content) for n, (kind, content) in enumerate(told)]
    write_tar(file, sorted(members))
    stream = make(file, batch_size=4)
    assert list([next(stream), next(stream)][0].captions) == [(), (), (), ("a dot",)]
    assert f"captions of 3 samples in {file} are no text" in capsys.readouterr().err


def test_json_that_is_a_list_names_no_class(tmp_path: Path) -> None:
    file = tmp_path / "set.tar"
    write_tar(file, [("0.json", b'[{"bbox": 1}]'), ("0.png", encoded(numbered(0)))])
    assert next(make(file, batch_size=1)).labels.tolist() == [-1]


def test_a_tar_file_without_a_sample_of_the_split_lacks_no_captions(tmp_path: Path) -> None:
    both = []
    for split in ("val", "train"):
        names = [name for name in map(str, range(400)) if belongs(name, split, ("val", "test"))]
        members = []
        for name in names[:3]:
            members += [
                (f"{name}.json", b'{"said": "a dot"}'),
                (f"{name}.png", encoded(numbered(1))),
            ]
        both.append(tmp_path / f"{split}s.tar")
        write_tar(both[-1], members)
    stream = make(both, split="val", split_column=None, caption_column="said", batch_size=3)
    assert [next(stream).captions for _ in range(2)] == [(("a dot",),) * 3] * 2


def test_tar_samples_may_be_of_any_format_that_pillow_reads(tmp_path: Path) -> None:
    members = []
    for number, kind in enumerate(("bmp", "tif", "webp", "ppm")):
        content = io.BytesIO()
        lossless = {"lossless": True} if kind == "webp" else {}
        numbered(number).save(content, {"tif": "tiff"}.get(kind, kind), **lossless)
        members.append((f"{number}.{kind}", content.getvalue()))
    write_tar(tmp_path / "set.tar", members)
    batch = next(make(tmp_path / "set.tar", batch_size=4))
    assert batch.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="image_column has no effect on tar files"):
        make(tmp_path / "set.tar", image_column="png")


def test_tar_files_hold_nothing_out_unless_asked(tmp_path: Path) -> None:
    for name, number in (("train-0", 1), ("train-1", 2), ("validation-0", 3)):
        write_tar(tmp_path / f"{name}.tar", [("a.png", encoded(numbered(number)))])
    for split, expected in (("train", {1, 2}), ("val", {3})):
        found = next(make(tmp_path, split=split, batch_size=2)).images[:, 0, 0, 0]
        assert set(found.tolist()) == expected
    with pytest.raises(ValueError, match=r"no test split; it has \['train', 'val'\].*on its own"):
        make(tmp_path, split="test")


def test_tar_samples_are_held_out_by_name(shard: Path) -> None:
    found = {
        split: epoch(shard, split=split, split_column=None) for split in ("train", "val", "test")
    }
    assert sorted(itertools.chain(*found.values())) == list(range(40))
    few = [(f"{n:03d}.png", encoded(numbered(n))) for n in range(0, 40, 2)]
    write_tar(shard, [*few, ("x.png", encoded(numbered(99)))])
    for split, numbers in found.items():
        again = epoch(shard, split=split, split_column=None)
        assert {n for n in again if n != 99} == {n for n in numbers if n % 2 == 0}
    stream = make(shard, split_column=None)
    batches = [int(next(stream).images[0, 0, 0, 0]) for _ in range(5)]
    state = stream.state_dict()
    expected = [int(next(stream).images[0, 0, 0, 0]) for _ in range(5)]
    resumed = make(shard, split_column=None)
    resumed.load_state_dict(state)
    assert [int(next(resumed).images[0, 0, 0, 0]) for _ in range(5)] == expected
    assert not set(batches) & set(expected)
    write_tar(shard, [("000.png", encoded(numbered(0)))])
    wrong = r"no images in 1 tar files; no sample that is read falls into (val|train).*own"
    with pytest.raises(ValueError, match=wrong):
        [epoch(shard, split=split, split_column=None) for split in ("val", "train")]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_is_read_to_its_end(form: int, tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w", format=form) as opened:
        for n in range(5):
            folder = "f" * 90 if form == tarfile.USTAR_FORMAT else "f" * 150
            member = tarfile.TarInfo(f"{folder}/{n}.png")
            member.size = len(encoded(numbered(n)))
            opened.addfile(member, io.BytesIO(encoded(numbered(n))))
        link = tarfile.TarInfo("linked.png")
        link.type, link.linkname = tarfile.LNKTYPE, f"{folder}/3.png"
        opened.addfile(link)
    assert epoch(file) == [0, 1, 2, 3, 4, 3]
    # Some writers end with two blocks and fill no record.
    whole = file.read_bytes().rstrip(b"\0")
    file.write_bytes(whole + bytes(-len(whole) % 512 + 1024))
    assert epoch(file) == [0, 1, 2, 3, 4, 3]
    # tar -b 512 fills records of 256 KiB.
    file.write_bytes(whole + bytes(-len(whole) % 2**18))
    assert epoch(file) == [0, 1, 2, 3, 4, 3]


def test_headers_about_all_members_are_no_damage(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    headers = {"comment": "as git archive writes it" * 30}
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT, pax_headers=headers) as opened:
        for n in range(3):
            member = tarfile.TarInfo(f"{n}.png")
            member.size = len(encoded(numbered(n)))
            opened.addfile(member, io.BytesIO(encoded(numbered(n))))
    assert epoch(file) == [0, 1, 2]
    whole = file.read_bytes()
    file.write_bytes(b"x" + whole[1:])
    with pytest.raises(ValueError, match="a bad header at byte 0"):
        epoch(file)


# What is damaged.


def test_a_shard_that_is_cut_anywhere_is_an_error(shard: Path) -> None:
    whole = shard.read_bytes()
    end = len(whole.rstrip(b"\0"))
    cuts = [0, 1, 511, 512, 513, *range(1024, end, 6000), end, end + 512, end + 1000]
    for cut in cuts:
        shard.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=rf"a.tar as tar: .* at byte {cut}; write it again"):
            epoch(shard)
        if cut >= 2048:  # Of what is left, no whole sample is lost.
            assert epoch(shard, skip_damaged=True)[: cut // 2048] == list(range(cut // 2048))


@pytest.mark.parametrize("content", [b"", b"x" * 300])
def test_a_file_that_is_no_archive_at_all_is_skipped(
    shard: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    shard.with_name("b.tar").write_bytes(content)
    assert epoch(shard.parent, skip_damaged=True) == list(range(40))
    assert f"skipped in {shard.with_name('b.tar')}" in capsys.readouterr().err


def test_a_hole_or_a_bad_header_is_an_error_or_a_counted_skip(
    shard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = shard.read_bytes()
    # A sample of ours takes four blocks, and its first header the first of them.
    for first, filled, offset, what in (
        (2048 * 8, bytes(2048 * 4), 2048 * 8, "a hole of zeros"),
        (2048 * 8, bytes(len(whole) - 2048 * 8), 2048 * 8, "a hole of zeros"),
        (2048 * 8, b"x" * 512, 2048 * 8, "a bad header"),
        (0, b"x", 0, "a bad header"),
    ):
        shard.write_bytes(whole[:first] + filled + whole[first + len(filled) :])
        assert shard.stat().st_size == len(whole)
        with pytest.raises(ValueError, match=rf"a.tar as tar: {what} at byte {offset};"):
            epoch(shard)
        samples = -(-len(filled) // 2048)
        left = [n for n in range(40) if not first // 2048 <= n < first // 2048 + samples]
        capsys.readouterr()
        assert epoch(shard, skip_damaged=True) == left
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].endswith(f"{what} at byte {offset}")
        shard.rename(shard.with_name("before.tar"))  # Every case is said about a file of its own.
        shard = shard.with_name(f"{first}{len(filled)}a.tar")


def test_flipped_bits_lose_no_sample_without_an_error(shard: Path) -> None:
    whole = shard.read_bytes()
    generator = np.random.default_rng(0)
    for place in generator.integers(0, 40 * 2048, 20).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(generator.integers(8))
        shard.write_bytes(damaged)
        try:
            found = epoch(shard)
        except ValueError:
            continue
        assert len(found) == 40


def test_a_shard_of_samples_that_are_not_whole_is_an_error_or_a_counted_skip(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    png = encoded(numbered(7))
    for number, members in enumerate(
        (
            [("a.cls", b"1")],
            [("a.png", png), ("a.png", png)],
            [("a.png", b"junk")],
            [("a.png", png), ("a.cls", b"cat")],
        )
    ):
        file = tmp_path / f"{number}.tar"
        write_tar(file, [("0.png", png), *members, ("1.png", png)])
        with pytest.raises(ValueError, match=f"sample a of .*{number}.tar"):
            epoch(file)
        assert epoch(file, skip_damaged=True) == [7, 7]
        said = capsys.readouterr().err
        assert said.startswith("skipped")
        assert "sample a of" in said, "the reason"


def test_names_with_several_dots_are_told_of_the_rule(tmp_path: Path) -> None:
    members = [(f"img.{n:03d}.png", encoded(numbered(n))) for n in range(5)]
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(ValueError, match=r"key ends at the first dot.*img\.000\.png is its part"):
        epoch(tmp_path / "a.tar")


def test_compressed_shards_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b\x08 and so on")
    (tmp_path / "b.tar.gz").write_bytes(b"x")
    (tmp_path / "c.tgz").write_bytes(b"x")
    for source, name in (("a.tar", "a.tar"), ("b.tar.gz", "b.tar.gz"), ("", r"b\.tar\.gz")):
        with pytest.raises(ValueError, match=f"{name} is compressed; unpack it"):
            make(tmp_path / source)
