"""Parts of a data set: a manifest goes where a path goes, and taking patients apart leaves a mark."""

import pytest
from fakes import write_images

from featstore.errors import AuditError
from featstore.images.manifest import require_no_errors
from featstore.images.scan import scan


@pytest.fixture
def whole(tmp_path):
    """Eight images of four patients, and a copy of one of them under another name."""
    data = write_images(tmp_path / "data", 8)
    copy = data.parent / "ill" / "copy.png"
    copy.write_bytes((data.parent / "ill" / "000.png").read_bytes())
    data.write_text(data.read_text() + "ill/copy.png,ill,p0\n")
    return scan(data)


def test_a_manifest_is_read_as_it_is(whole):
    assert scan(whole) is whole


def test_a_part_keeps_the_copies_of_its_images_and_no_others(whole):
    first, second, *_ = whole.records
    assert whole.copies
    part = whole.only({whole.copies[0].id})
    assert {record.id for record in part.files} == {whole.copies[0].id}
    assert len(part.files) == 2
    assert whole.only({first.id, second.id}).records == (first, second)


def test_sides_are_given_by_id_so_that_a_copy_is_no_leak(whole):
    sides = {record.id: ("train", "test")[at % 2] for at, record in enumerate(whole.by_image().records)}
    split = whole.by_image().with_splits(sides)
    require_no_errors(split)
    assert {r.split for r in split.copies} == {sides[whole.copies[0].id]}
    assert split.with_splits(None).splits == ()


def test_a_split_that_tears_patients_apart_is_refused_unless_groups_were_set_aside_by_name(whole):
    sides = {record.id: ("train", "test")[at % 2] for at, record in enumerate(whole.records)}
    with pytest.raises(AuditError, match="leak_group"):
        require_no_errors(whole.with_splits(sides))
    apart = whole.by_image()
    require_no_errors(apart.with_splits(sides))
    assert apart.groups_set_aside
    assert not apart.has_groups
    assert len({record.group for record in apart.records}) == len(apart.records) == 8
    assert apart.by_image().groups_set_aside, "the mark stays"


def test_nothing_is_set_aside_where_nothing_was_given(tmp_path):
    data = write_images(tmp_path / "data", 4)
    data.write_text("\n".join(line.rpartition(",")[0] for line in data.read_text().splitlines()) + "\n")
    assert not scan(data).by_image().groups_set_aside
